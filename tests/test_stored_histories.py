# SPDX-License-Identifier: Apache-2.0
"""Histories of a run over a source in a store: the scores of histories in memory, however often the run is stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import time
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import pytest
import torch
from pyarrow import parquet as pq
from sourced import SMALL, events, table_of
from stores import NO_REDIS, REDIS_SERVER, RedisProcess
from torch import Tensor

from longclock.data.kept_histories import COLUMNS, KeptHistories
from longclock.data.sources import FolderSource
from longclock.store import open_store
from longclock.train import cli, sourced, stored_histories, tensor_file
from longclock.train.compare import Options
from longclock.train.config import Bounds, Config
from longclock.train.sourced import SourcedRun
from longclock.train.stored_histories import MARK, StoredHistories

CONFIG = dataclasses.replace(SMALL, protocol="stream")
IN_ONE_PLACE = ("kept.", "seconds")  # of a checkpoint, what is not alike in both


def folder_of(place: Path, labels: bool = False) -> Path:
    """Events of which many are of one second, user and item, in four files."""
    made = events(labels, events=400)
    times = made.time - made.time % 14_400
    made = dataclasses.replace(made, time=times, order_time=times, item=made.item % 4)
    place.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(400), 4)):
        pq.write_table(table_of(made).take(rows), place / f"{number}.parquet")
    return place


def run(folder: Path, out: Path, url: str | None, config: Config = CONFIG, bounds: Bounds | None = None, resume: bool = False) -> SourcedRun:  # fmt: skip
    options = Options(out, resume, checkpoint_seconds=0.0, warmup=0.0, quiet=True, histories=url)
    source = FolderSource(folder, ["category"])
    return sourced.run_model("lic", source, config, bounds or Bounds(events=24), options)


def kept(out: Path) -> dict[str, Tensor]:
    """Weights, optimizers, figures, and all that the run remembers but for the histories."""
    metadata, tensors = tensor_file.read(out / "checkpoints" / "lic.safetensors")
    assert json.loads(metadata["cursor"])["events"] == 400
    return {name: x for name, x in tensors.items() if not name.startswith(IN_ONE_PLACE)}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


CASES = [
    ({}, Bounds(events=24), 1 << 22, False),
    ({"history": 7}, Bounds(events=48), 30, True),
    ({"history_days": 1}, Bounds(events=40, forget_days=1), 1, True),
    ({"protocol": "daily", "history": 20}, Bounds(events=40, user_rows=3), 0, False),
]


@pytest.mark.parametrize(("changes", "bounds", "cached", "labels"), CASES, ids=str)
def test_a_run_is_that_with_histories_in_memory(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    bounds: Bounds,
    cached: int,
    labels: bool,
) -> None:
    """Also one that stops behind a checkpoint, with events in the store that come again."""
    monkeypatch.setattr(stored_histories, "CACHED", cached)
    folder, config = folder_of(tmp_path / "days", labels), dataclasses.replace(CONFIG, **changes)
    run(folder, tmp_path / "memory", None, config, bounds)
    found = run(folder, tmp_path / "store", str(tmp_path / "whole.db"), config, bounds)
    same(kept(tmp_path / "store"), kept(tmp_path / "memory"))
    stored = found.memory.kept
    assert isinstance(stored, StoredHistories)
    assert len(stored._cache) <= cached

    save, left = SourcedRun.save, [0]

    def stops(self: SourcedRun, *args: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt  # the store has what the checkpoint has not
        left[0] -= 1
        save(self, *args)

    monkeypatch.setattr(SourcedRun, "save", stops)
    stopped = 0
    for left[0] in (0, 1, 2, 1, 1000):
        try:
            run(folder, tmp_path / "parts", str(tmp_path / "parts.db"), config, bounds, resume=True)
        except KeyboardInterrupt:
            stopped += 1
    assert stopped >= 3
    same(kept(tmp_path / "parts"), kept(tmp_path / "memory"))
    with open_store(tmp_path / "parts.db") as store:
        assert store.get(MARK).time.tolist() == list(range(stopped + 1))


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_those_of_histories_in_memory(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Where the events behind a checkpoint are others the second time, as those of several partitions may be."""
    monkeypatch.setattr(stored_histories, "CACHED", 40)
    draw, url = np.random.default_rng(seed), str(tmp_path / "histories.db")
    expected, found = KeptHistories(), StoredHistories(url, 12, resume=False)
    number, point = 0, ({}, {}, 0)
    for step in range(60):
        users = np.sort(draw.permutation(9)[: draw.integers(1, 6)])
        for one in (expected, found):
            counts, rows = one.of(users)
            if one is found:
                assert counts.tolist() == expected.of(users)[0].tolist()
                for name, column in expected.of(users)[1].items():
                    assert column.dtype == rows[name].dtype
                    assert column.tolist() == rows[name].tolist()
        new = draw.integers(0, 5, len(users))
        counts = np.minimum(expected.counts(users) + new, draw.integers(5, 13))
        come = {name: draw.integers(0, 2 if name == "label" else 9, new.sum()).astype(kind) for name, kind in COLUMNS.items()}  # fmt: skip
        numbers = number + draw.permutation(new.sum())
        numbers = np.concatenate([np.sort(part) for part in np.split(numbers, np.cumsum(new)[:-1])])
        for one in (expected, found):
            one.add(users, counts, new, come, numbers)
        number += int(new.sum())
        assert len(found) == len(expected)
        if draw.random() < 0.1:
            gone = draw.permutation(9)[:2]
            expected.forget(gone)
            found.forget(gone)
        if step % 7 == 0:
            point = (*({n: x.copy() for n, x in one.arrays().items()} for one in (expected, found)), number)  # fmt: skip
        if step % 11 == 10:
            found.close()
            expected, found = KeptHistories(), StoredHistories(url, 12, resume=True)
            number = point[2]
            expected.put_back({name: x.copy() for name, x in point[0].items()}, number)
            found.put_back({name: x.copy() for name, x in point[1].items()}, number)
    found.close()


