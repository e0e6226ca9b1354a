# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: a run that is resumed goes on bit for bit as if it had not stopped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from longclock.data import Catalogue, EventStream, OutcomeCounts
from longclock.data.stream import IntArray
from longclock.train.batches import TrainingData
from longclock.train.config import Config
from longclock.train.folder import write_whole
from longclock.train.loop import Run
from longclock.train.tensor_file import (
    NO_CHECKSUM,
    hexadecimal,
    new_digest,
    parts_of,
    place_of_checksum,
    with_checksum,
)

# What reading and restoring raise where a file is torn, of another program or of other shapes.
BROKEN = (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, IndexError, OverflowError,
          RecursionError)  # fmt: skip
Value = TypeVar("Value")
OPTIMIZERS = ("optimizer", "embedding_optimizer")  # names of Run.optimizers in a file


def identity(name: str, stream: EventStream, config: Config) -> dict[str, Any]:
    """What must be equal for a checkpoint to be resumed: model, events and configuration."""
    sizes = [stream.users, stream.items, *stream.category_sizes.values()]
    return {
        "model": name,
        "events": stream.digest(),
        "numbers of ids": sizes,
        **dataclasses.asdict(config),
    }


def save(
    path: Path, run: Run, identity: dict[str, Any], data: TrainingData, parts: list[IntArray]
) -> None:
    """Write model, optimizer, RNG state, position and scores, and what an export takes besides; the old file stays until it is
    done. ``parts`` are the chunks of the stream."""
    tensors = of_run(run)
    tensors["scores"] = run.scores
    learned = data.stream.head(max_events=sum(map(len, parts[: run.chunk])))
    tensors |= _of_stream(data.catalogue, learned)
    write_whole(path, packed(tensors, json.dumps(identity), json.dumps(sizes_of(data.catalogue))))


def of_run(run: Run) -> dict[str, Tensor]:
    """Model, optimizer, RNG state and position."""
    tensors = {f"model.{key}": value for key, value in run.ranker.state_dict().items()}
    for kind, optimizer in zip(OPTIMIZERS, run.optimizers, strict=False):
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():  # some count their steps in an int
                tensors[f"{kind}.{index}.{key}"] = torch.as_tensor(value)
    tensors["rng"] = torch.get_rng_state()
    tensors["chunk"] = torch.tensor(run.chunk)
    tensors["seconds"] = torch.tensor(run.seconds, dtype=torch.float64)
    return tensors


def sizes_of(catalogue: Catalogue) -> dict[str, Any]:
    """All of a catalogue but its categories, which are tensors."""
    kept = dataclasses.asdict(catalogue)
    return {name: value for name, value in kept.items() if name != "categories"}


def _of_stream(catalogue: Catalogue, learned: EventStream) -> dict[str, Tensor]:
    """Attributes of items, and in a labelled stream how the events that were learned from ended."""
    found = {f"category.{name}": ids for name, ids in catalogue.categories.items()}
    if catalogue.labelled:
        found |= OutcomeCounts.of(learned).arrays()
    return {name: torch.from_numpy(values) for name, values in found.items()}


def packed(tensors: dict[str, Tensor], identity: str, sizes: str = "{}") -> bytes:
    """A safetensors file whose metadata hold the identity, the catalogue's sizes and the file's checksum."""
    return b"".join(parts_of(tensors, {"identity": identity, "sizes": sizes}))


def restore(
    name: str,
    content: bytes,
    run: Run,
    identity: dict[str, Any],
    data: TrainingData,
    parts: list[IntArray],
) -> None:
    """Put a new run where a checkpoint stands, whose file has this name and content; ``parts`` are the chunks of its stream.

    Raises:
        ValueError: the checkpoint is of another model, other events or another configuration, or damaged.
    """
    try:
        found = _metadata(content, "identity")
        tensors = safetensors.torch.load(content)
    except BROKEN as error:
        raise broken(name, error) from error
    check_identity(name, found, identity)
    try:
        _check_position(tensors, data, parts)
        put_back(run, tensors)
        run.scores.copy_(tensors["scores"])
    except BROKEN as error:
        raise broken(name, error) from error


