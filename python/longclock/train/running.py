# SPDX-License-Identifier: Apache-2.0
"""Figures of a run over a source: added up as events are scored, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longclock import metrics
from longclock.data.stream import DAY, IntArray
from longclock.train.checkpoint import of_kind
from longclock.train.excerpt import Excerpt
from longclock.train.results import LONG

FINE, COARSE = (
    18,
    14,
)  # bits of a score that bins tell apart: sign, exponent, and 9 or 5 of the mantissa
COUNTS = ("events", "candidates", "counted", "counted_new", "negatives", "repeated", "days", "day", "own_rows", "losses")  # fmt: skip
FloatArray = npt.NDArray[np.float64]


class Bins:
    """How many candidates of each label have a score, by its leading bits, in each of some groups."""

    def __init__(self, groups: int, bits: int) -> None:
        self.bits = bits
        self.counts = np.zeros((groups, 2, 1 << bits), np.int64)

    def add(self, group: IntArray | int, label: IntArray, score: npt.NDArray[np.float32]) -> None:
        """Candidates ``[R]`` with finite scores."""
        size = 1 << self.bits
        place = (np.zeros_like(label) + group) * 2 * size + label * size + self._bin(score)
        np.add.at(self.counts.reshape(-1), place, 1)

    def auc(self, group: int = 0) -> float | None:
        """The area under the ROC curve, scores of one bin being equal; None of one class alone."""
        negative, positive = self.counts[group].astype(np.float64)
        pairs = negative.sum() * positive.sum()
        if not pairs:
            return None
        below = np.cumsum(negative) - negative
        return float((positive * (below + negative / 2)).sum() / pairs)

    def _bin(self, score: npt.NDArray[np.float32]) -> IntArray:
        bits = (score + np.float32(0)).view(np.int32)  # -0 is 0
        ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
        return (ordered >> (32 - self.bits)).astype(np.int64) + (1 << (self.bits - 1))


class RunningFigures:
    """What :func:`longclock.train.results.measure` says of a run, as far as it can be added up.

    Args:
        counted_from: event of the source from which on metrics count.
        longest: the most behaviours of a window.
    """

    def __init__(self, counted_from: int, longest: int) -> None:
        self.counted_from = counted_from
        self.count = dict.fromkeys(COUNTS, 0)
        self.sums = np.zeros(2)  # own AUC times rows, log loss
        self.lengths = np.zeros(longest + 1, np.int64)
        self.of_days = np.zeros(0)  # AUC of every day that is over, NaN where there is none
        self.bins = {"seen": Bins(1, FINE), "all": Bins(1, FINE), "long": Bins(1, FINE), "day": Bins(1, COARSE), "hour": Bins(24, COARSE)}  # fmt: skip
        self.diverged = -1  # event at which a score was not finite

    def add(self, excerpt: Excerpt, scores: Tensor, end: int) -> None:
        """The events of an excerpt from its first to ``end``, whose candidates' scores these are."""
        candidates, stream, first = excerpt.candidates, excerpt.stream, excerpt.first
        rows = int(candidates.first_row[end])
        event, label = candidates.event[:rows], candidates.label[:rows]
        score = scores[:rows].numpy()
        bad = ~np.isfinite(score)
        if bad.any():  # what came before counts
            end = int(event[bad.argmax()])
            self.diverged = excerpt.before + end
            rows = int(candidates.first_row[end])
            event, label, score = event[:rows], label[:rows], score[:rows]
        new = np.arange(first, end)
        counted_events = excerpt.before + new >= self.counted_from
        counted = excerpt.before + event >= self.counted_from
        seen = excerpt.seen[:rows]
        self.count["events"] += len(new)
        self.count["candidates"] += rows
        self.count["counted"] += int(counted_events.sum())
        self.count["counted_new"] += int((counted_events & ~excerpt.item_seen[new]).sum())
        negatives = int((label == 0).sum())
        self.count["negatives"] += negatives
        self.count["repeated"] += round(candidates.repeated() * negatives)
        lengths = excerpt.lengths
        self.lengths += np.bincount(lengths[new], minlength=len(self.lengths))
        scored = counted & seen
        hour = stream.time[event] % DAY // 3600
        self.bins["seen"].add(0, label[scored], score[scored])
        self.bins["all"].add(0, label[counted], score[counted])
        self.bins["hour"].add(hour[scored], label[scored], score[scored])
        long = scored & (lengths[event] >= LONG)
        self.bins["long"].add(0, label[long], score[long])
        own = scored & excerpt.pair_seen[event]
        self._add_own(event[own], label[own], score[own])
        probability = torch.sigmoid(scores[:rows][torch.from_numpy(counted)].double()).numpy()
        if counted.any():
            self.sums[1] += metrics.logloss(label[counted], probability) * counted.sum()
            self.count["losses"] += int(counted.sum())
        self._add_days(stream.order_time, event[seen], label[seen], score[seen], new)

    def _add_own(self, event: IntArray, label: IntArray, score: Any) -> None:
        """AUC within single events, weighted by their rows."""
        if not len(event):
            return
        rows, positives = np.bincount(event), np.bincount(event, label)
        weight = int(rows[(positives > 0) & (positives < rows)].sum())
        if weight:
            self.sums[0] += metrics.uauc(event, label, score) * weight
            self.count["own_rows"] += weight

    def _add_days(
        self, order_time: IntArray, event: IntArray, label: IntArray, score: Any, new: IntArray
    ) -> None:
        day = order_time // DAY
        for one in np.unique(day[new]):
            if one != self.count["day"] or not self.count["days"]:
                if self.count["days"]:
                    self._end_day()
                self.count["day"] = int(one)
                self.count["days"] += 1
            own = day[event] == one
            self.bins["day"].add(0, label[own], score[own])

    def _end_day(self) -> None:
        auc = self.bins["day"].auc()
        self.of_days = np.append(self.of_days, np.nan if auc is None else auc)
        self.bins["day"].counts[:] = 0

    def over_stream(self) -> list[float | None]:
        """Seen AUC of every day."""
        days = [None if np.isnan(auc) else float(auc) for auc in self.of_days]
        return [*days, self.bins["day"].auc()]

    def measure(self) -> dict[str, float | None]:
        """Metrics by name; a user's own AUC, which takes all of their scores, is not among what is known."""
        own, loss = self.count["own_rows"], self.count["losses"]
        return {
            "seen_auc": self.bins["seen"].auc(),
            "seen_uauc": None,
            "seen_auc_long": self.bins["long"].auc(),
            "own_auc": float(self.sums[0] / own) if own else None,
            "auc": self.bins["all"].auc(),
            "logloss": float(self.sums[1] / loss) if loss else None,
        }

    def by_hour(self) -> list[float | None]:
        """Seen AUC of every local hour."""
        return [self.bins["hour"].auc(hour) for hour in range(24)]

    def median_length(self) -> int:
        """Of the windows."""
        total = np.cumsum(self.lengths)
        return int(np.searchsorted(total, (total[-1] + 1) // 2))

    def longest(self) -> int:
        """Of the windows."""
        found = np.flatnonzero(self.lengths)
        return int(found[-1]) if len(found) else 0

    def arrays(self) -> dict[str, Tensor]:
        """Everything, by names as files have them."""
        found: dict[str, Any] = {f"bins.{name}": bins.counts for name, bins in self.bins.items()}
        found |= {"lengths": self.lengths, "of_days": self.of_days, "sums": self.sums}
        found["counts"] = np.array([*self.count.values(), self.counted_from, self.diverged])
        return {f"figures.{name}": torch.from_numpy(x) for name, x in found.items()}

    def put_back(self, tensors: Mapping[str, Tensor]) -> None:
        """Make this what :meth:`arrays` was asked of.

        Raises:
            KeyError: something is missing.
        """
        arrays = {name: x.numpy() for name, x in of_kind(tensors, "figures").items()}
        for name, bins in self.bins.items():
            bins.counts = arrays[f"bins.{name}"]
        self.lengths, self.of_days, self.sums = (
            arrays[name] for name in ("lengths", "of_days", "sums")
        )
        *counts, self.counted_from, self.diverged = arrays["counts"].tolist()
        self.count = dict(zip(COUNTS, counts, strict=True))
