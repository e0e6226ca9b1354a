# SPDX-License-Identifier: Apache-2.0
"""Events that another library holds, through the Arrow C stream: polars, DuckDB, pandas, Hugging Face datasets, Arrow itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longclock.data.event_table import EventTable
from longclock.data.file_columns import EventFileError, FileForm, one_line, series

if TYPE_CHECKING:
    import pyarrow as pa

METHOD = "__arrow_c_stream__"
DATASET = "with_format"  # what a Hugging Face dataset has in its place
ROWS = 10_000  # of a dataset, read at once


def has_stream(value: Any) -> bool:
    """Whether a value is a table, or a stream of batches: by the Arrow C stream, or as a Hugging Face dataset."""
    return hasattr(value, METHOD) or hasattr(value, DATASET)


def require_path_or_stream(function: str, events: Any) -> None:
    """Raises TypeError for what is neither, with what to give in its place."""
    if isinstance(events, (str, os.PathLike)) or has_stream(events):
        return
    remedy = ""
    if hasattr(events, "collect"):  # a lazy frame
        remedy = "; give its collect()"
    elif isinstance(events, Mapping):
        remedy = "; give pyarrow.table() or pandas.DataFrame() of it"
    raise TypeError(
        f"{function}: events must be a path, a table with an Arrow C stream ({METHOD}), or a Hugging Face dataset, got {type(events).__name__}{remedy}"
    )


def batches_of(found: Any) -> Iterable[pa.RecordBatch | pa.Table]:
    """Record batches of what has an Arrow C stream, is a dataset, or an iterable of them; one that is none is told."""
    import pyarrow as pa

    if hasattr(found, DATASET):  # its table has also rows that filter, select or shuffle took out
        tables: Iterable[pa.Table] = found.with_format("arrow").iter(ROWS)
        return tables
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
    table = pa.concat_tables(batches_of(events)) if hasattr(events, DATASET) else pa.table(events)
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
