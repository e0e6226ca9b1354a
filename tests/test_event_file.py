# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest

from longclock.data import EventFileError, read_events


def columns(**changes):
    good = {
        "user": ["ann", "bob", "ann", "cy"],
        "item": [7, 7, 9, 3],
        "time": [1_700_000_300, 1_700_000_100, 1_700_000_200, 1_700_000_400],
    }
    return {name: values for name, values in {**good, **changes}.items() if values is not None}


def write(folder, kind="csv", **changes):
    frame = pd.DataFrame(columns(**changes))
    path = folder / f"events.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_rows_are_ordered_and_ids_counted_in_that_order(tmp_path, kind):
    events = read_events(write(tmp_path, kind))
    assert events.time.tolist() == [1_700_000_000 + t for t in (100, 200, 300, 400)]
    assert events.user.tolist() == [0, 1, 1, 2]  # bob, ann, ann, cy
    assert events.item.tolist() == [0, 1, 0, 2]
    assert events.label is None


def test_all_columns(tmp_path):
    path = write(
        tmp_path,
        utc_offset=[3600, 0, -3600, 0],
        label=[1, 0, 1, 1],
        order_time=[1, 2, 3, 4],
        category=["a", None, "b", "a"],
        note=["x", "y", "z", "w"],
    )
    events = read_events(path)
    assert events.order_time.tolist() == [1, 2, 3, 4]
    assert events.time.tolist() == [1_700_003_900, 1_700_000_100, 1_699_996_600, 1_700_000_400]
    assert events.label is not None
    assert events.label.tolist() == [1, 0, 1, 1]
    assert events.categories["category"].tolist() == [1, 0, 2, 1]  # 0: unknown
    assert events.category_names["category"] == ["unknown", "a", "b"]
    assert list(events.categories) == ["category"]
    assert list(read_events(path, ["note"]).categories) == ["note"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("power", [1, 2, 3])
def test_finer_units_are_noticed(tmp_path, caplog, kind, power):
    seconds = read_events(write(tmp_path)).time
    assert not caplog.records
    path = write(tmp_path, kind, time=[(t + 1) * 1000**power - 1 for t in columns()["time"]])
    np.testing.assert_array_equal(read_events(path).time, seconds)
    unit = ("milliseconds", "microseconds", "nanoseconds")[power - 1]
    assert f"column 'time' holds {unit}: converted to seconds" in caplog.text


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_ids_are_kept_apart(tmp_path, kind):
    texts = ["01", "1", "NA", "None"]
    events = read_events(write(tmp_path, kind, user=texts, item=texts, category=texts))
    assert events.users == events.items == 4
    assert sorted(events.category_names["category"]) == ["01", "1", "NA", "None", "unknown"]
    numbers = [2**62 + 1, None, 2**62, 2**62 + 1]  # a float would merge them
    column = pd.array(numbers, dtype="Int64")
    events = read_events(write(tmp_path, kind, category=column))
    assert events.categories["category"].tolist() == [0, 1, 2, 2]
    assert events.category_names["category"] == ["unknown", str(2**62), str(2**62 + 1)]


def test_one_id_in_a_long_csv_stays_one(tmp_path):
    count = 300_000  # more than one chunk of the reader
    user = [7] * (count - 1) + ["ann"]
    path = write(tmp_path, user=user, item=range(count), time=range(count))
    assert read_events(path).users == 2


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_labels_may_be_booleans(tmp_path, kind):
    events = read_events(write(tmp_path, kind, label=[True, False, True, True]))
    assert events.label is not None
    assert events.label.tolist() == [0, 1, 1, 1]


def test_parquet_timestamps_are_seconds(tmp_path):
    path = write(tmp_path, "parquet", time=pd.to_datetime(columns()["time"], unit="s", utc=True))
    assert read_events(path).time[0] == 1_700_000_100
    days = [datetime.date(2024, 1, day) for day in (4, 1, 2, 3)]
    path = write(tmp_path, "parquet", time=days)
    assert (read_events(path).time - 1_704_067_200).tolist() == [0, 86_400, 172_800, 259_200]


def test_a_time_zone_is_the_clock(tmp_path, caplog):
    utc = pd.to_datetime([1_700_000_000, 1_720_000_000] * 2, unit="s", utc=True)  # winter, summer
    paris = utc.tz_convert("Europe/Paris")
    events = read_events(write(tmp_path, "parquet", time=paris))
    assert events.order_time.tolist() == [1_700_000_000] * 2 + [1_720_000_000] * 2
    assert (events.time - events.order_time).tolist() == [3600] * 2 + [7200] * 2
    assert "column 'time' has the time zone Europe/Paris: the clock reads its time" in caplog.text
    events = read_events(write(tmp_path, "parquet", time=paris, utc_offset=[-3600] * 4))
    assert (events.time - events.order_time).tolist() == [-3600] * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": None}, "column 'time' is missing; the columns are: user, item"),
        ({"user": None}, "column 'user' is missing"),
        ({"time": [1, 2, "noon", 4]}, "column 'time', row 3: must be a number, got 'noon'"),
        ({"time": [1, None, 3, 4]}, "column 'time', row 2: must not be empty"),
        ({"time": [1, 2, 3, np.inf]}, "column 'time', row 4: must be a number, got 'inf'"),
        ({"time": [1, 2, 1e300, 3]}, "column 'time', row 3: must be between -2^62 and 2^62"),
        ({"time": [1, 2**63, 3, 4]}, "column 'time', row 2: must be between -2^62 and 2^62"),
        ({"time": [1, 2, -(2**63), 4]}, "column 'time', row 3: must be between -2^62 and 2^62"),
        ({"time": [1, 2, 3, 2**63 - 1]}, "column 'time', row 4: must be between -2^62 and 2^62"),
        (
            {"time": [1_700_000_000, 1_700_000_000_000, 1_700_000_000, 5]},
            "column 'time', row 2: must be seconds as most rows are, got '1700000000000'",
        ),
        (
            {"time": [1_700_000_000_000, 1_700_000_000_000, 1_700_000_000_000, 5]},
            "column 'time', row 4: must be milliseconds as most rows are, got '5'",
        ),
        ({"label": [0, 1, 2, 1]}, "column 'label', row 3: must be 0 or 1, got "),
        ({"label": [0, 1, 1, 0.7]}, "column 'label', row 4: must be 0 or 1, got "),
        ({"label": [0, 1.9, 1, 0]}, "column 'label', row 2: must be 0 or 1, got "),
        ({"label": [0, "yes", 1, 1]}, "column 'label', row 2: must be a number, got 'yes'"),
        ({"user": ["ann", "bob", "ann", None]}, "column 'user', row 4: must not be empty"),
        ({"item": [1, None, 2, 3]}, "column 'item', row 2: must not be empty"),
        ({"utc_offset": [0, 0, 0, "CET"]}, "column 'utc_offset', row 4: must be a number"),
        (
            {"utc_offset": [0, -5, 5.5, 1]},
            "column 'utc_offset', row 2: must be seconds, but every row looks like hours",
        ),
        (
            {"utc_offset": [0, 50_400, -50_401, 0]},
            "column 'utc_offset', row 3: must be from -50400 to 50400 seconds, got ",
        ),
        ({"utc_offset": [0, 99.5, 0, 0]}, "column 'utc_offset', row 2: must be whole seconds"),
        ({"user": [], "item": [], "time": []}, "the file has no events"),
    ],
)
def test_bad_files_name_column_and_row(tmp_path, changes, message):
    refused(write(tmp_path, **changes), message)


