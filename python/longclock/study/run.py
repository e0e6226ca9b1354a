# SPDX-License-Identifier: Apache-2.0
"""One run of a study, and what is measured of it."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from typing import Any

import numpy as np
import torch

from longclock.data import EventStream
from longclock.data.stream import DAY, IntArray
from longclock.study.plan import Task
from longclock.train import results
from longclock.train.batches import CPU, TrainingData
from longclock.train.config import MODELS, Config
from longclock.train.loop import Run, score, train

ASKED_EVENTS = 64  # whose predictions are asked for at other times of the day
HOUR = 3600
COSTED_EVENTS = 1000


def run_task(
    task: Task, stream: EventStream, config: Config, counted: float, device: torch.device = CPU
) -> dict[str, Any]:
    """Carry a model through the stream; returns the JSON line without the data's part.

    A run on a part of the stream counts the last half of it; one on the whole, what lies behind the share ``counted``.
    One that diverges gives a line as well: its figures are None, and ``diverged`` is the event at which it did.
    """
    stream = stream.head(max_events=int(task.share * len(stream)))
    model = MODELS[task.model]
    settings = model.settings(config)
    data = TrainingData.of(stream, settings, model.shuffled_times, model.place(device))
    run = Run.start(data, model, settings)
    train(run, data, settings, lambda run, events: None)
    whole = task.share == 1.0
    counted_from = int((counted if whole else 0.5) * len(stream))
    found = results.measure(run, data, counted_from)
    line: dict[str, Any] = {
        **dataclasses.asdict(task),
        "title": model.title,
        **{
            name: found[name]
            for name in (
                *results.METRICS,
                "seen_auc_by_hour",
                "recall_of_attention",
                "best_recall",
                "silent_units",
                "s_fall",
                "seconds",
                "diverged",
            )
        },
    }
    if whole and found["diverged"] is not None:
        line.update(
            bias_by_hour=[None] * 24,
            bias_swing=None,
            jump=None,
            mid_hour_change=None,
            ms_per_1000=None,
        )
    elif whole:
        bias = bias_by_hour(run, data, counted_from)
        known = [value for value in bias if value is not None]
        line["bias_by_hour"] = bias
        line["bias_swing"] = max(known) - min(known) if known else None
        line["jump"], line["mid_hour_change"] = jumps(run, data)
        line["ms_per_1000"] = cost(run, data)
    return {key: _plain(value) for key, value in line.items()}


def bias_by_hour(run: Run, data: TrainingData, counted_from: int) -> list[float | None]:
    """Mean prediction less mean label of the candidates of every hour of the day; None without any."""
    event = data.candidates.event
    counted = event >= counted_from
    hour = (data.stream.time % DAY // HOUR)[event][counted]
    excess = torch.sigmoid(run.scores.double()).numpy()[counted] - data.candidates.label[counted]
    number, total = np.bincount(hour, minlength=24), np.bincount(hour, excess, minlength=24)
    return [float(total[h] / number[h]) if number[h] else None for h in range(24)]


def jumps(run: Run, data: TrainingData) -> tuple[float, float]:
    """Mean change of a prediction, user and candidate the same, from one minute before an hour to one after;
    and over the same two minutes in the middle of an hour.

    At the end of the stream, for some of its last events and the 23 edges within a day.
    """
    count = len(data.stream)
    events = np.unique(np.linspace(0.9 * count, count - 1, ASKED_EVENTS).astype(np.int64))
    edges = np.arange(1, 24) * HOUR

    def probabilities(shift: int) -> torch.Tensor:
        return torch.cat([_asked(run, data, events, int(edge) + shift) for edge in edges])

    around = [probabilities(shift) for shift in (-60, 60, HOUR // 2 - 60, HOUR // 2 + 60)]
    edge, middle = (float((b - a).abs().mean()) for a, b in (around[:2], around[2:]))
    return edge, middle


@torch.no_grad()
def _asked(run: Run, data: TrainingData, events: IntArray, second: int) -> torch.Tensor:
    """Predictions for all candidates of the events, had they been asked for at that second of their day."""
    batch = data.batch(events)
    time = (data.stream.time[events] // DAY * DAY + second) % data.period
    return torch.sigmoid(run.ranker(batch._replace(time=torch.from_numpy(time).int()), data))


def cost(run: Run, data: TrainingData) -> float:
    """Milliseconds to score 1,000 candidates of the last events, as they come, on this machine."""
    count = len(data.stream)
    events = np.arange(max(count - COSTED_EVENTS, 0), count)
    candidates = len(data.candidates.rows(events))
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        score(run.ranker, data, events).cpu()  # waits for it
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) / candidates * 1e6


def _plain(value: Any) -> Any:
    """Five digits are more than a seed moves; JSON has no NaN."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
