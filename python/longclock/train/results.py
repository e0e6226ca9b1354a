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
from longclock._constants import ELAPSED
from longclock.data import EventStream
from longclock.data.item_names import ItemNames
from longclock.data.stream import DAY, IntArray
from longclock.nn import LongTermInterestClock, TimeSimilarity
from longclock.train.batches import Batch, TrainingData
from longclock.train.config import METRICS
from longclock.train.counting import CountingRanker
from longclock.train.loop import Run
from longclock.train.ranker import Inputs

POINTS = 96  # of a clock's curve: every 15 minutes of a day
PARTS = 40  # of the stream, for its AUC over time
INTEREST_LINES = 4  # of a user's day: categories, or items where these have none
INTEREST_ITEMS = 8  # of a category
FACE_BEHAVIOURS = 2000  # of a history that a clock's face shows
FAR_HOURS = 6
LONG = 10_000  # behaviours of a long history
ASKED = 256  # of the last events, to see which units of the tower are silent
RECALL = ("recall_of_attention", "best_recall", "recall_k")
RECALLED = 256  # events, for the share of the attention that the search finds
RECALLED_AT_ONCE = 16  # of these: their whole histories are scored
# In the order of :func:`measure`. ``own_auc``: within single events whose item the user took before.


def versions(device: torch.device) -> dict[str, str]:
    """Versions of what the figures depend on, and where the models run."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {
        "longclock": longclock.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "simd": _native.simd_level(),
        "device": gpu or device.type,
    }


def describe(data: TrainingData, counted_from: int) -> dict[str, Any]:
    """The data in a few numbers."""
    stream, lengths, candidates = data.stream, data.histories.lengths, data.candidates
    counted = np.arange(len(stream)) >= counted_from
    return {
        "name": stream.name,
        "events": len(stream),
        "users": len(np.unique(stream.user)),
        "items": len(np.unique(stream.item)),
        "days": len(np.unique(stream.day())),
        "candidates": len(candidates.item),
        "labels": "sampled negatives" if stream.label is None else "real",
        "repeats": round(float(stream.pair_seen().mean()), 4),
        "negatives_repeated": None if stream.label is not None else round(candidates.repeated(), 4),
        "counted_new_items": round(float(1 - stream.item_seen()[counted].mean()), 4),
        "history_median": int(np.median(lengths)),
        "history_longest": int(lengths.max()),
        "counted_from_event": counted_from,
        "unused_columns": list(stream.unused_columns),
        "digest": stream.digest(),
    }


def measure(run: Run, data: TrainingData, counted_from: int) -> dict[str, Any]:
    """Metrics of one model over the events from ``counted_from`` on, whole and in parts.

    ``seen_...`` are over the events whose item occurred before: an item's first event can only be a positive where negatives
    are sampled. ``seen_auc_long``: over those whose history is ``LONG`` or longer. Of a run that diverged there are no
    metrics: all are None, and ``diverged`` is the event at which it did.
    """
    event, label, seen = data.candidates.event, data.candidates.label, data.seen
    seconds = round(run.seconds, 2)
    wrong = ~run.scores.isfinite()
    if wrong.any():
        return {
            **dict.fromkeys(METRICS), "diverged": int(event[int(wrong.int().argmax())]),
            "seen_auc_over_stream": [None] * PARTS, "seen_auc_by_hour": [None] * 24,
            **dict.fromkeys(RECALL), "silent_units": None, "s_fall": None, "seconds": seconds, "events_per_second": None,
        }  # fmt: skip
    score = run.scores.numpy()
    counted = event >= counted_from
    scored = counted & seen
    own = scored & data.stream.pair_seen()[event]
    long = scored & (data.histories.lengths[event] >= LONG)
    user = data.stream.user[event]
    probability = torch.sigmoid(run.scores[torch.from_numpy(counted)].double()).numpy()
    hour = data.stream.time % DAY // 3600
    part = np.arange(len(data.stream)) * PARTS // len(data.stream)
    figures: tuple[float, ...] = (
        metrics.auc(label[scored], score[scored]),
        metrics.uauc(user[scored], label[scored], score[scored]),
        metrics.auc(label[long], score[long]),
        metrics.uauc(event[own], label[own], score[own]),
        metrics.auc(label[counted], score[counted]),
        metrics.logloss(label[counted], probability),
    )
    known = dict(zip(METRICS, map(_known, figures), strict=True))
    over_stream = _auc_by(part[event[seen]], PARTS, label[seen], score[seen])
    of_hours = _auc_by(hour[event][scored], 24, label[scored], score[scored])
    if isinstance(run.ranker, CountingRanker):  # only the order within an event means anything
        known = {name: value if name == "own_auc" else None for name, value in known.items()}
        over_stream, of_hours = [None] * PARTS, [None] * 24
    return {
        **known,
        "diverged": None,
        "seen_auc_over_stream": over_stream,
        "seen_auc_by_hour": of_hours,
        **recall_of_attention(run, data, counted_from),
        "silent_units": silent_units(run, data),
        "s_fall": s_fall(run),
        "seconds": seconds,
        "events_per_second": round(len(data.stream) / max(run.seconds, 1e-9), 1),
    }


@torch.no_grad()
def recall_of_attention(run: Run, data: TrainingData, counted_from: int) -> dict[str, Any]:
    """:func:`longclock.metrics.recall_of_attention` at the model's k, which is ``recall_k``; ``best_recall``: of the k behaviours with
    the largest mass, than which no search can find more. All None for a model that does not search once, or whose
    histories are not longer than k.

    By the weights at the end of the run, over all candidates of up to RECALLED counted events, evenly spread, whose histories
    are longer than k: of shorter ones everything is found.
    """
    nothing = dict.fromkeys(RECALL)
    interest, k = run.ranker.interest, getattr(run.ranker.interest, "k", None)
    events = counted_from + np.flatnonzero(data.histories.lengths[counted_from:] > (k or 0))
    if isinstance(run.ranker, CountingRanker) or k is None or not len(events):
        return nothing
    events = events[np.unique(np.linspace(0, len(events) - 1, RECALLED).astype(np.int64))]
    shares: list[tuple[float, float]] = []
    for part in np.array_split(events, -(-len(events) // RECALLED_AT_ONCE)):
        inputs = Inputs(run.ranker, data.batch(part), data)
        found = interest.search(*inputs.call, **inputs.reads)
        if found is None:
            return nothing
        mass = interest.attention_mass(*inputs.call)
        most = mass.topk(min(k, mass.shape[1]), 1).indices
        share, best = (
            metrics.recall_of_attention(mass.cpu().numpy(), i.cpu().numpy()) for i in (found, most)
        )
        shares += [(share, best)] * len(found)
    return dict(zip(RECALL, [*map(_known, np.mean(shares, 0).tolist()), k], strict=True))


@torch.no_grad()
def silent_units(run: Run, data: TrainingData) -> float | None:
    """Share of the tower's ReLUs that are 0 for all candidates of the last events; at 1 the score is a constant."""
    tower = getattr(run.ranker, "tower", None)
    if tower is None:
        return None
    found: list[torch.Tensor] = []
    hook = tower[1].register_forward_hook(lambda *call: found.append(call[-1]))
    count = len(data.stream)
    try:
        run.ranker(data.batch(np.arange(max(count - ASKED, 0), count)), data)
    finally:
        hook.remove()
    return round(float((found[0] == 0).all(0).float().mean()), 4)


