# SPDX-License-Identifier: Apache-2.0
"""A run over a source that stops goes on as if it had not: no event is learned from twice, and none is left out."""

from __future__ import annotations

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
from safetensors.torch import load_file
from sourced import SMALL, events, table_of
from torch import Tensor

from longclock.data.sources import FolderSource
from longclock.train import sourced, tensor_file
from longclock.train.compare import Options
from longclock.train.config import Config
from longclock.train.memory import Bounds
from longclock.train.sourced import SourcedRun

CONFIG = dataclasses.replace(SMALL, protocol="stream")


class Stopped(Exception):
    pass


def days_of(place: Path, labels: bool) -> Path:
    """Six days in six files."""
    made = events(labels, events=400)
    table, day = table_of(made), made.day()
    for one in np.unique(day):
        pq.write_table(table.filter(day == one), place / f"day={one}.parquet")
    return place


@pytest.fixture(scope="module", params=[False, True], ids=["sampled", "labels"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return days_of(tmp_path_factory.mktemp("days"), request.param)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return days_of(tmp_path_factory.mktemp("days"), labels=True)


def source_of(folder: Path) -> FolderSource:
    return FolderSource(folder, ["category"])


def kept(out: Path, name: str = "lic") -> dict[str, Tensor]:
    metadata, tensors = tensor_file.read(out / "checkpoints" / f"{name}.safetensors")
    assert json.loads(metadata["cursor"])["events"] == 400
    del tensors["seconds"]
    return tensors


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if not name.startswith("kept."):  # rows may lie elsewhere
            assert torch.equal(tensor, found[name]), name


def run(
    folder: Path, out: Path, config: Config, bounds: Bounds, resume: bool = False
) -> SourcedRun:
    options = Options(out, resume, checkpoint_seconds=0.0, warmup=0.0, quiet=True)
    return sourced.run_model("lic", source_of(folder), config, bounds, options)


@pytest.mark.parametrize(
    ("changes", "bounds"),
    [
        ({}, Bounds(events=48)),
        ({"protocol": "daily"}, Bounds(events=40)),
        ({"history": 7, "search_loss": 0.1}, Bounds(events=32, rows=200)),
        ({"history_days": 1}, Bounds(events=40, forget_days=1)),
        ({"item_buckets": 7, "embedding_optimizer": "lazy-adam"}, Bounds(events=48, user_rows=3, item_rows=11)),
    ],
    ids=str,
)  # fmt: skip
def test_a_run_that_stopped_anywhere(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    bounds: Bounds,
) -> None:
    config = dataclasses.replace(CONFIG, **changes)
    run(folder, tmp_path / "whole", config, bounds)
    expected = kept(tmp_path / "whole")
    carry, left = SourcedRun.carry, [0]

    def stops(self: SourcedRun, *args: Any) -> None:
        if not left[0]:  # what came after the last checkpoint is lost
            raise Stopped
        left[0] -= 1
        carry(self, *args)

    monkeypatch.setattr(SourcedRun, "carry", stops)
    stopped = 0
    for left[0] in (1, 2, 1, 1, 1000):
        torch.rand(5)  # another state of the generator
        try:
            run(folder, tmp_path / "parts", config, bounds, resume=stopped > 0)
        except Stopped:
            stopped += 1
    assert stopped >= 3
    same(kept(tmp_path / "parts"), expected)
    monkeypatch.setattr(SourcedRun, "carry", None)  # there is nothing left to do
    run(folder, tmp_path / "parts", config, bounds, resume=True)
    same(kept(tmp_path / "parts"), expected)


def test_files_that_come_later(folder: Path, tmp_path: Path) -> None:
    """A run goes on with them; its last chunk before was a short one."""
    first = tmp_path / "first"
    first.mkdir()
    files = sorted(folder.iterdir())
    for file in files[:3]:
        (first / file.name).write_bytes(file.read_bytes())
    out, whole = tmp_path / "out", tmp_path / "whole"
    daily = dataclasses.replace(CONFIG, protocol="daily")
    run(first, out, daily, Bounds())
    for file in files[3:]:
        (first / file.name).write_bytes(file.read_bytes())
    run(first, out, daily, Bounds(), resume=True)
    run(folder, whole, daily, Bounds())
    found, expected = kept(out), kept(whole)
    sums = found.pop("figures.sums"), expected.pop("figures.sums")  # in another order of additions
    torch.testing.assert_close(*sums, rtol=1e-12, atol=0)
    same(found, expected)


def test_what_a_checkpoint_is_not_of_is_refused(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path, CONFIG, Bounds())
    path = tmp_path / "checkpoints" / "lic.safetensors"
    with pytest.raises(ValueError, match="by a run with another popular, seed: resume"):
        run(folder, tmp_path, dataclasses.replace(CONFIG, seed=1), Bounds(popular=9), resume=True)
    whole = path.read_bytes()
    tensors = load_file(path)  # the format is that of safetensors
    assert torch.equal(tensors["recent"], tensor_file.read(path)[1]["recent"])
    draw = np.random.default_rng(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in [
        0,
        1,
        7,
        8,
        *draw.integers(8, header, 20),
        *draw.integers(header, len(whole), 20),
        len(whole) - 1,
    ]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"lic\.safetensors is not a checkpoint of longclock\.train"
        ):
            run(folder, tmp_path, CONFIG, Bounds(), resume=True)
    for damaged in (whole[:-1], whole + b"\0", b"", whole[:header], whole[:100]):
        path.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"lic\.safetensors is not a checkpoint of longclock\.train"
        ):
            run(folder, tmp_path, CONFIG, Bounds(), resume=True)


def test_tensor_files_hold_every_kind(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randint(0, 100, (3, 5), generator=draw).to(dtype)
        for name, dtype in tensor_file.DTYPES.items()
    }
    tensors |= {"none": torch.zeros(0, 4), "scalar": torch.tensor(7), "turned": tensors["F32"].T}
    path = tmp_path / "file"
    path.write_bytes(b"".join(tensor_file.parts_of(tensors, {"about": 'a "quoted" text'})))
    metadata, found = tensor_file.read(path)
    assert metadata["about"] == 'a "quoted" text'
    for read in (found, load_file(path)):
        assert read.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert read[name].dtype == tensor.dtype
            assert torch.equal(read[name], tensor), name


def words_of(folder: Path, protocol: str) -> list[str]:
    """A command, but for where it writes."""
    return [str(jobs.HERE / "sourced_process.py"), "--source", f"folder:{folder}", "--categories", "category", "--protocol", protocol,
            "--model", "lic", "--k", "3", "--batch", "4", "--checkpoint-seconds", "0", "--quiet", "--warmup", "0"]  # fmt: skip


def test_a_process_that_is_killed(labelled: Path, tmp_path: Path) -> None:
    """Twice, between checkpoints; the same command goes on."""
    command, whole, parts = words_of(labelled, "stream"), tmp_path / "whole", tmp_path / "parts"
    jobs.run(1, [*command, "--out", str(whole)])
    path = parts / "checkpoints" / "lic.safetensors"
    for _ in range(2):
        before = path.stat().st_mtime_ns if path.exists() else 0
        (process,) = jobs.start(1, [*command, "--out", str(parts), "--resume"])
        while process.poll() is None and (not path.exists() or path.stat().st_mtime_ns == before):
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    jobs.run(1, [*command, "--out", str(parts), "--resume"])
    same(kept(parts), kept(whole))
    results = [json.loads((out / "results.json").read_text()) for out in (whole, parts)]
    for one in results:
        for name in ("seconds", "events_per_second"):
            del one["models"]["lic"][name]
    assert results[0]["models"] == results[1]["models"]
    assert results[0]["data"] == results[1]["data"]


def test_other_numbers_of_ranks(labelled: Path, tmp_path: Path) -> None:
    """Two ranks begin, and one goes on where more files have come: the same bits as one over all."""
    first = tmp_path / "first"
    first.mkdir()
    files = sorted(labelled.iterdir())
    for file in files[:3]:
        (first / file.name).write_bytes(file.read_bytes())
    out, whole = tmp_path / "out", tmp_path / "whole"
    jobs.run(2, [*words_of(first, "daily"), "--groups", "4", "--out", str(out)])
    for file in files[3:]:
        (first / file.name).write_bytes(file.read_bytes())
    jobs.run(1, [*words_of(first, "daily"), "--groups", "4", "--out", str(out), "--resume"])
    jobs.run(1, [*words_of(labelled, "daily"), "--groups", "4", "--out", str(whole)])
    found, expected = kept(out), kept(whole)
    torch.testing.assert_close(
        found.pop("figures.sums"), expected.pop("figures.sums"), rtol=1e-12, atol=0
    )
    same(found, expected)
