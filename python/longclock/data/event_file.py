# SPDX-License-Identifier: Apache-2.0
"""Reads a user's own events from Parquet or CSV, and says exactly what is wrong with a bad file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longclock.data.stream import EventStream, IntArray

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("longclock.data")

REQUIRED = ("user", "item", "time")
READ = (*REQUIRED, "order_time", "utc_offset", "label")
UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
# From here on a number is read as the next finer unit: seconds beyond would lie in the year 5138,
# milliseconds reach it in March 1973.
UNITS_FROM = np.array([10**11, 10**14, 10**17])
FARTHEST_ZONE = 14 * 3600
BOOLEANS = {"True": "1", "TRUE": "1", "true": "1", "False": "0", "FALSE": "0", "false": "0"}


class EventFileError(ValueError):
    """A bad event file; the message names the file, the column, the row and the remedy."""


def read_events(path: str | Path, categories: Sequence[str] | None = None) -> EventStream:
    """Read an event stream from a Parquet or CSV file with named columns.

    Columns: ``user``, ``item`` (any values, in CSV any text: they are numbered in order of
    appearance), ``time`` (seconds; milliseconds, micro- and nanoseconds are noticed and converted,
    with a message; Parquet timestamps and dates), optional ``order_time`` (default: ``time``),
    ``utc_offset`` (seconds east of UTC, added to ``time`` for the clock only; without it timestamps
    with a time zone are read in that zone, with a message), ``label`` (0 or 1, or booleans; without
    it every event is a positive) and attributes of the item. What is not read stands in the stream's
    ``unused_columns``.

    Args:
        path: ``.parquet``, ``.csv`` or ``.csv.gz``; rows in any order.
        categories: attribute columns; None takes the columns whose name holds "category".
    Raises:
        EventFileError: names the column and the row, counted from 1 after the header; the blank
            lines of a CSV are left out, but counted.
    """
    path = Path(path)
    frame = _read(path)
    if categories is None:
        categories = [str(name) for name in frame.columns if "category" in str(name)]
    for name in (*REQUIRED, *categories):
        if name not in frame.columns:
            found = ", ".join(str(column) for column in frame.columns)
            raise EventFileError(f"{path}: column {name!r} is missing; the columns are: {found}")
    if len(frame) == 0:
        raise EventFileError(f"{path}: the file has no events")

    seconds = _seconds(frame, "time", path)
    ordered = _seconds(frame, "order_time", path) if "order_time" in frame.columns else seconds
    offset = _utc_offset(frame, path)
    order = np.argsort(ordered, kind="stable")
    label = _label(frame, path)[order] if "label" in frame.columns else None
    names, ids = {}, {}
    for name in categories:
        codes, values = _numbered(frame, name, order, path)
        ids[name], names[name] = codes + 1, ["unknown", *values]
    for name in ("user", "item"):
        _check(frame, name, frame[name].isna().to_numpy(), path, "must not be empty")
    return EventStream(
        name=path.stem,
        user=_numbered(frame, "user", order, path)[0],
        item=_numbered(frame, "item", order, path)[0],
        time=(seconds + offset)[order],
        order_time=ordered[order],
        label=label,
        categories=ids,
        category_names=names,
        unused_columns=tuple(
            str(name) for name in frame.columns if name not in {*READ, *categories}
        ),
    )


def _read(path: Path) -> pd.DataFrame:
    try:
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "reading event files needs pandas and pyarrow: pip install longclock[train]"
        ) from error
    if not path.is_file():
        raise FileNotFoundError(f"event file not found: {path}")
    if path.suffix == ".parquet":
        reader = _read_parquet
    elif path.suffix == ".csv" or path.name.endswith(".csv.gz"):
        reader = _read_csv
    else:
        raise EventFileError(f"{path}: the name must end in .parquet, .csv or .csv.gz")
    try:
        return reader(path)
    except (ValueError, LookupError, OSError, EOFError) as error:  # what no table makes them raise
        raise EventFileError(f"{path}: cannot be read: {str(error).strip()}") from error


def _read_parquet(path: Path) -> pd.DataFrame:
    from pyarrow.parquet import ParquetFile

    # Integers beside missing values stay integers, in place of floats that lose digits.
    table = ParquetFile(path).read()
    return table.to_pandas(ignore_metadata=True, integer_object_nulls=True)


def _read_csv(path: Path) -> pd.DataFrame:
    """Every field as text: what looks like a number may be an id, and '01' is not '1'."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame = pd.read_csv(
                path, dtype=str, keep_default_na=False, na_values=[""], low_memory=False,
                index_col=False, skip_blank_lines=False,
            )  # fmt: skip
        except pd.errors.ParserWarning:
            raise ValueError("row 1 has more fields than the header") from None
    return frame.dropna(how="all")