@torch.no_grad()
def s_fall(run: Run) -> float | None:
    """How far the learned s() falls from difference 0 to half the period, negative where it rises; None without one."""
    time = _learned_similarity(run)
    if time is None:
        return None
    (period,) = time.clocks
    assert isinstance(period, int)
    near, far = time(torch.tensor([0, period // 2], device=time.w1.device)).tolist()
    return _known(near - far)


def _learned_similarity(run: Run) -> TimeSimilarity | None:
    interest = run.ranker.interest
    if not isinstance(interest, LongTermInterestClock):
        return None
    time = interest.time
    one_circle = len(interest.clocks) == 1 and interest.clocks[0] != ELAPSED
    if not isinstance(time, TimeSimilarity) or not one_circle:
        return None  # there is no one curve over a day
    return time if time.w1.requires_grad else None


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
    time = _learned_similarity(run)
    if time is None:
        return None
    delta = torch.linspace(0, period // 2, POINTS // 2 + 1).long()
    s = time(delta.to(time.w1.device))
    return {"hours": (delta / 3600).tolist(), "s": s.tolist()} if s.isfinite().all() else None


@torch.no_grad()
def interest_over_a_day(run: Run, data: TrainingData) -> dict[str, Any] | None:
    """How likely the most active user takes their most frequent items of each of their most frequent categories, over 24 hours;
    of a stream without categories their most frequent items.

    On the day of the user's last event, with all of the user's behaviours in view from where the last
    event's window starts. None where the model diverged.
    """
    stream = data.stream
    user, own = _most_active(stream)
    field, items, groups = _most_frequent(stream, stream.item[own])
    batch = _on_the_last_day(data, own, np.arange(POINTS) * (DAY // POINTS), items)
    probability = torch.sigmoid(run.ranker(batch, data)).unflatten(0, (POINTS, len(items)))
    if not probability.isfinite().all():
        return None
    curves, item_names = [], ItemNames(stream)
    lines = list(dict.fromkeys(groups.tolist()))
    for item, group, curve in zip(items, groups.tolist(), probability.T.tolist(), strict=True):
        taken = own[stream.item[own] == item]
        hours = stream.time[taken] % DAY // 3600
        curves.append(
            {
                "name": item_names(int(item)),
                "group": lines.index(group),
                "probability": curve,
                "events_by_hour": np.bincount(hours, minlength=24).tolist(),
            }
        )
    names = stream.category_names.get(field)
    return {
        "user": user,
        "events": len(own),
        "hours": (np.arange(POINTS) * 24 / POINTS).tolist(),
        "by": field or "item",
        "names": [names[line] if names else f"{field} {line}" for line in lines]
        if field
        else [curve["name"] for curve in curves],
        "items": curves,
    }


def _most_frequent(stream: EventStream, taken: IntArray) -> tuple[str, IntArray, IntArray]:
    """The coarsest attribute, the most frequent items of its most frequent values among ``taken``, and the value of each; where
    nothing is known of the items the attribute is empty, and each has a value of its own."""
    items, counts = np.unique(taken, return_counts=True)
    items, counts = (each[np.argsort(-counts, kind="stable")] for each in (items, counts))
    tables = stream.item_categories()
    field = min(tables, key=lambda name: stream.category_sizes[name], default="")
    of_item = tables[field][items] if field else np.zeros_like(items)  # 0 is unknown
    often = np.bincount(of_item, counts)
    often[0] = 0
    lines = np.argsort(-often, kind="stable")[:INTEREST_LINES]
    found = [np.flatnonzero(of_item == line)[:INTEREST_ITEMS] for line in lines if often[line]]
    if not found:
        return "", items[:INTEREST_LINES], np.arange(len(items))[:INTEREST_LINES]
    places = np.concatenate(found)
    return field, items[places], of_item[places]


@torch.no_grad()
def clock_face(run: Run, data: TrainingData) -> dict[str, Any] | None:
    """What the clock looks at: its learned s, and which behaviours of the most active user its search keeps for their most
    frequent item at two hours, those of their most events. The latest ``FACE_BEHAVIOURS`` of the history are searched.

    ``groups`` are the coarsest attribute of the behaviours' items, of which ``names`` are. None for a model without one such s,
    or whose search kept nothing.
    """
    curve, interest = similarity_curve(run, data.period), run.ranker.interest
    if curve is None or data.period != DAY or isinstance(run.ranker, CountingRanker):
        return None
    stream = data.stream
    user, own = _most_active(stream)
    item = np.array([np.bincount(stream.item[own]).argmax()])
    hours = _busy_hours(stream.time[own])
    batch = _on_the_last_day(data, own, 3600 * hours, item)
    end = int(batch.ends[0])
    batch = batch._replace(starts=batch.starts.clamp(min=end - FACE_BEHAVIOURS))
    start = int(batch.starts[0])
    inputs = Inputs(run.ranker, batch, data)
    found = interest.search(*inputs.call, **inputs.reads)
    if found is None or start == end:
        return None
    behaviours = data.histories.item[start:end]
    tables = stream.item_categories()
    field = min(tables, key=lambda name: stream.category_sizes[name], default="")
    return {
        "user": user,
        "item": ItemNames(stream)(int(item[0])),
        "similarity": curve,
        "hours": hours.tolist(),
        "kept": [own[own >= 0].tolist() for own in found.cpu()],
        "times": data.histories.time[start:end].tolist(),
        "groups": tables[field][behaviours].tolist() if field else [0] * len(behaviours),
        "names": stream.category_names.get(field, []),
    }


def _busy_hours(time: IntArray) -> IntArray:
    """The hour of the day with most of the events, and of those FAR_HOURS from it or farther that with most."""
    counts = np.bincount(time % DAY // 3600, minlength=24)
    first = int(counts.argmax())
    apart = np.abs(np.arange(24) - first)
    far = np.minimum(apart, 24 - apart) >= FAR_HOURS
    return np.array([first, int(np.where(far, counts, -1).argmax())])


def _most_active(stream: EventStream) -> tuple[int, IntArray]:
    """The user with most events, and these."""
    user = int(np.bincount(stream.user).argmax())
    return user, np.flatnonzero(stream.user == user)


def _on_the_last_day(
    data: TrainingData, own: IntArray, seconds: IntArray, items: IntArray
) -> Batch:
    """A user is asked for items at times of the day of their last event, with all of their behaviours in view from where that
    event's window starts; ``own``: all their events."""
    stream, user = data.stream, int(data.stream.user[own[-1]])
    last_day = stream.time[own[-1]] // DAY * DAY
    count = len(seconds)
    many = torch.zeros(count, dtype=torch.int64)
    return Batch(
        number=many + int(own[-1]),
        user=many + user,
        time=torch.from_numpy(((last_day + seconds) % data.period).astype(np.int32)),
        starts=many + int(data.histories.starts[own[-1]]),
        ends=many + int((stream.user < user).sum()) + len(own),
        event=torch.arange(count).repeat_interleave(len(items)),
        query_offsets=torch.arange(count + 1) * len(items),
        item=torch.from_numpy(items).repeat(count),
        label=torch.zeros(count * len(items)),
    )
