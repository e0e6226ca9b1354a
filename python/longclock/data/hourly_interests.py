# SPDX-License-Identifier: Apache-2.0
"""What a user likes at each hour of the day, kept up as events come."""

from __future__ import annotations

import collections
import heapq
from collections.abc import Sequence
from operator import index as whole
from typing import TypeAlias

import numpy as np

from longclock._sizes import check_size
from longclock.data.stream import DAY

HOURS, TOP, DAYS = 24, 3, 30


class HourlyInterests:
    """Every user's preferred categories at each hour of the day, kept up as events come.

    A category's score at an hour is how many of the user's behaviours of the last ``days`` were of it at that hour and liked,
    less how many were not. ``clock`` gives, for each of the 24 hours and each field of categories, the ``top`` with the largest
    scores above 0, the largest first, among equals the smaller id; 0 fills what is left, and a behaviour whose
    category is 0 (unknown) does not count in that field. An event costs its own hour only: nothing is counted again.

    Source: Interest Clock, arXiv 2404.19357, whose score is of what a user likes and finishes against what they skip and dislike,
    over 30 days; its weights of the four, and what it does with scores of 0 and below, are not taken over.

    Args:
        fields: categories of a behaviour.
        top, days: how many categories of an hour, and of how many days.

    Raises:
        ValueError: a size, a time or a category that does not fit; what was kept stays as it was.

    Example::

        >>> from longclock.data import HourlyInterests
        >>> hourly, nine = HourlyInterests(fields=1, top=2), 9 * 3600
        >>> for genre in (4, 7, 7):
        ...     hourly.add(user=0, time=nine, local_time=nine, categories=(genre,))
        >>> hourly.clock(user=0, time=nine + 1)[9, 0]  # at nine, the most frequent first
        array([7, 4])
        >>> for _ in range(2):
        ...     hourly.add(user=0, time=nine + 1, local_time=nine, categories=(7,), liked=False)
        >>> hourly.clock(user=0, time=nine + 2)[9, 0]  # 7 was skipped as often as it was heard
        array([4, 0])
    """

    def __init__(self, fields: int, top: int = TOP, days: int = DAYS) -> None:
        for name, size in (("fields", fields), ("top", top), ("days", days)):
            check_size("HourlyInterests", name, size, 1)
        self.fields, self.top, self.days = fields, top, days
        self._users: dict[int, _Clock] = {}

    def add(
        self,
        user: int,
        time: int,
        local_time: int,
        categories: Sequence[int],
        liked: bool = True,
    ) -> None:
        """A behaviour at ``time``, seconds, never before the user's last one; ``local_time`` tells its hour;
        ``categories``: an id of each field, from 0 to 2^63 - 1; ``liked``: whether it speaks for them, or against."""
        if not isinstance(liked, (bool, np.bool_)):
            raise ValueError(f"HourlyInterests: liked must be a bool, got {liked!r}")
        user, time = _whole("user", user), _whole("time", time)
        hour = _whole("local_time", local_time) % DAY // 3600
        known = tuple(_whole("categories", category) for category in categories)
        if len(known) != self.fields:
            raise ValueError(
                f"HourlyInterests: categories must be {self.fields}, one a field, got {len(known)}"
            )
        for category in known:
            if not 0 <= category < 1 << 63:
                raise ValueError(
                    f"HourlyInterests: categories must be from 0 (unknown) to 2^63 - 1, got {category}"
                )
        clock = self._users.get(user)
        if clock is None:
            clock = self._users[user] = _Clock(self.fields, self.top)
        clock.add(time, hour, known, 1 if liked else -1)

    def clock(self, user: int, time: int) -> np.ndarray:
        """Categories by hour at ``time``, behaviours at it or later left out: int64 [24, fields, top].

        ``time`` is never before that of the user's last call: what has been counted is not taken back.
        """
        user, time = _whole("user", user), _whole("time", time)
        clock = self._users.get(user)
        if clock is None:
            return np.zeros((HOURS, self.fields, self.top), np.int64)
        return clock.at(time, time - self.days * DAY)


def _whole(name: str, value: int) -> int:
    try:
        return whole(value)
    except TypeError:
        raise ValueError(
            f"HourlyInterests: {name} must be an int, got {type(value).__name__}"
        ) from None


# Time, hour, categories and score, 1 or -1.
_Event: TypeAlias = "tuple[int, int, tuple[int, ...], int]"


class _Clock:
    """One user's."""

    def __init__(self, fields: int, top: int) -> None:
        self.found = np.zeros((HOURS, fields, top), np.int64)
        self.counts = [[collections.Counter[int]() for _ in range(fields)] for _ in range(HOURS)]
        self.last: int | None = None
        self.asked: int | None = None
        self.coming: collections.deque[_Event] = collections.deque()
        self.counted: collections.deque[_Event] = collections.deque()

    def add(self, time: int, hour: int, categories: tuple[int, ...], score: int) -> None:
        if self.last is not None and time < self.last:
            raise ValueError(
                f"HourlyInterests: time must not be before the user's last one = {self.last}, got {time}"
            )
        self.last = time
        self.coming.append((time, hour, categories, score))

    def at(self, time: int, oldest: int) -> np.ndarray:
        if self.asked is not None and time < self.asked:
            raise ValueError(
                f"HourlyInterests: time must not be before that of the user's last call = {self.asked}, got {time}"
            )
        self.asked = time
        while self.coming and self.coming[0][0] < time:
            self.counted.append(self.coming.popleft())
            self._count(self.counted[-1], 1)
        while self.counted and self.counted[0][0] < oldest:
            self._count(self.counted.popleft(), -1)
        return self.found.copy()

    def _count(self, event: _Event, times: int) -> None:
        _, hour, categories, score = event
        for field, category in enumerate(categories):
            if category == 0:
                continue
            counts = self.counts[hour][field]
            counts[category] += score * times
            if counts[category] == 0:
                del counts[category]
            top = self.found.shape[2]
            liked = (item for item in counts.items() if item[1] > 0)
            best = heapq.nsmallest(top, liked, key=lambda item: (-item[1], item[0]))
            self.found[hour, field] = [item[0] for item in best] + [0] * (top - len(best))
