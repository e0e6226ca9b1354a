# SPDX-License-Identifier: Apache-2.0
"""Users and items are asked for by what the events call them, however the model numbers them."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import orjson
import pytest
import sourced
import torch
from starlette.testclient import TestClient
from streams import stream
from test_serve import SMALL, distinct, trained

from longclock.data import EventFileError, EventStream, read_events
from longclock.data.ids import called, ids_of
from longclock.data.numbering import Numbering
from longclock.data.sources import text_ids
from longclock.export import export
from longclock.export import main as export_main
from longclock.serve import Recommender
from longclock.serve.endpoint import create_app
from longclock.store import SQLiteStore
from longclock.store.__main__ import columns_of, fill
from longclock.store.__main__ import main as store_main
from longclock.train import checkpoint
from longclock.train.batches import TrainingData
from longclock.train.cli import main as train_main
from longclock.train.loop import score
from longclock.train.memory import Bounds

INFER = "/v2/models/longclock/infer"


def named(events: EventStream) -> EventStream:
    """The stream whose users and items have names."""
    users = [f"user {number}" for number in range(events.users)]
    items = [f"item {number}" for number in range(events.items)]
    return dataclasses.replace(events, user_names=users, item_names=items)


def filled(path, events):
    store = SQLiteStore(path, columns=columns_of(events))
    fill(store, events)
    return store


def one_more(events: EventStream, user: int, item: int, now: int) -> EventStream:
    """The stream with an event behind it, of an item that it has."""
    categories = {
        name: np.append(ids, ids[events.item == item][0]) for name, ids in events.categories.items()
    }
    return dataclasses.replace(
        events, user=np.append(events.user, user), item=np.append(events.item, item), time=np.append(events.time, now),
        order_time=np.append(events.order_time, now), categories=categories,
    )  # fmt: skip


def test_a_model_of_named_ids_ranks_as_the_one_of_their_numbers(tmp_path):
    events = distinct(stream())
    now, numbers = int(events.order_time[-1]) + 60, np.array([3, 5, 11, 0])
    found = {}
    for kind, given in (("numbers", events), ("names", named(events))):
        (tmp_path / kind).mkdir()
        _, _, path = trained(tmp_path / kind, given)
        export(path, tmp_path / kind / "model")
        store = filled(tmp_path / kind / "histories.db", given)
        found[kind] = Recommender(tmp_path / kind / "model", store)
    ids = text_ids([f"item {number}" for number in numbers])
    for user in (0, 4):
        plain = found["numbers"].rank(user, numbers, now)
        ranked = found["names"].rank(f"user {user}", ids, now)
        assert torch.equal(ranked.scores, plain.scores)
        assert ranked.items.tolist() == text_ids([f"item {n}" for n in plain.items]).tolist()
    unknown = found["names"].rank(
        "user 0", text_ids(["item 3", "no item"]), now
    )  # nor is 3 one: it has a name
    assert unknown.scores[1] == -torch.inf
    assert found["names"].rank("user 0", [3], now).scores.tolist() == [-torch.inf]
    cold = found["numbers"].rank("nobody", numbers, now).scores
    assert torch.equal(found["names"].rank("nobody", ids, now).scores, cold)


@pytest.mark.parametrize("bounds", [sourced.MANY, Bounds(events=48, user_rows=64, item_rows=64)], ids=["numbered", "hashed"])  # fmt: skip
def test_a_model_of_a_source_is_asked_by_the_ids_of_its_events(tmp_path, bounds):
    events = dataclasses.replace(sourced.events(), order_time=distinct(stream()).order_time)
    events = dataclasses.replace(events, time=events.order_time)
    source = sourced.source_of(events)
    run, _ = sourced.run_over(source, sourced.SMALL, bounds)
    identity = {"model": "lic", **dataclasses.asdict(sourced.SMALL), **dataclasses.asdict(bounds)}
    run.save(tmp_path / "lic.safetensors", identity)
    export(tmp_path / "lic.safetensors", tmp_path / "model")
    names = [f"user {n}" for n in range(events.users)], [f"item {n}" for n in range(events.items)]
    store = filled(tmp_path / "histories.db", dataclasses.replace(events, user_names=names[0], item_names=names[1]))  # fmt: skip
    recommender = Recommender(tmp_path / "model", store)

    now = int(events.order_time[-1]) + 60
    rows = run.memory.items.find(text_ids(names[1][:12]))
    users = run.memory.users.find(text_ids(names[0][:6]))
    numbered = dataclasses.replace(
        events, user=users[events.user], item=rows[events.item], users=run.memory.catalogue.users,
        items=run.memory.catalogue.items,
    )  # fmt: skip
    for item in (0, 7):
        longer = one_more(numbered, users[2], rows[item], now)
        data = TrainingData.of(longer, sourced.SMALL)
        first = data.candidates.rows(np.array([len(events)]))[:1]
        assert data.candidates.item[first] == rows[item]
        wanted = score(run.run.ranker, data, np.array([len(events)]))[:1]
        ranked = recommender.rank("user 2", text_ids([f"item {item}"]), now)
        torch.testing.assert_close(ranked.scores, wanted, rtol=1e-5, atol=1e-6)
    weights = run.run.ranker.user.weight.detach()
    of_known = weights if bounds.user_rows else weights[: run.memory.users.known]
    mean = recommender._served.model.users[-1]
    torch.testing.assert_close(mean, of_known.mean(0))


def test_texts_at_the_endpoint(tmp_path):
    events = named(distinct(stream()))
    _, _, path = trained(tmp_path, events)
    export(path, tmp_path / "model")
    recommender = Recommender(tmp_path / "model", filled(tmp_path / "histories.db", events))
    now = int(events.order_time[-1]) + 60
    texts = ["item 3", "item 5", "elsewhere"]
    asked = {
        "inputs": [
            {"name": "user", "datatype": "BYTES", "shape": [1], "data": ["user 2"]},
            {"name": "candidates", "datatype": "BYTES", "shape": [3], "data": texts},
            {"name": "now", "datatype": "INT64", "shape": [1], "data": [now]},
        ]
    }
    wanted = recommender.rank("user 2", text_ids(texts), now)
    by_id = dict(zip(text_ids(texts).tolist(), texts, strict=True))
    with TestClient(create_app(recommender)) as client:
        items, scores = client.post(INFER, json=asked).json()["outputs"]
        assert (items["datatype"], items["shape"]) == ("BYTES", [3])
        assert items["data"] == [by_id[item] for item in wanted.items.tolist()]
        assert items["data"][-1] == "elsewhere"
        assert scores["data"][-1] is None

        binary = client.post(INFER, json={**asked, "parameters": {"binary_data_output": True}})
        length = int(binary.headers["inference-header-content-length"])
        sizes = [
            each["parameters"]["binary_data_size"]
            for each in orjson.loads(binary.content[:length])["outputs"]
        ]
        content = binary.content[length : length + sizes[0]]
        assert content == b"".join(len(x).to_bytes(4, "little") + x.encode() for x in items["data"])

        behaviour = {"item": "item 5", "time": now - 5, "utc_offset": 0}
        url = "/users/user%202/behaviours"
        assert client.post(url, json=behaviour).json() == {"new": 1}
        assert recommender.store.get("user 2").item[-1] == text_ids(["item 5"])[0]
        again = client.post(INFER, json=asked).json()["outputs"][1]
        assert again["data"] != scores["data"]


def test_own_events_from_file_to_ranking(tmp_path, monkeypatch, capsys):
    """docs/serving.md's walk with events whose users and items are texts."""
    monkeypatch.chdir(tmp_path)
    events = distinct(stream(events=120))
    with open("plays.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user", "item", "time"])
        for user, item, time in zip(events.user, events.item, events.order_time, strict=True):
            rows.writerow([f"ann-{user}", f"song/{item}", time])
    small = "--models lic --k 5 --out run --quiet"
    assert train_main(["--events", "plays.csv", *small.split()]) == 0
    words = ["--checkpoint", "run/checkpoints/lic.safetensors", "--out", "model"]
    assert export_main(words) == 0
    assert store_main(["--events", "plays.csv", "--store", "histories.db"]) == 0
    recommender = Recommender("model", SQLiteStore("histories.db"))
    assert recommender.store.get("ann-1").item[0] in text_ids([f"song/{n}" for n in range(12)])
    now = int(events.order_time[-1]) + 60
    ranked = recommender.rank("ann-1", text_ids(["song/3", "song/5"]), now)
    assert ranked.scores.isfinite().all()
    assert not torch.equal(
        recommender.rank("ann-2", text_ids(["song/3", "song/5"]), now).scores, ranked.scores
    )


