# SPDX-License-Identifier: Apache-2.0
"""Numbers for ids that nobody knows beforehand: the rows of tables that grow."""

from __future__ import annotations

import numpy as np

from longclock.data._checks import check_count
from longclock.data.shards import hashed
from longclock.data.stream import IntArray

NEVER = -(2**62)  # the time of an event that has not been


class Numbering:
    """A number for every id, from 0 on in the order in which ids first come; or one of ``rows`` by a hash.

    Args:
        rows: 0: a number an id, and more as they come. Otherwise numbers are hashes, and ids may share one.

    Attributes:
        born, latest: int64 [size], seconds of the first and of the last event of every number.

    Example::

        >>> import numpy as np
        >>> from longclock.data.numbering import Numbering
        >>> users = Numbering()
        >>> users.of(np.array([70, 30, 70]), time=np.array([100, 200, 300])).tolist()
        [0, 1, 0]
        >>> users.forget(before=250).tolist()  # id 30 was not seen since
        [1]
        >>> users.of(np.array([40]), time=np.array([400])).tolist()  # its number is free
        [1]
    """

    def __init__(self, rows: int = 0) -> None:
        self.rows = check_count("Numbering", "rows", rows)
        self._ids = self._numbers = self._free = np.zeros(0, np.int64)  # ids ascend
        self.born, self.latest = np.full(rows, NEVER), np.full(rows, NEVER)

    @classmethod
    def known_as(cls, ids: IntArray) -> Numbering:
        """That in which number i stands for ``ids[i]``, and others for none; of numbers with one id, the first is found."""
        return cls.of_pairs(*np.unique(ids, return_index=True), rows=0)

    @classmethod
    def of_pairs(cls, ids: IntArray, numbers: IntArray, rows: int) -> Numbering:
        """That whose :attr:`pairs` these are: it finds numbers, and gives no new ones."""
        found = cls(rows)
        found._ids, found._numbers = ids, numbers
        return found

    @property
    def pairs(self) -> tuple[IntArray, IntArray]:
        """The ids that have a number, ascending, and the number of each; none where numbers are hashes."""
        return self._ids, self._numbers

    @property
    def size(self) -> int:
        """One more than the largest number that there may be."""
        return len(self.born)

    @property
    def known(self) -> int:
        """How many numbers have events."""
        return int((self.born != NEVER).sum())

    def find(self, ids: IntArray) -> IntArray:
        """The numbers of ids, -1 where one has none yet; ``[E]``."""
        if self.rows:
            found: IntArray = hashed(ids, self.rows)
            return found
        if not len(self._ids):
            return np.full(len(ids), -1)
        place = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return np.where(self._ids[place] == ids, self._numbers[place], -1)

    def of(self, ids: IntArray, time: IntArray) -> IntArray:
        """The numbers of the ids of events, new ones where they have none; ``[E]``.

        Args:
            ids: int64 ``[E]``.
            time: int64 ``[E]``, of the events, never decreasing.
        """
        return self.of_events(ids, time)[0]

    def of_events(self, ids: IntArray, time: IntArray) -> tuple[IntArray, IntArray]:
        """The same, and which events are the first of their number, ascending."""
        if self.rows:
            numbers = self.find(ids)
        else:
            different, first, place = np.unique(ids, return_index=True, return_inverse=True)
            of_different = self.find(different)
            new = of_different < 0
            of_different[new] = self._add(different[new], first[new])
            numbers = of_different[place]
        unborn = np.flatnonzero(self.born[numbers] == NEVER)
        firsts = np.sort(unborn[np.unique(numbers[unborn], return_index=True)[1]])
        self.born[numbers[firsts]] = time[firsts]
        self.latest[numbers] = time
        return numbers, firsts

    def forget(self, before: int) -> IntArray:
        """Take their numbers from ids that had no event since ``before``; returns these numbers, ascending."""
        gone = np.flatnonzero((self.latest < before) & (self.latest != NEVER))
        if self.rows:
            gone = gone[:0]
        left = ~np.isin(self._numbers, gone)
        self._ids, self._numbers = self._ids[left], self._numbers[left]
        self._free = np.union1d(self._free, gone)
        self.born[gone] = self.latest[gone] = NEVER
        return gone

    def arrays(self) -> dict[str, IntArray]:
        """Everything, by names as files have them."""
        return {"ids": self._ids, "numbers": self._numbers, "free": self._free, "born": self.born, "latest": self.latest}  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: dict[str, IntArray], rows: int) -> Numbering:
        """That whose :meth:`arrays` these are.

        Raises:
            KeyError: an array that is missing.
        """
        found = cls()
        found.rows = rows
        found._ids, found._numbers, found._free = (
            arrays[key] for key in ("ids", "numbers", "free")
        )
        found.born, found.latest = arrays["born"], arrays["latest"]
        return found

    def _add(self, ids: IntArray, first: IntArray) -> IntArray:
        """Numbers for ids that have none, in the order of their first events: those that are free, then others."""
        if not len(ids):
            return ids
        used, self._free = np.split(self._free, [len(ids)])
        more = len(ids) - len(used)
        numbers = np.empty_like(ids)
        numbers[np.argsort(first)] = np.concatenate([used, self.size + np.arange(more)])
        never = np.full(more, NEVER)
        self.born, self.latest = (np.concatenate([x, never]) for x in (self.born, self.latest))
        place = np.searchsorted(self._ids, ids)
        self._ids = np.insert(self._ids, place, ids)
        self._numbers = np.insert(self._numbers, place, numbers)
        return numbers
