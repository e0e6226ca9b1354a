# SPDX-License-Identifier: Apache-2.0
"""What is served is what was trained: export, versions, and the ranking of a request."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from streams import stream

from longclock.data import OutcomeCounts, past_outcomes
from longclock.export import export, main
from longclock.serve import ModelFolderError, Recommender, Request, model_folder
from longclock.store import SQLiteStore
from longclock.train import checkpoint
from longclock.train.batches import TrainingData
from longclock.train.config import MODELS, Config
from longclock.train.loop import Run, chunks, score, train

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import report  # noqa: E402

SMALL = Config(k=5, heads=2, head_dim=4, batch=16, negatives=3)


def trained(folder, events, name="lic", config=SMALL):
    """A run over the stream, its data, and its checkpoint."""
    config = MODELS[name].settings(config)
    data = TrainingData.of(events, config)
    run = Run.start(data, MODELS[name], config)
    parts = chunks(events, config)
    train(run, data, config, lambda run, events: None)
    path = folder / f"{name}.safetensors"
    checkpoint.save(path, run, checkpoint.identity(name, events, config), data, parts)
    return run, data, path


def stored(path, events):
    """All behaviours of a stream in a store."""
    columns = {"utc_offset": "int32"} | ({} if events.label is None else {"label": "int8"})
    store = SQLiteStore(path, columns=columns)
    label = {} if events.label is None else {"label": events.label}
    store.append_many(
        events.user,
        events.item,
        events.order_time,
        utc_offset=events.time - events.order_time,
        **label,
    )
    return store


def distinct(events, seed=0):
    """The stream with a second of its own for each event, as a history that is a set of (time, item) must have it, and with the
    time of day of a place that lies so many hours ahead."""
    order_time = events.order_time + np.arange(len(events))
    ahead = 3600 * np.random.default_rng(seed).integers(-5, 6, len(events))
    return dataclasses.replace(events, order_time=order_time, time=order_time + ahead)


def request_of(events, event, candidates):
    """The request that an event of the stream is."""
    now, local = int(events.order_time[event]), int(events.time[event])
    return Request(int(events.user[event]), torch.from_numpy(candidates), now, local - now)


SERVED = [(name, "folded") for name in ("lic", "twin", "no-time", "din", "full-clock")]
SERVED += [("lic", "precomputed"), ("twin", "precomputed")]


@pytest.mark.parametrize(("name", "scoring"), SERVED)
def test_scores_are_those_of_the_trained_model(tmp_path, name, scoring):
    events = distinct(stream())
    run, data, path = trained(tmp_path, events, name)
    export(path, tmp_path / "model")
    store = stored(tmp_path / "histories.db", events)
    recommender = Recommender(tmp_path / "model", store, scoring=scoring)
    for event in range(0, len(events), 37):
        candidates = data.candidates.item[data.candidates.rows(np.array([event]))]
        wanted = score(run.ranker, data, np.array([event]))
        request = request_of(events, event, candidates)
        ranking = recommender.rank(*request[:3], utc_offset=request.utc_offset)
        order = wanted.argsort(descending=True, stable=True)
        if scoring == "folded":
            assert torch.equal(ranking.scores, wanted[order])
        else:
            torch.testing.assert_close(ranking.scores, wanted[order])
        assert torch.equal(ranking.items, request.candidates[order])


def test_a_stream_with_labels(tmp_path):
    """The tower reads how earlier events ended: of all users as the checkpoint knows, of this one as the store does."""
    events = distinct(stream(labels=True))
    run, _, path = trained(tmp_path, events)
    export(path, tmp_path / "model")
    recommender = Recommender(tmp_path / "model", stored(tmp_path / "histories.db", events))
    last = len(events) - 1  # a request behind the whole stream
    now = int(events.order_time[last]) + 60
    request = Request(int(events.user[last]), torch.arange(4), now)
    following = [
        np.append(column, value)
        for column, value in (
            (events.user, request.user),
            (events.time, now),
            (events.order_time, now),
        )
    ]
    for item in range(4):
        user, time, order_time = following
        longer = dataclasses.replace(
            events, user=user, item=np.append(events.item, item), time=time, order_time=order_time,
            label=np.append(events.label, 0),
            categories={"category": np.append(events.categories["category"], 1 + item % 3)},
        )  # fmt: skip
        wanted = score(run.ranker, TrainingData.of(longer, SMALL), np.array([last + 1]))
        ranking = recommender.rank(*request[:3])
        assert torch.allclose(ranking.scores[ranking.items == item], wanted, rtol=1e-5)
        alone = recommender.rank(request.user, [item], now)
        assert torch.equal(alone.scores, wanted)


def test_counts_of_outcomes_are_those_of_a_stream():
    events = distinct(stream(labels=True))
    wanted = past_outcomes(events)
    category = events.categories["category"]
    for event in range(0, len(events), 17):
        counts = OutcomeCounts.of(events.head(max_events=event))
        mine = np.flatnonzero(events.user[:event] == events.user[event])
        found = counts.columns(
            [events.item[[event]], category[[event]]], [events.item[mine], category[mine]],
            events.label[mine], events.order_time[mine], int(events.order_time[event]),
        )  # fmt: skip
        np.testing.assert_array_equal(found[0], wanted[event])


def served_from(folder):
    """The folder, with a model; the model's stream and data, and a store of the stream's histories."""
    events = distinct(stream())
    _, data, path = trained(folder, events)
    export(path, folder / "model")
    return folder, events, data, stored(folder / "histories.db", events)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return served_from(tmp_path_factory.mktemp("served"))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("scoring", ["folded", "precomputed"])
def test_cold_users_and_unknown_items(tmp_path, served, dtype, scoring):
    folder, events, *_ = served
    store = stored(tmp_path / "histories.db", events)
    recommender = Recommender(folder / "model", store, dtype=dtype, scoring=scoring)
    now = int(events.order_time[-1]) + 60
    cold = recommender.rank("nobody", [3, 99, -1, 5], now)
    assert cold.items.tolist()[2:] == [99, -1]
    assert cold.scores[:2].isfinite().all()
    assert (cold.scores[2:] == -torch.inf).all()
    assert torch.equal(
        recommender.rank(events.users, [3, 5], now).scores, cold.scores[:2]
    )  # nor known
    none = recommender.rank("nobody", torch.empty(0, dtype=torch.int64), now)
    assert none.items.shape == none.scores.shape == (0,)
    before = recommender.rank("ada", [3, 5], now)
    store.append_many(
        ["ada"] * 2, [77, -5], [now - 20, now - 10], utc_offset=[0, 0]
    )  # no item that the model knows
    assert torch.equal(recommender.rank("ada", [3, 5], now).scores, before.scores)
    store.append("ada", 3, now - 5, utc_offset=0)
    assert not torch.equal(recommender.rank("ada", [3, 5], now).scores, before.scores)
    assert torch.equal(
        recommender.rank("ada", [3, 5], now - 5).scores, before.scores
    )  # not before it


def test_many_requests_are_each_by_itself(served):
    folder, events, data, store = served
    recommender = Recommender(folder / "model", store)
    requests = [
        request_of(events, event, data.candidates.item[data.candidates.rows(np.array([event]))])
        for event in (200, 3, 77)
    ]
    requests.append(Request("nobody", torch.tensor([2, 99]), int(events.order_time[-1])))
    together = recommender.rank_many(requests, top=3)
    for request, ranking in zip(requests, together, strict=True):
        alone = recommender.rank(*request[:3], top=3, utc_offset=request.utc_offset)
        assert torch.equal(ranking.items, alone.items)
        torch.testing.assert_close(ranking.scores, alone.scores)
    assert recommender.rank_many([]) == []


def test_a_table_in_16_bits_ranks_alike(served):
    folder, events, _, store = served
    wide, narrow = (Recommender(folder / "model", store, dtype=dtype) for dtype in ("fp32", "bf16"))
    now = int(events.order_time[-1])
    wanted = wide.rank(1, range(12), now)
    found = narrow.rank(1, range(12), now)
    torch.testing.assert_close(
        found.scores.sort()[0], wanted.scores.sort()[0], rtol=0.05, atol=0.05
    )


def test_requests_are_answered_by_one_version(served, tmp_path):
    """Two versions that answer differently, switched under requests: every answer is that of the version it names."""
    _, events, _, store = served
    wanted = {}
    for seed in (1, 2):
        _, _, path = trained(tmp_path, events, config=dataclasses.replace(SMALL, seed=seed))
        name = export(path, tmp_path / "model", keep=10)
        wanted[name] = (
            Recommender(tmp_path / "model", store)
            .rank(1, range(12), int(events.order_time[-1]))
            .scores
        )
    assert not torch.equal(*wanted.values())
    recommender = Recommender(tmp_path / "model", store)
    wrong, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            ranking = recommender.rank(1, range(12), int(events.order_time[-1]))
            if not torch.equal(ranking.scores, wanted[ranking.version]):
                wrong.append(ranking.version)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(60):
        name = sorted(wanted)[turn % 2]
        model_folder.write_whole(
            tmp_path / "model" / "current.json", b'{"version": "%s"}' % name.encode()
        )
        recommender.refresh()
        assert recommender.version == name
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert recommender.refresh() is False


def test_the_oldest_versions_go(served, tmp_path):
    folder = served[0]
    names = [export(folder / "lic.safetensors", tmp_path / "model", keep=2) for _ in range(4)]
    assert model_folder.versions(tmp_path / "model") == names[2:]
    assert model_folder.current(tmp_path / "model") == names[3]


@pytest.mark.parametrize("file", ["current.json", "model.json", "tensors.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_damaged_folders_are_named(served, tmp_path, file, damage):
    folder, _, _, store = served
    name = export(folder / "lic.safetensors", tmp_path / "model")
    recommender = Recommender(tmp_path / "model", store)
    path = tmp_path / "model" / file if file == "current.json" else tmp_path / "model" / name / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(content[:middle] if damage == "cut" else changed)
    with pytest.raises(ModelFolderError, match=r"current|model|tensors|version"):
        Recommender(tmp_path / "model", store)
    before = recommender.version
    if file == "current.json":
        with pytest.raises(ModelFolderError):
            recommender.refresh()
    assert recommender.version == before


def test_the_command(served, tmp_path, capsys):
    folder = served[0]
    assert (
        main(["--checkpoint", str(folder / "lic.safetensors"), "--out", str(tmp_path / "model")])
        == 0
    )
    assert "is the current version" in capsys.readouterr().out
    (tmp_path / "no.safetensors").write_bytes(b"no")
    with pytest.raises(SystemExit) as stop:
        main(["--checkpoint", str(tmp_path / "no.safetensors"), "--out", str(tmp_path / "other")])
    assert stop.value.code == 2
    assert "longclock.export: no.safetensors is not a checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["sim-hard", "lic-shuffled", "counts"])
def test_models_that_read_more_are_refused(tmp_path, name):
    _, _, path = trained(tmp_path, stream(), name)
    with pytest.raises(ValueError, match=r"longclock\.export: the model must .*train lic"):
        export(path, tmp_path / "model")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"candidates": [0.5]}, "candidates must be integers"),
        ({"candidates": [[1]]}, "candidates must be integers"),
        ({"now": 1.5}, "now must be an int of seconds, got 1.5"),
        ({"utc_offset": "1h"}, "utc_offset must be an int"),
        ({"top": 0}, "top must be"),
        ({"user": 1.5}, "user must be an int of 64 bits or a text, got 1.5"),
    ],
)
def test_mistakes_are_named(served, given, words):
    folder, _, _, store = served
    recommender = Recommender(folder / "model", store)
    call = {"user": 1, "candidates": [1], "now": 2_000_000_000} | given
    with pytest.raises(ValueError, match=words):
        recommender.rank(**call)


def test_a_store_must_have_what_the_model_reads(tmp_path):
    events = distinct(stream(labels=True))
    _, _, path = trained(tmp_path, events)
    export(path, tmp_path / "model")
    with pytest.raises(ValueError, match="store must have the column 'label'"):
        Recommender(tmp_path / "model", SQLiteStore(tmp_path / "other.db"))


def test_the_bench_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bench.serve", "--quick", "--json", tmp_path / "found.json"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "found.json").read_text())["results"]
    parts = ("rank", "search", "attention", "layers", "store")
    assert tuple(results["one request, bf16, precomputed"]["ms"]) == parts
    assert len(results) == 8
    text = report.section(json.loads((tmp_path / "found.json").read_text()))
    assert text.count("\n| ") == 2 + 5
    assert "Times those of int8, folded: the rank of fp32 " in text
    assert "plain PyTorch" in text
