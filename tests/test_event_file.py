# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

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
def test_milliseconds_are_noticed(tmp_path, caplog, kind):
    seconds = read_events(write(tmp_path)).time
    assert not caplog.records
    path = write(tmp_path, kind, time=[t * 1000 + 7 for t in columns()["time"]])
    np.testing.assert_array_equal(read_events(path).time, seconds)
    assert "column 'time' holds milliseconds: converted to seconds" in caplog.text


def test_parquet_timestamps_are_seconds(tmp_path):
    path = write(tmp_path, "parquet", time=pd.to_datetime(columns()["time"], unit="s", utc=True))
    assert read_events(path).time[0] == 1_700_000_100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": None}, "column 'time' is missing; the columns are: user, item"),
        ({"user": None}, "column 'user' is missing"),
        ({"time": [1, 2, "noon", 4]}, "column 'time', row 3: must be a number, got 'noon'"),
        ({"time": [1, None, 3, 4]}, "column 'time', row 2: must not be empty"),
        ({"time": [1, 2, 3, np.inf]}, "column 'time', row 4: must be a number, got inf"),
        ({"time": [1, 2, 1e300, 3]}, "column 'time', row 3: must fit an int64"),
        (
            {"time": [1_700_000_000, 1_700_000_000_000, 1_700_000_000, 5]},
            "column 'time', row 2: must be seconds as most rows are, got 1700000000000",
        ),
        (
            {"time": [1_700_000_000_000, 1_700_000_000_000, 1_700_000_000_000, 5]},
            "column 'time', row 4: must be milliseconds as most rows are, got 5",
        ),
        ({"label": [0, 1, 2, 1]}, "column 'label', row 3: must be 0 or 1, got "),
        ({"label": [0, "yes", 1, 1]}, "column 'label', row 2: must be a number, got 'yes'"),
        ({"user": ["ann", "bob", "ann", None]}, "column 'user', row 4: must not be empty"),
        ({"item": [1, None, 2, 3]}, "column 'item', row 2: must not be empty"),
        ({"utc_offset": [0, 0, 0, "CET"]}, "column 'utc_offset', row 4: must be a number"),
        ({"user": [], "item": [], "time": []}, "the file has no events"),
    ],
)
def test_bad_files_name_column_and_row(tmp_path, changes, message):
    path = write(tmp_path, **changes)
    with pytest.raises(EventFileError) as error:
        read_events(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_wrong_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match="event file not found"):
        read_events(tmp_path / "absent.csv")
    (tmp_path / "events.xlsx").write_text("")
    with pytest.raises(EventFileError, match=r"must end in .parquet, .csv or .csv.gz"):
        read_events(tmp_path / "events.xlsx")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(EventFileError, match="cannot be read"):
        read_events(tmp_path / "empty.csv")
    with pytest.raises(EventFileError, match="column 'genre' is missing"):
        read_events(write(tmp_path), ["genre"])
