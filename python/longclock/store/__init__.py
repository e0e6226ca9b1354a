# SPDX-License-Identifier: Apache-2.0
"""Where histories lie between requests."""

from __future__ import annotations

from longclock.store.behaviour_store import BehaviourStore
from longclock.store.records import Behaviours, DamagedHistoryError
from longclock.store.sqlite_store import SQLiteStore

__all__ = ["BehaviourStore", "Behaviours", "DamagedHistoryError", "SQLiteStore"]
