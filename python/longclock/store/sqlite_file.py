# SPDX-License-Identifier: Apache-2.0
"""The connections of one process to an SQLite file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from longclock.store.forks import heed_forks
from longclock.store.records import DamagedHistoryError, User

WAIT_SECONDS = 30.0  # for other processes that write
CHECKPOINT_PAGES = 4000  # of the log: a checkpoint waits for the disk as well


class SQLiteFile:
    """One connection to write with, and as many to read with as threads read at a time.

    SQLite must not be carried across a fork, not even unused: it would think that the child had the locks which its parent
    has, and another process could take the log away from under the child's writes. So all connections are closed for the
    fork, and both processes open their own again.
    """

    def __init__(self, path: str | os.PathLike[str], op: str) -> None:
        self.path, self.op = Path(os.path.abspath(path)), op
        self._start()
        heed_forks(self)

    def _start(self) -> None:
        self._state = threading.Condition()  # of what follows
        self._idle: list[sqlite3.Connection] = []
        self._within: list[int] = []  # threads that use a connection
        self._held_off, self._forking = 0, False
        self._closed = False
        self._writing = threading.RLock()
        self._writer: sqlite3.Connection | None = None

    # What a store does with it.

    @contextlib.contextmanager
    def reading(self, user: User | None = None) -> Iterator[sqlite3.Connection]:
        with self._entered(), self.errors(user):
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
            try:
                yield connection
            finally:
                self._idle.append(connection)

    def keep_a_log(self) -> None:
        """Makes the file one with a write-ahead log. SQLite does not wait for another process that is doing so as well."""
        until = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                with self.reading() as connection:
                    connection.execute("pragma journal_mode = wal")
                return
            except OSError as error:
                if "locked" not in str(error.__cause__) or time.monotonic() > until:
                    raise
                time.sleep(0.01)

    @contextlib.contextmanager
    def one_moment(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Whatever is read within is of one state of the file."""
        connection.execute("begin")
        try:
            yield
        finally:
            connection.execute("rollback")

    @contextlib.contextmanager
    def writing(self, user: User | None = None) -> Iterator[sqlite3.Connection]:
        """What is done within is there as a whole, and on the disk, or not at all."""
        with self._writing, self._entered(), self.errors(user):
            connection = self._writer
            if connection is None:
                connection = self._writer = self._connect()
            connection.execute("begin immediate")
            try:
                yield connection
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise

    @contextlib.contextmanager
    def errors(self, user: User | None = None) -> Iterator[None]:
        """What SQLite says, in the words of Python's own errors."""
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:
            raise OSError(f"{self.op}: {self.path}: {error}") from error
        except (sqlite3.DatabaseError, sqlite3.InterfaceError) as error:
            raise DamagedHistoryError(self.op, user, None, str(error)) from error

    def close(self) -> None:
        """Once no thread is within."""
        self._hold_off()
        try:
            self._close_all()
            self._closed = True
        finally:
            self._let_in()

    # Connections.

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = _text
        try:
            connection.execute("pragma synchronous = full")
            connection.execute("pragma cell_size_check = on")
            connection.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _close_all(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        while self._idle:
            self._idle.pop().close()

    # Threads: any number within, or one that closes all connections.

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        me = threading.get_ident()
        with self._state:
            while self._held_off and me not in self._within:
                self._state.wait()
            if self._closed:
                raise ValueError(f"{self.op}: {self.path} is closed; open it again")
            self._within.append(me)
        try:
            yield
        finally:
            with self._state:
                self._within.remove(me)
                if self._held_off:
                    self._state.notify_all()

    def _hold_off(self) -> None:
        me = threading.get_ident()
        with self._state:
            self._held_off += 1
            try:
                while any(thread != me for thread in self._within):
                    self._state.wait()
            except BaseException:  # an interrupt
                self._held_off -= 1
                self._state.notify_all()
                raise

    def _let_in(self) -> None:
        with self._state:
            self._held_off -= 1
            self._state.notify_all()

    # Forks.

    def before_fork(self) -> None:
        self._hold_off()
        self._forking = True
        self._close_all()

    def after_fork(self, in_child: bool) -> None:
        if in_child:
            closed = self._closed
            self._start()
            self._closed = closed
        elif self._forking:
            self._forking = False
            self._let_in()


def _text(content: bytes) -> str | bytes:
    """Bytes where damage made a text of what is none."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content
