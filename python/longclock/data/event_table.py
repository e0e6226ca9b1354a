# SPDX-License-Identifier: Apache-2.0
"""Columns of Parquet and CSV files and of folders of them, and where each row came from."""

from __future__ import annotations

import csv
import dataclasses
import functools
import gzip
import io
import re
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

KINDS = (".parquet", ".csv", ".csv.gz")
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
# Folders whose log says which of the files beside it still count.
LOGS = {"_delta_log": "Delta", ".hoodie": "Hudi"}
NO_COLUMN = (
    r"(__index_level_\d+__)?"  # pandas' index, and what follows a comma at the end of a header
)
LONGEST_REASON = 300  # letters of a reader's own words


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


@dataclasses.dataclass(frozen=True)
class EventTable:
    """The columns that are read of a file, or of all files of a folder, one file after the other.

    Args:
        path: what was asked for.
        files: the files, in the order of their rows.
        ends: for each file, how many rows it and those before it have.
        frame: the columns; its index counts the rows of a file from 0, blank lines of a CSV included.
        unused: columns that are not read.
    """

    path: Path
    files: list[Path]
    ends: np.ndarray
    frame: pd.DataFrame
    unused: tuple[str, ...]

    def check(self, name: str, bad: Any, rule: str) -> None:
        """Names the file and the row, counted from 1, where ``bad`` is true first."""
        if np.any(bad):
            row = int(np.argmax(bad))
            column = self.frame[name]
            if getattr(column.dtype, "tz", None) is not None:  # in a zone the year 9999 may be none
                column = column.dt.tz_convert("UTC")
            value = column.iloc[row]
            shown = repr(value) if isinstance(value, str) else _one_line(value)
            number = int(self.frame.index[row]) + 1
            file = self.files[int(np.searchsorted(self.ends, row, side="right"))]
            raise EventFileError(f"{file}: column {name!r}, row {number}: {rule}, got {shown}")


def read_table(path: Path, wanted: Callable[[Sequence[str]], Sequence[str]]) -> EventTable:
    """The columns that ``wanted`` chooses from the names of all.

    Raises:
        EventFileError: a file that is damaged, encrypted, of another kind or without one of the columns;
            files of a folder that do not fit together.
    """
    import pandas as pd

    files = _files(path)
    headers = [_read_as(file, _header) for file in files]
    folders = [_folder_values(path, file) for file in files]
    names = list(dict.fromkeys(name for header in headers for name in header))
    names += [
        name for name in dict.fromkeys(key for keys in folders for key in keys) if name not in names
    ]
    columns = list(wanted(names))
    for name in columns:
        if name not in names:
            raise EventFileError(f"{path}: column {name!r} is missing; {_listed(names)}")
    frames = []
    for file, header, values in zip(files, headers, folders, strict=True):
        for name in columns:
            _once(file, name, header, values)
        own = [name for name in columns if name in header]
        frame = _read_as(file, functools.partial(_read, columns=own))
        for name in columns:
            if name not in header:
                frame[name] = values.get(name)
        frames.append(frame[columns])
    if len(files) > 1:
        _check_alike(files, frames)
        _same_units(frames)
    ends = np.cumsum([len(frame) for frame in frames])
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    frame = _read_as(path, lambda _: filled[0] if len(filled) == 1 else pd.concat(filled))
    unused = tuple(
        name for name in names if name not in columns and not re.fullmatch(NO_COLUMN, name)
    )
    return EventTable(path, files, ends, frame, unused)


def _files(path: Path) -> list[Path]:
    """The file, or those below the folder: hidden ones (``_SUCCESS``, ``.part.crc``) do not count."""
    if path.is_file():
        if not path.name.endswith(KINDS):
            raise EventFileError(f"{path}: the name must end in .parquet, .csv or .csv.gz")
        return [path]
    if not path.exists():
        raise FileNotFoundError(f"event file not found: {path}")
    if not path.is_dir():
        raise EventFileError(f"{path}: must be a file, or a folder of files")
    found = []
    for file in sorted(path.rglob("*")):
        parts = file.relative_to(path).parts
        for log in LOGS.keys() & set(parts):
            raise EventFileError(
                f"{path}: is a {LOGS[log]} table, of whose files only some count; write its rows as Parquet"
            )
        if any(part.startswith(("_", ".")) for part in parts):
            continue
        if file.is_symlink() and not file.is_file():
            raise EventFileError(f"{path}: {'/'.join(parts)} is a link that leads to no file")
        if file.is_file():
            found.append(file)
    if not found:
        raise EventFileError(f"{path}: the folder has no Parquet or CSV file")
    for file in found:
        if not file.name.endswith(KINDS) and not _is_parquet(file):
            raise EventFileError(
                f"{path}: all files of the folder must be Parquet or CSV, got {file.relative_to(path)}"
            )
    return found


def _is_parquet(file: Path) -> bool:
    if file.name.endswith(KINDS):
        return file.name.endswith(".parquet")
    with file.open("rb") as data:  # Hive's and Impala's parts have no ending
        return data.read(4) == b"PAR1"


