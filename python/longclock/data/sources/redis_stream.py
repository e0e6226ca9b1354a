# SPDX-License-Identifier: Apache-2.0
"""Events of a Redis stream, by the ids of its entries."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from longclock._keywords import named_keywords
from longclock.data.sources.events import Events
from longclock.data.sources.messages import Messages, OnDamage
from longclock.data.sources.source import Cursor, EventSource
from longclock.store.redis_server import RedisServer

WAIT = 1000  # milliseconds for entries, before it is looked whether the reader was closed
BEFORE_ALL = "0-0"


class RedisStreamSource(EventSource):
    """The events of a Redis stream, one an entry, in the order of the entries.

    An entry's fields are the columns (``XADD plays * user ann item 5 time 1700000000``). A cursor is the id of an entry and how
    many entries were added until it. It belongs to the reader's checkpoint: no consumer group is used. Where entries were trimmed
    that a reader has not seen, ``read`` says so, also to one that follows (a server of version 7 tells).

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as of :class:`longclock.store.RedisStore`.
        stream: the key.
        columns: of "order_time", "utc_offset" and "label", those that every entry has besides user, item and time.
        categories: attributes that every entry has.
        follow: whether to wait for more where the stream ends.
        on_damage: "raise", or "skip": an entry that is no event is left out and logged.
        username, password: for the server, where the URL does not have them.
        retry_seconds: for which a lost connection is tried again.
    Raises:
        ValueError: an argument that does not fit.
        ModuleNotFoundError: the package redis is missing.
        OSError: in ``read``, the server cannot be reached or refuses, or entries after the cursor are gone.
        EventFileError: in ``read``, an entry that is no event, by stream and id.

    Example::

        >>> from longclock.data.sources import RedisStreamSource
        >>> source = RedisStreamSource("redis://localhost:6379", "plays", follow=True)  # doctest: +SKIP
        >>> for events, cursor in source.read():  # doctest: +SKIP
        ...     learn(events)
        ...     keep(cursor)
    """

    kind = "redis stream"

    @named_keywords()
    def __init__(
        self,
        url: str,
        stream: str,
        *,
        columns: Sequence[str] = (),
        categories: Sequence[str] = (),
        follow: bool = False,
        on_damage: OnDamage = "raise",
        username: str | None = None,
        password: str | None = None,
        retry_seconds: float = 30.0,
    ) -> None:
        super().__init__(categories)
        self.stream, self.follow = stream, follow
        self.messages = Messages(self.op, stream, columns, self.categories, _texts, on_damage)
        # What is read need not be durable: any server's settings will do.
        self._server = RedisServer(self.op, url, username, password, "weak", retry_seconds)

    def _read(self, cursor: Cursor | None, batch: int) -> Iterator[tuple[Events, Cursor]]:
        last, count = (BEFORE_ALL, None) if cursor is None else (cursor["id"], cursor["entries"])
        while True:
            found, entries = self._server.call(
                functools.partial(self._next, last=last, batch=batch)
            )
            removed = _removed(found)
            if count is None:
                count = removed
            self._check_kept(found, removed, last, count)
            if entries:
                last = entries[-1][0].decode()
                count += len(entries)
                places = functools.partial(self._place, entries)
                events = self.messages.events([fields for _, fields in entries], places)
                yield events, {"id": last, "entries": count}
            elif self.follow:
                self._server.call(functools.partial(self._wait, last=last))
            else:
                return

    def _wait(self, client: Any, last: str) -> None:
        client.xread({self.stream: last}, count=1, block=WAIT)

    def _place(self, entries: Any, i: int) -> str:
        return f"{self.stream}, entry {entries[i][0].decode()}"

    def _next(self, client: Any, last: str, batch: int) -> tuple[dict[str, Any], Any]:
        """What the server knows of the stream, and the entries that come next, both of one moment."""
        both = client.pipeline(transaction=True)
        both.xinfo_stream(self.stream)
        both.xread({self.stream: last}, count=batch)
        found, entries = both.execute(raise_on_error=False)
        if isinstance(entries, Exception):
            raise entries
        missing = isinstance(found, Exception)  # there is no such key
        return {} if missing else found, entries[0][1] if entries else []

    def _check_kept(self, found: dict[str, Any], removed: int, last: str, count: int) -> None:
        """Whether nothing after ``last``, the ``count``-th of all entries that there were, was taken away."""
        deleted = found.get("max-deleted-entry-id", BEFORE_ALL.encode()).decode()
        if last != BEFORE_ALL and not found:
            reason = "there is no such stream"
        elif removed > count or (last != BEFORE_ALL and _order(deleted) > _order(last)):
            reason = "entries after it are gone"
        else:
            return
        raise OSError(
            f"{self.op}: {self.stream}: the cursor is entry {last}, but {reason}; read from the beginning, and trim no "
            "more than a reader may be behind (XADD's MAXLEN, MINID)"
        )


def _removed(found: dict[str, Any]) -> int:
    """How many entries of a stream were trimmed or deleted; 0 of a server that does not count what was added."""
    return int(found["entries-added"] - found["length"]) if "entries-added" in found else 0


def _order(entry: str) -> tuple[int, ...]:
    return tuple(int(part) for part in entry.split("-"))


def _texts(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}
