# SPDX-License-Identifier: Apache-2.0
"""Every user's history, stored once; every event sees a window of it."""

from __future__ import annotations

import dataclasses

import numpy as np

from longclock.data.stream import EventStream, IntArray


@dataclasses.dataclass(frozen=True)
class Histories:
    """Behaviours of all users, one user after another, each in stream order.

    The event ``e`` sees rows ``starts[e]`` to ``ends[e] - 1``: what its user did before its ``order_time``,
    at most the last ``longest`` behaviours. This is the windows layout of the ops: nothing is copied per event.

    Args:
        item, time, label: ``[T]``; ``time`` is local seconds, ``label`` is 1 where the stream has none.
        starts, ends: ``[E]``.
    """

    item: IntArray
    time: IntArray
    label: IntArray
    starts: IntArray
    ends: IntArray

    @classmethod
    def of(cls, stream: EventStream, longest: int | None = None) -> Histories:
        """Build the histories of a stream, windows of at most ``longest`` behaviours."""
        order, moment = stream.by_user()
        ends = np.empty_like(moment)
        ends[order] = moment
        first_row = np.searchsorted(stream.user[order], np.arange(stream.users))
        starts = first_row[stream.user]
        if longest is not None:
            starts = np.maximum(starts, ends - longest)
        label = np.ones_like(stream.user) if stream.label is None else stream.label
        return cls(stream.item[order], stream.time[order], label[order], starts, ends)

    @property
    def lengths(self) -> IntArray:
        """Length of every event's window, ``[E]``."""
        return self.ends - self.starts

    def with_shuffled_times(self, stream: EventStream, seed: int) -> Histories:
        """The control: each behaviour gets the time of a random earlier behaviour of its user.

        What a user did stays; which was done at which hour is lost. Drawn from earlier behaviours rather
        than permuted, so that no window holds a time from its own future; early times are thus drawn
        more often, and a user's first behaviours keep the first one's time.
        """
        order, moment = stream.by_user()
        user = stream.user[order]
        first_row = np.searchsorted(user, np.arange(stream.users))[user]
        draw = np.random.default_rng([seed, 0x5117]).random(len(user))
        source = first_row + (draw * np.maximum(moment - first_row, 1)).astype(np.int64)
        return dataclasses.replace(self, time=self.time[source])