def check_identity(name: str, found: dict[str, Any], identity: dict[str, Any]) -> None:
    """Raises:
    ValueError: the file of this name is of another run.
    """
    differing = sorted(key for key in identity if found.get(key) != identity[key])
    if differing:
        raise ValueError(
            f"{name} was written by a run with another {', '.join(differing)}: resume with the same "
            "arguments, or start anew without --resume or in another --out"
        )


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a checkpoint holds of a model, wherever in the stream it stands.

    Args:
        identity: see :func:`identity`.
        weights: of the ranker.
        outcomes: how the events that it has learned from ended; None without labels.
    """

    identity: dict[str, Any]
    catalogue: Catalogue
    weights: dict[str, Tensor]
    outcomes: OutcomeCounts | None


def read(path: Path) -> Trained:
    """The trained model alone.

    Raises:
        ValueError: the file is damaged, something else, or of a version that did not write what this takes.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    try:
        known, sizes = _metadata(content, "identity"), _metadata(content, "sizes")
        tensors = safetensors.torch.load(content)
        categories = categories_of(tensors, sizes["category_sizes"])
        catalogue = Catalogue(categories=categories, **sizes)
        outcomes = outcomes_of(tensors, len(categories)) if catalogue.labelled else None
        return Trained(known, catalogue, of_kind(tensors, "model"), outcomes)
    except BROKEN as error:
        raise broken(path.name, error) from error


def of_kind(tensors: Mapping[str, Value], kind: str) -> dict[str, Value]:
    """The tensors, or arrays, of a file whose names begin with the kind, by what follows it."""
    start = f"{kind}."
    return {key.removeprefix(start): x for key, x in tensors.items() if key.startswith(start)}


def categories_of(tensors: dict[str, Tensor], names: Iterable[str]) -> dict[str, IntArray]:
    """The attributes of all items, in the order of their names."""
    return {name: tensors[f"category.{name}"].numpy() for name in names}


def outcomes_of(tensors: dict[str, Tensor], attributes: int) -> OutcomeCounts:
    """How earlier events ended."""
    kinds = ("count.", "positive.")
    arrays = {key: x.numpy() for key, x in tensors.items() if key.startswith(kinds)}
    return OutcomeCounts.from_arrays(arrays, attributes)


def _metadata(content: bytes, name: str) -> dict[str, Any]:
    """What the file says of itself, once its checksum is known to be right."""
    place = place_of_checksum(content)
    checksum = content[place : place + len(NO_CHECKSUM)]
    if checksum != hexadecimal(new_digest(with_checksum(content, place, NO_CHECKSUM))):
        raise ValueError("its checksum is wrong: it is damaged, or was changed")
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    found = json.loads(header["__metadata__"][name])
    if not isinstance(found, dict):
        raise ValueError(f"its {name} is no object")
    return found


def broken(name: str, error: Exception) -> ValueError:
    """What is said of a file that is no checkpoint."""
    reason = str(error) if type(error) is ValueError else type(error).__name__
    return ValueError(
        f"{name} is not a checkpoint of longclock.train ({reason}): delete it, or "
        "start anew without --resume"
    )


def _check_position(tensors: dict[str, Tensor], data: TrainingData, parts: list[IntArray]) -> None:
    """The chunk is one of the stream's, and what comes after it has not been scored."""
    chunk, scores = int(tensors["chunk"]), tensors["scores"]
    if not 0 <= chunk <= len(parts):
        raise ValueError(f"its chunk must be from 0 to {len(parts)}, got {chunk}")
    events = sum(len(part) for part in parts[:chunk])
    if not scores[int(data.candidates.first_row[events]) :].isnan().all():
        raise ValueError(f"it has scores behind chunk {chunk}, where it stands")


def put_back(run: Run, tensors: dict[str, Tensor]) -> None:
    """Make a new run what :func:`of_run` was given."""
    model: dict[str, Tensor] = {}
    states: dict[str, dict[int, Any]] = {kind: {} for kind in OPTIMIZERS}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "model":
            model[rest] = tensor
        elif kind in states:
            index, _, name = rest.partition(".")
            value = int(tensor) if tensor.dim() == 0 and tensor.dtype == torch.int64 else tensor
            states[kind].setdefault(int(index), {})[name] = value
    run.ranker.load_state_dict(model)
    for kind, optimizer in zip(OPTIMIZERS, run.optimizers, strict=False):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states[kind]})
    run.chunk = int(tensors["chunk"])
    run.seconds = float(tensors["seconds"])
    torch.set_rng_state(tensors["rng"])
