# SPDX-License-Identifier: Apache-2.0
"""A user's own events from Parquet or CSV; a bad file is told exactly what is wrong with it."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longclock._extras import TRAIN_EXTRA
from longclock._mlp import FARTHEST
from longclock.data.event_table import EventFileError, EventTable, read_table
from longclock.data.stream import EventStream, IntArray

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("longclock.data")

REQUIRED = ("user", "item", "time")
OPTIONAL = ("order_time", "utc_offset", "label")
TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
# From here on a number is read as the next finer unit: seconds beyond would lie in the year 5138,
# milliseconds reach it in March 1973.
UNITS_FROM = np.array([FARTHEST, 10**14, 10**17])
FARTHEST_ZONE = 14 * 3600
# No zone is nearer to UTC: such an offset is in hours (to 14) or in minutes (to 14 * 60).
NEAREST_ZONE = 900
FIRST_CLOCK = -6_000_000_000  # in the year 1779
BOOLEANS = {"True": "1", "TRUE": "1", "true": "1", "False": "0", "FALSE": "0", "false": "0"}


def read_events(path: str | Path, categories: Sequence[str] | None = None) -> EventStream:
    """Read an event stream from Parquet or CSV with named columns.

    Columns: ``user``, ``item`` (any values, in CSV any text: they are numbered in order of
    appearance), ``time`` (seconds; milliseconds, micro- and nanoseconds are noticed and converted,
    with a message; Parquet timestamps and dates), optional ``order_time`` (default: ``time``),
    ``utc_offset`` (seconds east of UTC, added to ``time`` for the clock only; without it timestamps
    with a time zone are read in that zone, with a message), ``label`` (0 or 1, or booleans; without
    it every event is a positive) and attributes of the item. What is not read stands in the stream's
    ``unused_columns``.

    Args:
        path: ``.parquet``, ``.csv`` or ``.csv.gz``, or a folder of such files, as Spark writes it: hidden
            files (``_SUCCESS``) do not count, folders within it called ``name=value`` are a column;
            rows in any order.
        categories: attribute columns; None takes the columns whose name holds "category".
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
    path = Path(path)
    _check_categories(path, categories)
    _require_readers()
    attributes: list[str] = list(dict.fromkeys(categories or ()))

    def wanted(names: Sequence[str]) -> list[str]:
        if categories is None:
            attributes.extend(name for name in names if "category" in name)
        return [*REQUIRED, *(name for name in OPTIONAL if name in names), *attributes]

    table = read_table(path, wanted)
    if len(table.frame) == 0:
        raise EventFileError(f"{path}: the file has no events")
    seconds = _seconds(table, "time")
    ordered = _seconds(table, "order_time") if "order_time" in table.frame else seconds
    time = seconds + _utc_offset(table, seconds)
    table.check("time", np.abs(time) >= FARTHEST, "must be before the year 5138")
    order = np.argsort(ordered, kind="stable")
    label = _label(table)[order] if "label" in table.frame else None
    names, ids = {}, {}
    for name in attributes:
        codes, values = _numbered(table, name, order)
        ids[name], names[name] = codes + 1, ["unknown", *values]
    for name in ("user", "item"):
        table.check(name, table.frame[name].isna().to_numpy(), "must not be empty")
    return EventStream(
        name=path.stem or path.resolve().stem,
        user=_numbered(table, "user", order)[0],
        item=_numbered(table, "item", order)[0],
        time=time[order],
        order_time=ordered[order],
        label=label,
        categories=ids,
        category_names=names,
        unused_columns=table.unused,
    )


def _require_readers() -> None:
    try:
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(f"reading event files needs {error.name}: {TRAIN_EXTRA}") from error


def _check_categories(path: Path, categories: Sequence[str] | None) -> None:
    if isinstance(categories, str):
        raise ValueError(f"read_events: categories must be a list of names, got {categories!r}")
    for name in categories or ():
        if name in (*REQUIRED, *OPTIONAL):
            raise EventFileError(
                f"{path}: column {name!r} has its own meaning and cannot be an attribute too; "
                "copy it under another name"
            )


def _numbers(table: EventTable, name: str, column: pd.Series | None = None) -> np.ndarray:
    """The column as finite integers or floats, far from where int64 ends."""
    import pandas as pd

    column = table.frame[name] if column is None else column
    table.check(name, column.isna().to_numpy(), "must not be empty")
    # Times would pass for the number of their ticks, booleans for 0 and 1.
    other = np.full(len(column), column.dtype.kind in "mMb")
    if column.dtype == object:
        other = column.map(lambda value: isinstance(value, bool) or not np.isscalar(value))
        column = column.where(~other)
    table.check(name, np.asarray(other), "must be a number")
    numbers: np.ndarray = pd.to_numeric(column, errors="coerce").to_numpy()
    table.check(name, ~np.isfinite(numbers), "must be a number")
    size = np.abs(numbers.astype(np.float64))
    table.check(name, size >= 2.0**62, "must be between -2^62 and 2^62")
    return numbers if numbers.dtype.kind == "f" else numbers.astype(np.int64)


