# SPDX-License-Identifier: Apache-2.0
"""Parquet as Spark, warehouses and pandas write it: the events, or one line that names the column."""

from __future__ import annotations

import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from event_files import GOOD, NO_END, TIME, refused, stamps, write
from pyarrow import parquet as pq

from longclock.data import read_events


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([True, False, True]),
        pa.array(["True", "False", "True"]).dictionary_encode(),
        pa.array(["true", "false", "true"], pa.large_string()),
        pa.array([b"1", b"0", b"1"]),
        pa.array([1, 0, 1], pa.int8()).dictionary_encode(),
        pa.array([1, 0, 1], pa.uint64()),
        pa.array([1.0, 0.0, 1.0], pa.float64()),
        pa.array(np.array([1, 0, 1], np.float16)),
        pa.array([decimal.Decimal(1), decimal.Decimal(0), decimal.Decimal(1)]),
        pa.array([decimal.Decimal("1.0"), decimal.Decimal("0.0"), decimal.Decimal("1.0")]),
    ],
    ids=lambda labels: str(labels.type),
)
def test_labels_of_every_type(tmp_path, labels):
    events = read_events(write(tmp_path, label=labels))
    assert events.label is not None
    assert events.label.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (pa.array([True, None, False]), "column 'label', row 2: must not be empty, got None"),
        (pa.array(["no", "True", "yes"]).dictionary_encode(), "row 1: must be a number, got 'no'"),
        (
            pa.array([decimal.Decimal("0.5")] * 3),
            "column 'label', row 1: must be 0 or 1, got '0.5'",
        ),
        (pa.nulls(3), "column 'label', row 1: must not be empty"),
    ],
)
def test_wrong_labels(tmp_path, label, message):
    refused(write(tmp_path, label=label), message)


def test_labels_of_pandas_categories(tmp_path):
    frame = pd.DataFrame({**GOOD, "label": pd.Categorical([True, False, True])})
    frame.index = [5, 6, 7]
    frame.to_parquet(tmp_path / "events.parquet")
    events = read_events(tmp_path / "events.parquet")
    assert events.label is not None
    assert events.label.tolist() == [1, 0, 1]
    assert events.unused_columns == ()  # of pandas' own index nothing need be said


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([2**64 - 1, 2**64 - 2, 2**64 - 1], pa.uint64()),
        pa.array([2**53 + 1, 2**53, 2**53 + 1], pa.int64()),
        pa.array([decimal.Decimal(10**17 + 1), decimal.Decimal(10**17), decimal.Decimal(10**17 + 1)]),
        pa.array([decimal.Decimal(10**30 + n) for n in (1, 0, 1)], pa.decimal128(38, 0)),
        pa.array([decimal.Decimal(1 + n) / 10**20 for n in (1, 0, 1)], pa.decimal128(38, 20)),
        pa.array(["x", "y", "x"], pa.large_string()),
        pa.array(["x", "y", "x"]).dictionary_encode(),
        pa.array([b"x", b"y", b"x"], pa.large_binary()),
        pa.array([b"\xff\x00", b"\xfe\x00", b"\xff\x00"], pa.binary(2)),
        pa.array([0.5, 0.25, 0.5]),
        pa.array(np.array([0.5, 0.25, 0.5], np.float16)),
        pa.array([True, False, True]),
        pa.array([datetime.date(2024, 1, day) for day in (1, 2, 1)]),
        pa.array([datetime.time(hour) for hour in (1, 2, 1)]),
        pa.array([1, 2, 1], pa.duration("s")),
        stamps([NO_END, 1, NO_END], zone="Europe/Berlin"),
    ],
    ids=lambda ids: str(ids.type),
)  # fmt: skip
def test_ids_of_every_type(tmp_path, ids):
    events = read_events(write(tmp_path, user=ids, item=ids))
    assert events.user.tolist() == events.item.tolist() == [0, 1, 0]


def test_attributes_of_every_type(tmp_path):
    binary = pa.array([b"rock", b"caf\xc3\xa9", None])
    path = write(tmp_path, category=binary, category_of_none=pa.nulls(3))
    events = read_events(path)
    assert events.category_names["category"] == ["unknown", "rock", "café"]
    assert events.categories["category"].tolist() == [1, 2, 0]
    assert events.categories["category_of_none"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["user", "category"])
@pytest.mark.parametrize(
    "values",
    [
        pa.array([[1], [2], [3]]),
        pa.array([{"a": 1}] * 3),
        pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int64())),
        pa.array([[1, 2]] * 3, pa.list_(pa.int64(), 2)),
    ],
    ids=lambda values: str(values.type),
)
def test_nested_ids(tmp_path, name, values):
    path = write(tmp_path, **{name: values})
    refused(path, f"column '{name}', row 1: must be a single value", "events.parquet")


@pytest.mark.parametrize("name", ["time", "order_time", "utc_offset"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([True, False, True]), "must be a number, got True"),
        (pa.array([True, None, True]), "row 2: must not be empty"),
        (pa.array([1, 2, 3], pa.duration("us")), "must be a number"),
        (pa.array([datetime.time(1)] * 3), "must be a number, got 01:00:00"),
        (pa.array([[1], [2], [3]]), "must be a number, got [1]"),
        (pa.array([{"a": 1}] * 3), "must be a number, got {'a': 1}"),
        (pa.array([2**64 - 1, 1, 2], pa.uint64()), "must be between -2^62 and 2^62"),
        (pa.array([1.0, float("nan"), 3.0]), "row 2: must not be empty"),
        (pa.array([1, None, 3]), "row 2: must not be empty"),
        (pa.array([b"\xff\xff", b"\xff\xff", b"\xff\xff"]), "must be a number, got 'ffff'"),
        (pa.nulls(3), "row 1: must not be empty"),
    ],
)
def test_columns_that_are_no_times(tmp_path, name, values, message):
    refused(write(tmp_path, **{name: values}), f"column '{name}', row", message)


