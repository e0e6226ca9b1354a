# SPDX-License-Identifier: Apache-2.0
"""Runs every model of a comparison over the same stream and gathers the results."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longclock import metrics
from longclock.data import EventStream
from longclock.train import checkpoint, results
from longclock.train.bars import Bars
from longclock.train.batches import CPU, TrainingData
from longclock.train.config import MODELS, Config
from longclock.train.counting import CountingRanker
from longclock.train.loop import Run, chunks, train
from longclock.train.team import Team

console = Bars("longclock.train")
SHOW_SECONDS = 2.0  # between two updates of the metrics in the progress bar


@dataclasses.dataclass
class Options:
    """How a comparison runs; nothing here changes a score, but for rounding on another device."""

    out: Path
    resume: bool = False
    checkpoint_seconds: float = 30.0
    warmup: float = 0.4  # share of the stream that the metrics leave out
    quiet: bool = False
    team: Team = dataclasses.field(default_factory=Team)
    device: torch.device = CPU
    histories: str | None = (
        None  # URL of a store in which a run over a source keeps them; None: in memory
    )
    unsaved: set[Path] = dataclasses.field(default_factory=set)  # checkpoints that are behind


def compare(
    stream: EventStream, names: Sequence[str], config: Config, options: Options
) -> dict[str, Any]:
    """Train and score every named model; returns the results, without command. Of several ranks the first measures."""
    found: dict[str, Any] = {}
    models: dict[str, Any] = {}
    for name in names:
        settings = MODELS[name].settings(config)
        place = MODELS[name].place(options.device)
        data = TrainingData.of(stream, settings, MODELS[name].shuffled_times, place)
        counted_from = int(options.warmup * len(stream))
        run = run_model(name, data, settings, options, counted_from)
        if not options.team.first:
            continue
        models[name] = {
            "title": MODELS[name].title,
            **results.measure(run, data, counted_from),
            "similarity": results.similarity_curve(run, settings.period),
        }
        if models[name]["diverged"] is not None:
            console.say(
                f"{name} diverged at event {models[name]['diverged']:,}: try a smaller --lr"
            )
        found.setdefault("data", results.describe(data, counted_from))
        found.setdefault("interest", None)
        if found["interest"] is None or name == "lic":  # the clock's, else the first model's
            interest = results.interest_over_a_day(run, data)
            if interest is not None:
                found["interest"] = {"model": MODELS[name].title, **interest}
        if name == "lic":
            found["clock"] = results.clock_face(run, data)
    return {
        **found,
        "config": dataclasses.asdict(config),
        "versions": results.versions(options.device),
        "threads": torch.get_num_threads(),
        "ranks": options.team.world,
        "models": models,
    }


def run_model(
    name: str, data: TrainingData, config: Config, options: Options, counted_from: int
) -> Run:
    """One model over the whole stream, from its checkpoint where that is asked for and there."""
    run = Run.start(data, MODELS[name], config)
    path = options.out / "checkpoints" / f"{name}.safetensors"
    identity = checkpoint.identity(name, data.stream, config)
    parts = chunks(data.stream, config)
    team = options.team
    kept = team.from_first(lambda: path.read_bytes() if options.resume and path.exists() else None)
    if kept is not None:
        checkpoint.restore(path.name, kept, run, identity, data, parts)
    done = sum(len(part) for part in parts[: run.chunk])
    saved = shown = time.monotonic()

    with console.progress(
        total=len(data.stream), initial=done, desc=f"{MODELS[name].title:20}", unit=" events",
        disable=options.quiet or not team.first, mininterval=0.5,
    ) as bar:  # fmt: skip

        def after_chunk(run: Run, events: int) -> None:
            nonlocal saved, shown
            if not team.first:
                return
            bar.update(events)
            now = time.monotonic()
            last = run.chunk == len(parts)
            if last or now - shown >= SHOW_SECONDS:
                bar.set_postfix(_so_far(run, data, bar.n, counted_from))
                shown = now
            if last or now - saved >= options.checkpoint_seconds:
                save(path, partial(checkpoint.save, path, run, identity, data, parts), options)
                saved = now

        train(run, data, config, after_chunk, team)
    return run


def save(path: Path, write: Callable[[], None], options: Options) -> None:
    """A checkpoint, which ``write`` writes, or a word why there is none: training goes on, and the next one is tried all the same."""
    try:
        write()
        options.unsaved.discard(path)
    except OSError as error:
        if path not in options.unsaved:
            options.unsaved.add(path)
            console.say(
                f"{path} cannot be written: {error.strerror}; training goes on and tries again"
            )


def _so_far(run: Run, data: TrainingData, events: int, counted_from: int) -> dict[str, str]:
    """Seen AUC and UAUC of what counts, or what the table has of the model; before that, of everything so far."""
    first = counted_from if events > counted_from else 0
    rows = slice(int(data.candidates.first_row[first]), int(data.candidates.first_row[events]))
    seen = data.seen[rows]
    score = run.scores[rows].numpy()[seen]
    if not np.isfinite(score).all():
        return {"seen AUC": "diverged"}
    label, event = data.candidates.label[rows][seen], data.candidates.event[rows][seen]
    if isinstance(run.ranker, CountingRanker):  # only the order within an event means anything
        own = data.stream.pair_seen()[event]
        auc = metrics.uauc(event[own], label[own], score[own])
        return {"seen AUC": "n/a", "own AUC": _shown(auc)}
    auc, uauc = metrics.auc(label, score), metrics.uauc(data.stream.user[event], label, score)
    return {"seen AUC": _shown(auc), "seen UAUC": _shown(uauc)}


def _shown(value: float) -> str:
    """As the table has it."""
    return f"{value:.4f}" if math.isfinite(value) else "n/a"