def _seconds(table: EventTable, name: str) -> IntArray:
    import pandas as pd

    column = table.frame[name]
    if column.dtype == object and pd.api.types.infer_dtype(column) == "date":
        column = pd.Series(column.to_numpy().astype("datetime64[s]"))
    if column.dtype.kind == "M":
        table.check(name, column.isna().to_numpy(), "must not be empty")
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            column = column.dt.tz_convert(None)
        times = column.to_numpy()
        ticks = TICKS[np.datetime_data(times.dtype)[0]]
        # NumPy's own conversion wraps round at the first nanoseconds that there are.
        seconds: IntArray = times.astype(np.int64) // ticks
        far = np.abs(seconds) >= FARTHEST
        table.check(
            name, far, "must be before the year 5138 (leave out rows that stand for no time)"
        )
        return seconds
    numbers = (_numbers(table, name) // 1).astype(np.int64)
    unit = np.searchsorted(UNITS_FROM, np.abs(numbers), side="right")
    most = int(np.bincount(unit).argmax())
    table.check(name, unit != most, f"must be {UNITS[most]} as most rows are")
    if most > 0:
        log.warning("%s: column %r holds %s: converted to seconds", table.path, name, UNITS[most])
    return numbers // 1000**most


def _utc_offset(table: EventTable, seconds: IntArray) -> IntArray | int:
    """Seconds that make a local time: of the column, else of the time zone of ``time``."""
    name = "utc_offset"
    if name in table.frame:
        offset = _numbers(table, name)
        size = np.abs(offset)
        near = (size > 0) & (size < NEAREST_ZONE)
        rule = "must be seconds, but every row looks like hours (multiply by 3600)"
        table.check(name, near & bool((size <= 14).all()), rule)
        rule = f"must be from -{FARTHEST_ZONE} to {FARTHEST_ZONE} seconds"
        table.check(name, size > FARTHEST_ZONE, rule)
        rule = "must be whole seconds (hours times 3600, minutes times 60)"
        table.check(name, offset % 1 != 0, rule)
        rule = "must be seconds, but every row looks like minutes (multiply by 60)"
        table.check(name, near & bool((size < NEAREST_ZONE).all()), rule)
        rule = "must be seconds as other rows are: no time zone is so near to UTC"
        table.check(name, near, rule)
        return offset.astype(np.int64)
    zone = getattr(table.frame["time"].dtype, "tz", None)
    return 0 if zone is None else _zone_offset(table, seconds, zone)


def _zone_offset(table: EventTable, seconds: IntArray, zone: Any) -> IntArray:
    import pandas as pd

    log.warning(
        "%s: column 'time' has the time zone %s: the clock reads its time", table.path, zone
    )
    # The clocks of a zone begin in the 19th century: before, its first one is as good as any.
    known = np.maximum(seconds, FIRST_CLOCK).astype("datetime64[s]")
    local = pd.DatetimeIndex(known).tz_localize("UTC").tz_convert(zone).tz_localize(None)
    return (local.to_numpy() - known).astype("timedelta64[s]").astype(np.int64)


def _label(table: EventTable) -> IntArray:
    column = table.frame["label"]
    if column.dtype.kind == "b":
        return column.to_numpy().astype(np.int64)
    if column.dtype == object and column.map(lambda value: isinstance(value, bool)).any():
        column = column.map({True: 1, False: 0}, na_action="ignore")
    label = _numbers(table, "label", column.replace(BOOLEANS))
    table.check("label", (label != 0) & (label != 1), "must be 0 or 1")
    return label.astype(np.int64)


def _numbered(table: EventTable, name: str, order: IntArray) -> tuple[IntArray, list[str]]:
    """Ids in order of appearance (so that later rows change no earlier id), and their names."""
    import pandas as pd

    column = table.frame[name]
    if isinstance(column.dtype, pd.DatetimeTZDtype):  # in a zone the year 9999 may be none
        column = column.dt.tz_convert("UTC")
    if column.dtype == object:
        compound = ~column.map(lambda value: isinstance(value, Hashable)).to_numpy(dtype=bool)
        table.check(name, compound, "must be a single value")
    codes, values = pd.factorize(column.iloc[order])  # missing values: -1
    return codes.astype(np.int64), [str(value) for value in values]
