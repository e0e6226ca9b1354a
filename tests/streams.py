# SPDX-License-Identifier: Apache-2.0
"""Small event streams for the tests of data and training."""

from __future__ import annotations

import numpy as np

from longclock.data import EventStream


def stream(
    events: int = 240,
    users: int = 6,
    items: int = 12,
    days: int = 6,
    labels: bool = False,
    seed: int = 0,
) -> EventStream:
    """Random events with habits: an item's hour is its number."""
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(0, days * 86400, events)) + 1_333_324_800
    hour = time % 86400 // 3600
    habit = (hour * items // 24 + rng.integers(0, 2, events)) % items
    item = np.where(rng.random(events) < 0.7, habit, rng.integers(0, items, events))
    return EventStream(
        name="small",
        user=rng.integers(0, users, events),
        item=item,
        time=time,
        order_time=time,
        label=rng.integers(0, 2, events) if labels else None,
        categories={"category": 1 + item % 3},
        users=users,
        items=items,
        category_sizes={"category": 4},
    )