def test_names_in_a_file_are_kept(tmp_path):
    def read(users, items):
        lines = [f"{user},{item},{100 + n}" for n, (user, item) in enumerate(zip(users, items, strict=True))]  # fmt: skip
        path = tmp_path / "plays.csv"
        path.write_text("\n".join(["user,item,time", *lines]), encoding="utf-8")
        return read_events(path)

    texts = read(["bo", "ann", "bo"], ["x", "07", "x"])
    assert (texts.user_names, texts.item_names) == (["bo", "ann"], ["x", "07"])
    assert texts.item.tolist() == [0, 1, 0]
    data = TrainingData.of(texts, SMALL)
    assert data.numberings["items"].find(text_ids(["07", "7", "x"])).tolist() == [1, -1, 0]
    assert data.numberings["users"].find(text_ids(["ann"])).tolist() == [1]
    with pytest.raises(EventFileError):
        read(["", "ann"], ["x", "y"])
    with pytest.raises(ValueError, match="user_names must have a name for each of the 2 ids, got 1"):  # fmt: skip
        dataclasses.replace(texts, user_names=["bo"])


def test_a_checkpoint_keeps_ids(tmp_path):
    events = named(distinct(stream()))
    _, _, path = trained(tmp_path, events)
    found = checkpoint.read(path).numberings
    assert found["items"].find(text_ids(["item 4", "none"])).tolist() == [4, -1]
    assert found["users"].find(text_ids(["user 5"])).tolist() == [5]
    (tmp_path / "plain").mkdir()
    _, _, path = trained(tmp_path / "plain", distinct(stream()))
    assert checkpoint.read(path).numberings == {}


def test_ids_of_names():
    assert ids_of([7, "7", "ann", -3, 2**64]).tolist() == [7, 7, *text_ids(["ann"]), -3, *text_ids([str(2**64)])]  # fmt: skip
    assert ids_of([]).shape == (0,)
    assert [called(text) for text in ("7", "07", "-3", "ann", "")] == [7, "07", -3, "ann", ""]
    twice = Numbering.known_as(np.array([9, 4, 9]))
    assert twice.find(np.array([4, 9, 1])).tolist() == [1, 0, -1]
