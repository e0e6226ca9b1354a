# SPDX-License-Identifier: Apache-2.0
"""Every user's history, stored once; every event sees a window of it."""

from __future__ import annotations

import dataclasses

import numpy as np

from longclock.data._checks import check_column, check_count, check_ids, check_label, check_seconds
from longclock.data.by_user import ByUser
from longclock.data.stream import EventStream, IntArray, check_stream


@dataclasses.dataclass(frozen=True)
class Histories:
    """Behaviours of all users, one user after another, each in stream order.

    The event ``e`` sees rows ``starts[e]`` to ``ends[e] - 1``: what its user did before its ``order_time``,
    at most the last ``longest`` behaviours. This is the windows layout of the ops: nothing is copied per event.

    Args:
        item, time, label: int64 ``[T]``; ``time`` is local seconds, ``label`` is 1 where the stream has none.
        starts, ends: int64 ``[E]``, ``0 <= starts <= ends <= T``.
    Raises:
        ValueError: names the column that does not fit.

    Example::

        >>> import numpy as np
        >>> from longclock.data import EventStream, Histories
        >>> user, item, time = np.array([[0, 1, 0, 0], [5, 6, 7, 5], [100, 200, 300, 400]])
        >>> past = Histories.of(EventStream("plays", user, item, time, order_time=time))
        >>> [past.item[start:end].tolist() for start, end in zip(past.starts, past.ends)]
        [[], [], [5], [5, 7]]
    """

    item: IntArray
    time: IntArray
    label: IntArray
    starts: IntArray
    ends: IntArray

    def __post_init__(self) -> None:
        check_column("Histories", "item", self.item)
        for name in ("time", "label"):
            check_column("Histories", name, getattr(self, name), self.item.shape)
        check_ids("Histories", "item", self.item)
        check_seconds("Histories", "time", self.time)
        check_label("Histories", "label", self.label)
        check_column("Histories", "starts", self.starts)
        check_column("Histories", "ends", self.ends, self.starts.shape)
        bad = (self.starts < 0) | (self.ends < self.starts) | (self.ends > len(self.item))
        if bad.any():
            row = int(np.argmax(bad))
            raise ValueError(
                f"Histories: columns 'starts' and 'ends' must be windows into {len(self.item)} "
                f"behaviours, got {self.starts[row]} to {self.ends[row]} in row {row}"
            )

    @classmethod
    def of(
        cls, stream: EventStream, longest: int | None = None, delay: int = 0, days: int = 0
    ) -> Histories:
        """Build the histories of a stream, windows of at most ``longest`` behaviours.

        Args:
            delay: seconds; behaviours of the last ``delay`` before an event are not seen yet, as in a service whose
                histories are late.
            days: behaviours of more than so many days before an event are forgotten; 0: none is.
        Raises:
            ValueError: a negative ``longest``, ``delay`` or ``days``.
        """
        check_stream("Histories.of", stream)
        if longest is not None:
            check_count("Histories.of", "longest", longest)
        check_count("Histories.of", "delay", delay)
        check_count("Histories.of", "days", days)
        rows = ByUser.of(stream)
        return cls(rows.item, rows.time, rows.label, *rows.windows(longest, delay, days))

    @property
    def lengths(self) -> IntArray:
        """Length of every event's window, ``[E]``."""
        return self.ends - self.starts

    def with_shuffled_times(self, stream: EventStream, seed: int) -> Histories:
        """The control: each behaviour gets the time of a random earlier behaviour of its user.

        What a user did stays; which was done at which hour is lost. Drawn from earlier behaviours rather
        than permuted, so that no window holds a time from its own future; early times are thus drawn
        more often, and a user's first behaviours keep the first one's time.

        Raises:
            ValueError: a negative ``seed``, or a stream that these histories are not of.
        """
        check_stream("Histories.with_shuffled_times", stream)
        seed = check_count("Histories.with_shuffled_times", "seed", seed)
        order, moment = stream.by_user()
        if not np.array_equal(stream.item[order], self.item):
            raise ValueError(
                "Histories.with_shuffled_times: stream must be the one that these histories are of"
            )
        user = stream.user[order]
        first_row = np.searchsorted(user, user)
        draw = np.random.default_rng([seed, 0x5117]).random(len(user))
        source = first_row + (draw * np.maximum(moment - first_row, 1)).astype(np.int64)
        return dataclasses.replace(self, time=self.time[source])
