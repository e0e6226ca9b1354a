# SPDX-License-Identifier: Apache-2.0
"""Histories in one SQLite file: what a machine by itself needs, with nothing to install."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from longclock._keywords import named_keywords
from longclock.store.arguments import check_settings, check_trim, user_of
from longclock.store.behaviour_store import CAPACITY, Appended, BehaviourStore, OnDamage
from longclock.store.group_commit import GroupCommit
from longclock.store.records import (
    KEY,
    Array,
    Columns,
    DamagedHistoryError,
    Records,
    User,
    key_of,
    length_of,
    opened,
    seal_of,
    sealed,
)
from longclock.store.sqlite_file import SQLiteFile
from longclock.store.sqlite_layout import (
    BEFORE_ALL,
    CHUNK_OF,
    COUNT_CHUNKS,
    FIRST_CHUNK,
    FORMAT,
    FULL_BYTES,
    HISTORY,
    LAST_FIRST,
    SCHEMA,
    TAILS,
    USER_BEHIND,
    WRITE_CHUNK,
    end_in,
    outside_of_damage,
    parts_of,
    room_of,
    time_of_chunk,
)


class SQLiteStore(BehaviourStore):
    """Histories in a file.

    A history lies in chunks of up to 512 behaviours (of 16 bytes; fewer with columns), each behind a checksum, under the key (user, first behaviour), so that an
    append writes one chunk however long the history is. Processes of one machine share the file, one of them writing at a
    time; threads that append at one time share a commit, after which the disk has it (a write-ahead log, ``synchronous=FULL``).
    A store may be used on after a fork, and be pickled: the other process opens the file again.

    Args:
        path: of the file, which is made where there is none. Its -wal and -shm files belong to it. Not on a network's file system.
        capacity: behaviours of a user that are kept, at least; up to 512 more lie in the file. None: 20,000, or what
            the file was made with.
        columns: name to dtype ("int8", "int16", "int32", "int64", "float32", "float64") of what a behaviour has besides. None:
            nothing, or what the file was made with.
        on_damage: "raise", or "skip": damaged chunks are left out of what is read, and logged. To append to one is an error.
    Raises:
        ValueError: an argument that does not fit; a file that is something else, or was made with other settings.
        OSError: a file that cannot be opened; afterwards, one that cannot be read or written, as on a full disk.

    Example::

        >>> from longclock.store import SQLiteStore
        >>> with SQLiteStore("histories.db", columns={"seconds": "int32"}) as store:
        ...     store.append(user="ada", item=7, time=1_700_000_000, seconds=215)
        ...     store.append(user="ada", item=7, time=1_700_000_000, seconds=215)  # again: it is there
        ...     store.get("ada").item
        True
        False
        tensor([7])
    """

    @named_keywords()
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        capacity: int | None = None,
        columns: Columns | None = None,
        on_damage: OnDamage = "raise",
    ) -> None:
        check_settings("SQLiteStore", capacity, columns, on_damage)
        self.on_damage = on_damage
        self._file = SQLiteFile(path, "SQLiteStore")
        try:
            found = self._settings(capacity, columns)
            self._settle(found, capacity, columns)
        except BaseException:
            self._file.close()
            raise
        self._records = Records(found["columns"])
        self._commits: GroupCommit[Appended, int] = GroupCommit(self._commit)

    @property
    def path(self) -> Path:
        return self._file.path

    def __reduce__(self) -> Any:
        return _reopened, (str(self.path), {"on_damage": self.on_damage})

    def close(self) -> None:
        self._file.close()

    def _settings(self, capacity: int | None, columns: Columns | None) -> dict[str, Any]:
        """What the file was made with; makes it where there is none."""
        try:
            self._file.keep_a_log()
            with self._file.writing() as connection:
                names = {name for (name,) in connection.execute("select name from sqlite_master")}
                if not names:
                    for statement in SCHEMA.split(";"):
                        connection.execute(statement)
                    settings = {
                        "format": FORMAT, "capacity": capacity or CAPACITY, "columns": json.dumps(dict(columns or {}))
                    }  # fmt: skip
                    connection.executemany("insert into setting values (?, ?)", settings.items())
                elif not names >= {"setting", "chunk", "history"}:
                    raise sqlite3.DatabaseError(f"its tables are {', '.join(sorted(names))}")
                found: dict[str, Any] = dict(connection.execute("select name, value from setting"))
                if found.get("format") != FORMAT:
                    raise sqlite3.DatabaseError(
                        f"its format is {found.get('format')}, this version reads {FORMAT}"
                    )
            made_with = {**found, "columns": json.loads(found["columns"])}
            check_settings("SQLiteStore", made_with["capacity"], made_with["columns"], "raise")
        except (DamagedHistoryError, KeyError, TypeError, ValueError) as error:
            reason = error.reason if isinstance(error, DamagedHistoryError) else f"{error!r}"
            raise ValueError(
                f"SQLiteStore: {self.path} must be a file of histories, got something else or a damaged one ({reason}); name "
                "another file, or put a backup in its place"
            ) from error
        return made_with

    # Reading.

    def _read(self, users: Sequence[User]) -> list[Array]:
        if len(users) == 1:  # one statement is of one moment
            with self._file.reading(users[0]) as connection:
                return [self._history(connection, users[0])]
        with self._file.reading() as connection, self._file.one_moment(connection):
            found = []
            for user in users:
                with self._file.errors(user):
                    found.append(self._history(connection, user))
            return found

    def _history(self, connection: sqlite3.Connection, user: User) -> Array:
        return self._all(connection, user)[-self.capacity :]

    def _all(self, connection: sqlite3.Connection, user: User) -> Array:
        """Also those beyond the capacity."""
        try:
            rows = connection.execute(HISTORY, (user,)).fetchall()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError):
                raise
            self._damaged(user, None, str(error))
            rows = outside_of_damage(connection, user)
        counted = rows.pop()[1] if rows and rows[-1][0] is None else 0
        pieces, last, seal = [], b"", seal_of(user)
        for first, content in rows:
            try:
                piece = self._piece(seal, first, content)
                if first <= last:
                    raise ValueError("it lies before its time")
            except ValueError as error:
                self._damaged(user, time_of_chunk(first), str(error))
                continue
            last = bytes(piece[-self._records.size :][:KEY])
            pieces.append(piece)
        if counted != len(rows):
            self._damaged(user, None, f"{len(rows)} pieces are there where {counted} were written")
        return self._records.unpack(b"".join(pieces))

    def _piece(self, seal: int, first: Any, content: Any) -> memoryview:
        """The records of a chunk.

        Raises:
            ValueError: why they are not what was written there.
        """
        piece = opened(seal, content, self._records.size)
        if piece[:KEY] != first:
            raise ValueError("it lies where another piece belongs")
        return piece

    def users(self) -> Iterator[User]:
        last: Any = BEFORE_ALL
        while True:
            with self._file.reading() as connection:
                last = connection.execute(USER_BEHIND, (last,)).fetchone()[0]
            if isinstance(last, bytes):
                self._damaged(None, None, f"a user is {last!r}")
                return
            if last is None:
                return
            yield last

    # Writing.

    @property
    def atomic(self) -> Literal["call", "user"]:
        return "call"

    def _append(self, appended: Appended) -> int:
        return self._commits.submit(appended)

    def _commit(self, calls: Sequence[Appended]) -> list[int | BaseException]:
        """All in one transaction, where a user whom several calls append to is read and written once."""
        with self._file.writing() as connection:
            together = self._tried(connection, calls)
            if len(calls) == 1 or not isinstance(together, DamagedHistoryError):
                return [together] if isinstance(together, BaseException) else [*together]
            results: list[int | BaseException] = []
            for call in calls:  # the damage is for the one whose it is
                alone = self._tried(connection, [call])
                results.append(alone if isinstance(alone, BaseException) else alone[0])
            return results

    def _tried(
        self, connection: sqlite3.Connection, calls: Sequence[Appended]
    ) -> list[int] | DamagedHistoryError:
        """How many behaviours of each call are new; or why none has been appended."""
        connection.execute("savepoint calls")
        try:
            counts = self._add_all(connection, calls)
        except DamagedHistoryError as error:
            connection.execute("rollback to calls")
            connection.execute("release calls")
            return error
        connection.execute("release calls")
        return counts

    def _add_all(self, connection: sqlite3.Connection, calls: Sequence[Appended]) -> list[int]:
        parts: dict[User, list[tuple[int, Array]]] = {}
        for number, call in enumerate(calls):
            for user, records in zip(call.users, call.records, strict=True):
                parts.setdefault(user, []).append((number, records))
        counts = [0] * len(calls)
        for user, of_calls in parts.items():
            new = self._records.join([records for _, records in of_calls])
            whose = np.repeat([n for n, _ in of_calls], [len(records) for _, records in of_calls])
            if len(of_calls) > 1:
                places = self._records.order(new)
                new, whose = new[places], whose[places]
            with self._file.errors(user):
                added = self._add(connection, user, new)
            for number in whose[added].tolist():
                counts[number] += 1
        return counts

    def _add(self, connection: sqlite3.Connection, user: User, new: Array) -> Array:
        """Puts records, in order, into the chunks they belong to; returns which of them were not there."""
        added, at, chunks = np.zeros(len(new), bool), 0, 0
        full = FULL_BYTES // self._records.size
        while at < len(new):
            row = connection.execute(CHUNK_OF, (user, key_of(new[at]))).fetchone()
            row = row or connection.execute(FIRST_CHUNK, (user,)).fetchone()
            end = end_in(connection, user, row, new, at)
            old = self._records.unpack(b"" if row is None else self._to_change(user, *row))
            behind_all = row is None
            if len(old) + end - at > full and len(old) and key_of(old[-1]) < key_of(new[at]):
                last = connection.execute(LAST_FIRST, (user,)).fetchone()
                behind_all = last == (row[0],)
                if behind_all and len(old) >= full:  # a new one begins
                    row, old = None, old[:0]
            merged, added[at:end] = self._records.merge(old, new[at:end])
            if len(merged) > len(old):
                parts = parts_of(merged, behind_all)
                chunks += len(parts) - (row is not None)
                if row is not None and row[0] != key_of(merged[0]):
                    self._drop(connection, user, row[0])
                for part in parts:
                    self._write(connection, user, part)
            at = end
        if chunks > 0:
            chunks -= self._drop_oldest(connection, user)
        if chunks:
            connection.execute(COUNT_CHUNKS, (user, chunks))
        return added

    def _to_change(self, user: User, first: Any, content: Any) -> memoryview:
        try:
            return self._piece(seal_of(user), first, content)
        except ValueError as error:
            raise DamagedHistoryError(self._name, user, time_of_chunk(first), str(error)) from error

    def _write(self, connection: sqlite3.Connection, user: User, records: Array) -> None:
        content = records.tobytes()
        given = user, content[:KEY], sealed(seal_of(user), content, room_of(records))
        connection.execute(WRITE_CHUNK, given)

    def _drop(self, connection: sqlite3.Connection, user: User, first: bytes) -> None:
        connection.execute("delete from chunk where user = ? and first = ?", (user, first))

    def _drop_oldest(self, connection: sqlite3.Connection, user: User) -> int:
        """Whole chunks, as long as the capacity is kept without them. Returns how many."""
        tails = connection.execute(TAILS, (user,)).fetchall()
        counts = [(first, length_of(tail) // self._records.size) for first, tail in tails]
        kept, dropped = sum(count for _, count in counts), 0
        for first, count in counts:
            if kept - count < self.capacity:
                break
            kept -= count
            dropped += 1
            self._drop(connection, user, first)
        return dropped

    def trim(self, user: User, *, keep: int | None = None, before: int | None = None) -> int:
        user = user_of(f"{self._name}.trim", user)
        check_trim(f"{self._name}.trim", keep, before)
        with self._file.writing(user) as connection:
            records = self._all(connection, user)
            kept = self._records.trimmed(records, keep, before)
            if len(kept) < len(records):
                self._rewrite(connection, user, kept)
        return len(records) - len(kept)

    def _rewrite(self, connection: sqlite3.Connection, user: User, records: Array) -> None:
        for table in ("chunk", "history"):
            connection.execute(f"delete from {table} where user = ?", (user,))
        parts = parts_of(records, behind_all=True)
        for part in parts:
            self._write(connection, user, part)
        if parts:
            connection.execute(COUNT_CHUNKS, (user, len(parts)))

    def delete(self, user: User) -> bool:
        user = user_of(f"{self._name}.delete", user)
        with self._file.writing(user) as connection:
            gone = [
                connection.execute(f"delete from {table} where user = ?", (user,)).rowcount
                for table in ("chunk", "history")
            ]
        return any(gone)

    def repair(self, user: User) -> int:
        user = user_of(f"{self._name}.repair", user)
        with self._file.writing(user) as connection:
            rows = connection.execute(HISTORY, (user,)).fetchall()
            counted = rows.pop()[1] if rows and rows[-1][0] is None else 0
            kept: list[memoryview] = []
            for first, content in rows:
                try:
                    kept.append(self._piece(seal_of(user), first, content))
                except ValueError:
                    continue
            records = self._records.unpack(b"".join(kept))
            in_order = records[self._records.order(records)]
            if len(kept) < len(rows) or counted != len(rows) or len(in_order) < len(records):
                self._rewrite(connection, user, in_order)
        dropped = len(rows) - len(kept)
        if counted != len(rows):
            dropped += max(counted - len(rows), 1) if isinstance(counted, int) else 1
        return dropped


def _reopened(path: str, settings: dict[str, Any]) -> SQLiteStore:
    return SQLiteStore(path, **settings)
