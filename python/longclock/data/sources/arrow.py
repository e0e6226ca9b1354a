# SPDX-License-Identifier: Apache-2.0
"""Events of Arrow record batches, from whatever makes them: IPC streams, Flight, DuckDB, Spark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longclock._constants import FARTHEST
from longclock._keywords import meant, named_keywords
from longclock.data.arrow_stream import batches_of, has_stream
from longclock.data.event_columns import OPTIONAL, REQUIRED
from longclock.data.event_file import require_readers
from longclock.data.event_table import EventTable
from longclock.data.file_columns import EventFileError, one_line, series
from longclock.data.sources.events import Events, events_of
from longclock.data.sources.source import Cursor, EventSource

if TYPE_CHECKING:
    import pyarrow as pa


class ArrowSource(EventSource):
    """The events of record batches, which must be in order of ``order_time``, else of ``time``.

    Columns are those of :func:`longclock.data.read_events`; ids are integers or texts, see :func:`text_ids`. A cursor is a number
    of rows.

    Args:
        open: gives the batches from the first one on, each time anew: ``pyarrow.RecordBatch`` or ``Table``, or whatever has an
            Arrow C stream (``__arrow_c_stream__``), such as a relation of DuckDB. Or such a table itself, which can be read anew: a frame of polars
            or pandas, a table of Arrow, a Hugging Face dataset.
        name: what errors call it.
        categories: attribute columns.
    Raises:
        EventFileError: in ``read``, a column that is missing, a value that is none or an event that is earlier
            than the one before, by its row; a cursor behind the last row.

    Example::

        >>> import pyarrow as pa
        >>> from longclock.data.sources import ArrowSource
        >>> plays = pa.table({"user": ["ann", "bob"], "item": [5, 6], "time": [100, 200]})
        >>> source = ArrowSource(lambda: plays.to_batches(max_chunksize=1))
        >>> [(read.events.item.tolist(), read.cursor) for read in source.read(batch=10)]
        [([5, 6], {'source': 'arrow', 'rows': 2})]
    """

    kind = "arrow"

    @named_keywords()
    def __init__(
        self,
        open: Callable[[], Iterable[pa.RecordBatch | pa.Table] | Any] | Any,
        name: str = "Arrow stream",
        categories: Sequence[str] = (),
    ) -> None:
        super().__init__(categories)
        require_readers()
        self.open = (lambda: open) if has_stream(open) and not callable(open) else open
        self.name = name
        self._told: set[str] = set()

    def _read(self, cursor: Cursor | None, batch: int) -> Iterator[tuple[Events, Cursor]]:
        done = 0 if cursor is None else cursor["rows"]
        waiting: list[Events] = []
        seen = count = 0
        latest = -FARTHEST
        for found in batches_of(self.open()):
            first, seen = max(seen, done), seen + found.num_rows
            if seen <= done:
                continue
            events = self._events(found.slice(found.num_rows - (seen - first)), first, latest)
            latest = int(events.order_time[-1])
            waiting.append(events)
            while (count := sum(map(len, waiting))) >= batch:
                joined = Events.joined(waiting)
                waiting = [joined.take(slice(batch, None))]
                done += batch
                yield joined.take(slice(batch)), {"rows": done}
        if seen < done:
            raise EventFileError(
                f"{self.name}: the cursor is behind {done} rows, now there are {seen}; read from the beginning"
            )
        if count:
            yield Events.joined(waiting), {"rows": done + count}

    def _events(self, found: pa.RecordBatch | pa.Table, first: int, latest: int) -> Events:
        """The events of rows from ``first`` on, none of which is before ``latest``."""
        import pandas as pd
        import pyarrow as pa

        names = found.schema.names
        wanted = [*REQUIRED, *(name for name in OPTIONAL if name in names), *self.categories]
        columns = {}
        for name in wanted:
            if names.count(name) != 1:
                raise EventFileError(
                    f"{self.name}: column {name!r} must be there once, got {names.count(name)} times; "
                    f"{'' if name in names else meant(name, names)}the columns are: {', '.join(names)}"
                )
            column = found.column(names.index(name))
            try:
                columns[name] = series(
                    column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
                )
            except Exception as error:  # of Arrow, of its conversion, of a text's encoding
                raise EventFileError(f"{self.name}: column {name!r}: {one_line(error)}") from error
        rows = pd.RangeIndex(first, first + found.num_rows)
        frame = pd.DataFrame(columns).set_index(rows)
        table = EventTable(
            Path(self.name), [Path(self.name)], np.array([len(frame)]), frame, told=self._told
        )
        events = events_of(table, self.categories)
        before = np.concatenate([[latest], events.order_time[:-1]])
        by = "order_time" if "order_time" in names else "time"
        table.check(by, events.order_time < before, "must not be earlier than the row before")
        return events
