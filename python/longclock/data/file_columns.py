# SPDX-License-Identifier: Apache-2.0
"""The columns of one Parquet or CSV file, as pandas holds them without loss."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from longclock._keywords import meant, nearest

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

KINDS = (".parquet", ".csv", ".csv.gz")
TEXTS = (".tsv", ".txt", ".dat", ".data")  # of a single file, as data sets are published
SINGLE = (*KINDS, *(ending + packed for ending in TEXTS for packed in ("", ".gz")))
SEPARATORS = (",", "\t", ";", "|", "::")
LONGEST_REASON = 300  # letters of a reader's own words
# A number or a date: what a first line has that is data, and no line of names.
DATUM = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?|\d{4}-\d\d-\d\d\b.*")
PLACES = {"user": "1", "item": "2", "time": "4"}  # an example


def as_argument(columns: Mapping[str, str]) -> str:
    """As ``--columns`` takes them."""
    return ",".join("=".join(pair) for pair in columns.items())


@dataclasses.dataclass(frozen=True)
class FileForm:
    """How the columns of a file are called, and how a text file is written.

    Args:
        columns: the file's names of ours, where they are others: ``{"item": "movieId"}``.
        separator: between the fields of a text file; None: that of SEPARATORS of which the first line has most.
        header: whether the first line of a text file has names; else they are ``1``, ``2``, ...
        asked_by: whom errors tell what to give: the arguments of a program, those of ``read_events``, or a source, which takes the
            names that the files have.
    """

    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    separator: str | None = None
    header: bool = True
    asked_by: Literal["program", "python", "source"] = "source"

    @property
    def told(self) -> bool:
        """Whether anything was said of how the files are written."""
        return bool(self.columns) or self.separator is not None or not self.header

    def theirs(self, name: str) -> str:
        """What the file calls a column that is called so here."""
        own = name.removesuffix(" of the file")
        return own if own != name and own in self.columns else self.columns.get(name, name)

    def missing(self, name: str, names: Sequence[str], text: bool) -> str:
        """What is said of a column that is not there.

        Args:
            name: ours.
            names: of the file's columns, as they are called here.
            text: whether they are the first line of a text file.
        """
        theirs, known = self.theirs(name), [one_line(self.theirs(each)) for each in names]
        if theirs in known:
            taken = next(own for own, of_file in self.columns.items() if of_file == theirs)
            return f"column {theirs!r} is read as {taken} and cannot be an attribute too; copy it under another name"
        said = f"column {theirs!r} is missing; {meant(theirs, known)}the columns are: {one_line(', '.join(known))}"
        if data := self.of_data(known, text):
            return said + data
        if name in PLACES and name not in self.columns:
            said += f" ({self._which(name, nearest(name, known) or 'NAME', text)})"
        return said

    def of_data(self, names: Sequence[str], text: bool) -> str:
        """What is said of a first line that is read as names and looks like data; empty where it does not."""
        if not text or not self.header or not any(DATUM.fullmatch(name.strip()) for name in names):
            return ""
        remedy = {
            "program": f"add --no-header, by which --columns has places, such as {as_argument(PLACES)}",
            "python": f"give header=False, by which columns has places, such as {PLACES}",
            "source": "write a line of names",
        }[self.asked_by]
        return f"; the first line looks like data: where the file has no line of names, {remedy}"

    def _which(self, name: str, theirs: str, text: bool) -> str:
        """How it is said which column is ours of that name."""
        if self.asked_by == "source":
            return f"rename the column that is the {name}"
        if self.asked_by == "python":
            said, no_names = f"columns={{{name!r}: {theirs!r}}}", "header=False"
        else:
            said, no_names = f"--columns {name}={theirs}", "--no-header"
        said = f"say which is the {name}: {said}"
        return f"{said}; without a line of names, {no_names}" if text and self.header else said

    def ours(self, names: Sequence[str]) -> list[str]:
        """What the file's columns are called here; one that has our name of another is ``name of the file``."""
        found = {theirs: own for own, theirs in self.columns.items()}
        return [
            found.get(name, f"{name} of the file" if name in self.columns else name)
            for name in names
        ]

    def separator_of(self, line: str) -> str:
        """Of a text file with this first line."""
        if self.separator is not None:
            return self.separator
        counts = [line.count(mark) for mark in SEPARATORS]
        return SEPARATORS[counts.index(max(counts))]


