# SPDX-License-Identifier: Apache-2.0
"""Events that other libraries hold: whatever has an Arrow C stream is read as a file with the same rows is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from longclock.data import EventFileError, EventStream, read_events
from longclock.data.sources import ArrowSource

ROWS = {
    "user": ["ann", "bob", "ann", "eve"],
    "item": [7, 3, 7, 9],
    "time": [1_700_000_060, 1_700_000_000, 1_700_003_600, 1_700_007_200],
    "category": ["jazz", "folk", "jazz", None],
    "device": ["tv", "tv", "pc", "pc"],
}
FRAME = pd.DataFrame(ROWS)


class OnlyAStream:
    """No more than the protocol asks for."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def of_polars() -> Any:
    return pytest.importorskip("polars", reason="the extra test has polars").DataFrame(ROWS)


def of_duckdb() -> Any:
    duckdb = pytest.importorskip("duckdb", reason="the extra test has duckdb")
    duckdb.register("homes_rows", FRAME)
    return duckdb.sql("select * from homes_rows")


def of_datasets() -> Any:
    return pytest.importorskip("datasets", reason="the extra test has datasets").Dataset.from_dict(ROWS)  # fmt: skip


def of_an_iterable_dataset() -> Any:
    return of_datasets().to_iterable_dataset()


def of_a_selection() -> Any:
    """Of a dataset with other rows in between, in another order: its table has them all."""
    datasets = pytest.importorskip("datasets", reason="the extra test has datasets")
    twice = datasets.Dataset.from_dict({name: [*values, *values] for name, values in ROWS.items()})
    return twice.filter(lambda row, number: number not in (0, 5, 6, 7), with_indices=True).select([3, 0, 1, 2])  # fmt: skip


KINDS = {
    "arrow": lambda: pa.table(ROWS), "batches": lambda: pa.RecordBatchReader.from_batches(pa.table(ROWS).schema, pa.table(ROWS).to_batches(1)),
    "protocol": lambda: OnlyAStream(pa.table(ROWS)), "pandas": lambda: FRAME, "polars": of_polars, "duckdb": of_duckdb, "datasets": of_datasets, "iterable": of_an_iterable_dataset, "selection": of_a_selection,
}  # fmt: skip


def same(found: EventStream, expected: EventStream) -> None:
    for name, column in expected.columns().items():
        assert np.array_equal(found.columns()[name], column), name
    assert found.category_names == expected.category_names
    assert found.unused_columns == expected.unused_columns


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_read_as_its_file(kind: str, tmp_path: Path) -> None:
    FRAME.to_parquet(tmp_path / "plays.parquet")
    expected = read_events(tmp_path / "plays.parquet")
    assert expected.user.tolist() == [0, 1, 1, 2]
    assert expected.unused_columns == ("device",)
    found = read_events(KINDS[kind]())
    assert found.name == "events"
    same(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_of_it(kind: str) -> None:
    frame = pa.table(FRAME.sort_values("time"))
    given = KINDS[kind]
    if kind in ("arrow", "pandas", "protocol", "polars"):  # tables, read anew each time
        table = {"arrow": frame, "pandas": frame.to_pandas(), "protocol": OnlyAStream(frame)}.get(kind) if kind != "polars" else given().sort("time")  # fmt: skip
        sources = [ArrowSource(table), ArrowSource(lambda: table)]
    elif kind == "duckdb":
        sources = [ArrowSource(lambda: given().order("time"))]
    elif kind in ("datasets", "selection"):
        sources = [ArrowSource(given().sort("time"))]
    elif kind == "iterable":
        sources = [ArrowSource(of_datasets().sort("time").to_iterable_dataset())]
    else:
        sources = [ArrowSource(lambda: pa.table(given()).sort_by("time"))]
    for source in sources:
        for _ in range(2):
            reads = list(source.read(batch=3))
            assert [read.events.item.tolist() for read in reads] == [[3, 7, 7], [9]]


@pytest.mark.parametrize(
    ("events", "remedy"),
    [
        (ROWS, r"got dict; give pyarrow\.table\(\) or pandas\.DataFrame\(\) of it"),
        ([ROWS], "got list$"),
        (None, "got NoneType$"),
    ],
    ids=["dict", "list", "none"],
)
def test_what_is_no_table_is_named(events: Any, remedy: str) -> None:
    with pytest.raises(TypeError, match=f"read_events: events must be a path, a table .* {remedy}"):
        read_events(events)


def test_a_lazy_frame_is_to_be_collected() -> None:
    with pytest.raises(TypeError, match=r"got LazyFrame; give its collect\(\)"):
        read_events(of_polars().lazy())


def test_columns_are_called_otherwise() -> None:
    other = FRAME.rename(columns={"user": "uid", "time": "ts"})
    found = read_events(other, ["device"], columns={"user": "uid", "time": "ts"})
    assert found.category_names["device"] == ["unknown", "tv", "pc"]
    assert found.unused_columns == ("category",)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: t.drop_columns("item"), {}, r"Table: column 'item' is missing; the columns are: user, time"),
        (lambda t: t.append_column("item", t["item"]), {}, "Table: column 'item' is there 2 times"),
        (lambda t: t[:0], {}, "Table: the file has no events"),
        (lambda t: t.set_column(2, "time", [["x", "1", "2", "3"]]), {}, "Table: column 'time', row 1: must be a number, got 'x'"),
        (lambda t: t, {"separator": ";"}, "read_events: separator and header are of a text file, got a Table"),
        (lambda t: t, {"categories": ["time"]}, "Table: column 'time' has its own meaning"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(change: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((EventFileError, ValueError), match=message):
        read_events(change(pa.table(ROWS)), **options)


def test_a_source_of_something_else_is_named() -> None:
    with pytest.raises(EventFileError, match="ArrowSource: open must give record batches, or a table that has __arrow_c_stream__, got int"):  # fmt: skip
        list(ArrowSource(lambda: 3).read(batch=2))
