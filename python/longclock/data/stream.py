# SPDX-License-Identifier: Apache-2.0
"""The event stream: columns of integers in time order."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
DAY = 86400


@dataclasses.dataclass(frozen=True)
class EventStream:
    """``E`` events in the order in which they happened.

    Args:
        name: short name, for reports.
        user, item: ids counted from 0, int64 ``[E]``.
        time: local seconds ``[E]``: what the clock reads. It may jump with time zones.
        order_time: seconds ``[E]``, never decreasing: the order of the stream and its days.
        label: 0 or 1 ``[E]``; None when every event is a positive (negatives are then sampled).
        categories: attributes of the events' items, name to ids ``[E]``; 0 means unknown.
        users, items, category_sizes: number of ids; counted from the columns when left out.
        category_names: for reports only, name to the text of every id.
    """

    name: str
    user: IntArray
    item: IntArray
    time: IntArray
    order_time: IntArray
    label: IntArray | None = None
    categories: dict[str, IntArray] = dataclasses.field(default_factory=dict)
    users: int = 0
    items: int = 0
    category_sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    category_names: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, column in self.columns().items():
            if column.shape != self.user.shape or column.dtype != np.int64:
                raise ValueError(
                    f"EventStream: column {name!r} must be int64 of shape {self.user.shape}, "
                    f"got {column.dtype} of shape {column.shape}"
                )
        if len(self) and np.any(np.diff(self.order_time) < 0):
            raise ValueError("EventStream: order_time must not decrease; sort the events by it")
        sizes = {name: _count(ids) for name, ids in self.categories.items()}
        object.__setattr__(self, "users", max(self.users, _count(self.user)))
        object.__setattr__(self, "items", max(self.items, _count(self.item)))
        object.__setattr__(self, "category_sizes", {**sizes, **self.category_sizes})

    def __len__(self) -> int:
        return len(self.user)

    def columns(self) -> dict[str, IntArray]:
        """Every column by name, without ``label`` where there is none."""
        columns = {
            "user": self.user,
            "item": self.item,
            "time": self.time,
            "order_time": self.order_time,
            **self.categories,
        }
        return columns if self.label is None else {**columns, "label": self.label}

    def day(self) -> IntArray:
        """Day of every event, counted from the day of the first one; ``[E]``."""
        days = self.order_time // DAY
        return days - days[0] if len(self) else days

    def head(self, days: int | None = None, max_events: int | None = None) -> EventStream:
        """The first ``days`` days, at most ``max_events`` events; the numbers of ids stay."""
        count = len(self)
        if days is not None:
            count = int(np.searchsorted(self.day(), days))
        if max_events is not None:
            count = min(count, max_events)
        return dataclasses.replace(
            self,
            user=self.user[:count],
            item=self.item[:count],
            time=self.time[:count],
            order_time=self.order_time[:count],
            label=None if self.label is None else self.label[:count],
            categories={name: ids[:count] for name, ids in self.categories.items()},
        )

    def by_user(self) -> tuple[IntArray, IntArray]:
        """The events user by user, each in stream order; and each one's past, both ``[E]``.

        The past of row ``r`` of that order are its user's rows before ``moment[r]``, the first one of the
        same user and ``order_time``: what happens at one moment does not see itself.
        """
        order = np.argsort(self.user, kind="stable")
        user, time = self.user[order], self.order_time[order]
        starts = np.ones(len(self), bool)
        starts[1:] = (user[1:] != user[:-1]) | (time[1:] != time[:-1])
        return order, np.maximum.accumulate(np.where(starts, np.arange(len(self)), 0))

    def item_categories(self) -> dict[str, IntArray]:
        """Attributes of every item as its first event gives them, name to ids ``[items]``.

        The first event, so that nothing later in the stream changes what a model sees now.
        """
        seen, first = np.unique(self.item, return_index=True)
        tables = {name: np.zeros(self.items, np.int64) for name in self.categories}
        for name, ids in self.categories.items():
            tables[name][seen] = ids[first]
        return tables

    def digest(self) -> str:
        """Short hash of every column: tells whether a checkpoint belongs to these events."""
        digest = hashlib.sha256()
        for name, column in sorted(self.columns().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()[:16]


def _count(ids: IntArray) -> int:
    return int(ids.max()) + 1 if len(ids) else 0
