# SPDX-License-Identifier: Apache-2.0
"""What a store does when its process forks."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Forks(Protocol):
    """What holds a file or a connection that a child must not use as well."""

    def before_fork(self) -> None:
        """Waits until no other thread is within, and keeps them out."""

    def after_fork(self, in_child: bool) -> None:
        """In the child nothing of the parent's is left to be used."""


_lock = threading.Lock()
_open: weakref.WeakSet[Forks] = weakref.WeakSet()
_held: list[Forks] = []  # across one fork; forks of several threads wait for each other


def heed_forks(store: Forks) -> None:
    with _lock:
        _open.add(store)


def _before() -> None:
    _lock.acquire()
    _held[:] = list(_open)
    for store in _held:
        store.before_fork()


def _after(in_child: bool) -> None:
    for store in _held:
        store.after_fork(in_child)
    _held.clear()
    _lock.release()


os.register_at_fork(
    before=_before,
    after_in_parent=lambda: _after(in_child=False),
    after_in_child=lambda: _after(in_child=True),
)
