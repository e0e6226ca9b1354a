# SPDX-License-Identifier: Apache-2.0
"""CSV files as spreadsheets and scripts write them."""

from __future__ import annotations

import gzip

import pytest
from event_files import refused

from longclock.data import read_events

TEXT = "user,item,time\nann,café,5\nbob,2,6\n"


def write(folder, text, name="events.csv"):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


@pytest.mark.parametrize("name", ["events.csv", "events.csv.gz"])
@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-16", "the text must be UTF-8, line 1 is not: iconv -f UTF-16 -t UTF-8"),
        ("utf-16-le", "it holds NUL bytes: save it as UTF-8 text (is it UTF-16?)"),
        ("utf-32", "UTF-"),
        ("latin1", "the text must be UTF-8, line 2 is not: iconv -f LATIN1 -t UTF-8"),
    ],
)
def test_other_encodings(tmp_path, name, encoding, message):
    refused(write(tmp_path, TEXT.encode(encoding), name), f"{tmp_path / name}: ", message)


def test_a_latin1_line_far_down(tmp_path):
    rows = "".join(f"ann,{number},{number}\n" for number in range(200_000)).encode()
    path = write(tmp_path, b"user,item,time\n" + rows + "ann,café,9\n".encode("latin1"))
    refused(path, "the text must be UTF-8, line 200002 is not")
    refused(write(tmp_path, "usér,item,time\n".encode("latin1")), "line 1 is not")


def test_a_byte_order_mark_and_other_line_ends(tmp_path):
    for text in (TEXT, TEXT.replace("\n", "\r\n"), TEXT.rstrip("\n")):
        assert read_events(write(tmp_path, text.encode("utf-8-sig"))).time.tolist() == [5, 6]
    quoted = '"user","item","time"\r\n"ann","x","5"\r\n'
    assert read_events(write(tmp_path, quoted.encode("utf-8-sig"))).time.tolist() == [5]


@pytest.mark.parametrize("where", [3, 20, 30])
def test_nul_bytes(tmp_path, where):
    refused(write(tmp_path, TEXT[:where] + "\0" + TEXT[where:]), "it holds NUL bytes")


def test_a_header_twice(tmp_path):
    path = write(tmp_path, "user,item,time,time\na,1,5,7\n")
    refused(path, "column 'time' is there 2 times: rename all but one")
    path = write(tmp_path, "user,category,item,time,category\na,x,1,5,7\n")
    refused(path, "column 'category' is there 2 times")
    path = write(tmp_path, "user,item,time,note,note\na,1,5,7,8\n")
    assert read_events(path).unused_columns == ("note",)


def test_a_comma_at_the_end(tmp_path):
    events = read_events(write(tmp_path, "user,item,time,\na,1,5,\nb,2,6,\n"))
    assert (events.time.tolist(), events.unused_columns) == ([5, 6], ())


def test_quoted_fields(tmp_path):
    rows = 'user,item,time,note\n"a\nb",1,5,"x, ""y""\n"\nb,2,6,\n"a\nb",1,x,\n'
    refused(write(tmp_path, rows), "column 'time', row 3: must be a number, got 'x'")
    events = read_events(write(tmp_path, rows.replace(",x,\n", ",7,\n")))
    assert (events.user.tolist(), events.time.tolist()) == ([0, 1, 0], [5, 6, 7])
    header = read_events(write(tmp_path, 'user,item,time,"two\nlines"\na,1,5,6\n'))
    assert header.unused_columns == ("two\nlines",)
    refused(write(tmp_path, '"us\ner",item,time\na,1,5\n'), "the columns are: us er, item, time")
    many = ",".join(f"column {number}" for number in range(1000))
    refused(write(tmp_path, f"{many}\n"), "the columns are: column 0, column 1", "...")


def test_an_open_quote(tmp_path):
    refused(write(tmp_path, 'user,item,time\n"a,1,5\nb,2,6\n'), "cannot be read: ", "EOF")


@pytest.mark.parametrize("time", ['"1,700"', "1.700.000.000", "1_700", "17e", "0x10", "１７,"])
def test_numbers_as_people_write_them(tmp_path, time):
    rows = f"user,item,time,x\na,1,{time},\n"
    refused(write(tmp_path, rows), "events.csv: ")


def test_thousands_separators_are_named(tmp_path):
    path = write(tmp_path, 'user,item,time\na,1,"1,700,000"\n')
    refused(path, "column 'time', row 1: must be a number, got '1,700,000'")


@pytest.mark.parametrize("mark", [";", "\t", "|", "::"])
def test_other_separators_are_told_from_the_first_line(tmp_path, mark):
    expected, events = read_events(write(tmp_path, TEXT)), read_events(write(tmp_path, TEXT.replace(",", mark)))  # fmt: skip
    assert (events.digest(), events.unused_columns) == (expected.digest(), expected.unused_columns)


def test_damaged_gzip(tmp_path):
    whole = gzip.compress((TEXT * 2000).encode())
    for number, place in enumerate((3, 12, len(whole) // 2, len(whole) - 6)):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        path = tmp_path / f"{number}.csv.gz"
        path.write_bytes(broken)
        refused(path, f"{path}: ")
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "cannot be read")


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ("5.5,0", "row 1: must be seconds, but every row looks like hours (multiply by 3600)"),
        ("-3,14", "row 1: must be seconds, but every row looks like hours"),
        ("0,330", "row 2: must be seconds, but every row looks like minutes (multiply by 60)"),
        ("-840,2", "row 1: must be seconds, but every row looks like minutes"),
        ("19800.5,0", "row 1: must be whole seconds"),
        ("5.5,19800", "row 1: must be whole seconds (hours times 3600, minutes times 60)"),
        ("3600,2", "row 2: must be seconds as other rows are: no time zone is so near to UTC"),
        ("3600,-60000", "row 2: must be from -50400 to 50400 seconds"),
        ("True,True", "row 1: must be a number, got 'True'"),
        ("+05:30,0", "row 1: must be a number, got '+05:30'"),
    ],
)
def test_offsets_in_other_units(tmp_path, offsets, message):
    first, second = offsets.split(",")
    rows = f"user,item,time,utc_offset\na,1,5,{first}\nb,2,6,{second}\n"
    refused(write(tmp_path, rows), "column 'utc_offset', " + message)


def test_offsets_of_real_zones(tmp_path):
    rows = "user,item,time,utc_offset\na,1,5,900\nb,2,6,-50400\nb,2,7,20700\nb,2,8,0\n"
    assert (read_events(write(tmp_path, rows)).time - [5, 6, 7, 8]).tolist() == [
        900, -50_400, 20_700, 0,
    ]  # fmt: skip


def test_a_local_time_past_what_seconds_can_be(tmp_path):
    rows = "user,item,time,utc_offset\na,1,99999999999,3600\n"
    refused(write(tmp_path, rows), "column 'time', row 1: must be before the year 5138")


def test_attributes_that_are_columns_already(tmp_path):
    path = write(tmp_path, TEXT)
    refused(path, "column 'time' has its own meaning", categories=["time"])
    with pytest.raises(ValueError, match="categories must be a list of names, got 'item'"):
        read_events(path, "item")
