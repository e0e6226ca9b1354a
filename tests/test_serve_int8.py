# SPDX-License-Identifier: Apache-2.0
"""A recommender whose search reads rows in bytes, and whose attention reads those that they were made of."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from streams import stream
from test_serve import SMALL, distinct, served_from, stored, trained

import longclock as lc
from longclock.export import export
from longclock.serve import Recommender, cli


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return served_from(tmp_path_factory.mktemp("served"))


def searching(recommender, keys_of, query_dtype):
    """The recommender, whose search of the table in fp32 is made to read other keys."""
    interest = recommender._served.model.interest
    whole = interest.forward

    def forward(candidate, history, query_time, *, keys=None, **options):
        keys = keys_of(interest, history.table)
        found = interest.search(candidate, history, query_time, keys=keys, query_dtype=query_dtype)
        return whole(candidate, history, query_time, found=found, **options)

    interest.forward = forward
    return recommender


IN_BYTES = {
    "folded": lambda interest, table: lc.quantize_rows(table),
    "precomputed": lambda interest, table: lc.quantize_rows(interest.project(table)),
}
ROUNDED = {None: "int8", "fp32": "float32", "bf16": "bfloat16", "int8": "int8"}


@pytest.mark.parametrize("query_dtype", ROUNDED)
@pytest.mark.parametrize("scoring", IN_BYTES)
def test_a_search_of_bytes_and_an_attention_to_rows(served, scoring, query_dtype):
    folder, events, _, store = served
    ours = Recommender(
        folder / "model", store, scoring=scoring, dtype="int8", query_dtype=query_dtype
    )
    right = searching(
        Recommender(folder / "model", store, scoring=scoring), IN_BYTES[scoring], ROUNDED[query_dtype]
    )  # fmt: skip
    now = int(events.order_time[-1]) + 60
    for user in range(events.users):
        assert len(store.get(user).item) > SMALL.k  # what is found matters
        found, wanted = (each.rank(user, range(12), now) for each in (ours, right))
        assert torch.equal(found.items, wanted.items)
        assert torch.equal(found.scores, wanted.scores)


@pytest.mark.parametrize("labels", [False, True])
def test_bytes_are_those_of_the_version(tmp_path, labels):
    """Made anew for each, of a table of labels as well; a model that projects its rows has those in bytes."""
    events = distinct(stream(labels=labels))
    store = stored(tmp_path / "histories.db", events)
    recommender = None
    for seed, name in enumerate(("lic", "lic", "lic-precomputed")):
        _, _, path = trained(tmp_path, events, name, dataclasses.replace(SMALL, seed=seed))
        export(path, tmp_path / "model")
        if recommender is None:
            recommender = Recommender(tmp_path / "model", store, dtype="int8")
        else:
            assert recommender.refresh()
        model = recommender._served.model
        rows = model.behaviours if name == "lic" else model.interest.project(model.behaviours)
        given = model.searched()
        assert model.behaviours.dtype == torch.float32
        assert given["query_dtype"] == "int8"
        for ours, right in zip(given["keys"], lc.quantize_rows(rows), strict=True):
            assert torch.equal(ours, right)


@pytest.mark.parametrize("name", ["din", "full-clock", "eta", "lic-day-week", "twin-v2"])
def test_models_that_compare_no_rows_have_none_in_bytes(tmp_path, name):
    events = distinct(stream())
    _, _, path = trained(tmp_path, events, name)
    export(path, tmp_path / "model")
    store = stored(tmp_path / "histories.db", events)
    with pytest.raises(ValueError, match=r"dtype must be fp32 or bf16 for .*, got int8"):
        Recommender(tmp_path / "model", store, dtype="int8")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "fp8"}, "dtype must be fp32, bf16, int8, got 'fp8'"),
        ({"dtype": "int8", "query_dtype": "fp16"}, "query_dtype must be fp32, bf16, int8 or None, got 'fp16'"),
        ({"dtype": "bf16", "query_dtype": "int8"}, "query_dtype must be None for dtype 'bf16', got 'int8'"),
        ({"scoring": "both"}, "scoring must be 'folded' or 'precomputed', got 'both'"),
    ],
)  # fmt: skip
def test_wrong_options_are_named(served, options, words):
    with pytest.raises(ValueError, match=f"^Recommender: {words}"):
        Recommender(served[0] / "model", served[3], **options)


def test_the_command_takes_the_types(served, monkeypatch, capsys):
    folder = served[0]
    made = []
    monkeypatch.setattr(
        "longclock.serve.endpoint.create_app", lambda recommender, limits: made.append(recommender)
    )
    monkeypatch.setattr("uvicorn.run", lambda *given, **options: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    given = ["--model", str(folder / "model"), "--store", str(folder / "histories.db")]
    for more, wanted in (
        (["--dtype", "int8"], "int8"),
        (["--dtype", "int8", "--query-dtype", "bf16"], "bfloat16"),
        ([], None),
    ):
        assert cli.main([*given, *more]) == 0
        recommender = made.pop()
        assert recommender._served.model.searched().get("query_dtype") == wanted
        recommender.store.close()
    with pytest.raises(SystemExit) as stop:
        cli.main([*given, "--query-dtype", "bf16"])
    assert stop.value.code == 2
    text = "longclock.serve: Recommender: query_dtype must be None for dtype 'fp32', got 'bf16'"
    assert text in capsys.readouterr().err