def refused(path, message):
    with pytest.raises(EventFileError) as error:
        read_events(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": np.array([1, 2**63, 3, 4], np.uint64)}, "'time', row 2: must be between -2^62"),
        ({"time": np.array([1, 2, 3, -(2**63)])}, "'time', row 4: must be between -2^62"),
        ({"time": pd.to_timedelta([1, 2, 3, 4])}, "'time', row 1: must be a number, got 0 days"),
        ({"time": [[1], [2], [3], [4]]}, "'time', row 1: must be a number, got [1]"),
        (
            {"utc_offset": pd.to_datetime([1, 2, 3, 4], unit="s")},
            "'utc_offset', row 1: must be a number, got 1970-01-01 00:00:01",
        ),
        ({"label": pd.to_datetime([0, 1, 0, 1])}, "'label', row 1: must be a number, got 1970"),
        ({"category": [None, ["a", "b"], ["c"], []]}, "'category', row 2: must be a single value"),
        ({"item": [{"a": 1}] * 4}, "'item', row 1: must be a single value, got {'a': 1}"),
        ({"label": [1, 0, None, 1]}, "'label', row 3: must not be empty"),
    ],
)
def test_bad_columns_of_parquet(tmp_path, changes, message):
    refused(write(tmp_path, "parquet", **changes), message)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,1,5\n\nb,2,6\n\n\nc,3,x\n", "column 'time', row 6: must be a number, got 'x'"),
        ("a,1,5\nb,2\n", "column 'time', row 2: must not be empty"),
        ("a,1,5\n\nb,2,6,7\n", "Expected 3 fields in line 4, saw 4"),
        ("a,1,5,8\nb,2,6\n", "row 1 has more fields than the header"),
    ],
)
def test_rows_of_another_length(tmp_path, rows, message):
    path = tmp_path / "events.csv"
    path.write_text("user,item,time\n" + rows)
    refused(path, message)


def test_blank_lines_are_left_out(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("user,item,time\na,1,5\n\nb,2,1700000000000000007\n\n")
    refused(path, "column 'time', row 3: must be seconds as most rows are, got '17000000000")
    path.write_text("user,item,time\na,1,5\n\nb,2,6\n\n")
    assert read_events(path).time.tolist() == [5, 6]


def test_wrong_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match="event file not found"):
        read_events(tmp_path / "absent.csv")
    (tmp_path / "events.xlsx").write_text("")
    with pytest.raises(
        EventFileError, match=r"must end in .parquet, or that of a text file in .csv"
    ):
        read_events(tmp_path / "events.xlsx")
    (tmp_path / "empty.csv").write_text("")
    refused(tmp_path / "empty.csv", "cannot be read")
    (tmp_path / "blank.csv").write_text("\nuser,item,time\na,1,5\n")
    refused(tmp_path / "blank.csv", "column 'user' is missing")
    for name in ("not.csv.gz", "not.parquet"):
        (tmp_path / name).write_text("neither")
        refused(tmp_path / name, "cannot be read")
    with pytest.raises(EventFileError, match="column 'genre' is missing"):
        read_events(write(tmp_path), ["genre"])


def test_columns_that_are_not_read_are_told(tmp_path):
    path = write(
        tmp_path, rating=[1, 2, 3, 4], label=[0, 1, 0, 1], genre=["a"] * 4, category=[1] * 4
    )
    assert read_events(path).unused_columns == ("rating", "genre")
    events = read_events(path, ["genre"])
    assert events.unused_columns == ("rating", "category")
    assert events.head(max_events=1).unused_columns == ("rating", "category")
    assert read_events(write(tmp_path)).unused_columns == ()
