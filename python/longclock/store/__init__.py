# SPDX-License-Identifier: Apache-2.0
"""Where histories lie between requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longclock._lazy import lazily

if TYPE_CHECKING:
    from longclock.store.behaviour_store import BehaviourStore
    from longclock.store.opening import open_store
    from longclock.store.records import Behaviours, DamagedHistoryError
    from longclock.store.redis_store import RedisStore
    from longclock.store.sqlite_store import SQLiteStore

__all__ = [
    "BehaviourStore",
    "Behaviours",
    "DamagedHistoryError",
    "RedisStore",
    "SQLiteStore",
    "open_store",
]

__getattr__ = lazily(
    __name__,
    {
        "BehaviourStore": "longclock.store.behaviour_store",
        "Behaviours": "longclock.store.records",
        "DamagedHistoryError": "longclock.store.records",
        "RedisStore": "longclock.store.redis_store",
        "SQLiteStore": "longclock.store.sqlite_store",
        "open_store": "longclock.store.opening",
    },
)
