# SPDX-License-Identifier: Apache-2.0
"""Callers that wait at one time share one commit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")


class _Waiting(Generic[Work, Result]):
    def __init__(self, work: Work) -> None:
        self.work = work
        self.woken = threading.Event()  # it is done, or to commit for all that wait
        self.done = False
        self.result: Result | BaseException | None = None


class GroupCommit(Generic[Work, Result]):
    """One caller at a time commits, for itself and for all who came while the one before it did.

    A durable commit waits for the disk once, however much is in it: 64 callers are served by two of them, not by 64.

    Args:
        commit: given the work of several callers, does it all and makes it durable; returns for each what it comes to, or
            the exception that its caller shall get. What it raises itself, every one of them gets.
    """

    def __init__(
        self, commit: Callable[[Sequence[Work]], Sequence[Result | BaseException]]
    ) -> None:
        self._commit = commit
        self._lock = threading.Lock()  # of what follows
        self._queue: list[_Waiting[Work, Result]] = []
        self._committing = False

    def submit(self, work: Work) -> Result:
        """Returns once the work is durable."""
        mine: _Waiting[Work, Result] = _Waiting(work)
        with self._lock:
            self._queue.append(mine)
            leads, self._committing = not self._committing, True
        if not leads:
            mine.woken.wait()
        if not mine.done:
            self._serve()
        if isinstance(mine.result, BaseException):
            raise mine.result
        return mine.result  # type: ignore[return-value]  # done

    def _serve(self) -> None:
        with self._lock:
            waiting, self._queue = self._queue, []
        results: Sequence[Result | BaseException]
        try:
            results = self._commit([each.work for each in waiting])
        except BaseException as error:
            results = [error] * len(waiting)
        with self._lock:
            following = self._queue[0] if self._queue else None
            self._committing = following is not None
        if following is not None:
            following.woken.set()
        for each, result in zip(waiting, results, strict=True):
            each.result, each.done = result, True
            each.woken.set()
