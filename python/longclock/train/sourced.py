# SPDX-License-Identifier: Apache-2.0
"""Models on their way through a source: excerpt by excerpt, with a checkpoint from which they go on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longclock.data.sources import EventSource
from longclock.data.sources.source import Cursor
from longclock.train import checkpoint, results, tables, tensor_file
from longclock.train.compare import SHOW_SECONDS, Options, console, save
from longclock.train.config import MODELS, Bounds, Config, Model
from longclock.train.excerpt import Excerpt
from longclock.train.folder import write_whole
from longclock.train.loop import Run, carry, chunk_ends, finite
from longclock.train.memory import Memory
from longclock.train.ranker import Ranker
from longclock.train.running import RunningFigures
from longclock.train.stored_histories import StoredHistories


@dataclasses.dataclass
class SourcedRun:
    """One model, what it remembers and how well it has done: all that a checkpoint has to hold."""

    run: Run
    memory: Memory
    figures: RunningFigures

    @classmethod
    def start(
        cls, model: Model, config: Config, memory: Memory, figures: RunningFigures
    ) -> SourcedRun:
        """A new model for the tables that the memory knows; the rows' starts depend on the seed and the row alone."""
        run = tables.started(model, config, memory.catalogue, torch.device("cpu"))
        return cls(run, memory, figures)

    def carry(self, excerpt: Excerpt, config: Config, options: Options) -> None:
        """Score an excerpt chunk by chunk and learn from it, to its end or to where the run diverges."""
        run, first = self.run, excerpt.first
        tables.begin_anew(run, *self.memory.forgotten, config)
        tables.fit(run, excerpt.catalogue, config)
        run.scores = torch.full((len(excerpt.candidates.item),), torch.nan)
        ends = first + chunk_ends(excerpt.stream.order_time[first:], config)
        end = first
        for events in np.split(np.arange(len(excerpt.stream)), [first, *ends])[1:]:
            if not len(events):
                continue
            carry(run, excerpt, events, config, config.learn_until > 0, options.team)
            end = int(events[-1]) + 1
            if not finite(run, excerpt, events):
                break
        self.figures.add(excerpt, run.scores, end)
        self.memory.keep(excerpt)

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Write everything; the old file stays until it is done."""
        memory, catalogue = self.memory, self.memory.catalogue
        tensors = checkpoint.of_run(self.run) | memory.arrays() | self.figures.arrays()
        about = {
            "identity": identity,
            "sizes": checkpoint.sizes_of(catalogue),
            "cursor": memory.cursor,
        }
        metadata = {name: json.dumps(value) for name, value in about.items()}
        write_whole(path, *tensor_file.parts_of(tensors, metadata))


def restored(
    name: str,
    kept: tuple[dict[str, str], dict[str, torch.Tensor]],
    model: Model,
    config: Config,
    identity: dict[str, Any],
    memory: Memory,
    figures: RunningFigures,
) -> SourcedRun:
    """The run of a checkpoint of this name, which was read.

    Raises:
        ValueError: it is of another model, source or configuration, or no checkpoint of a run over a source.
    """
    metadata, tensors = kept
    try:
        found = json.loads(metadata["identity"])
        checkpoint.check_identity(name, found, identity)
        cursor: Cursor | None = json.loads(metadata["cursor"])
    except KeyError as error:
        raise checkpoint.broken(name, error) from error
    try:
        memory.put_back(tensors, cursor)
        figures.put_back(tensors)
        run = Run.new(memory.catalogue, model, config, torch.device("cpu"))
        tables.fit(run, memory.catalogue, config)
        checkpoint.put_back(run, tensors)
    except checkpoint.BROKEN as error:
        raise checkpoint.broken(name, error) from error
    return SourcedRun(run, memory, figures)


def excerpts(source: EventSource, memory: Memory) -> Iterator[Excerpt]:
    """What comes after the memory's cursor; each is to be kept before the next is asked for."""
    reads = source.read(memory.cursor, batch=memory.bounds.events)
    ended = False
    while True:
        while (excerpt := memory.excerpt(ended)) is not None:
            yield excerpt
        if ended:
            return
        read = next(reads, None)
        ended = read is None
        if read is not None:
            memory.take(read)


def run_model(
    name: str, source: EventSource, config: Config, bounds: Bounds, options: Options
) -> SourcedRun:
    """One model over all events of a source, from its checkpoint where that is asked for and there."""
    with contextlib.ExitStack() as used:
        stored = None
        if options.histories is not None:
            assert config.history is not None
            stored = StoredHistories(
                options.histories, config.history, options.resume, options.team
            )
            used.callback(stored.close)
        memory = Memory(config, bounds, source.categories, stored, options.team)
        return _run_model(name, source, config, bounds, options, memory)


