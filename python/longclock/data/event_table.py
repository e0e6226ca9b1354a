# SPDX-License-Identifier: Apache-2.0
"""The columns of a file of events, or of a folder of files, and where each row came from."""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from longclock.data.file_columns import (
    KINDS,
    SINGLE,
    USUAL,
    EventFileError,
    FileForm,
    header,
    is_parquet,
    one_line,
    read_as,
    read_columns,
)

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("longclock.data")

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
# Folders whose log says which of the files beside it still count.
LOGS = {"_delta_log": "Delta", ".hoodie": "Hudi"}
NO_COLUMN = (
    r"(__index_level_\d+__)?"  # pandas' index, and what follows a comma at the end of a header
)


@dataclasses.dataclass(frozen=True)
class EventTable:
    """The columns that are read of a file, or of all files of a folder, one file after the other.

    Args:
        path: what was asked for.
        files: the files, in the order of their rows.
        ends: for each file, how many rows it and those before it have.
        frame: the columns; its index counts the rows of a file from 0, blank lines of a CSV included.
        unused: columns that are not read.
        form: what the files call the columns.
        blank: how many blank lines of CSV are left out.
    """

    path: Path
    files: list[Path]
    ends: np.ndarray
    frame: pd.DataFrame
    unused: tuple[str, ...] = ()
    form: FileForm = USUAL
    blank: int = 0
    told: set[str] = dataclasses.field(default_factory=set)

    def tell(self, text: str) -> None:
        """What was understood of the columns, once."""
        if text not in self.told:
            log.warning("%s: %s", self.path, text)
            self.told.add(text)

    def where(self, row: int, name: str) -> str:
        """What an error says of a row's value."""
        file = self.files[int(np.searchsorted(self.ends, row, side="right"))]
        return f"{file}: column {self.form.theirs(name)!r}, row {int(self.frame.index[row]) + 1}"

    def check(self, name: str, bad: Any, rule: str) -> None:
        """Names the file and the row, counted from 1, where ``bad`` is true first."""
        if np.any(bad):
            row = int(np.argmax(bad))
            column = self.frame[name]
            if getattr(column.dtype, "tz", None) is not None:  # in a zone the year 9999 may be none
                column = column.dt.tz_convert("UTC")
            value = column.iloc[row]
            shown = repr(value) if isinstance(value, str) else one_line(value)
            raise EventFileError(f"{self.where(row, name)}: {rule}, got {shown}")


