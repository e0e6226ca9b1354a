# SPDX-License-Identifier: Apache-2.0
"""Sources of events: each event once and in order, whoever goes on from a cursor, in little memory."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from event_files import stamps
from pyarrow import parquet as pq

from longclock.data import EventFileError, read_events
from longclock.data.sources import Events, FolderSource, text_ids

DAYS, A_DAY = 7, 400


def made_events(seed=0, count=DAYS * A_DAY):
    """Columns of events in order, several of which share a second, also over files."""
    draw = np.random.default_rng(seed)
    time = np.sort(draw.integers(0, count // 3, count)) + 1_700_000_000
    return {
        "user": draw.integers(0, 50, count),
        "item": draw.integers(0, 90, count),
        "time": time,
        "label": draw.integers(0, 2, count),
        "category": draw.integers(0, 5, count),
    }


def write_days(folder, columns, days=DAYS, group=130):
    """A file a day, in order, in row groups."""
    for day, rows in enumerate(np.array_split(np.arange(len(columns["time"])), days)):
        table = pa.table({name: values[rows] for name, values in columns.items()})
        pq.write_table(table, folder / f"day={day:02d}.parquet", row_group_size=group)
    return folder


def rows_of(events):
    """Every event as a tuple."""
    columns = [events.order_time, events.user, events.item, events.time]
    if events.label is not None:
        columns.append(events.label)
    return list(zip(*(c.tolist() for c in [*columns, *events.categories.values()]), strict=True))


def all_rows(source, cursor=None, **options):
    return [row for read in source.read(cursor, **options) for row in rows_of(read.events)]


def expected(columns):
    rows = [
        columns[name].tolist() for name in ("time", "user", "item", "time", "label", "category")
    ]
    return list(zip(*rows, strict=True))


@pytest.fixture(scope="module")
def columns():
    return made_events()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, columns):
    return write_days(tmp_path_factory.mktemp("days"), columns)


@pytest.fixture(scope="module")
def source(folder):
    return FolderSource(folder, ["category"])


@pytest.mark.parametrize("batch", [1, 7, 130, 999, 10**6])
def test_batches_are_the_events_in_order(source, columns, batch):
    reads = list(source.read(batch=batch))
    assert [row for read in reads for row in rows_of(read.events)] == expected(columns)
    assert len(source) == DAYS * A_DAY
    assert {len(read.events) for read in reads[:-1]} <= {batch}
    assert [read.cursor["events"] for read in reads] == np.cumsum(
        [len(r.events) for r in reads]
    ).tolist()


@pytest.mark.parametrize("shards", [2, 3, 4])
def test_shards_are_users_and_have_the_same_cursors(source, columns, shards):
    parts = [list(source.read(batch=100, shard=(place, shards))) for place in range(shards)]
    cursors = [[read.cursor for read in part] for part in parts]
    assert all(one == cursors[0] for one in cursors)
    users = [{row[1] for read in part for row in rows_of(read.events)} for part in parts]
    assert sum(map(len, users)) == len(set().union(*users)) == 50
    for reads in zip(*parts, strict=True):  # of each cursor, all its events are in one shard
        whole = sorted(row for read in reads for row in rows_of(read.events))
        assert len(whole) == len(reads[0].events) + sum(len(read.events) for read in reads[1:])
    assert sorted(row for part in parts for read in part for row in rows_of(read.events)) == sorted(
        expected(columns)
    )


@pytest.mark.parametrize("batch", [1, 37, 500])
def test_any_number_of_shards_goes_on_from_any_cursor(source, columns, batch):
    for number, read in enumerate(source.read(batch=batch, shard=(1, 2))):
        if number % {1: 97, 37: 11, 500: 1}[batch]:
            continue
        cursor = json.loads(json.dumps(read.cursor))
        rest = expected(columns)[cursor["events"] :]
        assert all_rows(source, cursor, batch=64) == rest
        of_three = [all_rows(source, cursor, batch=50, shard=(place, 3)) for place in range(3)]
        assert sorted(row for rows in of_three for row in rows) == sorted(rest)


def test_cursors_do_not_depend_on_where_reading_began(source):
    whole = list(source.read(batch=10))
    for begin in (3, 50, 200):
        again = [read.cursor for read in source.read(whole[begin].cursor, batch=10)]
        assert again == [read.cursor for read in whole[begin + 1 :]]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_files_in_no_order(tmp_path, columns, kind):
    """Rows of all days in all files: in order of time, then of files and rows."""
    shuffled = np.random.default_rng(1).permutation(len(columns["time"]))
    for file, rows in enumerate(np.array_split(shuffled, 5)):
        frame = pd.DataFrame({name: values[rows] for name, values in columns.items()})
        if kind == "csv":
            frame.to_csv(tmp_path / f"{file}.csv", index=False)
        else:
            frame.to_parquet(tmp_path / f"{file}.parquet", row_group_size=100)
    order = np.argsort(columns["time"][shuffled], kind="stable")
    source = FolderSource(tmp_path, ["category"])
    whole = [expected(columns)[row] for row in shuffled[order]]
    assert all_rows(source, batch=100) == whole
    for read in list(source.read(batch=100))[::5]:
        assert all_rows(source, read.cursor) == whole[read.cursor["events"] :]


def test_as_read_events_reads_them(folder, source):
    """The same events in the same order; its ids are numbers in order of appearance."""
    stream = read_events(folder, ["category"])
    events = Events.joined([read.events for read in source.read()])
    assert np.array_equal(stream.order_time, events.order_time)
    assert np.array_equal(stream.label, events.label)
    for name in ("user", "item"):
        codes, _ = pd.factorize(getattr(events, name))
        assert np.array_equal(getattr(stream, name), codes)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("statistics", [True, False])
def test_timestamps(tmp_path, unit, statistics):
    times = [1_700_000_000, 1_700_050_000]
    for name, seconds in zip("ba", times, strict=True):
        table = pa.table({"user": [1], "item": [2], "time": stamps([seconds], unit, "Asia/Tokyo")})
        pq.write_table(table, tmp_path / f"{name}.parquet", write_statistics=statistics)
    events = Events.joined([read.events for read in FolderSource(tmp_path).read()])
    assert events.order_time.tolist() == times
    assert (events.time - events.order_time).tolist() == [9 * 3600] * 2


@pytest.mark.parametrize("factor", [1, 10**3, 10**6, 10**9])
def test_units_of_numbers(tmp_path, factor, caplog):
    columns = {
        "user": [1, 2],
        "item": [2, 3],
        "time": [1_700_000_000 * factor, 1_700_000_005 * factor],
    }
    for name in "ab":
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    events = Events.joined([read.events for read in FolderSource(tmp_path).read()])
    assert events.order_time.tolist() == [1_700_000_000] * 2 + [1_700_000_005] * 2
    assert len([one for one in caplog.messages if "converted" in one]) == (factor > 1)  # said once


def test_a_column_of_its_own_orders_events(tmp_path):
    columns = {"user": [1, 2], "item": [2, 3], "time": [900, 100], "order_time": [10, 20]}
    pd.DataFrame(columns).to_parquet(tmp_path / "a.parquet")
    events = next(FolderSource(tmp_path / "a.parquet").read()).events
    assert (events.time.tolist(), events.order_time.tolist()) == ([900, 100], [10, 20])


def test_files_may_be_added_behind_a_cursor(tmp_path, columns):
    write_days(tmp_path, columns)
    late = tmp_path / "day=06.parquet"
    kept = late.read_bytes()
    late.unlink()
    *_, last = FolderSource(tmp_path, ["category"]).read(batch=100)
    late.write_bytes(kept)
    whole = FolderSource(tmp_path, ["category"])
    assert all_rows(whole, last.cursor) == expected(columns)[last.cursor["events"] :]


@pytest.mark.parametrize("change", ["added", "taken away"])
def test_files_before_a_cursor(tmp_path, columns, change):
    write_days(tmp_path, columns)
    cursors = [read.cursor for read in FolderSource(tmp_path).read(batch=500)]
    if change == "added":
        (tmp_path / "day=00b.parquet").write_bytes((tmp_path / "day=00.parquet").read_bytes())
    else:
        (tmp_path / "day=00.parquet").unlink()
    changed = FolderSource(tmp_path)
    for cursor in cursors:
        with pytest.raises(EventFileError, match=r"\d+ events came before the cursor, now \d+ do"):
            next(changed.read(cursor))


def test_ids_mean_the_same_everywhere(tmp_path):
    """An integer of Parquet is the text of CSV that spells it; a text is one hash in all of them."""
    given = {
        "user": ["7", "ann", "007", str(2**63 - 1)],
        "item": ["-3", "12345678901234567890", "é", str(-(2**63))],
        "time": ["1", "2", "3", "4"],
    }
    pd.DataFrame(given).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame(given).assign(time=[1, 2, 3, 4]).to_parquet(tmp_path / "b.parquet")
    numbers = {"user": [7, 2**63 - 1], "item": [-3, -(2**63)], "time": [1, 4]}
    pd.DataFrame(numbers).to_parquet(tmp_path / "c.parquet")
    csv, parquet, of_numbers = (
        next(FolderSource(tmp_path / name).read()).events
        for name in ("a.csv", "b.parquet", "c.parquet")
    )
    assert rows_of(csv) == rows_of(parquet)
    assert [rows_of(csv)[0], rows_of(csv)[3]] == rows_of(of_numbers)
    assert text_ids(given["user"]).tolist() == csv.user.tolist()
    assert csv.user.tolist()[:2] == [7, 5978970370318769478]
    assert len({*csv.user.tolist(), *csv.item.tolist()}) == 8
    assert min(csv.user.min(), csv.item[1:3].min()) >= 0


def test_texts_of_integers():
    whole = ["0", "-1", "1000000000000000000", "9223372036854775807", "-9223372036854775808"]
    assert text_ids(whole).tolist() == [int(text) for text in whole]
    others = ["", "-0", "+1", "01", " 1", "1.0", "1e3", "9223372036854775808", "-9223372036854775809", "٣"]  # fmt: skip
    assert not {*text_ids(others).tolist()} & {0, 1, 3, 1000, 2**63 - 1, -(2**63)}
    assert text_ids([]).shape == (0,)
    for wrong in (["a", 1], [["a"]], [None]):
        with pytest.raises(ValueError, match="text_ids: texts must be strings"):
            text_ids(wrong)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"user": [1.5, 2.0]}, ["column 'user', row 1: must be an integer or a text, got 1.5"]),
        ({"item": [True, False]}, ["column 'item', row 1: must be an integer or a text"]),
        ({"item": pa.array([1, 2**63], pa.uint64())}, ["column 'item', row 2: must be from -2^63"]),
        ({"user": ["ann", None]}, ["column 'user', row 2: must not be empty"]),
        ({"time": ["noon", "1"]}, ["column 'time', row 1: must be a number, got 'noon'"]),
        ({"time": [1, 10**14]}, ["must be"]),
        ({"label": [0, 2]}, ["column 'label', row 2: must be 0 or 1, got 2"]),
        ({"time": None}, ["column 'time' is missing"]),
    ],
)
def test_bad_values_are_named(tmp_path, changes, parts):
    columns = {"user": [1, 2], "item": [5, 6], "time": [100, 200], **changes}
    pq.write_table(
        pa.table({k: v for k, v in columns.items() if v is not None}), tmp_path / "bad.parquet"
    )
    with pytest.raises(EventFileError) as error:
        list(FolderSource(tmp_path).read())
    assert all(
        part in str(error.value)
        for part in ["bad.parquet" if "missing" not in parts[0] else "", *parts]
    )


def test_rows_are_counted_over_row_groups(tmp_path):
    columns = {"user": ["a"] * 5 + [None], "item": range(6), "time": range(6)}
    pq.write_table(
        pa.table({k: list(v) for k, v in columns.items()}), tmp_path / "a.parquet", row_group_size=2
    )
    with pytest.raises(EventFileError, match="row 6: must not be empty"):
        list(FolderSource(tmp_path).read())


def test_files_that_do_not_fit_together(tmp_path):
    pd.DataFrame({"user": [1], "item": [1], "time": [1]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"user": ["x"], "item": [1], "time": [2]}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(
        EventFileError, match=r"column 'user' is of string, in a\.parquet of numbers"
    ):
        list(FolderSource(tmp_path).read())


def test_missing_attributes_are_zero(tmp_path):
    columns = {"user": [1, 2], "item": [1, 2], "time": [1, 2], "genre": ["x", None]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    events = next(FolderSource(tmp_path, ["genre"]).read()).events
    assert events.categories["genre"].tolist() == [text_ids(["x"])[0], 0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch": 0}, "FolderSource.read: batch must be an integer of at least 1, got 0"),
        ({"shard": (2, 2)}, "FolderSource.read: shard must be below 2, got 2"),
        ({"shard": 3}, "FolderSource.read: shard must be (r, n), got 3"),
        ({"cursor": {"rows": 5}}, "FolderSource.read: cursor must be of a folder, got"),
        ({"cursor": 5}, "FolderSource.read: cursor must be of a folder, got 5"),
    ],
)
def test_bad_arguments(source, options, said):
    with pytest.raises(ValueError) as error:
        list(source.read(**options))
    assert said in str(error.value)


def test_bad_categories(folder):
    with pytest.raises(
        ValueError, match="FolderSource: categories must be a list of names, got 'category'"
    ):
        FolderSource(folder, "category")
    with pytest.raises(ValueError, match="column 'label' has its own meaning"):
        FolderSource(folder, ["label"])
    with pytest.raises(EventFileError, match="column 'genre' is missing"):
        FolderSource(folder, ["genre"])
    with pytest.raises(FileNotFoundError, match="event file not found"):
        FolderSource(folder / "none")


READ_ALL = """
import resource, sys
from longclock.data.sources import FolderSource

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

source = FolderSource(sys.argv[1])
reads = source.read()
next(reads)
before = peak()
count = sum(len(read.events) for read in reads)
print(count, peak() - before)
"""


def test_memory_does_not_grow_with_the_files(tmp_path):
    """Twenty days of 100,000 events take 64 MB as columns; of them, few are in memory at once."""
    draw = np.random.default_rng(0)
    for day in range(20):
        time = np.sort(draw.integers(day * 86_400, (day + 1) * 86_400, 100_000))
        columns = {
            "user": draw.integers(0, 10**6, 100_000),
            "item": draw.integers(0, 10**6, 100_000),
            "time": time,
        }
        pq.write_table(pa.table(columns), tmp_path / f"{day:02d}.parquet")
    done = subprocess.run([sys.executable, "-c", READ_ALL, str(tmp_path)], capture_output=True, text=True, check=True)  # fmt: skip
    count, grown = done.stdout.split()
    assert int(count) == 2_000_000 - 65_536
    assert float(grown) < 30
