# SPDX-License-Identifier: Apache-2.0
"""What a run found, as plain numbers: everything that the report shows, and what the JSON holds."""

from __future__ import annotations

import itertools
import math
import platform
from typing import Any

import numpy as np
import torch

import longclock
from longclock import _native, metrics
from longclock.data import EventStream
from longclock.data.stream import DAY, IntArray
from longclock.nn import LongTermInterestClock
from longclock.train.batches import Batch, TrainingData
from longclock.train.loop import Run

POINTS = 96  # of a clock's curve: every 15 minutes of a day
PARTS = 40  # of the stream, for its AUC over time
INTEREST_ITEMS = 4


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    return {
        "longclock": longclock.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "simd": _native.simd_level(),
    }


def describe(data: TrainingData, counted_from: int) -> dict[str, Any]:
    """The data in a few numbers."""
    stream, lengths = data.stream, data.histories.lengths
    return {
        "name": stream.name,
        "events": len(stream),
        "users": len(np.unique(stream.user)),
        "items": len(np.unique(stream.item)),
        "days": len(np.unique(stream.day())),
        "candidates": len(data.candidates.item),
        "labels": "sampled negatives" if stream.label is None else "real",
        "history_median": int(np.median(lengths)),
        "history_longest": int(lengths.max()),
        "counted_from_event": counted_from,
        "unused_columns": list(stream.unused_columns),
        "digest": stream.digest(),
    }


def measure(run: Run, data: TrainingData, counted_from: int) -> dict[str, Any]:
    """Metrics of one model over the events from ``counted_from`` on, whole and in parts.

    Of a run that diverged there are none: all are None, and ``diverged`` is the event at which it did.
    """
    event, label = data.candidates.event, data.candidates.label
    seconds = round(run.seconds, 2)
    wrong = ~run.scores.isfinite()
    if wrong.any():
        return {
            "auc": None, "uauc": None, "logloss": None, "diverged": int(event[int(wrong.int().argmax())]),
            "auc_over_stream": [None] * PARTS, "auc_by_hour": [None] * 24,
            "seconds": seconds, "events_per_second": None,
        }  # fmt: skip
    score = run.scores.numpy()
    counted = event >= counted_from
    user = data.stream.user[event]
    probability = torch.sigmoid(run.scores[torch.from_numpy(counted)].double()).numpy()
    hour = data.stream.time % DAY // 3600
    part = np.arange(len(data.stream)) * PARTS // len(data.stream)
    return {
        "auc": _known(metrics.auc(label[counted], score[counted])),
        "uauc": _known(metrics.uauc(user[counted], label[counted], score[counted])),
        "logloss": _known(metrics.logloss(label[counted], probability)),
        "diverged": None,
        "auc_over_stream": _auc_by(part[event], PARTS, label, score),
        "auc_by_hour": _auc_by(hour[event][counted], 24, label[counted], score[counted]),
        "seconds": seconds,
        "events_per_second": round(len(data.stream) / max(run.seconds, 1e-9), 1),
    }


def _known(value: float) -> float | None:
    """JSON has no NaN: what cannot be said is None."""
    return value if math.isfinite(value) else None


def _auc_by(group: IntArray, groups: int, label: Any, score: Any) -> list[float | None]:
    """AUC within every group; None where a group has one class only."""
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(groups + 1))
    pieces = [order[a:b] for a, b in itertools.pairwise(bounds)]
    return [_known(metrics.auc(label[piece], score[piece])) for piece in pieces]


@torch.no_grad()
def similarity_curve(run: Run, period: int) -> dict[str, Any] | None:
    """The learned s() over differences from 0 to half the period; None for models without it, or whose weights diverged."""
    interest = run.ranker.interest
    if not isinstance(interest, LongTermInterestClock) or not interest.time.w1.requires_grad:
        return None
    delta = torch.linspace(0, period // 2, POINTS // 2 + 1).long()
    s = interest.time(delta)
    return {"hours": (delta / 3600).tolist(), "s": s.tolist()} if s.isfinite().all() else None


@torch.no_grad()
def interest_over_a_day(run: Run, data: TrainingData) -> dict[str, Any] | None:
    """How likely the most active user takes each of their most frequent items, over 24 hours.

    On the day of the user's last event, with all of the user's behaviours in view from where the last
    event's window starts. None where the model diverged.
    """
    stream = data.stream
    user = int(np.bincount(stream.user).argmax())
    own = np.flatnonzero(stream.user == user)
    items = np.argsort(-np.bincount(stream.item[own]), kind="stable")[:INTEREST_ITEMS]
    items = np.intersect1d(items, stream.item[own])
    last_day = stream.time[own[-1]] // DAY * DAY
    clock = (last_day + np.arange(POINTS) * (DAY // POINTS)) % data.period
    many = torch.zeros(POINTS, dtype=torch.int64)
    last_moment = int((stream.order_time[own] == stream.order_time[own[-1]]).sum())
    batch = Batch(
        number=many + int(own[-1]),
        user=many + user,
        time=torch.from_numpy(clock.astype(np.int32)),
        starts=many + int(data.histories.starts[own[-1]]),
        ends=many + int(data.histories.ends[own[-1]]) + last_moment,
        event=torch.arange(POINTS).repeat(len(items)),
        item=torch.from_numpy(items).repeat_interleave(POINTS),
        label=torch.zeros(POINTS * len(items)),
    )
    probability = torch.sigmoid(run.ranker(batch, data)).unflatten(0, (len(items), POINTS))
    if not probability.isfinite().all():
        return None
    curves = []
    for item, curve in zip(items, probability.tolist(), strict=True):
        taken = own[stream.item[own] == item]
        hours = stream.time[taken] % DAY // 3600
        curves.append(
            {
                "name": _item_name(stream, int(item)),
                "probability": curve,
                "events_by_hour": np.bincount(hours, minlength=24).tolist(),
            }
        )
    return {
        "user": user,
        "events": len(own),
        "hours": (np.arange(POINTS) * 24 / POINTS).tolist(),
        "items": curves,
    }


def _item_name(stream: EventStream, item: int) -> str:
    """``Coffee Shop (12)``: the finest known attribute that has names, and the item's number."""
    tables = stream.item_categories()
    for name in reversed(list(tables)):
        ids = int(tables[name][item])
        if ids and name in stream.category_names:
            return f"{stream.category_names[name][ids]} ({item})"
    return f"item {item}"
