# SPDX-License-Identifier: Apache-2.0
"""Reads a user's own events from Parquet or CSV, and says exactly what is wrong with a bad file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longclock.data.stream import EventStream, IntArray

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("longclock.data")

REQUIRED = ("user", "item", "time")
# Seconds beyond this would lie in the year 5138; milliseconds reach it in March 1973.
MILLISECONDS_FROM = 100_000_000_000


class EventFileError(ValueError):
    """A bad event file; the message names the file, the column, the row and the remedy."""


def read_events(path: str | Path, categories: Sequence[str] | None = None) -> EventStream:
    """Read an event stream from a Parquet or CSV file with named columns.

    Columns: ``user``, ``item`` (any values: they are numbered in order of appearance), ``time``
    (seconds; milliseconds are noticed and converted, with a message), optional ``order_time`` (default:
    ``time``), ``utc_offset`` (seconds east of UTC, added to ``time`` for the clock only), ``label`` (0 or
    1; without it every event is a positive) and attributes of the item.

    Args:
        path: ``.parquet``, ``.csv`` or ``.csv.gz``; rows in any order.
        categories: attribute columns; None takes the columns whose name holds "category".
    Raises:
        EventFileError: names the column and the row, counted from 1 without the header.
    """
    path = Path(path)
    frame = _read(path)
    if len(frame) == 0:
        raise EventFileError(f"{path}: the file has no events")
    if categories is None:
        categories = [str(name) for name in frame.columns if "category" in str(name)]
    for name in (*REQUIRED, *categories):
        if name not in frame.columns:
            found = ", ".join(str(column) for column in frame.columns)
            raise EventFileError(f"{path}: column {name!r} is missing; the columns are: {found}")

    seconds = _seconds(frame, "time", path)
    ordered = _seconds(frame, "order_time", path) if "order_time" in frame.columns else seconds
    offset = _integers(frame, "utc_offset", path) if "utc_offset" in frame.columns else 0
    order = np.argsort(ordered, kind="stable")
    label = None
    if "label" in frame.columns:
        label = _integers(frame, "label", path)
        _check(frame, "label", (label != 0) & (label != 1), path, "must be 0 or 1")
        label = label[order]
    names, ids = {}, {}
    for name in categories:
        ids[name], names[name] = _numbered(frame[name].iloc[order], unknown=True)
    for name in ("user", "item"):
        _check(frame, name, frame[name].isna().to_numpy(), path, "must not be empty")
    return EventStream(
        name=path.stem,
        user=_numbered(frame["user"].iloc[order])[0],
        item=_numbered(frame["item"].iloc[order])[0],
        time=(seconds + offset)[order],
        order_time=ordered[order],
        label=label,
        categories=ids,
        category_names=names,
    )


def _read(path: Path) -> pd.DataFrame:
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "reading event files needs pandas: pip install longclock[train]"
        ) from error
    if not path.is_file():
        raise FileNotFoundError(f"event file not found: {path}")
    if path.suffix == ".parquet":
        reader = pd.read_parquet
    elif path.suffix == ".csv" or path.name.endswith(".csv.gz"):
        reader = pd.read_csv
    else:
        raise EventFileError(f"{path}: the name must end in .parquet, .csv or .csv.gz")
    try:
        return reader(path)
    except ValueError as error:  # what both readers raise for a file that is no such table
        raise EventFileError(f"{path}: cannot be read: {error}") from error


def _check(frame: pd.DataFrame, name: str, bad: Any, path: Path, rule: str) -> None:
    if np.any(bad):
        row = int(np.argmax(bad))
        value = frame[name].iloc[row]
        shown = repr(value) if isinstance(value, str) else str(value)
        raise EventFileError(f"{path}: column {name!r}, row {row + 1}: {rule}, got {shown}")


def _integers(frame: pd.DataFrame, name: str, path: Path) -> IntArray:
    import pandas as pd

    column = frame[name]
    _check(frame, name, column.isna().to_numpy(), path, "must not be empty")
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if pd.api.types.is_datetime64_dtype(column.dtype):
        return column.to_numpy().astype("datetime64[s]").astype(np.int64)
    if pd.api.types.is_integer_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype):
        return column.to_numpy().astype(np.int64)
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    _check(frame, name, ~np.isfinite(numbers), path, "must be a number")
    _check(frame, name, np.abs(numbers) >= 2.0**62, path, "must fit an int64")
    return np.floor(numbers).astype(np.int64)


def _seconds(frame: pd.DataFrame, name: str, path: Path) -> IntArray:
    numbers = _integers(frame, name, path)
    large = np.abs(numbers) >= MILLISECONDS_FROM
    if not large.any():
        return numbers
    if 2 * large.sum() >= len(large):
        _check(frame, name, ~large, path, "must be milliseconds as most rows are")
        log.warning("%s: column %r holds milliseconds: converted to seconds", path, name)
        return numbers // 1000
    _check(frame, name, large, path, "must be seconds as most rows are")
    raise AssertionError("unreachable")


def _numbered(column: pd.Series, unknown: bool = False) -> tuple[IntArray, list[str]]:
    """Ids in order of appearance (so that later rows change no earlier id), and their names."""
    import pandas as pd

    codes, values = pd.factorize(column)  # missing values: -1
    names = [str(value) for value in values]
    if unknown:
        return codes.astype(np.int64) + 1, ["unknown", *names]
    return codes.astype(np.int64), names
