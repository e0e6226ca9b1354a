# SPDX-License-Identifier: Apache-2.0
"""What only the store in a file has: disks that are full, files that cannot be written, and what others may be."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3

import pytest

from longclock.store import DamagedHistoryError, SQLiteStore
from longclock.store.sqlite_file import SQLiteFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "histories.db"


def in_a_child(work):
    """Limits of a process are its own."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            work()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("kilobytes", [40, 100, 200])
def test_a_full_disk_loses_nothing_that_was_acknowledged(path, kilobytes):
    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with SQLiteStore(path) as store:
            store.append(1, 0, -1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, resource.RLIM_INFINITY))
            acknowledged, refused = [-1], 0
            for turn in range(150):
                try:
                    assert store.append_many([1] * 20, [0] * 20, range(20 * turn, 20 * turn + 20)) == 20  # fmt: skip
                    acknowledged += range(20 * turn, 20 * turn + 20)
                except OSError as error:
                    assert str(path) in str(error)  # noqa: PT017
                    refused += 1
            assert refused
            assert store.get(1).time.tolist() == acknowledged
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        with SQLiteStore(path) as store:  # and there is room again
            assert store.get(1).time.tolist() == acknowledged
            assert store.append(1, 0, 10**6)

    in_a_child(work)


def test_files_that_cannot_be_opened_or_written(path, tmp_path):
    for wrong in (tmp_path, tmp_path / "none" / "a.db"):
        with pytest.raises(OSError, match=f"SQLiteStore: {wrong}: unable to open"):
            SQLiteStore(wrong)
    with SQLiteStore(path) as store:
        store.append(1, 2, 3)
        with store._file.writing() as connection:
            connection.execute("pragma query_only = 1")
        with pytest.raises(OSError, match=r"SQLiteStore: .*histories.db: attempt to write a readonly database"):  # fmt: skip
            store.append(1, 2, 4)
        assert store.get(1).time.tolist() == [3]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes read-only files")
def test_a_read_only_file(path):
    SQLiteStore(path).close()
    path.chmod(0o400)
    with pytest.raises(OSError, match="readonly"):
        SQLiteStore(path)


def test_a_file_of_something_else(path, tmp_path):
    path.write_text("user,item,time\n" * 100)
    with pytest.raises(ValueError, match=r"must be a file of histories, got something else or a damaged one .*not a database"):  # fmt: skip
        SQLiteStore(path)
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("create table plays (user)")
    connection.commit()
    connection.close()
    with pytest.raises(
        ValueError, match=r"must be a file of histories, got .*its tables are plays"
    ):
        SQLiteStore(other)
    SQLiteStore(tmp_path / "new.db").close()
    connection = sqlite3.connect(tmp_path / "new.db")
    connection.execute("update setting set value = 99 where name = 'format'")
    connection.commit()
    connection.close()
    with pytest.raises(ValueError, match="its format is 99, this version reads 2"):
        SQLiteStore(tmp_path / "new.db")


def test_another_writer_that_does_not_end(path, monkeypatch):
    monkeypatch.setattr("longclock.store.sqlite_file.WAIT_SECONDS", 0.1)
    with SQLiteStore(path) as store, SQLiteStore(path) as other:
        with other._file.writing(), pytest.raises(OSError, match="database is locked"):
            store.append(1, 2, 3)
        assert store.append(1, 2, 3)


def test_of_calls_that_share_a_commit_only_the_damaged_one_fails(path):
    with SQLiteStore(path) as store:
        store.append_many([1, 2, 3], [0, 0, 0], [0, 0, 0])
        with store._file.writing() as connection:
            connection.execute("update chunk set records = x'00' where user = 2")
        calls = [store._packed([user, 9], [1, user], [1, user], {}) for user in (1, 2, 3, 1)]
        first, damaged, third, again = store._commit(calls)
        assert (first, third, again) == (2, 2, 0)
        assert isinstance(damaged, DamagedHistoryError)
        assert damaged.user == 2
        assert store.get(9).time.tolist() == [1, 3]
        assert store.get(1).time.tolist() == [0, 1]


def test_a_trim_in_the_midst_of_a_failure_changes_nothing(path, monkeypatch):
    with SQLiteStore(path) as store:
        store.append_many([1] * 700, range(700), range(700))

        def fail(*arguments):
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patched:
            patched.setattr(store, "_write", fail)
            with pytest.raises(OSError, match="disk I/O error"):
                store.trim(1, keep=600)
        assert len(store.get(1).item) == 700


def test_connections_are_used_again(path):
    with SQLiteStore(path) as store:
        for turn in range(20):
            store.append(1, 2, turn)
            store.get(1)
        file = store._file
        assert isinstance(file, SQLiteFile)
        assert len(file._idle) == 1


def test_an_append_writes_little(path):
    """At any length: the bytes that this process hands to the kernel, checkpoints of the log included."""

    def written():
        with open("/proc/self/io") as lines:
            return int(dict(line.split(": ") for line in lines.read().splitlines())["wchar"])

    with SQLiteStore(path) as store:
        store.append_many([1] * 20_000, [0] * 20_000, range(0, 40_000, 2))
        for late in (0, 30_001):
            before = written()
            for turn in range(600):
                assert store.append(1, 0, 2 * (20_000 + turn) - late)
            assert (written() - before) / 600 < 16_384
