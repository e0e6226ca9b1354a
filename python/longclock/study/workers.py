# SPDX-License-Identifier: Apache-2.0
"""Worker processes that end with the study, however it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from types import FrameType

# What Ctrl-C, a job scheduler or `timeout`, and a closed terminal send.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1


class Stopped(BaseException):
    """A signal asked the study to end; ``status`` is the exit status that says so."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.status = 128 + signum


class _Signals:
    """Ending signals: raised as they arrive, or kept until somebody asks."""

    waits = 0
    arrived: int | None = None

    def stop(self, signum: int, frame: FrameType | None = None) -> None:
        self.arrived = signum
        if not self.waits:
            self.raise_if_stopped()

    def raise_if_stopped(self) -> None:
        signum, self.arrived = self.arrived, None
        if signum is not None:
            raise Stopped(signum)


_signals = _Signals()


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within, a signal of ENDING raises :class:`Stopped`, so that workers are killed and what is done is kept.

    A signal that is ignored (``nohup``) stays so; threads other than the main one cannot set handlers.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for signum in ENDING:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                before[signum] = signal.signal(signum, _signals.stop)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def undisturbed() -> Iterator[Callable[[], None]]:
    """Within, a signal waits until the function that this yields is called, or the end.

    So a line is written as a whole, and a pool starts and ends as a whole: an exception that a handler raises is lost where
    Python runs what must not raise, say the hooks of a fork.
    """
    _signals.waits += 1
    try:
        yield _signals.raise_if_stopped
    finally:
        _signals.waits -= 1
    if not _signals.waits:
        _signals.raise_if_stopped()


def die_with(parent: int) -> None:
    """In a worker: the kernel ends it when ``parent`` has ended, even by SIGKILL.

    A parent that ended before the kernel was asked is noticed by its number. Ctrl-C, which reaches every process of a
    terminal, is left to the parent.
    """
    for signum in ENDING:
        signal.signal(signum, signal.SIG_IGN if signum == signal.SIGINT else signal.SIG_DFL)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl: a worker could not be bound to its parent")
    if os.getppid() != parent:
        os._exit(1)


def killed(pool: ProcessPoolExecutor) -> None:
    """End all workers now, whatever they are at."""
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)
