# SPDX-License-Identifier: Apache-2.0
"""Events of files, in order of time, of which few are in memory at once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from longclock._constants import FARTHEST
from longclock._keywords import named_keywords
from longclock.data.event_columns import OPTIONAL, REQUIRED, seconds_of
from longclock.data.event_file import require_readers
from longclock.data.event_table import EventFiles, EventTable
from longclock.data.file_columns import EventFileError, is_parquet, parquet, read_as, series
from longclock.data.sources.events import Events, events_of
from longclock.data.sources.source import Cursor, EventSource
from longclock.data.stream import IntArray

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class RowGroup:
    """What is read at once: a row group of a Parquet file; a CSV file is one."""

    file: int
    number: int | None  # in its file; None: the whole
    rows: int
    first: int  # seconds of its earliest event
    last: int  # and of its latest


class FolderSource(EventSource):
    """The events of a Parquet or CSV file, or of a folder of them, in order of ``order_time``.

    Columns are those of :func:`longclock.data.read_events`; ids are integers or texts, see :func:`text_ids`. Events of one second
    come in the order of the files' names and rows. A row group (of Parquet; a CSV file is one) is in memory from when its
    earliest event is due until its latest is: files of a day each, in order, take the memory of one, and files in
    no order at all that of all. Statistics of Parquet tell when it is due; without them its times are read beforehand.

    A cursor is a second and how many of its events are done. Files may be added later, with events after it.

    Args:
        path: ``.parquet``, ``.csv`` or ``.csv.gz``, or a folder of such files, see :func:`longclock.data.read_events`.
        categories: attribute columns.
    Raises:
        EventFileError: a bad file or value, by its file, column and row. Also, in ``read``, a cursor before
            which events were added or taken away.
        FileNotFoundError: there is no such file or folder.

    Example::

        >>> import pandas as pd
        >>> from longclock.data.sources import FolderSource
        >>> plays = pd.DataFrame({"user": [1, 2, 1], "item": [5, 6, 7], "time": [300, 100, 200]})
        >>> plays.to_parquet("plays.parquet")
        >>> source = FolderSource("plays.parquet")
        >>> [(read.events.item.tolist(), read.cursor["events"]) for read in source.read(batch=2)]
        [([6, 7], 2), ([5], 3)]
        >>> cursor = next(source.read(batch=2)).cursor
        >>> [read.events.item.tolist() for read in source.read(cursor)]
        [[5]]
    """

    kind = "folder"

    @named_keywords()
    def __init__(self, path: str | Path, categories: Sequence[str] = ()) -> None:
        super().__init__(categories)
        require_readers()
        self.path = Path(path)
        self.files = EventFiles.of(self.path, self._wanted)
        self._ordered_by = "order_time" if "order_time" in self.files.columns else "time"
        self._told: set[str] = set()
        self.row_groups = sorted(
            self._all_row_groups(), key=lambda group: (group.first, group.file, group.number or 0)
        )

    def __len__(self) -> int:
        """How many events there are."""
        return sum(group.rows for group in self.row_groups)

    def _wanted(self, names: Sequence[str]) -> list[str]:
        return [*REQUIRED, *(name for name in OPTIONAL if name in names), *self.categories]

    def _all_row_groups(self) -> Iterator[RowGroup]:
        for place, file in enumerate(self.files.files):
            if is_parquet(file):
                yield from read_as(file, functools.partial(self._row_groups, place))
            else:
                yield from self._timed(place, None)

    def _row_groups(self, place: int, file: Path) -> list[RowGroup]:
        import pyarrow as pa

        name = self._ordered_by
        found: list[RowGroup] = []
        with parquet(file) as data:
            columns = [data.schema.column(i).path for i in range(len(data.schema))]
            kind = data.schema_arrow.field(name).type if name in columns else None
            for number in range(data.num_row_groups):
                part = data.metadata.row_group(number)
                known = part.column(columns.index(name)).statistics if kind is not None else None
                if known is None or not known.has_min_max or known.null_count:
                    found += self._timed(place, number)
                    continue
                ends = series(pa.chunked_array([pa.array([known.min, known.max], kind)]))
                try:
                    first, last = self._seconds(place, ends.to_frame(name)).tolist()
                    found.append(RowGroup(place, number, part.num_rows, first, last))
                except EventFileError:
                    found += self._timed(place, number)  # which names the row
        return found

    def _timed(self, place: int, number: int | None) -> Iterator[RowGroup]:
        """A row group whose times must be read to know when it is due."""
        frame = self.files.frame(place, number, [self._ordered_by])
        if len(frame):
            seconds = self._seconds(place, frame)
            yield RowGroup(place, number, len(frame), int(seconds.min()), int(seconds.max()))

    def _seconds(self, place: int, frame: pd.DataFrame) -> IntArray:
        return seconds_of(self._table(place, frame), self._ordered_by)

    def _table(self, place: int, frame: pd.DataFrame) -> EventTable:
        files, ends = [self.files.files[place]], np.array([len(frame)])
        return EventTable(self.path, files, ends, frame, told=self._told)

    def _read(self, cursor: Cursor | None, batch: int) -> Iterator[tuple[Events, Cursor]]:
        after = None if cursor is None else cursor["order_time"]
        groups = [group for group in self.row_groups if after is None or group.last >= after]
        count = len(self) - sum(group.rows for group in groups)  # that are done
        if cursor is not None and not groups:
            self._check_count(cursor, count)
        waiting, second, done = Waiting(), after, 0
        for place, group in enumerate(groups):
            frame = self.files.frame(group.file, group.number)
            events = events_of(self._table(group.file, frame), self.categories)
            waiting.add(events, group.file, frame.index.to_numpy())
            last = place + 1 == len(groups)
            until = FARTHEST if last else groups[place + 1].first
            if cursor is not None:
                if until <= cursor["order_time"]:
                    continue  # more of the cursor's second is to come
                done = min(cursor["done"], waiting.of(cursor["order_time"]))
                count += len(waiting.take(waiting.before(cursor["order_time"]) + done))
                self._check_count(cursor, count)
                cursor = None
            while (due := waiting.before(until)) >= batch or (last and due):
                given = waiting.take(min(batch, due))
                count, latest = count + len(given), int(given.order_time[-1])
                done = int((given.order_time == latest).sum()) + (done if latest == second else 0)
                second = latest
                yield given, {"order_time": second, "done": done, "events": count}

    def _check_count(self, cursor: Cursor, count: int) -> None:
        if count != cursor["events"]:
            raise EventFileError(
                f"{self.path}: {cursor['events']} events came before the cursor, now {count} do: files may "
                "only be added behind it; read from the beginning"
            )


class Waiting:
    """Events of several row groups in order of time, file and row, until all that come before them are known."""

    def __init__(self) -> None:
        self._events: Events | None = None
        self._file = self._row = np.zeros(0, np.int64)

    def add(self, events: Events, file: int, row: IntArray) -> None:
        """The events of a row group, at rows ``[E]`` of a file."""
        of_file = np.full(len(events), file)
        if self._events is not None and len(self._events):
            events = Events.joined([self._events, events])
            of_file = np.concatenate([self._file, of_file])
            row = np.concatenate([self._row, row])
        keys = (row, of_file, events.order_time)
        if not _ordered(*keys):
            order = np.lexsort(keys)
            events, of_file, row = events.take(order), of_file[order], row[order]
        self._events, self._file, self._row = events, of_file, row

    def before(self, second: int) -> int:
        """How many events come before a second."""
        return 0 if self._events is None else int(np.searchsorted(self._events.order_time, second))

    def of(self, second: int) -> int:
        """How many events a second has."""
        return self.before(second + 1) - self.before(second)

    def take(self, count: int) -> Events:
        """The first events; they are no longer waiting."""
        assert self._events is not None
        first, rest = slice(count), slice(count, None)
        given = self._events.take(first)
        self._events = self._events.take(rest)
        self._file, self._row = self._file[rest], self._row[rest]
        return given


def _ordered(row: IntArray, file: IntArray, time: IntArray) -> bool:
    """Whether neighbours are in order of time, then file, then row."""
    order = row[1:] > row[:-1]
    for key in (file, time):
        order = (key[1:] > key[:-1]) | ((key[1:] == key[:-1]) & order)
    return bool(order.all())