def _check(frame: pd.DataFrame, name: str, bad: Any, path: Path, rule: str) -> None:
    if np.any(bad):
        row = int(np.argmax(bad))
        value = frame[name].iloc[row]
        shown = repr(value) if isinstance(value, str) else " ".join(str(value).split())
        number = int(frame.index[row]) + 1
        raise EventFileError(f"{path}: column {name!r}, row {number}: {rule}, got {shown}")


def _numbers(frame: pd.DataFrame, name: str, path: Path) -> np.ndarray:
    """The column as finite integers or floats, far from where int64 ends."""
    import pandas as pd

    column = frame[name]
    _check(frame, name, column.isna().to_numpy(), path, "must not be empty")
    is_time = column.dtype.kind in "mM"  # which would pass for the number of its ticks
    _check(frame, name, np.full(len(column), is_time), path, "must be a number")
    if column.dtype == object:
        column = column.where(column.map(np.isscalar))
    numbers: np.ndarray = pd.to_numeric(column, errors="coerce").to_numpy()
    _check(frame, name, ~np.isfinite(numbers), path, "must be a number")
    size = np.abs(numbers.astype(np.float64))
    _check(frame, name, size >= 2.0**62, path, "must be between -2^62 and 2^62")
    return numbers if numbers.dtype.kind == "f" else numbers.astype(np.int64)


def _seconds(frame: pd.DataFrame, name: str, path: Path) -> IntArray:
    import pandas as pd

    column = frame[name]
    is_date = column.dtype == object and pd.api.types.infer_dtype(column) == "date"
    if is_date or column.dtype.kind == "M":
        _check(frame, name, column.isna().to_numpy(), path, "must not be empty")
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            column = column.dt.tz_convert(None)
        return column.to_numpy().astype("datetime64[s]").astype(np.int64)
    numbers = (_numbers(frame, name, path) // 1).astype(np.int64)
    unit = np.searchsorted(UNITS_FROM, np.abs(numbers), side="right")
    most = int(np.bincount(unit).argmax())
    _check(frame, name, unit != most, path, f"must be {UNITS[most]} as most rows are")
    if most > 0:
        log.warning("%s: column %r holds %s: converted to seconds", path, name, UNITS[most])
    return numbers // 1000**most


def _utc_offset(frame: pd.DataFrame, path: Path) -> IntArray | int:
    """Seconds that make a local time: of the column, else of the time zone of ``time``."""
    name = "utc_offset"
    if name in frame.columns:
        seconds = _numbers(frame, name, path)
        hours = (seconds != 0) & bool((np.abs(seconds) <= 14).all())
        rule = "must be seconds, but every row looks like hours (multiply by 3600)"
        _check(frame, name, hours, path, rule)
        rule = f"must be from -{FARTHEST_ZONE} to {FARTHEST_ZONE} seconds"
        _check(frame, name, np.abs(seconds) > FARTHEST_ZONE, path, rule)
        _check(frame, name, seconds % 1 != 0, path, "must be whole seconds")
        return seconds.astype(np.int64)
    time = frame["time"]
    zone = getattr(time.dtype, "tz", None)
    if zone is None:
        return 0
    log.warning("%s: column 'time' has the time zone %s: the clock reads its time", path, zone)
    offset = time.dt.tz_localize(None) - time.dt.tz_convert(None)
    return offset.dt.total_seconds().to_numpy().astype(np.int64)


def _label(frame: pd.DataFrame, path: Path) -> IntArray:
    label = _numbers(frame.assign(label=frame["label"].replace(BOOLEANS)), "label", path)
    _check(frame, "label", (label != 0) & (label != 1), path, "must be 0 or 1")
    return label.astype(np.int64)


def _numbered(
    frame: pd.DataFrame, name: str, order: IntArray, path: Path
) -> tuple[IntArray, list[str]]:
    """Ids in order of appearance (so that later rows change no earlier id), and their names."""
    import pandas as pd

    column = frame[name]
    if column.dtype == object:
        compound = ~column.map(lambda value: isinstance(value, Hashable)).to_numpy(dtype=bool)
        _check(frame, name, compound, path, "must be a single value")
    codes, values = pd.factorize(column.iloc[order])  # missing values: -1
    return codes.astype(np.int64), [str(value) for value in values]