def test_a_store_of_something_else(tmp_path: Path) -> None:
    folder, url = folder_of(tmp_path / "days"), str(tmp_path / "histories.db")
    run(folder, tmp_path / "out", url)
    with pytest.raises(ValueError, match="has the histories of another run; give another store, or go on"):  # fmt: skip
        run(folder, tmp_path / "other", url)
    for histories in (None, str(tmp_path / "empty.db")):
        with pytest.raises(ValueError, match="by a run with another histories: resume"):
            run(folder, tmp_path / "out", histories, resume=True)
    with open_store(tmp_path / "theirs.db", capacity=1000 + stored_histories.SPARE, columns=stored_histories.IN_STORE) as store:  # fmt: skip
        store.append("ann", 5, 100, local_time=0, order_time=0, label=0)
    with pytest.raises(ValueError, match="has histories that are not of a run over a source"):
        run(folder, tmp_path / "other", str(tmp_path / "theirs.db"), resume=True)
    with open_store(url) as store:
        store.trim(0, keep=3)
    with contextlib.closing(StoredHistories(url, 1000, resume=True)) as stored:
        stored.put_back({"count": np.array([9]), "sessions": np.array([[0, 0]])}, before=400)
        with pytest.raises(ValueError, match="has 3 of the latest 9 behaviours of user number 0"):
            stored.of(np.array([0]))


def command_of(folder: Path, out: Path) -> list[str]:
    return ["--source", str(folder), "--categories", "category", "--protocol", "stream", "--model", "lic", "--k", "3", "--batch", "4",
            "--groups", "4", "--checkpoint-seconds", "0", "--quiet", "--warmup", "0", "--out", str(out)]  # fmt: skip


def test_ranks_have_the_histories_of_their_own_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Two ranks, then two that are killed behind a checkpoint, then one: the bits of one process with histories in memory."""
    folder, first, out = folder_of(tmp_path / "days"), tmp_path / "first", tmp_path / "out"
    monkeypatch.setattr(cli, "bounds_of", lambda args: Bounds(events=16))
    assert cli.main([*command_of(folder, tmp_path / "whole")]) == 0
    command = [str(jobs.HERE / "sourced_process.py"), *command_of(first, out), "--resume", "--histories", f"sqlite:///{tmp_path}/one.db"]  # fmt: skip
    first.mkdir()
    files = sorted(folder.iterdir())
    for file in files[:2]:
        (first / file.name).write_bytes(file.read_bytes())
    jobs.run(2, command)
    for file in files[2:]:
        (first / file.name).write_bytes(file.read_bytes())
    path = out / "checkpoints" / "lic.safetensors"
    before = path.stat().st_mtime_ns
    job = jobs.start(2, command)
    while job[0].poll() is None and path.stat().st_mtime_ns == before:
        time.sleep(0.005)
    for process in job:
        process.kill()
    assert [process.wait() for process in job] == [-signal.SIGKILL] * 2
    jobs.run(1, command)
    found, expected = kept(out), kept(tmp_path / "whole")
    sums = found.pop("figures.sums"), expected.pop("figures.sums")  # in another order of additions
    torch.testing.assert_close(*sums, rtol=1e-12, atol=0)
    same(found, expected)


@pytest.mark.skipif(REDIS_SERVER is None, reason=NO_REDIS)
def test_a_store_in_redis(tmp_path: Path) -> None:
    folder, server = folder_of(tmp_path / "days"), RedisProcess()
    try:
        run(folder, tmp_path / "store", server.url)
    finally:
        server.stop()
    run(folder, tmp_path / "memory", None)
    same(kept(tmp_path / "store"), kept(tmp_path / "memory"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--histories is of a source: give --source"),
        (["--source", "plays"], "--histories: a store has the histories of one model's run, got 4 models"),
        (["--source", "plays", "--model", "lic", "--history-delay", "60"], "--history-delay keeps more than the latest --history behaviours"),
        (["--source", "SOURCE", "--model", "lic", "--protocol", "stream"], "url must be sqlite:///path"),
    ],
)  # fmt: skip
def test_mistakes_get_one_line(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    if "SOURCE" in words:
        words = [str(folder_of(tmp_path / "days")) if word == "SOURCE" else word for word in words]
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--histories", "http://plays", "--quiet", "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