@pytest.mark.parametrize(
    "time",
    [
        pa.array(TIME, pa.uint64()),
        pa.array([decimal.Decimal(t) for t in TIME]),
        pa.array([decimal.Decimal(f"{t}.50") for t in TIME]),
        pa.array([str(t) for t in TIME]).dictionary_encode(),
        pa.array([t + 0.75 for t in TIME]),
        stamps(TIME, "s"), stamps(TIME, "ms"), stamps(TIME, "ns"), stamps(TIME, "ns", "UTC"),
        stamps(TIME).dictionary_encode(),
    ],
    ids=lambda time: str(time.type),
)  # fmt: skip
def test_times_of_every_type(tmp_path, time):
    assert read_events(write(tmp_path, time=time)).time.tolist() == TIME


ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Asia/Tokyo",
    "Pacific/Kiritimati",
    "+05:30",
    "-12:00",
)


@pytest.mark.parametrize("zone", [None, "UTC", *ZONES])
@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_times_that_stand_for_no_end(tmp_path, unit, zone):
    time = stamps([NO_END, TIME[0], -TIME[0]], unit, zone)
    refused(
        write(tmp_path, time=time), "column 'time', row 1: must be before the year 5138", "9999"
    )
    time = stamps([*TIME[:2], -62_135_596_800], unit, zone)  # the year 1
    assert read_events(write(tmp_path, time=time)).order_time[0] == -62_135_596_800


@pytest.mark.parametrize("zone", ZONES)
def test_a_zone_at_the_ends_of_nanoseconds(tmp_path, zone):
    time = pa.array([2**63 - 1, 1, -(2**63) + 1], pa.timestamp("ns", zone))
    events = read_events(write(tmp_path, time=time))
    assert events.order_time.tolist() == [-9_223_372_037, 0, 9_223_372_036]
    local = pa.array([2_000_000_000], pa.timestamp("s", zone))
    path = write(tmp_path, time=pa.concat_arrays([local] * 3))
    offset = local.to_pandas()[0].utcoffset().total_seconds()
    assert (read_events(path).time - 2_000_000_000).tolist() == [offset] * 3


@pytest.mark.parametrize("days", [-(10**6), 10**6 * 2, 2**31 - 1])
def test_dates_of_no_calendar(tmp_path, days):
    time = pa.array([0, days, 1], pa.date32())
    if days < 0:
        assert read_events(write(tmp_path, time=time)).time[0] == days * 86_400
    else:
        refused(write(tmp_path, time=time), "column 'time', row 2: must be before the year 5138")


def test_texts_that_are_no_utf8(tmp_path):
    buffers = [None, pa.py_buffer(np.arange(4, dtype=np.int32)), pa.py_buffer(b"a\xffb")]
    path = write(tmp_path, user=pa.Array.from_buffers(pa.string(), 3, buffers))
    refused(path, "cannot be read: column 'user': ", "Invalid UTF8")


def test_unknown_zone(tmp_path):
    path = write(tmp_path, time=stamps(TIME, zone="Mars/Olympus"))
    refused(path, "column 'time': the time zone 'Mars/Olympus' is not known")


def test_spark_timestamps(tmp_path):
    options = {"use_deprecated_int96_timestamps": True}
    assert read_events(write(tmp_path, options=options, time=stamps(TIME))).time.tolist() == TIME
    path = write(tmp_path, options=options, time=stamps([NO_END, *TIME[1:]]))
    refused(path, "column 'time', row 1: must be before the year 5138", "got 9999-12-31")


def test_a_column_twice(tmp_path):
    arrays = [pa.array(values) for values in (*GOOD.values(), TIME, TIME, TIME)]
    names = [*GOOD, "time", "note", "note"]
    pq.write_table(pa.Table.from_arrays(arrays, names), tmp_path / "events.parquet")
    refused(tmp_path / "events.parquet", "column 'time' is there 2 times: rename all but one")
    names[3] = "other"
    pq.write_table(pa.Table.from_arrays(arrays, names), tmp_path / "events.parquet")
    assert read_events(tmp_path / "events.parquet").unused_columns == ("other", "note")


def test_a_name_that_begins_like_another(tmp_path):
    path = write(tmp_path, **{"time.zone": ["x"] * 3, "category.a": [1, 2, 3], "a b": [0, 0, 0]})
    events = read_events(path)
    assert (events.time.tolist(), list(events.categories)) == (TIME, ["category.a"])
    assert events.unused_columns == ("time.zone", "a b")


def test_no_rows(tmp_path):
    pq.write_table(pa.table(GOOD).slice(0, 0), tmp_path / "events.parquet")
    refused(tmp_path / "events.parquet", "the file has no events")
    schema = pa.table(GOOD).schema
    with pq.ParquetWriter(tmp_path / "none.parquet", schema):
        pass  # no row group
    refused(tmp_path / "none.parquet", "the file has no events")
