# SPDX-License-Identifier: Apache-2.0
"""The folder that train and study write into: one run at a time, files whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import time

import pytest

from longclock.train import folder


def in_child(work):
    """Exit status of ``work`` in a forked process: 0 where it returns."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_second_run_waits_and_then_gives_up(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "WAIT_SECONDS", 0.3)
    said = []
    with folder.held(tmp_path / "out", said.append):
        assert said == []
        with (
            pytest.raises(ValueError, match=rf"--out: process {os.getpid()} writes into .*: wait"),
            folder.held(tmp_path / "out", said.append),
        ):
            pass
        assert said == [f"process {os.getpid()} writes into {tmp_path / 'out'}: waiting 0.3 s for it to end"]  # fmt: skip
    with folder.held(tmp_path / "out", said.append):
        assert len(said) == 1


def test_a_second_run_goes_on_when_the_first_is_killed(tmp_path):
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with folder.held(tmp_path, lambda message: None):
            (tmp_path / f".x.{os.getpid()}.ab.partial").write_text("half")
            os.write(tell, b"x")
            time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    said = []

    def kill(message):
        said.append(message)
        os.kill(child, signal.SIGKILL)

    with folder.held(tmp_path, kill):
        assert said == [f"process {child} writes into {tmp_path}: waiting 60 s for it to end"]
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]  # no partial is left
    os.waitpid(child, 0)


def test_a_filesystem_without_locks_is_used_with_a_word(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    said = []
    (tmp_path / ".x.1.ab.partial").write_text("perhaps of a run that still writes")
    with folder.held(tmp_path, said.append):
        assert (tmp_path / ".x.1.ab.partial").exists()
    assert said == [f"{tmp_path} cannot be locked on this filesystem: start no second run into it"]


def test_folders_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(ValueError, match=r"--out must be a folder, but .*file is a file"):
            folder.check_writable(out)
    with (
        pytest.raises(ValueError, match="--out: /proc/none cannot be written"),
        folder.held(folder.Path("/proc/none"), print),
    ):
        pass
    folder.check_writable(tmp_path / "not" / "there")
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize("kind", ["full", "interrupted"])
def test_an_old_file_stays_where_a_new_one_fails(tmp_path, monkeypatch, kind):
    path = tmp_path / "file"
    folder.write_whole(path, b"old")

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left") if kind == "full" else KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((OSError, KeyboardInterrupt)):
        folder.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    """A power cut leaves the old file or the new one: its bytes are synced, renamed, and the folder synced."""
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: (calls.append(os.readlink(f"/proc/self/fd/{d}")), fsync(d)))  # fmt: skip
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    folder.write_whole(tmp_path / "file", b"new")
    partial, renamed, synced = calls
    assert partial.startswith(f"{tmp_path}/.file.{os.getpid()}.")
    assert (renamed, synced) == ("replace", str(tmp_path))


def test_two_writers_share_no_partial_file(tmp_path, monkeypatch):
    names = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (names.append(a), replace(a, b)))
    for _ in range(2):
        folder.write_whole(tmp_path / "file", b"new")
    assert len(set(names)) == 2


def test_a_line_is_appended_whole_or_not(tmp_path):
    path = tmp_path / "lines"
    folder.append_line(path, "one")
    path.write_bytes(path.read_bytes() + b"cut o")  # by a dead process
    folder.append_line(path, "two")
    assert path.read_bytes() == b"one\ncut o\ntwo\n"

    def without_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
        try:
            folder.append_line(path, "three is longer than the room")
        except OSError:
            return
        raise AssertionError("there was room")

    assert in_child(without_room) == 0
    assert path.read_bytes() == b"one\ncut o\ntwo\n"
    folder.append_line(path, "three")
    assert path.read_bytes().endswith(b"two\nthree\n")