USUAL = FileForm()


class EventFileError(ValueError):
    """A bad event file; the message names the file, the column, the row and the remedy.

    Example::

        >>> import pandas as pd
        >>> from longclock.data import EventFileError, read_events
        >>> pd.DataFrame({"user": [1], "item": [2], "time": ["noon"]}).to_csv("plays.csv", index=False)
        >>> try:
        ...     read_events("plays.csv")
        ... except EventFileError as error:
        ...     print(error)
        plays.csv: column 'time', row 1: must be a number, got 'noon'
    """


def is_parquet(file: Path) -> bool:
    if file.name.endswith(SINGLE):
        return file.name.endswith(".parquet")
    with file.open("rb") as data:  # Hive's and Impala's parts have no ending
        return data.read(4) == b"PAR1"


def header(file: Path, form: FileForm = USUAL) -> list[str]:
    """The names of the columns, as they are called here."""
    if not is_parquet(file):
        _check_text(file)
        return form.ours(_text_names(file, form)[0])
    with parquet(file) as data:
        return form.ours(data.schema_arrow.names)


def read_columns(
    file: Path, columns: Sequence[str], group: int | None = None, form: FileForm = USUAL
) -> pd.DataFrame:
    """The columns of a file, or of one row group of a Parquet file; the index counts the rows of the file from 0."""
    theirs = [form.columns.get(name, name) for name in columns]
    read = (
        _read_parquet(file, theirs, group) if is_parquet(file) else _read_text(file, theirs, form)
    )
    return read.set_axis(list(columns), axis="columns")


def parquet(file: Path) -> Any:
    from pyarrow.parquet import ParquetFile

    # Spark's INT96 in nanoseconds would wrap round beyond the year 2262.
    return ParquetFile(file, coerce_int96_timestamp_unit="us", page_checksum_verification=True)


def _read_parquet(file: Path, columns: Sequence[str], group: int | None) -> pd.DataFrame:
    import pandas as pd

    with parquet(file) as data:
        sizes = [data.metadata.row_group(i).num_rows for i in range(data.num_row_groups)]
        first, rows = (0, sum(sizes)) if group is None else (sum(sizes[:group]), sizes[group])
        read = {}
        for name in columns:
            try:
                table = data.read([name]) if group is None else data.read_row_group(group, [name])
                # Of a column "time", Arrow reads "time.zone" too.
                read[name] = series(table.column(table.schema.get_field_index(name)))
            except Exception as error:  # of Arrow, of its conversion, of a text's encoding
                raise ValueError(f"column {name!r}: {one_line(error)}") from error
    return pd.DataFrame(read, index=pd.RangeIndex(rows)).set_axis(range(first, first + rows))


def series(column: pa.ChunkedArray) -> pd.Series:
    """A column as pandas holds it without loss: integers beside missing values stay integers."""
    import pyarrow as pa

    column.validate(full=True)  # texts may be no UTF-8
    kind = column.type
    while pa.types.is_dictionary(kind) or isinstance(kind, pa.BaseExtensionType):
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        else:
            column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
        kind = column.type
    if pa.types.is_decimal(kind):
        column = _whole_or_text(column)
    elif pa.types.is_float16(kind):
        column = column.cast(pa.float32())
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        column = _text(column)
    elif pa.types.is_fixed_size_binary(kind):
        column = _text(column.cast(pa.binary()))
    elif pa.types.is_date(kind):
        try:
            return column.to_pandas()
        except (ValueError, OverflowError):  # of years that Python's dates do not have
            column = column.cast(pa.timestamp("ms"))
    elif pa.types.is_timestamp(kind) and kind.tz is not None:
        try:
            pa.lib.string_to_tzinfo(kind.tz)
        except Exception as error:  # of Arrow, of zoneinfo, of pytz
            raise ValueError(f"the time zone {kind.tz!r} is not known; write UTC") from error
    return column.to_pandas(integer_object_nulls=True)


