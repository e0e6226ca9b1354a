# SPDX-License-Identifier: Apache-2.0
"""The event stream: columns of integers in time order."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import numpy.typing as npt

from longclock._keywords import named_keywords
from longclock.data._checks import (
    check_column,
    check_count,
    check_ids,
    check_label,
    check_seconds,
)

IntArray = npt.NDArray[np.int64]
DAY = 86400
COLUMNS = ("user", "item", "time", "order_time", "label")


@dataclasses.dataclass(frozen=True)
class EventStream:
    """``E`` events in the order in which they happened.

    Args:
        name: short name, for reports.
        user, item: ids counted from 0, int64 ``[E]``.
        time: local seconds ``[E]``: what the clock reads. It may jump with time zones.
        order_time: seconds ``[E]``, never decreasing: the order of the stream and its days.
        label: 0 or 1, int64 ``[E]``; None when every event is a positive (negatives are then sampled).
        categories: attributes of the events' items, name to ids, int64 ``[E]``; 0 means unknown.
        users, items, category_sizes: number of ids, at least that of the column, which is taken when left out.
        category_names: for reports only, name to the text of every id.
        user_names, item_names: what every number stands for, an integer or a text; None: the numbers are the users and items.
        unused_columns: columns of the file behind the stream that were not read.
        file_columns: those that were, by our names: what the file calls them.
        blank_rows: how many blank lines of a CSV were left out.
    Raises:
        ValueError: names the column, the row counted from 0 and the value that does not fit: another
            type or shape, an id below 0, a label other than 0 and 1, a time that cannot be seconds (from
            10^11 on it is milliseconds), an attribute called like a column, too few names.

    Example::

        >>> import numpy as np
        >>> from longclock.data import EventStream
        >>> user, item, time = np.array([[0, 1, 0], [5, 6, 5], [28_800, 72_000, 115_200]])
        >>> stream = EventStream("plays", user, item, time, order_time=time)
        >>> stream.users, stream.day().tolist(), stream.pair_seen().tolist()
        (2, [0, 0, 1], [False, False, True])
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
    user_names: list[int | str] | None = None
    item_names: list[int | str] | None = None
    unused_columns: tuple[str, ...] = ()
    file_columns: dict[str, str] = dataclasses.field(default_factory=dict)
    blank_rows: int = 0

    def __post_init__(self) -> None:
        self._check_names()
        for name, column in self.columns().items():
            check_column("EventStream", name, column, np.shape(self.user))
        for name in ("time", "order_time"):
            check_seconds("EventStream", name, getattr(self, name))
        late = np.flatnonzero(self.order_time[1:] < self.order_time[:-1])
        if len(late):
            raise ValueError(
                "EventStream: order_time must not decrease; sort the events by it: "
                f"row {late[0] + 1} is earlier than the one before"
            )
        if self.label is not None:
            check_label("EventStream", "label", self.label)
        object.__setattr__(self, "users", self._size("users", "user", self.user, self.users))
        object.__setattr__(self, "items", self._size("items", "item", self.item, self.items))
        sizes = {
            name: self._size("category_sizes", name, ids, self.category_sizes.get(name, 0))
            for name, ids in self.categories.items()
        }
        object.__setattr__(self, "category_sizes", sizes)
        for argument, count in (("user_names", self.users), ("item_names", self.items)):
            given = getattr(self, argument)
            if given is not None and len(given) < count:
                raise ValueError(
                    f"EventStream: {argument} must have a name for each of the {count} ids, got {len(given)}"
                )
        for name, names in self.category_names.items():
            if len(names) < _count(self.categories[name]):
                raise ValueError(
                    f"EventStream: category_names of {name!r} must have a name for each of the "
                    f"{_count(self.categories[name])} ids, got {len(names)}"
                )

    def _check_names(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"EventStream: name must be a text, got {self.name!r}")
        if isinstance(self.unused_columns, str):
            raise ValueError(
                "EventStream: unused_columns must be a tuple of names, "
                f"got the text {self.unused_columns!r}"
            )
        for argument in ("categories", "category_sizes", "category_names"):
            given = getattr(self, argument)
            if not isinstance(given, dict):
                raise ValueError(
                    f"EventStream: {argument} must be a dict by name, got {type(given).__name__}"
                )
            for name in given:
                if not isinstance(name, str) or name in COLUMNS:
                    raise ValueError(
                        f"EventStream: {argument} must have names other than the columns "
                        f"{', '.join(COLUMNS)}, got {name!r}; rename the attribute"
                    )
                if name not in self.categories:
                    raise ValueError(
                        f"EventStream: {argument} names {name!r}, which categories does not have"
                    )

    @staticmethod
    def _size(argument: str, name: str, ids: IntArray, least: int) -> int:
        check_ids("EventStream", name, ids)
        return max(check_count("EventStream", f"{argument} of {name!r}", least), _count(ids))

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
        """The first ``days`` days, at most ``max_events`` events; the numbers of ids stay.

        Raises:
            ValueError: a negative number.
        """
        count = len(self)
        if days is not None:
            check_count("EventStream.head", "days", days)
            count = int(np.searchsorted(self.day(), days))
        if max_events is not None:
            check_count("EventStream.head", "max_events", max_events)
            count = min(count, int(max_events))
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
        order = order_of(self.user)
        return order, run_starts(self.user[order], self.order_time[order])

    def item_seen(self) -> npt.NDArray[np.bool_]:
        """Whether every event's item occurred before, at an earlier ``order_time``; ``[E]``."""
        return self._seen(self.item)

    def pair_seen(self) -> npt.NDArray[np.bool_]:
        """Whether every event's user took its item before, at an earlier ``order_time``; ``[E]``."""
        return self._seen(pair_ids(self.user, self.item))

    def _seen(self, ids: IntArray) -> npt.NDArray[np.bool_]:
        _, first, place = np.unique(ids, return_index=True, return_inverse=True)
        return self.order_time > self.order_time[first[place]]

    def item_categories(self) -> dict[str, IntArray]:
        """Attributes of every item as its first event gives them, name to ids ``[items]``.

        The first event, so that nothing later in the stream changes what a model sees now.

        Raises:
            ValueError: ids too far apart for a table of all of them.
        """
        try:
            tables = {name: np.zeros(self.items, np.int64) for name in self.categories}
        except (MemoryError, ValueError):
            raise ValueError(
                f"EventStream: column 'item' needs tables of {self.items} rows, too large for the "
                "memory; number the ids: numpy.unique(item, return_inverse=True)[1]"
            ) from None
        seen, first = np.unique(self.item, return_index=True)
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


