# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: a run that is resumed goes on bit for bit as if it had not stopped."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from longclock.data import EventStream
from longclock.train.config import Config
from longclock.train.loop import Run

# What reading and restoring raise where a file is torn, of another program or of other shapes.
BROKEN = (SafetensorError, KeyError, TypeError, ValueError, RuntimeError)


def identity(name: str, stream: EventStream, config: Config) -> dict[str, Any]:
    """What must be equal for a checkpoint to be resumed: model, events and configuration."""
    sizes = [stream.users, stream.items, *stream.category_sizes.values()]
    return {
        "model": name,
        "events": stream.digest(),
        "numbers of ids": sizes,
        **dataclasses.asdict(config),
    }


def save(path: Path, run: Run, identity: dict[str, Any]) -> None:
    """Write model, optimizer, RNG state, position and scores; the old file stays until it is done."""
    tensors = {f"model.{key}": value for key, value in run.ranker.state_dict().items()}
    for index, state in run.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{key}": value for key, value in state.items()})
    tensors["rng"] = torch.get_rng_state()
    tensors["scores"] = run.scores
    tensors["chunk"] = torch.tensor(run.chunk)
    tensors["seconds"] = torch.tensor(run.seconds, dtype=torch.float64)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(
        {key: value.contiguous() for key, value in tensors.items()},
        partial,
        {"identity": json.dumps(identity)},
    )
    os.replace(partial, path)


def load(path: Path, run: Run, identity: dict[str, Any]) -> None:
    """Put a new run where the checkpoint stands.

    Raises:
        ValueError: the checkpoint is of another model, other events or another configuration, or broken.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = json.loads(file.metadata()["identity"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except BROKEN as error:
        raise _broken(path, error) from error
    differing = sorted(key for key in identity if found.get(key) != identity[key])
    if differing:
        raise ValueError(
            f"{path.name} was written by a run with another {', '.join(differing)}: resume with the same "
            "arguments, or start anew without --resume or in another --out"
        )
    try:
        _restore(run, tensors)
    except BROKEN as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path.name} is not a checkpoint of longclock.train ({type(error).__name__}): delete it, or "
        "start anew without --resume"
    )


def _restore(run: Run, tensors: dict[str, Tensor]) -> None:
    optimizer = run.optimizer.state_dict()
    optimizer["state"] = {}
    model = {}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "model":
            model[rest] = tensor
        elif kind == "optimizer":
            index, _, name = rest.partition(".")
            optimizer["state"].setdefault(int(index), {})[name] = tensor
    run.ranker.load_state_dict(model)
    run.optimizer.load_state_dict(optimizer)
    run.scores.copy_(tensors["scores"])
    run.chunk = int(tensors["chunk"])
    run.seconds = float(tensors["seconds"])
    torch.set_rng_state(tensors["rng"])