def _folder_values(path: Path, file: Path) -> dict[str, str | None]:
    """``user=ann/day=3`` between the folder and its file: the columns of all rows of that file."""
    parts = file.relative_to(path).parts[:-1] if file != path else ()
    pairs = (part.split("=", 1) for part in parts if "=" in part)
    return {unquote(name): None if value == NO_VALUE else unquote(value) for name, value in pairs}


def _once(file: Path, name: str, header: Sequence[str], values: dict[str, str | None]) -> None:
    count = header.count(name)
    if count > 1:
        raise EventFileError(f"{file}: column {name!r} is there {count} times: rename all but one")
    if count and name in values:
        raise EventFileError(
            f"{file}: column {name!r} is in the file and in the name of its folder: rename one"
        )


def _listed(names: Sequence[str]) -> str:
    text = f"the columns are: {_one_line(', '.join(names))}"
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        text += " (columns must be separated by commas)"
    return text


def _read_as(file: Path, read: Callable[[Path], Any]) -> Any:
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
        reason = _one_line(error) or type(error).__name__
        if "crypt" in reason.lower():
            reason += "; write the file without encryption"
        raise EventFileError(f"{file}: cannot be read: {reason}") from error


def _one_line(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."


def _header(file: Path) -> list[str]:
    if not _is_parquet(file):
        return _csv_header(file)
    with _parquet(file) as parquet:
        return list(parquet.schema_arrow.names)


def _read(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    return _read_parquet(file, columns) if _is_parquet(file) else _read_csv(file, columns)


def _parquet(file: Path) -> Any:
    from pyarrow.parquet import ParquetFile

    # Spark's INT96 in nanoseconds would wrap round beyond the year 2262.
    return ParquetFile(file, coerce_int96_timestamp_unit="us", page_checksum_verification=True)


def _read_parquet(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    with _parquet(file) as parquet:
        rows = parquet.metadata.num_rows
        read = {}
        for name in columns:
            try:
                table = parquet.read([name])
                # Of a column "time", Arrow reads "time.zone" too.
                read[name] = _series(table.column(table.schema.get_field_index(name)))
            except Exception as error:  # of Arrow, of its conversion, of a text's encoding
                raise ValueError(f"column {name!r}: {_one_line(error)}") from error
    return pd.DataFrame(read, index=pd.RangeIndex(rows))


def _series(column: pa.ChunkedArray) -> pd.Series:
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


def _check_alike(files: list[Path], frames: list[pd.DataFrame]) -> None:
    """Texts and numbers under one name would be other ids in each file; time zones, other clocks."""
    first: dict[str, tuple[str, Path]] = {}
    for file, frame in zip(files, frames, strict=True):
        for name in frame.columns:
            if len(frame) == 0 or frame[name].isna().all():
                continue
            kind = _kind_of(frame[name])
            known, where = first.setdefault(name, (kind, file))
            if kind != known:
                raise EventFileError(
                    f"{file}: column {name!r} is of {kind}, in {where.name} of {known}; "
                    "write all files with the same types"
                )


def _same_units(frames: list[pd.DataFrame]) -> None:
    """Timestamps of seconds beside nanoseconds, as Arrow and older Spark write them, in microseconds."""
    for name in frames[0].columns:
        if len({frame[name].dtype for frame in frames if frame[name].dtype.kind == "M"}) > 1:
            for frame in frames:
                if frame[name].dtype.kind == "M":
                    frame[name] = frame[name].dt.as_unit("us")


def _kind_of(column: pd.Series) -> str:
    from pandas.api.types import infer_dtype

    zone = getattr(column.dtype, "tz", None)
    if column.dtype.kind == "M":
        return f"timestamps in {zone}" if zone is not None else "timestamps"
    kind = infer_dtype(column, skipna=True)
    return "numbers" if kind in ("integer", "floating", "mixed-integer-float", "decimal") else kind


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


def _csv_header(file: Path) -> list[str]:
    with _open(file) as data:
        block = data.read(1 << 20)
        while block:
            if b"\0" in block:
                if block[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    block.decode()  # says so as of any other text that is no UTF-8
                raise ValueError("it holds NUL bytes: save it as UTF-8 text (is it UTF-16?)")
            block = data.read(1 << 20)
    with _open(file) as data, io.TextIOWrapper(data, "utf-8-sig", newline="") as text:
        for fields in csv.reader(text):
            return fields
    raise ValueError("it is empty")


def _read_csv(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Every field as text: what looks like a number may be an id, and '01' is not '1'."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame = pd.read_csv(
                file, dtype=str, keep_default_na=False, na_values=[""], low_memory=False,
                index_col=False, skip_blank_lines=False,
            )  # fmt: skip
        except pd.errors.ParserWarning:
            raise ValueError("row 1 has more fields than the header") from None
    return frame.dropna(how="all")[list(columns)]
