# SPDX-License-Identifier: Apache-2.0
"""Events as data sets are published: other names of columns, none at all, other separators, dates as texts."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

from longclock.data import EventFileError, EventStream, read_events
from longclock.data.event_file import events_of_file
from longclock.data.file_columns import FileForm
from longclock.data.sources import FolderSource
from longclock.train.cli import main

MOVIES = [(1, 1193, 5, 978_300_760), (1, 661, 3, 978_302_109), (2, 1193, 4, 978_298_413)]
BY_PLACE = {"user": "1", "item": "2", "time": "4"}
BY_NAME = {"user": "userId", "item": "movieId", "time": "timestamp"}


def text(separator: str, header: str = "", rows: list[tuple[int, ...]] = MOVIES) -> str:
    lines = [separator.join(map(str, row)) for row in rows]
    return "\n".join([header.replace(",", separator)] * bool(header) + lines) + "\n"


def same(events: EventStream) -> None:
    """In order of time the third event is first; ids are in order of appearance."""
    assert events.time.tolist() == [978_298_413, 978_300_760, 978_302_109]
    assert (events.user.tolist(), events.item.tolist()) == ([0, 1, 1], [0, 0, 1])


@pytest.mark.parametrize(
    ("name", "separator", "packed"),
    [
        ("ratings.dat", "::", False),
        ("u.data", "\t", False),
        ("plays.tsv.gz", "\t", True),
        ("plays.txt", ";", False),
        ("ratings.csv", ",", False),
    ],
)
def test_a_file_without_names(tmp_path: Path, name: str, separator: str, packed: bool) -> None:
    content = text(separator).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    events = read_events(tmp_path / name, columns=BY_PLACE, header=False)
    same(events)
    assert events.unused_columns == ("3",)
    with_rating = read_events(tmp_path / name, ["3"], columns=BY_PLACE, header=False)
    assert with_rating.category_names["3"] == ["unknown", "4", "5", "3"]


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["", "BOM"])
def test_a_file_with_other_names(tmp_path: Path, start: str) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(start + text(",", "userId,movieId,rating,timestamp"), encoding="utf-8")
    events = read_events(path, columns=BY_NAME)
    same(events)
    assert events.unused_columns == ("rating",)


def test_a_folder_of_parquet_with_other_names(tmp_path: Path) -> None:
    for number, row in enumerate(MOVIES):
        pd.DataFrame([row], columns=["userId", "movieId", "rating", "timestamp"]).to_parquet(tmp_path / f"{number}.parquet")  # fmt: skip
    same(read_events(tmp_path, columns=BY_NAME))


def test_a_column_that_has_our_name_of_another(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user,item,time,hashed\na,1,5,x\nb,2,6,x\n")
    events = read_events(path, columns={"user": "hashed"})
    assert events.user.tolist() == [0, 0]
    assert events.unused_columns == ("user of the file",)


@pytest.mark.parametrize(
    ("separator", "content"),
    [("#", "user#item#time\na#1#5\n"), ("||", "user||item||time\na||1||5\n"), (";", "user;item,x;time\na;1;5\n")],
)  # fmt: skip
def test_a_separator_that_is_given(tmp_path: Path, separator: str, content: str) -> None:
    path = tmp_path / "plays.log"
    path.write_text(content.replace("item,x", "item"))
    assert read_events(path, separator=separator).time.tolist() == [5]


ISO = {
    "2024-05-01": (1_714_521_600, 0),
    "2024-05-01 08:30": (1_714_552_200, 0),
    "2024-05-01T08:30:15": (1_714_552_215, 0),
    "2024-05-01T08:30:15.999999": (1_714_552_215, 0),
    "2024-05-01T08:30:15Z": (1_714_552_215, 0),
    "2024-05-01T08:30:15+02:00": (1_714_545_015, 7200),
    "2024-05-01 08:30:15 -0530": (1_714_572_015, -19_800),
    "2024-05-01 08:30:15+02": (1_714_545_015, 7200),
}


@pytest.mark.parametrize("written", ISO)
def test_dates_as_texts(tmp_path: Path, written: str) -> None:
    """The order is of moments, the clock reads local time: where an offset is written, that of the place."""
    path = tmp_path / "e.csv"
    path.write_text(f"user,item,time\na,1,{written}\nb,2,{written}\n")
    seconds, offset = ISO[written]
    events = read_events(path)
    assert events.order_time.tolist() == [seconds] * 2
    assert events.time.tolist() == [seconds + offset] * 2


def test_offsets_of_the_file_stand_above_those_of_dates(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user,item,time,utc_offset\na,1,2024-05-01T08:30:15+02:00,3600\n")
    events = read_events(path)
    assert (events.order_time[0], events.time[0]) == (1_714_545_015, 1_714_545_015 + 3600)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("2024-13-01T00:00:00", "row 2: must be a date and time of the calendar, got '2024-13-01T00:00:00'"),
        ("yesterday", "row 2: must be a date and time as the first row's, got 'yesterday'"),
        ("2024-05-01T08:30:15Z", "row 2: must have no offset from UTC, as the first row's"),
        ("", "column 'time', row 2: must be"),
    ],
)  # fmt: skip
def test_dates_that_do_not_fit_are_named(tmp_path: Path, second: str, message: str) -> None:
    path = tmp_path / "e.csv"
    path.write_text(f"user,item,time\na,1,2024-05-01T08:30:15\nb,2,{second}\n")
    with pytest.raises(EventFileError, match=message):
        read_events(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"genre": "g"}}, "columns must name user, item, time, .* got 'genre'; attributes are categories"),
        ({"columns": {"user": "a", "item": "a"}}, "different ones of the file, got 'a' twice"),
        ({"separator": ""}, "separator must have a letter"),
        ({"header": False}, "must say where user, item and time are without a header"),
        ({"columns": {"user": "nobody"}}, "column 'nobody' is missing; the columns are: userId"),
        ({}, r"column 'user' is missing; userId is near it; .*say which is the user: columns=\{'user': 'userId'\}; without a line of names, header=False"),
        ({"columns": {"user": "userid", "item": "movieId"}}, "column 'userid' is missing; userId is near it; the columns are: userId, movieId, rating, timestamp$"),
        ({"columns": BY_NAME, "categories": ["movieId"]}, "column 'movieId' is read as item and cannot be an attribute too"),
        ({"columns": BY_NAME, "categories": ["ratin"]}, "column 'ratin' is missing; rating is near it"),
        ({"columns": {"usr": "userId"}}, "got 'usr'; user is near it; attributes are categories"),
    ],
)  # fmt: skip
def test_forms_that_do_not_fit_are_named(tmp_path: Path, options: dict, message: str) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(text(",", "userId,movieId,rating,timestamp"))
    with pytest.raises(ValueError, match=message):
        read_events(path, **options)


@pytest.mark.parametrize("columns", [BY_PLACE, {"user": "1"}, {"item": "661"}, {}])
def test_a_first_line_that_is_data_is_told(tmp_path: Path, columns: dict[str, str]) -> None:
    """With the remedy of whoever asked."""
    path = tmp_path / "ratings.dat"
    path.write_text(text("::"))
    form = FileForm(columns, asked_by="program")
    told = "; the first line looks like data: where the file has no line of names, "
    with pytest.raises(EventFileError, match=f"{told}add --no-header, by which --columns has places, such as user=1,item=2,time=4"):  # fmt: skip
        events_of_file(path, None, form)
    with pytest.raises(EventFileError, match=f"{told}give header=False"):
        read_events(path, columns=columns)
    with pytest.raises(EventFileError, match=f"{told}write a line of names"):
        FolderSource(path)


def test_a_row_is_named_by_the_files_name_of_the_column(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(text(",", "userId,movieId,rating,timestamp") + "1,2,3,noon\n")
    with pytest.raises(EventFileError, match="column 'timestamp', row 4: must be a number"):
        read_events(path, columns=BY_NAME)


def test_what_was_read_is_known(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    first, *rest = text(",", "userId,movieId,rating,timestamp").splitlines()
    path.write_text("\n".join([first, rest[0], "", "", *rest[1:], ""]))
    read = read_events(path, columns=BY_NAME, categories=["rating"])
    assert read.file_columns == {**BY_NAME, "rating": "rating"}
    assert (read.blank_rows, read.head(max_events=1).blank_rows) == (2, 2)


def test_a_frame_is_told_of_python(tmp_path: Path) -> None:
    frame = pd.DataFrame(MOVIES, columns=["userId", "movieId", "rating", "timestamp"])
    with pytest.raises(EventFileError, match=r"column 'user' is missing; userId is near it; .*\(say which is the user: columns=\{'user': 'userId'\}\)$"):  # fmt: skip
        read_events(frame)


def test_another_ending_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plays.xls"
    path.write_text(text(",", "userId,movieId,rating,timestamp"))
    with pytest.raises(EventFileError, match=r"must end in .parquet, .* \(columns=, separator=\)"):  # fmt: skip
        read_events(path)


def test_the_command_takes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "ratings.dat", tmp_path / "out"
    rows = [(n % 7, n % 5, 3, 978_300_760 + 5000 * n) for n in range(90)]
    path.write_text(text("::", rows=rows))
    words = ["--events", str(path), "--models", "no-time", "--quiet", "--out", str(out)]
    assert main([*words, "--columns", "user=1,item=2,time=4", "--no-header"]) == 0
    assert "columns not used: 3" in capsys.readouterr().err
    for more, message in (
        (["--columns", "user"], "--columns must be pairs such as user=userId with commas between them, got 'user'"),
        (["--no-header"], "without a header"),
        ([], "column 'user' is missing"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main([*words, *more])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--data", "nyc", "--no-header"])
    assert "--no-header is of a FILE, not of the example data" in capsys.readouterr().err
