# SPDX-License-Identifier: Apache-2.0
"""A damaged checkpoint is refused by name, wherever the damage is; a full disk keeps the old one."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, save, save_file
from streams import stream
from test_train import SMALL

from longclock.train import checkpoint
from longclock.train.batches import TrainingData
from longclock.train.compare import Options, run_model
from longclock.train.config import MODELS
from longclock.train.loop import Run, chunks

CONFIG = dataclasses.replace(SMALL, protocol="stream")
REFUSED = "no-time.safetensors is not a checkpoint of longclock.train"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    data = TrainingData.of(stream(events=64), CONFIG)
    run_model("no-time", data, CONFIG, Options(out, quiet=True), 0)
    return data, out / "checkpoints" / "no-time.safetensors"


@pytest.fixture
def resume(trained, tmp_path):
    """Resume from a checkpoint of the given bytes; the run."""
    data, path = trained
    mine = tmp_path / path.name
    parts = chunks(data.stream, CONFIG)

    def start(content):
        mine.write_bytes(content)
        run = Run.start(data, MODELS["no-time"], CONFIG)
        identity = checkpoint.identity("no-time", data.stream, CONFIG)
        checkpoint.restore(mine.name, mine.read_bytes(), run, identity, data, parts)
        return run

    return start


def test_every_flipped_bit_is_noticed(trained, resume):
    whole = trained[1].read_bytes()
    assert resume(whole).chunk == 4
    header = 8 + int.from_bytes(whole[:8], "little")
    draw = np.random.default_rng(0)
    places = [*range(8), *draw.integers(8, header, 60), *draw.integers(header, len(whole), 60)]
    for place in [*places, len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(draw.integers(8))
        with pytest.raises(ValueError, match=REFUSED):
            resume(bytes(damaged))


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 300, -1])
def test_what_is_cut_or_longer_is_noticed(trained, resume, cut):
    whole = trained[1].read_bytes()
    for damaged in (whole[:cut], whole + b"\0", bytes(len(whole)), whole[::-1]):
        with pytest.raises(ValueError, match=REFUSED):
            resume(damaged)


def packed(path, identity=None, **changes):
    """A checkpoint with other contents and a checksum that is right for them."""
    content = path.read_bytes()
    known = json.dumps(checkpoint._metadata(content, "identity")) if identity is None else identity
    return checkpoint.packed({**load(content), **changes}, known)


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        (0, "it has scores behind chunk 0"),
        (3, "it has scores behind chunk 3"),
        (5, "its chunk must be from 0 to 4, got 5"),
        (10**6, "its chunk must be from 0 to 4, got 1000000"),
        (-1, "its chunk must be from 0 to 4, got -1"),
    ],
)
def test_a_chunk_that_is_not_where_the_scores_end_is_refused(trained, resume, chunk, reason):
    with pytest.raises(ValueError, match=reason):
        resume(packed(trained[1], chunk=torch.tensor(chunk)))


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk": torch.tensor(float("nan"))},
        {"chunk": torch.tensor([1, 2])},
        {"chunk": torch.tensor([], dtype=torch.int64)},
        {"scores": torch.zeros(())},
        {"scores": torch.zeros(3, 3)},
        {"rng": torch.zeros(3, dtype=torch.uint8)},
        {"rng": torch.zeros(3)},
        {"seconds": torch.zeros(2)},
        {"optimizer.x.step": torch.zeros(())},
        {"model.item.weight": torch.zeros(2, 2)},
    ],
)
def test_odd_tensors_are_refused(trained, resume, changes):
    with pytest.raises(ValueError, match=REFUSED):
        resume(packed(trained[1], **changes))


@pytest.mark.parametrize("identity", ["null", "[]", "17", '"x"', "{", "[" * 100_000])
def test_odd_identities_are_refused(trained, resume, identity):
    with pytest.raises(ValueError, match=REFUSED):
        resume(packed(trained[1], identity=identity))


def test_swapped_scores_are_noticed(trained, resume, tmp_path):
    """Whoever changes a tensor and keeps the metadata does not know the checksum."""
    content = trained[1].read_bytes()
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    for metadata in (header["__metadata__"], None, {"checksum": "0" * 64}):
        save_file({**tensors, "scores": tensors["scores"].flip(0)}, tmp_path / "x", metadata)
        with pytest.raises(ValueError, match=f"{REFUSED}.*checksum"):
            resume((tmp_path / "x").read_bytes())
    with pytest.raises(ValueError, match="it has no checksum"):
        resume(save(tensors))


def test_training_goes_on_over_a_full_disk(tmp_path, monkeypatch, capsys):
    """It says so once, tries again at every checkpoint, and leaves the old one until one succeeds."""
    data = TrainingData.of(stream(events=64), CONFIG)
    path = tmp_path / "checkpoints" / "no-time.safetensors"
    write, calls, kept = checkpoint.write_whole, [], []

    def full_at_second_and_third(path, content):
        calls.append(path)
        if len(calls) in (2, 3):
            kept.append(path.read_bytes())
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_whole", full_at_second_and_third)
    options = Options(tmp_path, checkpoint_seconds=0.0, quiet=True)
    run = run_model("no-time", data, CONFIG, options, 0)
    assert len(calls) == 4
    assert kept[0] == kept[1]
    assert capsys.readouterr().err == (
        f"longclock.train: {path} cannot be written: No space left on device; "
        "training goes on and tries again\n"
    )
    assert options.unsaved == set()
    again = run_model("no-time", data, CONFIG, Options(tmp_path, resume=True, quiet=True), 0)
    assert torch.equal(again.scores, run.scores)
