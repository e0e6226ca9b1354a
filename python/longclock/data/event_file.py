# SPDX-License-Identifier: Apache-2.0
"""A user's own events from Parquet or CSV; a bad file is told exactly what is wrong with it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longclock._extras import TRAIN_EXTRA, imported_for
from longclock._keywords import meant, named_keywords
from longclock.data.arrow_stream import has_stream, read_stream, require_path_or_stream
from longclock.data.event_columns import OPTIONAL, REQUIRED, label_of, times_of
from longclock.data.event_table import EventTable, read_table
from longclock.data.file_columns import PLACES, EventFileError, FileForm, as_argument
from longclock.data.stream import EventStream, IntArray


@named_keywords("read_events")
def read_events(
    path: Any,
    categories: Sequence[str] | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    separator: str | None = None,
    header: bool = True,
) -> EventStream:
    """Read an event stream from Parquet, a text file such as CSV, or a table of another library.

    Columns: ``user``, ``item`` (any values, in CSV any text: they are numbered in order of
    appearance), ``time`` (seconds; milliseconds, micro- and nanoseconds are noticed and converted,
    with a message; Parquet timestamps and dates; texts as ``2024-05-01T08:30:00+02:00``), optional ``order_time`` (default: ``time``),
    ``utc_offset`` (seconds east of UTC, added to ``time`` for the clock only; without it timestamps
    with a time zone are read in that zone, with a message), ``label`` (0 or 1, or booleans; without
    it every event is a positive) and attributes of the item. What is not read stands in the stream's
    ``unused_columns``.

    Args:
        path: ``.parquet``, ``.csv`` or ``.csv.gz``, or a folder of such files, as Spark writes it: hidden
            files (``_SUCCESS``) do not count, folders within it called ``name=value`` are a column;
            rows in any order. Also a single ``.tsv``, ``.txt``, ``.dat`` or ``.data``, with ``.gz`` or without. Or whatever has
            an Arrow C stream (``__arrow_c_stream__``): a table of Arrow, a frame of polars or pandas, a relation of DuckDB, or is
            a Hugging Face dataset; its stream is called ``events``.
        categories: attribute columns; None takes the columns whose name holds "category".
        columns: what the file calls a column of ours: ``{"user": "userId", "item": "movieId", "time": "timestamp"}``.
        separator: of a text file's fields, of one letter or more, such as ``::``; None: of comma, tab, ``;``, ``|`` and ``::`` the one
            of which the first line has most.
        header: whether a text file's first line has the names; else they are "1", "2" and so on, for ``columns``.
    Raises:
        EventFileError: names the file, the column and the row, counted from 1 after the header; the
            blank lines of a CSV are left out, but counted.
        FileNotFoundError: there is no such file or folder.

    Example::

        >>> import pandas as pd
        >>> from longclock.data import read_events
        >>> plays = {"user": ["ann", "bob"], "item": ["jazz", "folk"], "time": [3600, 60]}
        >>> pd.DataFrame(plays).to_csv("plays.csv", index=False)
        >>> stream = read_events("plays.csv")
        >>> stream.name, stream.time.tolist(), stream.user.tolist()  # bob was first, so he is user 0
        ('plays', [60, 3600], [0, 1])
    """
    form = FileForm(dict(columns or {}), separator, header, "python")
    return events_of_file(path, categories, form)


def events_of_file(path: Any, categories: Sequence[str] | None, form: FileForm) -> EventStream:
    """:func:`read_events` of a file that is written so; errors say what is to be given to whom the form is asked by."""
    _check_form(form)
    require_path_or_stream("read_events", path)
    streamed, name = has_stream(path), "events"
    if streamed and (form.separator is not None or not form.header):
        raise ValueError(
            f"read_events: separator and header are of a text file, got a {type(path).__name__}"
        )
    if not streamed:
        path = Path(path)
        name = path.stem or path.resolve().stem
    _check_categories(path if not streamed else type(path).__name__, categories)
    require_readers()
    attributes: list[str] = list(dict.fromkeys(categories or ()))

    def wanted(names: Sequence[str]) -> list[str]:
        if categories is None:
            attributes.extend(name for name in names if "category" in name)
        return [*REQUIRED, *(name for name in OPTIONAL if name in names), *attributes]

    table = read_stream(path, wanted, form) if streamed else read_table(path, wanted, form)
    if len(table.frame) == 0:
        raise EventFileError(f"{table.path}: the file has no events")
    taken = [*table.frame]  # before offsets of times become a column
    time, ordered = times_of(table)
    order = np.argsort(ordered, kind="stable")
    label = label_of(table)[order] if "label" in table.frame else None
    names, ids = {}, {}
    for column in attributes:
        codes, values = _numbered(table, column, order)
        ids[column], names[column] = codes + 1, ["unknown", *map(str, values)]
    for column in ("user", "item"):
        table.check(column, table.frame[column].isna().to_numpy(), "must not be empty")
    user, users = _numbered(table, "user", order)
    item, items = _numbered(table, "item", order)
    return EventStream(
        name=name,
        user=user,
        item=item,
        time=time[order],
        order_time=ordered[order],
        label=label,
        categories=ids,
        category_names=names,
        user_names=users,
        item_names=items,
        unused_columns=table.unused,
        file_columns={column: form.theirs(column) for column in table.frame if column in taken},
        blank_rows=table.blank,
    )


def _check_form(form: FileForm) -> None:
    """Raises where what is said of a file cannot be."""
    own_names, program = (*REQUIRED, *OPTIONAL), form.asked_by == "program"
    argument = "--{}" if program else "read_events: {}"
    columns = dict(form.columns)
    for own, theirs in columns.items():
        if own not in own_names:
            attributes = "--categories" if program else "categories"
            raise ValueError(
                f"{argument.format('columns')} must name {', '.join(own_names)}, got {own!r}; {meant(own, own_names)}attributes are {attributes}"
            )
        if list(columns.values()).count(theirs) > 1:
            raise ValueError(
                f"{argument.format('columns')} must be different ones of the file, got {theirs!r} twice"
            )
    if form.separator == "":
        raise ValueError(f"{argument.format('separator')} must have a letter at least, got ''")
    if not form.header and not set(REQUIRED) <= columns.keys():
        example, given = (as_argument(each) if program else each for each in (PLACES, columns))
        raise ValueError(
            f"{argument.format('columns')} must say where user, item and time are without a header, such as {example}, got {given or 'none'}"
        )


def require_readers() -> None:
    """Raises where pandas or Arrow is missing."""
    with imported_for("reading event files", TRAIN_EXTRA):
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401


def _check_categories(path: Path | str, categories: Sequence[str] | None) -> None:
    if isinstance(categories, str):
        raise ValueError(f"read_events: categories must be a list of names, got {categories!r}")
    for name in categories or ():
        if name in (*REQUIRED, *OPTIONAL):
            raise EventFileError(
                f"{path}: column {name!r} has its own meaning and cannot be an attribute too; "
                "copy it under another name"
            )


def _numbered(table: EventTable, name: str, order: IntArray) -> tuple[IntArray, list[int | str]]:
    """Ids in order of appearance (so that later rows change no earlier id), and their names: integers, or else texts."""
    import pandas as pd

    column = table.frame[name]
    if isinstance(column.dtype, pd.DatetimeTZDtype):  # in a zone the year 9999 may be none
        column = column.dt.tz_convert("UTC")
    if column.dtype == object:
        compound = ~column.map(lambda value: isinstance(value, Hashable)).to_numpy(dtype=bool)
        table.check(name, compound, "must be a single value")
    codes, values = pd.factorize(column.iloc[order])  # missing values: -1
    whole = pd.api.types.is_integer_dtype(values.dtype)
    return codes.astype(np.int64), [int(value) if whole else str(value) for value in values]
