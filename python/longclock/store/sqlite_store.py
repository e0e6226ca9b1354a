# SPDX-License-Identifier: Apache-2.0
"""Histories in one SQLite file: what a machine by itself needs, with nothing to install."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from longclock.store.behaviour_store import (
    CAPACITY,
    Appended,
    BehaviourStore,
    OnDamage,
    _user,
    check_settings,
    settled,
)
from longclock.store.group_commit import GroupCommit
from longclock.store.records import (
    CHECKSUM,
    KEY,
    Array,
    Columns,
    DamagedHistoryError,
    Records,
    User,
    opened,
    sealed,
    time_of,
)

FORMAT = 1
CHUNK = 512  # records of a chunk at most
WAIT_SECONDS = 30.0  # for other processes that write
SCHEMA = """
create table if not exists setting (name text primary key, value) without rowid;
create table if not exists chunk (user, first blob, records blob, primary key (user, first)) without rowid;
"""
CHUNK_OF = (
    "select first, records from chunk where user = ? and first <= ? order by first desc limit 1"
)
FIRST_CHUNK = "select first, records from chunk where user = ? order by first limit 1"


class SQLiteStore(BehaviourStore):
    """Histories in a file.

    A history lies in chunks of up to 512 behaviours, each behind a checksum, under the key (user, first behaviour), so that an
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
        OSError: a file that cannot be opened.

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

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        capacity: int | None = None,
        columns: Columns | None = None,
        on_damage: OnDamage = "raise",
    ) -> None:
        check_settings("SQLiteStore", capacity, columns, on_damage)
        self.path, self.on_damage = Path(os.path.abspath(path)), on_damage
        self._start()
        with self._as_file():
            found = self._settings(capacity, columns)
        self.capacity = settled("SQLiteStore", "capacity", capacity, found["capacity"])
        self.columns = settled(
            "SQLiteStore", "columns", None if columns is None else dict(columns), found["columns"]
        )
        self._records = Records(self.columns)
        _OPEN.add(self)

    def __reduce__(self) -> Any:
        settings = {"on_damage": self.on_damage}
        return _reopened, (str(self.path), settings)

    # Connections: each thread has one to read with, and whoever commits uses the writer.

    def _start(self) -> None:
        """Without any connection, as in a new process."""
        self._connections: list[sqlite3.Connection] = []
        self._thread = threading.local()
        self._closed = False
        self._write_connection: sqlite3.Connection | None = None
        self._writing = threading.RLock()
        self._commits: GroupCommit[Appended, int] = GroupCommit(self._commit)

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise ValueError(f"SQLiteStore: {self.path} is closed; open it again")
        connection = sqlite3.connect(
            self.path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._connections.append(connection)
        connection.execute("pragma synchronous = full")
        connection.execute("pragma cell_size_check = on")
        connection.execute(
            "pragma wal_autocheckpoint = 4000"
        )  # pages: a checkpoint waits for the disk as well
        return connection

    @property
    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._thread, "connection", None)
        if connection is None or self._closed:
            connection = self._thread.connection = self._connect()
        return connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """What is done within is there as a whole, and on the disk, or not at all."""
        with self._writing:
            connection = self._write_connection
            if connection is None or self._closed:
                connection = self._write_connection = self._connect()
            connection.execute("begin immediate")
            try:
                yield connection
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise

    @contextlib.contextmanager
    def _as_file(self) -> Iterator[None]:
        """What SQLite says of the file, in the words of Python's own errors."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(f"SQLiteStore: {self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"SQLiteStore: {self.path} must be a file of histories, got something else or a damaged one ({error}); name "
                "another file, or put that of a backup in its place"
            ) from error

    def _settings(self, capacity: int | None, columns: Columns | None) -> dict[str, Any]:
        """What the file was made with; makes it where there is none."""
        made = self._connect()
        self._write_connection = made
        made.execute("pragma journal_mode = wal")
        with self._transaction() as connection:
            names = {name for (name,) in connection.execute("select name from sqlite_master")}
            if names and not names >= {"setting", "chunk"}:
                raise sqlite3.DatabaseError(f"its tables are {', '.join(sorted(names))}")
            if not names:
                for statement in SCHEMA.split(";"):
                    connection.execute(statement)
                settings = {
                    "format": FORMAT, "capacity": capacity or CAPACITY, "columns": json.dumps(dict(columns or {}))
                }  # fmt: skip
                connection.executemany("insert into setting values (?, ?)", settings.items())
            found: dict[str, Any] = dict(connection.execute("select name, value from setting"))
        if found.get("format") != FORMAT:
            raise sqlite3.DatabaseError(
                f"its format is {found.get('format')}, this version reads {FORMAT}"
            )
        return {**found, "columns": json.loads(found["columns"])}

    # Reading.

    def _read(self, users: Sequence[User]) -> list[Array]:
        connection = self._reader
        if len(users) == 1:  # one statement is one moment
            return [self._history(connection, users[0])]
        with self._as_file():
            connection.execute("begin")
        try:
            return [self._history(connection, user) for user in users]
        finally:
            connection.execute("rollback")

    def _history(self, connection: sqlite3.Connection, user: User) -> Array:
        chunks = [
            records
            for first, content in self._chunks(connection, user)
            if (records := self._opened(user, first, content)) is not None
        ]
        return self._records.unpack(b"".join(chunks))[-self.capacity :]

    def _chunks(self, connection: sqlite3.Connection, user: User) -> list[tuple[bytes, bytes]]:
        """As they lie in the file; where a page of it is damaged, those before it and those behind."""
        found: list[list[tuple[bytes, bytes]]] = []
        for direction in ("", "desc"):
            part: list[tuple[bytes, bytes]] = []
            found.append(part)
            try:
                part.extend(
                    connection.execute(
                        f"select first, records from chunk where user = ? order by first {direction}",
                        (user,),
                    )
                )
                return part if direction == "" else part[::-1]
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError):
                    raise
                if direction == "":
                    self._damaged(user, None, str(error))
        forward, backward = found
        known = {first for first, _ in forward}
        return forward + [each for each in reversed(backward) if each[0] not in known]

    def _opened(self, user: User, first: bytes, content: bytes) -> bytes | None:
        """The records of a chunk; None where they are damaged and shall be left out."""
        try:
            records = opened(user, content, self._records.size)
            if records[:KEY] != first:
                raise ValueError("it is another piece's")
        except ValueError as error:
            self._damaged(user, time_of(first) if len(first) >= KEY else None, str(error))
            return None
        return records

    def users(self) -> Iterator[User]:
        last = self._reader.execute("select min(user) from chunk").fetchone()[0]
        while last is not None:
            yield last
            row = self._reader.execute("select min(user) from chunk where user > ?", (last,))
            last = row.fetchone()[0]

    # Writing.

    @property
    def atomic(self) -> Literal["call", "user"]:
        return "call"

    def _append(self, appended: Appended) -> int:
        return self._commits.submit(appended)

    def _commit(self, calls: Sequence[Appended]) -> list[int | BaseException]:
        results: list[int | BaseException] = []
        with self._transaction() as connection:
            for call in calls:
                connection.execute("savepoint call")
                try:
                    results.append(
                        sum(
                            self._add(connection, user, records)
                            for user, records in zip(call.users, call.records, strict=True)
                        )
                    )
                except DamagedHistoryError as error:  # this caller's alone
                    connection.execute("rollback to call")
                    results.append(error)
                connection.execute("release call")
        return results

    def _add(self, connection: sqlite3.Connection, user: User, new: Array) -> int:
        """Puts records, in order, into the chunks they belong to; returns how many were not there."""
        added, grown = 0, False
        while len(new):
            row = connection.execute(CHUNK_OF, (user, new[0].tobytes()[:KEY])).fetchone()
            row = row or connection.execute(FIRST_CHUNK, (user,)).fetchone()
            here, new = self._cut(connection, user, row, new)
            old = self._records.unpack(b"" if row is None else self._chunk(user, *row))
            merged = self._records.merge(old, here)
            added += len(merged) - len(old)
            if len(merged) == len(old):
                continue
            if row is not None and row[0] != merged[0].tobytes()[:KEY]:
                connection.execute("delete from chunk where user = ? and first = ?", (user, row[0]))
            in_order = len(old) == 0 or old[-1].tobytes()[:KEY] < here[0].tobytes()[:KEY]
            parts = _parts(merged, in_order)
            grown |= len(parts) > 1
            for part in parts:
                self._write(connection, user, part)
        if grown:
            self._drop_oldest(connection, user)
        return added

    def _cut(
        self, connection: sqlite3.Connection, user: User, row: Any, new: Array
    ) -> tuple[Array, Array]:
        """Those that belong into a chunk, and those that belong behind it."""
        if row is None or len(new) == 1:
            return new, new[:0]
        key = max(row[0], new[0].tobytes()[:KEY])
        next_first = connection.execute(
            "select min(first) from chunk where user = ? and first > ?", (user, key)
        ).fetchone()[0]
        if next_first is None:
            return new, new[:0]
        keys = [record.tobytes()[:KEY] for record in new]
        count = sum(key < next_first for key in keys)
        return new[:count], new[count:]

    def _chunk(self, user: User, first: bytes, content: bytes) -> bytes:
        """The records of a chunk that is to be changed."""
        try:
            return opened(user, content, self._records.size)
        except ValueError as error:
            raise DamagedHistoryError(self._name, user, time_of(first), str(error)) from error

    def _write(self, connection: sqlite3.Connection, user: User, records: Array) -> None:
        content = records.tobytes()
        connection.execute(
            "insert or replace into chunk values (?, ?, ?)",
            (user, content[:KEY], sealed(user, content)),
        )

    def _drop_oldest(self, connection: sqlite3.Connection, user: User) -> None:
        """Whole chunks, as long as the capacity is kept without them."""
        lengths = connection.execute(
            "select first, length(records) from chunk where user = ? order by first", (user,)
        ).fetchall()
        counts = [
            (first, (length - CHECKSUM.size) // self._records.size) for first, length in lengths
        ]
        kept = sum(count for _, count in counts)
        for first, count in counts:
            if kept - count < self.capacity:
                break
            kept -= count
            connection.execute("delete from chunk where user = ? and first = ?", (user, first))

    def trim(self, user: User, *, keep: int | None = None, before: int | None = None) -> int:
        user = _user(self, user)
        with self._transaction() as connection:
            chunks = self._chunks(connection, user)
            opened_chunks = [self._opened(user, *chunk) for chunk in chunks]
            records = self._records.unpack(b"".join(each for each in opened_chunks if each))
            kept = records if keep is None else records[len(records) - min(keep, len(records)) :]
            if before is not None:
                kept = kept[len(self._records.before(kept, before)) :]
            if len(kept) < len(records):
                connection.execute("delete from chunk where user = ?", (user,))
                for part in _parts(kept, in_order=True):
                    self._write(connection, user, part)
        return len(records) - len(kept)

    def delete(self, user: User) -> bool:
        with self._transaction() as connection:
            known = connection.execute("delete from chunk where user = ?", (_user(self, user),))
            return known.rowcount > 0

    def repair(self, user: User) -> int:
        user, dropped = _user(self, user), 0
        with self._transaction() as connection:
            rows = connection.execute("select first, records from chunk where user = ?", (user,))
            for first, content in rows.fetchall():
                try:
                    if opened(user, content, self._records.size)[:KEY] == first:
                        continue
                except ValueError:
                    pass
                connection.execute("delete from chunk where user = ? and first = ?", (user, first))
                dropped += 1
        return dropped

    def close(self) -> None:
        with self._writing:
            self._closed = True
            for connection in self._connections:
                connection.close()
            self._connections.clear()
            self._write_connection = None


def _parts(records: Array, in_order: bool) -> list[Array]:
    """Chunks of records that may be too many for one: full ones where they came in order, else of equal size, with room."""
    if len(records) <= CHUNK:
        return [records] if len(records) else []
    if in_order:
        return [records[at : at + CHUNK] for at in range(0, len(records), CHUNK)]
    return np.array_split(records, -(-2 * len(records) // CHUNK))


def _reopened(path: str, settings: dict[str, Any]) -> SQLiteStore:
    return SQLiteStore(path, **settings)


# A connection must not be used, nor closed, in a process that was forked off: a child keeps its parent's and opens its own.
_OPEN: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()
_OF_PARENTS: list[Any] = []


def _after_fork() -> None:
    for store in _OPEN:
        _OF_PARENTS.append((store._connections, store._thread, store._write_connection))
        closed = store._closed
        store._start()
        store._closed = closed


os.register_at_fork(after_in_child=_after_fork)
