# SPDX-License-Identifier: Apache-2.0
"""Events that another library holds, through the Arrow C stream: polars, DuckDB, pandas, Hugging Face datasets, Arrow itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longclock.data.event_table import EventTable
from longclock.data.file_columns import EventFileError, FileForm, one_line, series

if TYPE_CHECKING:
    import pyarrow as pa

METHOD = "__arrow_c_stream__"


def has_stream(value: Any) -> bool:
    """Whether a value is a table, or a stream of batches, by the Arrow C stream."""
    return hasattr(value, METHOD)


def batches_of(found: Any) -> Iterable[pa.RecordBatch | pa.Table]:
    """Record batches of what has an Arrow C stream, or is an iterable of them; one that is none is told."""
    import pyarrow as pa

    if not has_stream(found):
        if not isinstance(found, Iterable):
            raise EventFileError(
                f"ArrowSource: open must give record batches, or a table that has {METHOD}, got {type(found).__name__}"
            )
        return found
    reader: Iterable[pa.RecordBatch] = pa.RecordBatchReader.from_stream(found)
    return reader


def read_stream(
    events: Any, wanted: Callable[[Sequence[str]], Sequence[str]], form: FileForm
) -> EventTable:
    """The columns that ``wanted`` chooses from the names of all, of all rows.

    Raises:
        EventFileError: a column that is missing, there twice, or of a kind that is none of events.
    """
    import pandas as pd
    import pyarrow as pa

    name = type(events).__name__
    table = pa.table(events)
    names = form.ours(table.schema.names)
    columns = list(wanted(names))
    found = {}
    for column in columns:
        theirs = form.columns.get(column, column)
        if column not in names:
            raise EventFileError(f"{name}: {form.missing(column, names, text=False)}")
        if names.count(column) > 1:
            raise EventFileError(
                f"{name}: column {theirs!r} is there {names.count(column)} times; "
                f"the columns are: {one_line(', '.join(map(form.theirs, names)))}"
            )
        try:
            found[column] = series(table.column(names.index(column)))
        except Exception as error:  # of Arrow, of its conversion, of a text's encoding
            raise EventFileError(f"{name}: column {theirs!r}: {one_line(error)}") from error
    frame = pd.DataFrame(found, index=pd.RangeIndex(table.num_rows))
    unused = tuple(dict.fromkeys(other for other in names if other not in columns))
    return EventTable(Path(name), [Path(name)], np.array([table.num_rows]), frame, unused, form)
