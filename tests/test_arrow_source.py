# SPDX-License-Identifier: Apache-2.0
"""Events of Arrow record batches."""

from __future__ import annotations

import pyarrow as pa
import pytest
from test_event_sources import all_rows, expected, made_events, rows_of

from longclock.data import EventFileError
from longclock.data.sources import ArrowSource


@pytest.fixture(scope="module")
def columns():
    return made_events()


def batches(columns, size):
    return pa.table(columns).to_batches(max_chunksize=size)


@pytest.mark.parametrize("size", [1, 33, 10**6])
@pytest.mark.parametrize("batch", [50, 10**6])
def test_arrow(columns, size, batch):
    columns = {name: values[:300] for name, values in columns.items()}
    source = ArrowSource(lambda: batches(columns, size), categories=["category"])
    reads = list(source.read(batch=batch))
    assert [row for read in reads for row in rows_of(read.events)] == expected(columns)
    assert {len(read.events) for read in reads[:-1]} <= {batch}
    for read in reads:
        rest = expected(columns)[read.cursor["rows"] :]
        assert all_rows(source, read.cursor, batch=77) == rest


def test_arrow_readers_and_tables(columns):
    table = pa.table({name: values[:100] for name, values in columns.items()})
    reader = pa.RecordBatchReader.from_batches
    for give in (
        lambda: reader(table.schema, table.to_batches(7)),
        lambda: [table],
        lambda: [table[:0], table],
    ):
        source = ArrowSource(give, categories=["category"])
        assert len(all_rows(source)) == 100
    assert list(ArrowSource(lambda: [table[:0]]).read()) == []


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"user": [1, 1], "item": [1, 1], "time": [5, 4]}, "plays: column 'time', row 2: must not be earlier than the row before, got 4"),
        ({"user": [1, 1], "item": [1, 1]}, "plays: column 'time' must be there once, got 0 times"),
        ({"user": [1, None], "item": [1, 1], "time": [5, 6]}, "plays: column 'user', row 2: must not be empty"),
    ],
)  # fmt: skip
def test_bad_arrow(columns, said):
    for size in (1, 2):
        with pytest.raises(EventFileError) as error:
            list(ArrowSource(lambda size=size: batches(columns, size), "plays").read())
        assert said in str(error.value)


def test_arrow_that_is_shorter_than_the_cursor(columns):
    source = ArrowSource(lambda: batches({"user": [1], "item": [1], "time": [1]}, 1), "plays")
    with pytest.raises(EventFileError, match="plays: the cursor is behind 5 rows, now there are 1"):
        list(source.read({"source": "arrow", "rows": 5}))
