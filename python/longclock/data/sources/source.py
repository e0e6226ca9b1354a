# SPDX-License-Identifier: Apache-2.0
"""What all sources of events have in common: events in order, and a cursor from which another process goes on."""

from __future__ import annotations

import abc
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from longclock.data._checks import check_count
from longclock.data.event_columns import OPTIONAL, REQUIRED
from longclock.data.shards import hashed
from longclock.data.sources.events import Events

# What JSON holds, so that it can stand in a checkpoint.
Cursor = dict[str, Any]
BATCH = 65_536


class Read(NamedTuple):
    """Events, and where a reader goes on that has seen them and all before them.

    Example::

        >>> import pyarrow as pa
        >>> from longclock.data.sources import ArrowSource
        >>> plays = pa.table({"user": [1, 2], "item": [5, 6], "time": [100, 200]})
        >>> events, cursor = next(ArrowSource(lambda: [plays]).read())
        >>> events.time.tolist(), cursor
        ([100, 200], {'source': 'arrow', 'rows': 2})
    """

    events: Events
    cursor: Cursor


class EventSource(abc.ABC):
    """Events that come in order and need not fit into memory.

    A cursor counts the events of all users, so that what one process has read up to it, any number of processes go on
    with: no event twice, and none left out.

    A source of your own has a ``kind``, which its cursors bear, and ``_read(cursor, batch)``, which gives events and what a
    cursor after them has.

    Args:
        categories: attribute columns, which every event has.

    Example::

        >>> import numpy as np
        >>> from longclock.data.sources import Events, EventSource
        >>> class Ticks(EventSource):
        ...     kind = "ticks"
        ...     def _read(self, cursor, batch):
        ...         for second in range(cursor["next"] if cursor else 0, 3):
        ...             one = np.array([second])
        ...             yield Events(one, one, one, one), {"next": second + 1}
        >>> reads = list(Ticks().read())
        >>> [read.cursor["next"] for read in Ticks().read(reads[0].cursor)]
        [2, 3]
    """

    kind = ""  # in cursors

    def __init__(self, categories: Sequence[str] = ()) -> None:
        self.op = type(self).__name__
        if isinstance(categories, str) or not all(isinstance(name, str) for name in categories):
            raise ValueError(f"{self.op}: categories must be a list of names, got {categories!r}")
        taken = [name for name in categories if name in (*REQUIRED, *OPTIONAL)]
        if taken:
            raise ValueError(
                f"{self.op}: column {taken[0]!r} has its own meaning and cannot be an attribute too"
            )
        self.categories = list(dict.fromkeys(categories))

    def read(
        self,
        cursor: Cursor | None = None,
        *,
        batch: int = BATCH,
        shard: tuple[int, int] = (0, 1),
    ) -> Iterator[Read]:
        """Read events in order.

        Args:
            cursor: of an earlier :class:`Read`, of any shard: what comes after it; None: from the beginning.
            batch: events of all users at a time, at most.
            shard: ``(r, n)``: the events of the r-th of n groups of users, by a hash of their ids. All shards get
                the same cursors, with no events where none is of their users.
        Raises:
            ValueError: an argument that does not fit, or a cursor of something else.
            EventFileError: an event that is none, by its place.
        """
        batch = check_count(f"{self.op}.read", "batch", batch, 1)
        place, count = self._shard(shard)
        if cursor is not None:
            self._check_cursor(cursor)
        for events, reached in self._read(cursor, batch):
            own = events
            if count > 1:
                own = events.take(np.flatnonzero(hashed(events.user, count) == place))
            yield Read(own, {"source": self.kind, **reached})

    @abc.abstractmethod
    def _read(self, cursor: Cursor | None, batch: int) -> Iterator[tuple[Events, Cursor]]:
        """All events after the cursor."""

    def _shard(self, shard: tuple[int, int]) -> tuple[int, int]:
        try:
            place, count = shard
        except (TypeError, ValueError):
            raise ValueError(f"{self.op}.read: shard must be (r, n), got {shard!r}") from None
        count = check_count(f"{self.op}.read", "the number of shards", count, 1)
        place = check_count(f"{self.op}.read", "shard", place)
        if place >= count:
            raise ValueError(f"{self.op}.read: shard must be below {count}, got {place}")
        return place, count

    def _check_cursor(self, cursor: Cursor) -> None:
        kind = cursor.get("source") if isinstance(cursor, dict) else None
        if kind != self.kind:
            raise ValueError(
                f"{self.op}.read: cursor must be of a {self.kind}, got {json.dumps(cursor, default=repr)}; "
                "give what an earlier read of this source gave, or None"
            )
