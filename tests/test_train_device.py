# SPDX-License-Identifier: Apache-2.0
"""Training on a device: all of a step is there, checkpoints are of none, and one that is not there is refused."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from elsewhere import DEVICE, Elsewhere, Machine
from streams import stream

from longclock import _native
from longclock.study.plan import Task
from longclock.study.run import run_task
from longclock.train import checkpoint, cli, inputs, loop, results
from longclock.train.batches import TrainingData
from longclock.train.config import MODELS, Config
from longclock.train.loop import Run, chunks, train
from longclock.train.team import Team

CPU, EVENTS = torch.device("cpu"), 64
SMALL = Config(batch=16, k=3, heads=2, head_dim=4, recent=5, reference=True)
# Of every kind, and of everything that a module may read of a batch; but for the graphs, whose sparse matrices the device has not.
NAMES = ("lic", "no-time", "hour", "interest-clock", "interest-clock-positives", "din", "sim-hard", "eta", "sdim",
         "twin-v2", "hstu", "transact-v2", "full-clock", "lic-stack", "lic-day-week", "lic-hashed", "clock-counts")  # fmt: skip


# A stream without labels whose batches read all items, and one with labels whose batches touch some: both where modules read
# most of a batch, one of them in turns elsewhere.
WAYS = [
    pytest.param(name, labels, 400 if labels else 12, id=f"{name}-{'labels, touched' if labels else 'sampled, all items'}")
    for number, name in enumerate(NAMES)
    for labels in (False, True)
    if name in ("lic", "interest-clock", "twin-v2") or labels == bool(number % 2)
]  # fmt: skip


@pytest.fixture(autouse=True)
def plain_optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch has no fused ones for the device."""
    monkeypatch.setitem(loop.OPTIMIZERS, "adam", torch.optim.Adam)
    monkeypatch.setitem(loop.OPTIMIZERS, "sgd", torch.optim.SGD)


def carried(
    device: torch.device, name: str = "lic", labels: bool = False, items: int = 12, **changes: Any
) -> tuple[Run, TrainingData]:
    """A run at the end of its stream."""
    config = MODELS[name].settings(dataclasses.replace(SMALL, **changes))
    events = stream(events=EVENTS, labels=labels, items=items)
    data = TrainingData.of(events, config, MODELS[name].shuffled_times, MODELS[name].place(device))
    run = Run.start(data, MODELS[name], config)
    train(run, data, config, lambda run, events: None)
    return run, data


def same_weights(ours: Run, expected: Run, rtol: float = 0) -> None:
    theirs = expected.ranker.state_dict()
    for name, weight in ours.ranker.state_dict().items():
        torch.testing.assert_close(weight.cpu(), theirs[name].cpu(), rtol=rtol, atol=rtol, msg=name)


@pytest.mark.parametrize(("name", "labels", "items"), WAYS)
def test_a_run_on_a_device(name: str, labels: bool, items: int) -> None:
    """It ends where the CPU ends, but for the rounding of other kernels; what the report measures runs there as well."""
    smooth: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.05}
    here, _ = carried(CPU, name, labels, items, **smooth)
    with Machine():
        there, data = carried(DEVICE, name, labels, items, **smooth)
        weights = list(there.ranker.parameters())
        on_device = MODELS[name].counts is None
        assert all(isinstance(weight, Elsewhere) == on_device for weight in weights)
        found = results.measure(there, data, EVENTS // 2)
        results.interest_over_a_day(there, data)
        results.similarity_curve(there, SMALL.period)
        same_weights(there, here, 1e-5)
    torch.testing.assert_close(there.scores, here.scores, rtol=1e-4, atol=1e-5)
    assert here.scores.isfinite().all()
    assert found["diverged"] is None


@pytest.mark.parametrize("changes", [{}, {"protocol": "stream"}, {"groups": 4}], ids=str)
def test_ways_to_learn(changes: dict[str, Any]) -> None:
    """With Adam, and the CPU's bits: sparse gradients, which the device has not, aside."""
    here, _ = carried(CPU, **changes)
    with Machine():
        there, _ = carried(DEVICE, **changes)
        same_weights(there, here)
    assert torch.equal(there.scores, here.scores)


def test_the_mixture_is_refused() -> None:
    """The device of these tests is strict: else they would see nothing."""
    with Machine():
        there = torch.ones(3, device=DEVICE)
        assert torch.equal((there + 1).cpu(), torch.full((3,), 2.0))
        with pytest.raises(
            AssertionError, match=r"aten.add.Tensor: tensors \[\[3\]\] are on the CPU"
        ):
            there + torch.ones(3)
        with pytest.raises(AssertionError, match=r"aten\.index\.Tensor"):
            there[torch.arange(2)]


def part_of_a_run(device: torch.device, stop: int | None, kept: Path, resume: bool) -> Run:
    """Of a model whose search is taught by draws: it keeps a checkpoint at the chunk ``stop``, or goes on from it."""
    config = dataclasses.replace(SMALL, search_loss=0.1)
    data = TrainingData.of(stream(events=EVENTS), config, device=device)
    run, parts = Run.start(data, MODELS["lic"], config), chunks(data.stream, config)
    identity = checkpoint.identity("lic", data.stream, config)
    if resume:
        checkpoint.restore("kept", kept.read_bytes(), run, identity, data, parts)
        assert run.chunk > 0

    def after_chunk(run: Run, events: int) -> None:
        if run.chunk == stop:
            checkpoint.save(kept, run, identity, data, parts)

    train(run, data, config, after_chunk)
    return run


@pytest.mark.filterwarnings(
    "ignore:.*copying from a non-meta parameter"
)  # which it does all the same
def test_a_checkpoint_is_of_no_device(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with Machine():
        whole = part_of_a_run(DEVICE, 3, kept, resume=False)
        resumed = part_of_a_run(DEVICE, None, kept, resume=True)
        same_weights(resumed, whole)
    assert torch.equal(resumed.scores, whole.scores)
    here = part_of_a_run(CPU, None, kept, resume=True)
    assert here.scores.isfinite().all()
    assert all(not isinstance(weight, Elsewhere) for weight in here.ranker.parameters())
    read = checkpoint.read(kept)
    assert all(weight.device == CPU for weight in read.weights.values())


def test_the_study_on_a_device() -> None:
    task = Task("daily", "lic", 0, 0.02, 1.0)
    expected = run_task(task, stream(events=EVENTS), SMALL, 0.4)
    with Machine():
        found = run_task(task, stream(events=EVENTS), SMALL, 0.4, DEVICE)
    times = ("seconds", "ms_per_1000")
    assert math.isfinite(found["ms_per_1000"])
    assert {k: v for k, v in found.items() if k not in times} == {k: v for k, v in expected.items() if k not in times}  # fmt: skip


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--max-events", "1", "--device", "cuda"])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_devices_that_are_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device cuda: PyTorch " in refusal(capsys)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(_native, "build_info", lambda: {"cuda": None})
    assert "--device cuda: the library was built without CUDA kernels" in refusal(capsys)
    args = cli.parser().parse_args(["--device", "cuda", "--reference"])
    assert inputs.device_of(args) == torch.device("cuda", 0)
    monkeypatch.setattr(_native, "build_info", lambda: {"cuda": "13.0"})
    args = cli.parser().parse_args(["--device", "cuda"])
    assert inputs.device_of(args) == torch.device("cuda", 0)


def test_several_processes_are_refused_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="--device cuda is for one process, got 2 ranks"):
        Team.started(0, 10, torch.device("cuda"))