def _run_model(
    name: str,
    source: EventSource,
    config: Config,
    bounds: Bounds,
    options: Options,
    memory: Memory,
) -> SourcedRun:
    model, team = MODELS[name], options.team
    length = _length(source)
    figures = RunningFigures(int(options.warmup * (length or 0)), config.history or 0)
    path = options.out / "checkpoints" / f"{name}.safetensors"
    identity = _identity(name, source, config, bounds, memory)
    kept = team.from_first(lambda: _read(path) if options.resume and path.exists() else None)
    found = None
    if kept is not None:
        found = restored(path.name, kept, model, config, identity, memory, figures)
    saved = shown = time.monotonic()
    with console.progress(
        total=length, initial=memory.trained, desc=f"{model.title:20}", unit=" events",
        disable=options.quiet or not team.first, mininterval=0.5,
    ) as bar:  # fmt: skip
        if figures.diverged < 0:
            for excerpt in excerpts(source, memory):
                found = found or SourcedRun.start(model, config, memory, figures)
                found.carry(excerpt, config, options)
                bar.update(len(excerpt.stream) - excerpt.first)
                now = time.monotonic()
                if now - shown >= SHOW_SECONDS:
                    bar.set_postfix({"seen AUC": _so_far(found)})
                    shown = now
                if figures.diverged >= 0:
                    break
                if team.first and now - saved >= options.checkpoint_seconds:
                    save(path, partial(found.save, path, identity), options)
                    saved = time.monotonic()
    if found is None:
        raise ValueError("no events came")
    if team.first:
        save(path, partial(found.save, path, identity), options)
    return found


def _so_far(found: SourcedRun) -> str:
    """Seen AUC, where the table has it."""
    auc = found.figures.bins["seen"].auc()
    return "n/a" if auc is None or not isinstance(found.run.ranker, Ranker) else f"{auc:.4f}"


def compare(
    source: EventSource,
    origin: str,
    names: Sequence[str],
    config: Config,
    bounds: Bounds,
    options: Options,
) -> dict[str, Any]:
    """Train and score every named model; results as of :func:`longclock.train.compare.compare`.

    Args:
        origin: what the report calls the source.
    """
    data: dict[str, Any] = {}
    models: dict[str, Any] = {}
    for name in names:
        settings = MODELS[name].settings(config)
        found = run_model(name, source, settings, bounds, options)
        if not options.team.first:
            continue
        models[name] = _measured(found, MODELS[name], settings)
        if found.figures.diverged >= 0:
            console.say(f"{name} diverged at event {found.figures.diverged:,}: try a smaller --lr")
        described = _described(found, origin)
        data = max(data or described, described, key=lambda one: one["events"])
    return {
        "data": data,
        "interest": None,
        "config": {**dataclasses.asdict(config), **dataclasses.asdict(bounds)},
        "versions": results.versions(options.device),
        "threads": torch.get_num_threads(),
        "ranks": options.team.world,
        "models": models,
    }


def _measured(found: SourcedRun, model: Model, config: Config) -> dict[str, Any]:
    run, figures = found.run, found.figures
    diverged = figures.diverged if figures.diverged >= 0 else None
    known = figures.measure()
    over_stream, by_hour = figures.over_stream(), figures.by_hour()
    if diverged is not None:
        known = dict.fromkeys(known)
        over_stream, by_hour = [None] * len(over_stream), [None] * len(by_hour)
    elif not isinstance(run.ranker, Ranker):  # only the order within an event means anything
        known = {name: value if name == "own_auc" else None for name, value in known.items()}
        over_stream, by_hour = [None] * len(over_stream), [None] * len(by_hour)
    return {
        "title": model.title,
        **known,
        "diverged": diverged,
        "seen_auc_over_stream": over_stream,
        "seen_auc_by_hour": by_hour,
        **dict.fromkeys(results.RECALL),
        "silent_units": None,
        "s_fall": None if diverged is not None else results.s_fall(run),
        "seconds": round(run.seconds, 2),
        "events_per_second": round(figures.count["events"] / max(run.seconds, 1e-9), 1),
        "similarity": results.similarity_curve(run, config.period),
    }


def _described(found: SourcedRun, origin: str) -> dict[str, Any]:
    figures, memory = found.figures, found.memory
    count = figures.count
    return {
        "name": origin,
        "events": memory.trained,
        "users": memory.users.known,
        "items": memory.items.known,
        "days": count["days"],
        "candidates": count["candidates"],
        "labels": "real" if memory.labelled else "sampled negatives",
        "negatives_repeated": None if memory.labelled else round(count["repeated"] / max(count["negatives"], 1), 4),
        "counted_new_items": round(count["counted_new"] / max(count["counted"], 1), 4),
        "history_median": figures.median_length(),
        "history_longest": figures.longest(),
        "counted_from_event": figures.counted_from,
        "unused_columns": [],
        "digest": None,
    }  # fmt: skip


def _identity(
    name: str, source: EventSource, config: Config, bounds: Bounds, memory: Memory
) -> dict[str, Any]:
    """What must be equal for a checkpoint to be gone on from; the cursor says whether it is of this source."""
    return {
        "model": name,
        "source": source.kind,
        "categories": source.categories,
        "histories": memory.kept.run if isinstance(memory.kept, StoredHistories) else None,
        **dataclasses.asdict(config),
        **dataclasses.asdict(bounds),
    }


def _length(source: EventSource) -> int | None:
    """How many events there are, where the source knows."""
    try:
        return len(source)  # type: ignore[arg-type]
    except TypeError:
        return None


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        return tensor_file.read(path)
    except checkpoint.BROKEN as error:
        raise checkpoint.broken(path.name, error) from error
