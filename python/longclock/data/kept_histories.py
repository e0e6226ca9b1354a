# SPDX-License-Identifier: Apache-2.0
"""The latest behaviours of every user, in one array that grows with what is kept and not with what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from longclock.data.stream import IntArray, stretches

COLUMNS = {"item": np.int32, "time": np.int64, "order_time": np.int64, "label": np.int8}
ROOM = 8  # a user's stretch has room for an 8th more rows than it was made for, and the array for an 8th more stretches
LEAST = 4  # rows of room besides
AT_ONCE = 1 << 20  # rows that are moved at a time

Column = npt.NDArray[Any]
Rows = dict[str, Column]


def counts_of(users: IntArray, count: IntArray) -> IntArray:
    """How many rows each of some users has, 0 of those beyond the last that ``count`` knows; ``[U]``."""
    known = users < len(count)
    found = np.zeros(len(users), np.int64)
    found[known] = count[users[known]]
    return found


def long_enough(users: IntArray, of_users: IntArray) -> IntArray:
    """A number of every user, with zeros behind it up to the last of some users."""
    more = int(users.max(initial=-1)) + 1 - len(of_users)
    return np.pad(of_users, (0, more)) if more > 0 else of_users


class KeptHistories:
    """Rows of users, who are numbers from 0 on; each user's lie side by side, in a stretch with room for some more.

    One that outgrows its stretch gets another at the end of the array; where that is full, all stretches are moved together, which
    costs little for each row, since the array has then grown by an eighth.

    Example::

        >>> import numpy as np
        >>> from longclock.data.kept_histories import KeptHistories
        >>> kept, two = KeptHistories(), np.array([5, 6])
        >>> three, most = np.array([3]), np.array([3])
        >>> for _ in range(2):
        ...     rows = dict(item=two, time=two, order_time=two, label=two * 0)
        ...     kept.add(three, np.minimum(kept.counts(three) + 2, most), np.array([2]), rows)
        >>> counts, rows = kept.of(np.array([0, 3]))
        >>> counts.tolist(), rows["item"].tolist()
        ([0, 3], [6, 5, 6])
    """

    def __init__(self) -> None:
        self._first = self._count = self._room = np.zeros(0, np.int64)  # [users]
        self._rows: Rows = {name: np.zeros(0, kind) for name, kind in COLUMNS.items()}
        self._end = 0  # of the last stretch

    def __len__(self) -> int:
        """How many rows are kept."""
        return int(self._count.sum())

    def counts(self, users: IntArray) -> IntArray:
        """How many rows each of some users has; ``[U]``."""
        return counts_of(users, self._count)

    def of(self, users: IntArray) -> tuple[IntArray, Rows]:
        """How many rows each of some users has, and these rows, user after user.

        Args:
            users: int64 ``[U]``, each once.
        """
        counts = self.counts(users)
        some = users[counts > 0]
        place = stretches(self._first[some], self._count[some])
        return counts, {name: column[place] for name, column in self._rows.items()}

    def add(
        self,
        users: IntArray,
        counts: IntArray,
        new: IntArray,
        rows: Mapping[str, Column],
        number: IntArray | None = None,
    ) -> None:
        """Put rows behind those of some users, and keep the newest of each.

        Args:
            users: int64 ``[U]``, each once.
            counts: int64 ``[U]``, how many rows each is to have.
            new: int64 ``[U]``, how many rows of each come.
            rows: what comes, by column, user after user.
            number: of every row, that of its event, which makes no difference here.
        """
        if not len(users):
            return
        self._first, self._count, self._room = (
            long_enough(users, x) for x in (self._first, self._count, self._room)
        )
        old = np.maximum(counts - new, 0)  # how many of those that are kept stay
        dropped = self._count[users] - old
        self._first[users] += dropped
        self._room[users] -= dropped
        self._count[users] = old
        self._make_room(users, counts)
        new_kept = counts - old
        place = stretches(self._first[users] + old, new_kept)
        come = stretches(np.cumsum(new) - new_kept, new_kept)
        for name, column in self._rows.items():
            column[place] = rows[name][come]
        self._count[users] = counts

    def forget(self, users: IntArray) -> None:
        """Keep nothing of some users."""
        users = users[users < len(self._count)]
        self._count[users] = self._room[users] = 0

    def arrays(self) -> Rows:
        """Everything, by names as files have them: no copies, so they change with what is kept."""
        rows = {name: column[: self._end] for name, column in self._rows.items()}
        return {**rows, "first": self._first, "count": self._count, "room": self._room}

    def put_back(self, arrays: Mapping[str, Column], before: int = 0) -> None:
        """Make this what :meth:`arrays` was asked of.

        Args:
            before: how many events of all users came before, which makes no difference here.
        Raises:
            KeyError: an array that is missing.
        """
        self._first, self._count, self._room = (arrays[name] for name in ("first", "count", "room"))
        self._rows = {name: arrays[name] for name in COLUMNS}
        self._end = len(arrays["item"])

    def _make_room(self, users: IntArray, counts: IntArray) -> None:
        """Stretches of which each has room for so many rows; what is kept stays."""
        grown = counts > self._room[users]
        if self._end + _room(counts[grown]).sum() > len(self._rows["item"]):
            grown[:] = True  # what is moved together has no room for more than it has
        moved, room = users[grown], _room(counts[grown])
        old, rows = self.of(moved)
        self._count[moved] = self._room[moved] = 0
        if self._end + room.sum() > len(self._rows["item"]):
            self._move_together(int(room.sum()))
        self._first[moved] = self._end + np.cumsum(room) - room
        self._room[moved], self._count[moved] = room, old
        self._end += int(room.sum())
        place = stretches(self._first[moved], old)
        for name, column in self._rows.items():
            column[place] = rows[name]

    def _move_together(self, needed: int) -> None:
        """Make room for stretches of so many rows more."""
        users = np.flatnonzero(self._count)
        users = users[np.argsort(self._first[users])]
        count, room = self._count[users], _room(self._count[users])
        ends = np.cumsum(room)
        end = int(ends[-1]) if len(ends) else 0
        size = end + needed + (end + needed) // ROOM
        bounds = np.searchsorted(ends, np.arange(AT_ONCE, end + AT_ONCE, AT_ONCE)) + 1
        for name, column in self._rows.items():
            found = np.empty(size, column.dtype)
            for some in np.split(np.arange(len(users)), bounds):
                place = stretches(self._first[users[some]], count[some])
                found[stretches(ends[some] - room[some], count[some])] = column[place]
            self._rows[name] = found
        self._room[:] = 0
        self._first[users], self._room[users], self._end = ends - room, room, end


def _room(counts: IntArray) -> IntArray:
    return counts + counts // ROOM + LEAST
