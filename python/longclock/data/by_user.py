# SPDX-License-Identifier: Apache-2.0
"""Events user by user, so that what a user did before an event lies in front of it."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import numpy.typing as npt

from longclock.data.stream import DAY, EventStream, IntArray, order_of, pair_ids, run_starts


@dataclasses.dataclass(frozen=True)
class ByUser:
    """``T`` rows, one user's after another's, each user's in the order of time.

    Args:
        user, item, time, order_time, label: int64 ``[T]``, as of a stream; users ascend, and the label is 1 where there is none.
        row: int64 ``[E]``, where the events lie that are looked at; all other rows are of their users' past.
    """

    user: IntArray
    item: IntArray
    time: IntArray
    order_time: IntArray
    label: IntArray
    row: IntArray

    @classmethod
    def of(cls, stream: EventStream) -> ByUser:
        """Every event of a stream."""
        order = order_of(stream.user)
        label = np.ones_like(stream.user) if stream.label is None else stream.label
        columns = (stream.user, stream.item, stream.time, stream.order_time, label)
        row = np.empty_like(order)
        row[order] = np.arange(len(order))
        user, item, time, order_time, label = (column[order] for column in columns)
        return cls(user, item, time, order_time, label, row)

    def sorted(self, values: IntArray) -> IntArray:
        """Of every row what is known of the events, where each row is one: ``[E]`` to ``[T]``."""
        found = np.empty_like(values)
        found[self.row] = values
        return found

    @functools.cached_property
    def first(self) -> IntArray:
        """The first row of every row's user, ``[T]``."""
        return run_starts(self.user)

    @functools.cached_property
    def moment(self) -> IntArray:
        """The first row of every row's user and ``order_time``, ``[T]``: what happens at one moment does not see itself."""
        return run_starts(self.user, self.order_time)

    def windows(
        self, longest: int | None = None, delay: int = 0, days: int = 0
    ) -> tuple[IntArray, IntArray]:
        """Where the history of every event begins and ends, ``[E]`` each; arguments as of :meth:`Histories.of`."""
        first = starts = self.first[self.row]
        ends = first + self.earlier(delay) if delay else self.moment[self.row]
        if longest is not None:
            starts = np.maximum(starts, ends - longest)
        if days:
            starts = np.minimum(np.maximum(starts, first + self.earlier(days * DAY)), ends)
        return starts, ends

    def earlier(self, seconds: int) -> IntArray:
        """How many rows of its user lie more than so many seconds before every event, ``[E]``."""
        if not len(self.row):
            return np.zeros(0, np.int64)
        # Times behind each other, user by user, so that one search finds all.
        low = int(self.order_time.min()) - seconds
        span = int(self.order_time.max()) - low + 1
        place = np.cumsum(self.first == np.arange(len(self.first))) * span - low
        time = place + self.order_time
        return np.searchsorted(time, time[self.row] - seconds) - self.first[self.row]

    def pair_seen(self) -> npt.NDArray[np.bool_]:
        """Whether every event's user took its item before, at an earlier ``order_time``; ``[E]``."""
        return (self.order_time > self.order_time[self.first_of_pair])[self.row]

    @functools.cached_property
    def first_of_pair(self) -> IntArray:
        """The first row with every row's user and item, ``[T]``."""
        pair = pair_ids(self.user, self.item)
        order = order_of(pair)
        first = np.empty_like(order)
        first[order] = order[run_starts(pair[order])]
        return first
