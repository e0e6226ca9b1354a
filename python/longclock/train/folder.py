# SPDX-License-Identifier: Apache-2.0
"""The folder that a run writes into: one run at a time, and every file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LOCK = ".lock"
WAIT_SECONDS = 60.0  # for another run to end before the second one gives up
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def check_writable(out: Path) -> None:
    """Refuse a folder that could not be made or written, without making it.

    Raises:
        ValueError: names ``--out`` and what is in the way.
    """
    try:
        place = next(path for path in (out, *out.absolute().parents) if os.path.lexists(path))
        if not place.is_dir():
            raise ValueError(f"--out must be a folder, but {place} is a file")
        if not os.access(place, os.W_OK | os.X_OK):
            raise ValueError(f"--out: {place} cannot be written")
    except OSError as error:
        raise ValueError(f"--out: {out} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def held(out: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Make the folder and keep it from other runs until the end of the ``with`` or of the process.

    The kernel gives the lock back however the process ends. What dead runs left half written is removed. A
    filesystem without locks is used without one, which ``say`` is told.

    Raises:
        ValueError: names ``--out``: it cannot be written, or another run still writes after WAIT_SECONDS.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ValueError(f"--out: {out} cannot be written: {error.strerror}") from error
    try:
        if _taken(lock, out, say):
            with contextlib.suppress(OSError):  # a full disk has no room for the number
                os.truncate(lock, 0)
                os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            _remove_partials(out)
        yield
    finally:
        os.close(lock)


def _taken(lock: int, out: Path, say: Callable[[str], None]) -> bool:
    """Wait for the lock; False where the filesystem has none."""
    give_up = None
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise ValueError(f"--out: {out} cannot be locked: {error.strerror}") from error
            say(f"{out} cannot be locked on this filesystem: start no second run into it")
            return False
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
        if give_up is None:
            say(f"process {holder} writes into {out}: waiting {WAIT_SECONDS:g} s for it to end")
            give_up = time.monotonic() + WAIT_SECONDS
        if time.monotonic() >= give_up:
            raise ValueError(
                f"--out: process {holder} writes into {out}: wait for it to end, or give another --out"
            )
        time.sleep(0.1)


def _remove_partials(out: Path) -> None:
    """All of them: whoever holds the lock is the only one who writes."""
    for folder in (out, out / "checkpoints"):
        for partial in folder.glob(".*.partial"):
            with contextlib.suppress(OSError):
                partial.unlink()


def write_whole(path: Path, *content: bytes | memoryview) -> None:
    """Write a file that is the old or the new one, whatever happens meanwhile: a crash, a full disk, a power cut.

    Args:
        content: what it holds, one after the other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            for part in content:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # some filesystems do not sync folders
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, text: str) -> None:
    """Append a line as a whole: where that fails, the file is as it was.

    A line that a dead process cut off is ended first, so that it spoils no other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        torn = end > 0 and file.read(1) != b"\n"
        rest = b"\n" * torn + text.encode() + b"\n"
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(end)
            raise
