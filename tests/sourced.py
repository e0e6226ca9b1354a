# SPDX-License-Identifier: Apache-2.0
"""Runs over a source for the tests, and the same events for a run that holds them all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from streams import stream
from torch import Tensor

from longclock.data import EventStream
from longclock.data.sources import ArrowSource, EventSource
from longclock.train.batches import TrainingData
from longclock.train.compare import Options
from longclock.train.config import MODELS, Config
from longclock.train.loop import Run, train
from longclock.train.memory import Bounds, Memory
from longclock.train.running import RunningFigures
from longclock.train.sourced import SourcedRun, excerpts
from longclock.train.tables import begin

SMALL = Config(batch=16, k=3, heads=2, head_dim=4, recent=5, history=1000)
MANY = Bounds(events=48)  # excerpts
ROWS = 1024  # of every table, as long as there are no more ids


def by_appearance(ids: np.ndarray, least: int = 0) -> np.ndarray:
    """Ids numbered in the order in which they come."""
    _, first, place = np.unique(ids, return_index=True, return_inverse=True)
    return least + np.argsort(np.argsort(first))[place]


def events(labels: bool = False, **sizes: int) -> EventStream:
    """A small stream as a run over a source numbers its ids."""
    made = stream(labels=labels, **sizes)
    return dataclasses.replace(
        made,
        user=by_appearance(made.user),
        item=by_appearance(made.item),
        categories={"category": by_appearance(made.categories["category"], 1)},
        users=ROWS,
        items=ROWS,
        category_sizes={"category": ROWS},
    )


def table_of(made: EventStream) -> pa.Table:
    """Its events with texts for ids, in which nobody sees a number."""
    columns: dict[str, Any] = {
        "user": [f"user {u}" for u in made.user],
        "item": [f"item {i}" for i in made.item],
        "time": made.time,
        "order_time": made.order_time,
        "category": [f"kind {c}" for c in made.categories["category"]],
    }
    if made.label is not None:
        columns["label"] = made.label
    return pa.table(columns)


def source_of(made: EventStream, rows: int = 37) -> EventSource:
    table = table_of(made)
    return ArrowSource(lambda: table.to_batches(max_chunksize=rows), categories=["category"])


def memory_of(config: Config, bounds: Bounds) -> Memory:
    return Memory(config, bounds, ["category"])


def run_over(
    source: EventSource, config: Config, bounds: Bounds = MANY, name: str = "lic"
) -> tuple[SourcedRun, Tensor]:
    """A run at the end of a source, and the scores of all candidates."""
    config = MODELS[name].settings(config)
    memory, figures = (
        Memory(config, bounds, source.categories),
        RunningFigures(0, config.history or 0),
    )
    found: SourcedRun | None = None
    scores = []
    for excerpt in excerpts(source, memory):
        found = found or SourcedRun.start(MODELS[name], config, memory, figures)
        found.carry(excerpt, config, Options(Path("unused"), quiet=True))
        scores.append(found.run.scores)
    assert found is not None
    return found, torch.cat(scores)


def run_in_memory(made: EventStream, config: Config, name: str = "lic") -> tuple[Run, TrainingData]:
    """A run that holds all events, whose tables start as those of a run over a source."""
    config = MODELS[name].settings(config)
    data = TrainingData.of(made, config)
    run = Run.start(data, MODELS[name], config)
    begin(run, data.catalogue, config)
    train(run, data, config, lambda run, events: None)
    return run, data
