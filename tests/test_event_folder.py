# SPDX-License-Identifier: Apache-2.0
"""Folders of event files, as Spark, Hive and Dask write them."""

from __future__ import annotations

import pyarrow as pa
import pytest
from event_files import TIME, refused, stamps, write
from pyarrow import parquet as pq

from longclock.data import read_events


@pytest.mark.parametrize(
    "names",
    [
        ("part-00000-0a.c000.snappy.parquet", "part-00001-0a.c000.snappy.parquet"),
        ("000000_0", "000001_0"),  # Hive
        ("deep/part.0.parquet", "deep/part.1.parquet"),
    ],
)
def test_parts_are_one_stream(tmp_path, names):
    folder = tmp_path / "plays.parquet"
    write(folder, names[0])
    write(folder, names[1], user=["c", "a", "c"], time=[time + 3 for time in TIME])
    for hidden in (
        "_SUCCESS",
        ".part-00000.crc",
        "_metadata",
        "_temporary/0/part-00000",
        ".x/y.csv",
    ):
        path = folder / hidden
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not Parquet")
    events = read_events(folder)
    assert events.name == "plays"
    assert events.user.tolist() == [0, 1, 0, 2, 0, 2]
    assert events.time.tolist() == [TIME[0] + second for second in range(6)]


def test_rows_are_named_within_their_part(tmp_path):
    write(tmp_path, "part-0.parquet")
    write(tmp_path, "part-1.parquet", label=None)
    write(tmp_path, "part-2.parquet", time=[*TIME[:2], None])
    refused(tmp_path, "part-2.parquet: column 'time', row 3: must not be empty")
    write(tmp_path, "part-2.parquet", user=["a", None, "a"])
    refused(tmp_path, "part-2.parquet: column 'user', row 2: must not be empty")
    write(tmp_path, "part-2.parquet", label=[1, 0, 1])
    refused(tmp_path, "part-0.parquet: column 'label', row 1: must not be empty")


def test_folder_names_are_columns(tmp_path):
    write(tmp_path, "category=rock/day=1/part-0.parquet", category=None)
    write(tmp_path, "category=caf%C3%A9/day=2/part-0.parquet")
    write(tmp_path, "category=__HIVE_DEFAULT_PARTITION__/day=2/part-0.parquet")
    events = read_events(tmp_path)
    assert set(events.category_names["category"]) == {"unknown", "café", "rock"}
    assert sorted(events.categories["category"].tolist()).count(0) == 3
    assert events.unused_columns == ("day",)
    with pytest.raises(
        ValueError, match=r"column 'genre' is missing; the columns are: user, .*day"
    ):
        read_events(tmp_path, ["genre"])


@pytest.mark.parametrize("name", ["user", "label", "time"])
def test_required_columns_of_folder_names(tmp_path, name):
    write(tmp_path, f"{name}=0/part-0.parquet", **{name: None})
    write(tmp_path, f"{name}=1/part-0.parquet", **{name: None})
    events = read_events(tmp_path)
    found = events.columns()[name].tolist()
    assert sorted(found) == [0, 0, 0, 1, 1, 1]
    write(tmp_path, f"{name}=1/part-0.parquet", **{name: [1, 1, 1]})
    refused(tmp_path, f"column '{name}' is in the file and in the name of its folder: rename one")


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({"user": [1, 2, 3]}, ("'user'", "integer", "string")),
        ({"time": stamps(TIME)}, ("'time'", "timestamps", "numbers")),
        ({"label": [1, 0, 1]}, ("'label'", "numbers", "boolean")),
    ],
)
def test_parts_of_other_types(tmp_path, change, kinds):
    write(tmp_path, "part-0.parquet", label=[True, False, True])
    write(tmp_path, "part-1.parquet", **{"label": [True, False, True], **change})
    message = "write all files with the same types"
    refused(tmp_path, "part-1.parquet: column", kinds[0], message)


def test_parts_of_other_zones_and_units(tmp_path):
    write(tmp_path, "part-0.parquet", time=stamps(TIME, "us", "Asia/Tokyo"))
    write(tmp_path, "part-1.parquet", time=stamps(TIME, "us", "Europe/Berlin"))
    refused(tmp_path, "part-1.parquet: column 'time' is of timestamps in Europe/Berlin")
    for unit in ("ns", "ms", "s"):
        write(tmp_path, "part-1.parquet", time=stamps(TIME, unit, "Asia/Tokyo"))
        events = read_events(tmp_path)
        assert events.order_time.tolist() == sorted(TIME * 2)
        assert set(events.time - events.order_time) == {9 * 3600}


def test_integers_of_other_widths_and_empty_parts(tmp_path):
    write(tmp_path, "part-0.parquet", item=pa.array([1, 2, 1], pa.int32()))
    write(tmp_path, "part-1.parquet", item=pa.array([1, 2, 2**40], pa.int64()))
    write(tmp_path, "part-2.parquet", item=pa.array([1, None, 2]), time=TIME)
    empty = pa.table({"user": pa.nulls(0), "item": pa.nulls(0), "time": pa.nulls(0)})
    pq.write_table(empty, tmp_path / "part-3.parquet")
    refused(tmp_path, "part-2.parquet: column 'item', row 2: must not be empty")
    (tmp_path / "part-2.parquet").unlink()
    assert read_events(tmp_path).items == 3


def test_csv_parts(tmp_path):
    (tmp_path / "part-0.csv").write_text("user,item,time\na,1,5\n\nb,2,6\n")
    (tmp_path / "part-1.csv").write_text("time,user,item\n7,a,1\n\nx,a,1\n")
    refused(tmp_path, "part-1.csv: column 'time', row 3: must be a number, got 'x'")
    (tmp_path / "part-1.csv").write_text("time,user,item\n7,a,1\n")
    assert read_events(tmp_path).user.tolist() == [0, 1, 0]


def test_folders_that_are_no_events(tmp_path):
    refused(tmp_path, "the folder has no Parquet or CSV file")
    (tmp_path / "_SUCCESS").write_text("")
    refused(tmp_path, "the folder has no Parquet or CSV file")
    write(tmp_path, "part-0.parquet")
    (tmp_path / "part-1.orc").write_text("ORC")
    refused(tmp_path, "all files of the folder must be Parquet or CSV, got part-1.orc")
    (tmp_path / "part-1.orc").unlink()
    (tmp_path / "part-1.parquet").write_text("broken")
    refused(tmp_path, "part-1.parquet: cannot be read")
    for log, system in (("_delta_log", "Delta"), (".hoodie", "Hudi")):
        for place in (tmp_path / log, tmp_path / "day=1" / log):
            place.mkdir(parents=True)
            refused(tmp_path, f"is a {system} table, of whose files only some count")
            place.rmdir()
    (tmp_path / "part-1.parquet").unlink()
    for target in (tmp_path / "absent.parquet", tmp_path.parent):
        (tmp_path / "linked").symlink_to(target)
        refused(tmp_path, "linked is a link that leads to no file")
        (tmp_path / "linked").unlink()
    (tmp_path / "part-1.parquet").symlink_to(tmp_path / "part-0.parquet")
    assert len(read_events(tmp_path)) == 6
