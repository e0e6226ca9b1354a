# SPDX-License-Identifier: Apache-2.0
"""What the columns of events mean: moments, offsets from UTC and labels, by the same rules wherever events come from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from longclock._constants import FARTHEST
from longclock.data.event_table import EventTable
from longclock.data.stream import IntArray

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("user", "item", "time")
OPTIONAL = ("order_time", "utc_offset", "label")
TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
# From here on a number is read as the next finer unit: seconds beyond would lie in the year 5138,
# milliseconds reach it in March 1973.
UNITS_FROM = np.array([FARTHEST, 10**14, 10**17])
FARTHEST_ZONE = 14 * 3600
# A date, with or without a time of day; and its offset from UTC.
ISO = re.compile(
    r"(\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?)?) ?([Zz]|[+-]\d{2}(?::?\d{2})?)?"
)
# No zone is nearer to UTC: such an offset is in hours (to 14) or in minutes (to 14 * 60).
NEAREST_ZONE = 900
FIRST_CLOCK = -6_000_000_000  # in the year 1779
BOOLEANS = {"True": "1", "TRUE": "1", "true": "1", "False": "0", "FALSE": "0", "false": "0"}


def numbers(table: EventTable, name: str, column: pd.Series | None = None) -> np.ndarray:
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
    values: np.ndarray = pd.to_numeric(column, errors="coerce").to_numpy()
    table.check(name, ~np.isfinite(values), "must be a number")
    size = np.abs(values.astype(np.float64))
    table.check(name, size >= 2.0**62, "must be between -2^62 and 2^62")
    return values if values.dtype.kind == "f" else values.astype(np.int64)


def times_of(table: EventTable) -> tuple[IntArray, IntArray]:
    """Local seconds, and the seconds that events are ordered by, of every row."""
    for name in ("time", "order_time"):
        if name in table.frame:
            _read_iso(table, name)
    seconds = seconds_of(table, "time")
    ordered = seconds_of(table, "order_time") if "order_time" in table.frame else seconds
    time = seconds + utc_offset(table, seconds)
    table.check("time", np.abs(time) >= FARTHEST, "must be before the year 5138")
    return time, ordered


def _read_iso(table: EventTable, name: str) -> None:
    """Texts such as ``2024-05-01 08:30:00`` or ``2024-05-01T08:30:00+02:00`` become timestamps; what the clock of ``time`` reads
    beside UTC becomes its ``utc_offset``, where the file has none."""
    import pandas as pd

    column = table.frame[name]
    first = column.iloc[0] if len(column) and column.dtype.kind == "O" else None
    if not isinstance(first, str) or not ISO.fullmatch(first.strip()):
        return
    parts = column.astype(str).str.strip().str.extract(ISO, expand=True)
    table.check(name, parts[0].isna().to_numpy(), "must be a date and time as the first row's")
    zones = parts[1].notna().to_numpy()
    table.check(
        name,
        zones != zones[0],
        f"must have {'an' if zones[0] else 'no'} offset from UTC, as the first row's",
    )
    local = pd.to_datetime(parts[0], format="ISO8601", errors="coerce")
    table.check(name, local.isna().to_numpy(), "must be a date and time of the calendar")
    offset = np.array([_seconds_from_utc(zone) for zone in parts[1]], np.int64)
    table.frame[name] = local - pd.to_timedelta(offset, unit="s")
    if name == "time" and offset.any() and "utc_offset" not in table.frame:
        table.frame["utc_offset"] = offset
        theirs = table.form.theirs(name)
        table.tell(f"column {theirs!r} has offsets from UTC: the clock reads its local time")


def _seconds_from_utc(zone: object) -> int:
    """Of ``Z``, ``+02:00``, ``-0530``, ``+02``; of nothing, 0."""
    if not isinstance(zone, str) or zone in "Zz":
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    return (-1 if zone[0] == "-" else 1) * (3600 * int(digits[:2]) + 60 * int(digits[2:]))


def seconds_of(table: EventTable, name: str) -> IntArray:
    """A column of moments, in whole seconds."""
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
    values = (numbers(table, name) // 1).astype(np.int64)
    unit = np.searchsorted(UNITS_FROM, np.abs(values), side="right")
    most = int(np.bincount(unit).argmax())
    table.check(name, unit != most, f"must be {UNITS[most]} as most rows are")
    if most > 0:
        table.tell(f"column {table.form.theirs(name)!r} holds {UNITS[most]}: converted to seconds")
    return values // 1000**most


def utc_offset(table: EventTable, seconds: IntArray) -> IntArray | int:
    """Seconds that make a local time: of the column, else of the time zone of ``time``."""
    name = "utc_offset"
    if name in table.frame:
        offset = numbers(table, name)
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

    theirs = table.form.theirs("time")
    table.tell(f"column {theirs!r} has the time zone {zone}: the clock reads its time")
    # The clocks of a zone begin in the 19th century: before, its first one is as good as any.
    known = np.maximum(seconds, FIRST_CLOCK).astype("datetime64[s]")
    local = pd.DatetimeIndex(known).tz_localize("UTC").tz_convert(zone).tz_localize(None)
    return (local.to_numpy() - known).astype("timedelta64[s]").astype(np.int64)


def label_of(table: EventTable) -> IntArray:
    """0 or 1, of numbers or booleans."""
    column = table.frame["label"]
    if column.dtype.kind == "b":
        return column.to_numpy().astype(np.int64)
    if column.dtype == object and column.map(lambda value: isinstance(value, bool)).any():
        column = column.map({True: 1, False: 0}, na_action="ignore")
    label = numbers(table, "label", column.replace(BOOLEANS))
    table.check("label", (label != 0) & (label != 1), "must be 0 or 1")
    return label.astype(np.int64)