EventStream.__init__ = named_keywords("EventStream")(EventStream.__init__)  # type: ignore[method-assign]


def _count(ids: IntArray) -> int:
    return int(ids.max()) + 1 if len(ids) else 0


def pair_ids(first: IntArray, second: IntArray) -> IntArray:
    """An id for each different pair of ids, ``[E]``; far ids are numbered first, so none overflows."""
    if _count(first) * _count(second) > 2**63:
        first, second = (np.unique(ids, return_inverse=True)[1] for ids in (first, second))
    return first * _count(second) + second


def order_of(ids: IntArray) -> IntArray:
    """``np.argsort(ids, kind="stable")`` of ids from 0 on, by the faster sort of values where id and row fit one."""
    bits = len(ids).bit_length()
    if _count(ids) >= 1 << (63 - bits):
        return np.argsort(ids, kind="stable")
    return np.sort((ids << bits) + np.arange(len(ids))) & ((1 << bits) - 1)


def run_starts(*keys: IntArray) -> IntArray:
    """The row at which every row's run of rows with the same keys begins; ``[T]``."""
    count = len(keys[0])
    starts = np.zeros(count, bool)
    for key in keys:
        starts[1:] |= key[1:] != key[:-1]
    return np.maximum.accumulate(np.where(starts, np.arange(count), 0))


def stretches(first: IntArray, count: IntArray) -> IntArray:
    """The numbers from ``first[i]`` to ``first[i] + count[i] - 1`` for every i, one stretch after another."""
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(first - (ends - count), count) + np.arange(total)


def check_stream(owner: str, stream: object) -> None:
    if not isinstance(stream, EventStream):
        raise ValueError(f"{owner}: stream must be an EventStream, got {type(stream).__name__}")