def _whole_or_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decimals as integers where all are: as floats, ids of 17 digits would be one."""
    import pyarrow as pa

    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column.cast(pa.string())


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Bytes as the text that they spell, or as hexadecimal digits where one of them is no UTF-8."""
    import pyarrow as pa

    try:
        return column.cast(pa.large_string())
    except pa.ArrowInvalid:
        texts = [None if value is None else value.hex() for value in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.large_string())])


def _open(file: Path) -> IO[bytes]:
    return gzip.open(file) if file.suffix == ".gz" else file.open("rb")  # type: ignore[return-value]


def _lines(file: Path) -> Iterator[bytes]:
    with _open(file) as data:
        yield from data


def _not_utf8(file: Path) -> str:
    """Which line is no UTF-8, and what to do."""
    with _open(file) as data:
        coding = "UTF-16" if data.read(2) in (b"\xff\xfe", b"\xfe\xff") else "LATIN1"
    number = 0
    for number, line in enumerate(_lines(file), 1):  # noqa: B007
        try:
            line.decode()
        except UnicodeDecodeError:
            break
    return (
        f"the text must be UTF-8, line {number} is not: "
        f"iconv -f {coding} -t UTF-8 (with the encoding that it has)"
    )


def _check_text(file: Path) -> None:
    """Raises where a byte of the file is none of a text."""
    with _open(file) as data:
        block = data.read(1 << 20)
        while block:
            if b"\0" in block:
                if block[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    block.decode()  # says so as of any other text that is no UTF-8
                raise ValueError("it holds NUL bytes: save it as UTF-8 text (is it UTF-16?)")
            block = data.read(1 << 20)


def _text_names(file: Path, form: FileForm) -> tuple[list[str], str]:
    """The file's own names of its columns, and what separates them."""
    with _open(file) as data, io.TextIOWrapper(data, "utf-8-sig", newline="") as text:
        separator = form.separator_of(text.readline())
    with _open(file) as data, io.TextIOWrapper(data, "utf-8-sig", newline="") as text:
        lines = csv.reader(text, delimiter=separator) if len(separator) == 1 else (line.rstrip("\r\n").split(separator) for line in text)  # fmt: skip
        for fields in lines:
            names = fields if form.header else [str(place + 1) for place in range(len(fields))]
            return names, separator
    raise ValueError("it is empty")


def _read_text(file: Path, columns: Sequence[str], form: FileForm) -> pd.DataFrame:
    """Every field as text: what looks like a number may be an id, and '01' is not '1'."""
    import pandas as pd

    names, separator = _text_names(file, form)
    how: dict[str, Any] = {"sep": separator, "low_memory": False}
    if len(separator) > 1:  # which pandas' fast reader does not take
        how = {"sep": re.escape(separator), "engine": "python"}
    if not form.header:
        how |= {"header": None, "names": names}
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame = pd.read_csv(
                file, dtype=str, keep_default_na=False, na_values=[""], index_col=False, skip_blank_lines=False,
                encoding="utf-8-sig", **how,
            )  # fmt: skip
        except pd.errors.ParserWarning:
            raise ValueError("row 1 has more fields than the header") from None
    return frame.dropna(how="all")[list(columns)]


def read_as(file: Path, read: Callable[[Path], Any]) -> Any:
    """What a reader says of a damaged file, in one line."""
    import pyarrow as pa

    try:
        return read(file)
    except EventFileError:
        raise
    except UnicodeDecodeError as error:
        raise EventFileError(f"{file}: {_not_utf8(file)}") from error
    except (
        ValueError, LookupError, OSError, EOFError, ArithmeticError, MemoryError, csv.Error,
        zlib.error, pa.ArrowException,
    ) as error:  # fmt: skip
        reason = one_line(error) or type(error).__name__
        if "crypt" in reason.lower():
            reason += "; write the file without encryption"
        raise EventFileError(f"{file}: cannot be read: {reason}") from error


def one_line(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."
