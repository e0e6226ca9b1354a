# SPDX-License-Identifier: Apache-2.0
"""Events of messages, one each; what is done with a message that is none."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from longclock._keywords import meant
from longclock.data.event_columns import OPTIONAL, REQUIRED
from longclock.data.event_file import require_readers
from longclock.data.event_table import EventTable
from longclock.data.file_columns import EventFileError, one_line
from longclock.data.sources.events import Events, events_of

Decode = Callable[[Any], Mapping[str, Any]]
OnDamage = Literal["raise", "skip"]
log = logging.getLogger("longclock.data")


def json_message(value: bytes) -> Mapping[str, Any]:
    """The columns of a message that is a JSON object.

    Example::

        >>> from longclock.data.sources import json_message
        >>> json_message(b'{"user": "ann", "item": 5, "time": 100}')
        {'user': 'ann', 'item': 5, 'time': 100}
    """
    import orjson

    found: Mapping[str, Any] = orjson.loads(value)
    return found


@dataclasses.dataclass(frozen=True)
class MessageTable(EventTable):
    """The columns of messages."""

    place: Callable[[int], str] = str  # of a row, for errors

    def where(self, row: int, name: str) -> str:
        return f"{self.place(row)}: column {name!r}"


class Messages:
    """From messages to events.

    Args:
        op: the source, for errors.
        name: what the messages are of.
        columns: of "order_time", "utc_offset" and "label", those that every event has.
        categories: attributes that every event has.
        decode: the columns of one message.
        on_damage: "raise", or "skip": a message that is no event is left out and logged.
    """

    def __init__(
        self,
        op: str,
        name: str,
        columns: Sequence[str],
        categories: Sequence[str],
        decode: Decode,
        on_damage: OnDamage,
    ) -> None:
        require_readers()
        unknown = [one for one in columns if one not in OPTIONAL]
        if isinstance(columns, str) or unknown:
            near = "" if isinstance(columns, str) else meant(str(unknown[0]), OPTIONAL)
            near = near.removesuffix("; ")
            raise ValueError(
                f"{op}: columns must be some of {', '.join(OPTIONAL)}, got {columns!r}{near and f'; {near}'}"
            )
        if on_damage not in ("raise", "skip"):
            raise ValueError(f"{op}: on_damage must be 'raise' or 'skip', got {on_damage!r}")
        self.op, self.name, self.decode, self.on_damage = op, name, decode, on_damage
        self.columns, self.categories = [*REQUIRED, *columns, *categories], list(categories)
        self.skipped = 0
        self._told: set[str] = set()

    def events(self, values: Sequence[Any], place: Callable[[int], str]) -> Events:
        """The events of messages, of which the i-th lies at ``place(i)``.

        Raises:
            EventFileError: a message that is none, by its place, unless such are skipped.
        """
        rows, found = [], []
        for row, value in enumerate(values):
            try:
                columns = self.decode(value)
                if not isinstance(columns, Mapping):
                    raise TypeError(f"it must hold columns by name, got {one_line(columns)}")
                rows.append(row)
                found.append(columns)
            except Exception as error:  # whatever a decoder raises
                reason = f"{place(row)}: cannot be decoded: {one_line(error)}"
                self._damage(EventFileError(reason), error)

        def events(among: Sequence[int]) -> Events:
            return self._events([found[i] for i in among], lambda i: place(rows[among[i]]))

        return Events.joined(self._good(events, range(len(rows))) or [events([])])

    def _good(
        self, events: Callable[[Sequence[int]], Events], among: Sequence[int]
    ) -> list[Events]:
        """Those of them that are events: halves of halves are tried, since most are."""
        try:
            return [events(among)]
        except EventFileError as error:
            if len(among) == 1 or self.on_damage == "raise":
                self._damage(error, error.__cause__)
                return []
        half = len(among) // 2
        return self._good(events, among[:half]) + self._good(events, among[half:])

    def _events(self, found: list[Mapping[str, Any]], place: Callable[[int], str]) -> Events:
        import pandas as pd

        columns = {name: pd.Series([one.get(name) for one in found]) for name in self.columns}
        frame, ends = pd.DataFrame(columns), np.array([len(found)])
        table = MessageTable(Path(self.name), [], ends, frame, told=self._told, place=place)
        return events_of(table, self.categories)

    def _damage(self, error: EventFileError, cause: BaseException | None) -> None:
        if self.on_damage == "raise":
            raise error from cause
        self.skipped += 1
        log.warning("%s: left out: %s", self.op, error)
