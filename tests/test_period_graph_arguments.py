# SPDX-License-Identifier: Apache-2.0
"""PeriodGraph reads and keeps nothing that lies outside its users and items."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from rival_calls import LAYOUTS
from rivals import H, L

from longclock import History
from longclock.baselines import PeriodGraph

ONE = torch.zeros(1, dtype=torch.int64)


def graph():
    model = PeriodGraph(L, H, users=5, out_dim=3)
    model.observe(ONE + 1, ONE + 2, ONE)
    return model


def call(item=0, user=0, rows=4, **changes):
    return {
        "candidate": torch.ones(1, H), "history": History.dense(torch.zeros(1, 1, L), ONE[None]),
        "query_time": ONE, "user": ONE + user, "item": ONE + item, "item_vectors": torch.ones(rows, H),
    } | changes  # fmt: skip


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("item", [4, 5, 100_000_000, 2**31 - 1])
def test_observed_items_need_a_row_in_any_part_of_the_day(item, part):
    model = graph()
    model(**call())
    model.observe(ONE, ONE + item, ONE + part * 21600)
    for rows in (4, item if item < 100 else 6):
        text = rf"PeriodGraph: item_vectors must have shape \[items, 5\] .* at least {item + 1}, got \[{rows}, 5\]"
        with pytest.raises(ValueError, match=text):
            model(**call(rows=rows))
    if item < 100:
        assert model(**call(rows=item + 1)).isfinite().all()


@pytest.mark.parametrize(("changes", "text"), [
    ({"item": 4}, "item must be from 0 to 3, got 4"),
    ({"item": -1}, "item must be from 0 to 3, got -1"),
    ({"user": 5}, "user must be from 0 to 4, got 5"),
    ({"user": -1}, "user must be from 0 to 4, got -1"),
    ({"rows": 2}, "item_vectors must have shape .* at least 3, got"),
    ({"rows": 0}, "item_vectors must have shape .* at least 3, got"),
    ({"item_vectors": torch.ones(4, H + 1)}, "item_vectors must be rows with candidate_dim = 5"),
    ({"item_vectors": torch.ones(1, 4, H)}, r"item_vectors must have shape \[items, 5\]"),
    ({"item_vectors": torch.ones(4, H).long()}, "item_vectors must be floating"),
    ({"item_vectors": torch.ones(4, H).to_sparse()}, "item_vectors must be a strided tensor"),
    ({"item_vectors": None}, "item_vectors must be a tensor, got NoneType"),
    ({"user": torch.zeros(1)}, "user must be int32 or int64"),
], ids=str)  # fmt: skip
def test_calls_outside_the_graph(changes, text):
    wrong = call(**{name: value for name, value in changes.items() if isinstance(value, int)})
    wrong |= {name: value for name, value in changes.items() if not isinstance(value, int)}
    with pytest.raises(ValueError, match=f"PeriodGraph: {text}"):
        graph()(**wrong)


@pytest.mark.parametrize(("name", "wrong", "text"), [
    ("user", ONE[:0], r"item must have shape \[E\] = \[0\]"),
    ("user", torch.zeros(2).long(), r"item must have shape \[E\] = \[2\]"),
    ("item", torch.zeros(2).long(), r"item must have shape \[E\] = \[1\], one an edge, got \[2\]"),
    ("time", torch.zeros(2).long(), r"time must have shape \[E\] = \[1\], one an edge, got \[2\]"),
    ("time", torch.zeros(1), "time must be int32 or int64, got float32"),
    ("item", torch.zeros(1), "item must be int32 or int64, got float32"),
    ("user", torch.tensor([True]), "user must be int32 or int64, got bool"),
    ("user", torch.zeros(1, 1).long(), r"user must have shape \[E\]"),
    ("user", [0], "user must be a tensor, got list"),
    ("item", None, "item must be a tensor, got NoneType"),
    ("user", ONE + 5, "user must be from 0 to 4, got 5"),
    ("user", ONE - 1, "user must be from 0 to 4, got -1"),
    ("item", ONE - 1, "item must be from 0 to 2147483647, got -1"),
    ("item", ONE + 2**31, "item must be from 0 to 2147483647, got 2147483648"),
], ids=str)  # fmt: skip
def test_what_cannot_be_observed_is_not_kept(name, wrong, text):
    model = graph()
    before, expected = [edges.clone() for edges in model._edges], model(**call())
    with pytest.raises(ValueError, match=f"PeriodGraph: {text}"):
        model.observe(**{"user": ONE, "item": ONE, "time": ONE} | {name: wrong})
    assert all(torch.equal(a, b) for a, b in zip(before, model._edges, strict=True))
    assert torch.equal(model(**call()), expected)


def test_one_edge_out_of_many_that_does_not_fit_keeps_none():
    model = graph()
    before = [edges.clone() for edges in model._edges]
    with pytest.raises(ValueError, match="PeriodGraph: user must be from 0 to 4, got 9"):
        model.observe(torch.tensor([0, 9]), torch.tensor([1, 1]), torch.tensor([0, 21600]))
    assert all(torch.equal(a, b) for a, b in zip(before, model._edges, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_edges_of_32_bits_are_the_same(layout):
    wide, narrow = PeriodGraph(L, H, users=5, out_dim=3), PeriodGraph(L, H, users=5, out_dim=3)
    narrow.load_state_dict(wide.state_dict())
    user, item, time = (torch.randint(0, end, (60,)) for end in (5, 7, 86400))
    wide.observe(user, item, time)
    narrow.observe(user.int(), item.int(), time.int())
    given = LAYOUTS[layout](wide)
    assert torch.equal(narrow(**given), wide(**given))


def test_a_process_survives_what_was_read_out_of_bounds():
    """A row far outside made the kernel end the process."""
    code = (
        "import torch; from longclock import History; from longclock.baselines import PeriodGraph; one = torch.zeros(1, dtype=torch.int64)\n"
        "graph = PeriodGraph(4, 4, users=4)\n"
        "graph.observe(one, one + 100_000_000, one)\n"
        "history = History.dense(torch.zeros(1, 1, 4), one[None])\n"
        "try: graph(torch.ones(1, 4), history, one, user=one, item=one, item_vectors=torch.ones(3, 4))\n"
        "except ValueError as error: print('refused', error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("refused PeriodGraph: item_vectors must have")
