# SPDX-License-Identifier: Apache-2.0
"""Callers that wait at one time share one commit."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from longclock.store.forks import heed_forks

Work = TypeVar("Work")
Result = TypeVar("Result")


class _Caller(Generic[Work, Result]):
    __slots__ = ("gate", "leads", "result", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.gate = threading.Lock()  # open once the work is done, or once this caller leads
        self.gate.acquire()
        self.leads = False
        self.result: Result | BaseException | None = None

    def answer(self, result: Result | BaseException) -> None:
        self.result = result
        self.open()

    def open(self) -> None:
        """A second time changes nothing: a caller passes its gate once."""
        with contextlib.suppress(RuntimeError):
            self.gate.release()


class GroupCommit(Generic[Work, Result]):
    """One caller at a time leads: it commits for itself and for all who came while the one before it did.

    A durable commit waits for the disk once, however much is in it: 64 callers are served by two of them, not by 64. The
    next to lead is woken before those that are served, so that the disk does not wait for them.

    Args:
        commit: given the work of several callers, does it all and makes it durable; returns for each what it comes to, or
            the exception that its caller shall get. An Exception that it raises, every one of them gets; what interrupts it
            otherwise, as Ctrl-C does, the leader alone, and the others' work is committed again.
    """

    def __init__(
        self, commit: Callable[[Sequence[Work]], Sequence[Result | BaseException]]
    ) -> None:
        self._commit = commit
        self._start()
        heed_forks(self)

    def _start(self) -> None:
        self._lock = threading.Lock()  # of what follows, and of who leads
        self._queue: list[_Caller[Work, Result]] = []
        self._led = False

    def before_fork(self) -> None:
        """Callers of other threads are not there in the child."""

    def after_fork(self, in_child: bool) -> None:
        if in_child:
            self._start()

    def submit(self, work: Work) -> Result:
        """Returns once the work is durable."""
        mine: _Caller[Work, Result] = _Caller(work)
        try:
            with self._lock:
                self._queue.append(mine)
                mine.leads, self._led = not self._led, True
            if not mine.leads:
                mine.gate.acquire()
            if mine.leads:
                self._lead(mine)
        except BaseException:
            self._hand_on(mine)
            raise
        if isinstance(mine.result, BaseException):
            raise mine.result
        return mine.result  # type: ignore[return-value]  # it is there once the gate was open

    def _lead(self, mine: _Caller[Work, Result]) -> None:
        with self._lock:
            callers, self._queue = self._queue, []
        results: Sequence[Result | BaseException]
        try:
            results = self._commit([caller.work for caller in callers])
        except Exception as error:
            results = [error if caller is mine else _copied(error) for caller in callers]
        except BaseException:
            with self._lock:
                self._queue[:0] = [caller for caller in callers if caller is not mine]
            raise
        try:
            self._hand_on(mine)
        finally:
            answers = list(zip(callers, results, strict=True))
            try:
                for caller, result in answers:
                    caller.answer(result)
            except BaseException:  # an interrupt: nobody waits for ever because of it
                for caller, result in answers:
                    caller.answer(result)
                raise

    def _hand_on(self, leaver: _Caller[Work, Result]) -> None:
        """This caller waits and leads no longer; the first of those who wait does, where it led."""
        with self._lock:
            if leaver in self._queue:
                self._queue.remove(leaver)
            if not leaver.leads:
                return
            leaver.leads = False
            self._led = bool(self._queue)
            if self._queue:
                self._queue[0].leads = True
                self._queue[0].open()


def _copied(error: Exception) -> Exception:
    """For another thread: what one raises carries that one's traceback."""
    with contextlib.suppress(Exception):
        other = copy.copy(error)
        other.__cause__ = error
        return other
    return error