@dataclasses.dataclass(frozen=True)
class EventFiles:
    """A file, or those of a folder, and what is read of them.

    Args:
        path: what was asked for.
        files: one or more.
        columns: names of what is read, in this order.
        unused: names of what is not.
        form: how the files are written.
    """

    path: Path
    files: list[Path]
    columns: list[str]
    unused: tuple[str, ...]
    form: FileForm
    _headers: list[list[str]]
    _folders: list[dict[str, str | None]]
    # The kind of every column's values, and the file which has them first.
    _kinds: dict[str, tuple[str, Path]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls, path: Path, wanted: Callable[[Sequence[str]], Sequence[str]], form: FileForm = USUAL
    ) -> EventFiles:
        """The columns that ``wanted`` chooses from the names of all.

        Raises:
            EventFileError: a file that is damaged, encrypted, of another kind or without one of the columns.
            FileNotFoundError: there is no such file or folder.
        """
        files = _files(path, form)
        headers = [read_as(file, functools.partial(header, form=form)) for file in files]
        folders = [_folder_values(path, file) for file in files]
        given = (*headers, *folders)
        names = list(dict.fromkeys(name for names in given for name in names))
        columns = list(wanted(names))
        for name in columns:
            if name not in names:
                text = not is_parquet(files[0])
                raise EventFileError(f"{path}: {form.missing(name, names, text)}")
        for file, own, values in zip(files, headers, folders, strict=True):
            for name in columns:
                _once(file, name, own, values, form)
        unused = tuple(
            name for name in names if name not in columns and not re.fullmatch(NO_COLUMN, name)
        )
        return cls(path, files, columns, unused, form, headers, folders)

    def frame(
        self, place: int, group: int | None = None, columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Columns of a file, or of one row group of it; the index counts the rows of the file from 0. None: all.

        Raises:
            EventFileError: it is damaged, or does not fit what was read before.
        """
        file, present = self.files[place], self._headers[place]
        columns = self.columns if columns is None else list(columns)
        own = [name for name in columns if name in present]
        frame = read_as(
            file, functools.partial(read_columns, columns=own, group=group, form=self.form)
        )
        for name in columns:
            if name not in present:
                frame[name] = self._folders[place].get(name)
        if len(self.files) > 1:
            self._check_alike(file, frame)
        return frame[columns]

    def _check_alike(self, file: Path, frame: pd.DataFrame) -> None:
        """Texts and numbers under one name would be other ids in each file; time zones, other clocks."""
        for name in frame.columns:
            if len(frame) == 0 or frame[name].isna().all():
                continue
            kind = _kind_of(frame[name])
            known, where = self._kinds.setdefault(name, (kind, file))
            if kind != known:
                raise EventFileError(
                    f"{file}: column {self.form.theirs(name)!r} is of {kind}, in {where.name} of {known}; "
                    "write all files with the same types"
                )


def read_table(
    path: Path, wanted: Callable[[Sequence[str]], Sequence[str]], form: FileForm = USUAL
) -> EventTable:
    """The columns that ``wanted`` chooses from the names of all, of all rows.

    Raises:
        EventFileError, FileNotFoundError: as :class:`EventFiles`.
    """
    import pandas as pd

    files = EventFiles.of(path, wanted, form)
    frames = [files.frame(place) for place in range(len(files.files))]
    _same_units(frames)
    ends = np.cumsum([len(frame) for frame in frames])
    blank = sum(int(frame.index[-1]) + 1 - len(frame) for frame in frames if len(frame))
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    frame = read_as(path, lambda _: filled[0] if len(filled) == 1 else pd.concat(filled))
    return EventTable(path, files.files, ends, frame, files.unused, form, blank)


def _files(path: Path, form: FileForm) -> list[Path]:
    """The file, of any ending where it was said how it is written, or those below the folder: hidden ones (``_SUCCESS``,
    ``.part.crc``) do not count."""
    if path.is_file():
        if not form.told and not path.name.endswith(SINGLE):
            said = {"program": "--columns, --separator", "python": "columns=, separator="}
            other = (
                f"; of another one say how it is written ({said[form.asked_by]})"
                if form.asked_by in said
                else ""
            )
            raise EventFileError(
                f"{path}: the name must end in .parquet, or that of a text file in .csv, .tsv, .txt, .dat or .data, with .gz where it "
                f"is packed{other}"
            )
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
        if not file.name.endswith(KINDS) and not is_parquet(file):
            raise EventFileError(
                f"{path}: all files of the folder must be Parquet or CSV, got {file.relative_to(path)}"
            )
    return found


def _folder_values(path: Path, file: Path) -> dict[str, str | None]:
    """``user=ann/day=3`` between the folder and its file: the columns of all rows of that file."""
    parts = file.relative_to(path).parts[:-1] if file != path else ()
    pairs = (part.split("=", 1) for part in parts if "=" in part)
    return {unquote(name): None if value == NO_VALUE else unquote(value) for name, value in pairs}


def _once(
    file: Path, name: str, header: Sequence[str], values: dict[str, str | None], form: FileForm
) -> None:
    count, theirs = header.count(name), form.theirs(name)
    if count > 1:
        data = form.of_data([form.theirs(each) for each in header], not is_parquet(file))
        raise EventFileError(
            f"{file}: column {theirs!r} is there {count} times: rename all but one{data}"
        )
    if count and name in values:
        raise EventFileError(
            f"{file}: column {theirs!r} is in the file and in the name of its folder: rename one"
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
