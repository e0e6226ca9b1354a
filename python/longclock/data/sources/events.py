# SPDX-License-Identifier: Apache-2.0
"""Some events of a source: columns of integers, whose ids mean the same wherever they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from longclock.data.event_columns import label_of, times_of
from longclock.data.event_table import EventTable
from longclock.data.ids import text_ids
from longclock.data.stream import IntArray


@dataclasses.dataclass(frozen=True)
class Events:
    """``E`` events in the order of their source.

    Args:
        user, item: ids, int64 ``[E]``: the integers of the source, or what :func:`text_ids` makes of its texts.
        time: local seconds, int64 ``[E]``: what the clock reads.
        order_time: seconds, int64 ``[E]``: when it happened.
        label: 0 or 1, int64 ``[E]``; None where the source has none.
        categories: attributes of the events' items, name to ids, int64 ``[E]``; a missing value is 0.

    Example::

        >>> import numpy as np
        >>> from longclock.data.sources import Events
        >>> user, item, time = np.array([[7, 9], [1, 2], [100, 200]])
        >>> events = Events(user, item, time, order_time=time)
        >>> len(events), events.take(np.array([1])).user.tolist()
        (2, [9])
    """

    user: IntArray
    item: IntArray
    time: IntArray
    order_time: IntArray
    label: IntArray | None = None
    categories: dict[str, IntArray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: IntArray | slice) -> Events:
        """The given rows, in that order."""
        return Events(
            self.user[rows],
            self.item[rows],
            self.time[rows],
            self.order_time[rows],
            None if self.label is None else self.label[rows],
            {name: ids[rows] for name, ids in self.categories.items()},
        )

    @classmethod
    def joined(cls, parts: Sequence[Events]) -> Events:
        """All events of one or more parts of a source, one part after the other."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]

        def join(columns: list[Any]) -> IntArray:
            return np.concatenate(columns)

        return cls(
            join([part.user for part in parts]),
            join([part.item for part in parts]),
            join([part.time for part in parts]),
            join([part.order_time for part in parts]),
            None if first.label is None else join([part.label for part in parts]),
            {name: join([part.categories[name] for part in parts]) for name in first.categories},
        )


def events_of(table: EventTable, categories: Sequence[str]) -> Events:
    """The events of a table's rows, in their order.

    Raises:
        EventFileError: a value that no event has, by its place.
    """
    if len(table.frame) == 0:
        none = np.zeros(0, np.int64)
        label = none if "label" in table.frame else None
        return Events(none, none, none, none, label, dict.fromkeys(categories, none))
    time, order_time = times_of(table)
    for name in ("user", "item"):
        table.check(name, table.frame[name].isna().to_numpy(), "must not be empty")
    return Events(
        _ids(table, "user"),
        _ids(table, "item"),
        time,
        order_time,
        label_of(table) if "label" in table.frame else None,
        {name: _ids(table, name) for name in categories},
    )


def _ids(table: EventTable, name: str) -> IntArray:
    """Integers as they are and texts by :func:`text_ids`; 0 where there is no value."""
    import pandas as pd

    column = table.frame[name]
    known = column.notna().to_numpy()
    if column.dtype.kind == "i":
        return column.to_numpy().astype(np.int64)
    ids = np.zeros(len(column), np.int64)
    values = column[known].to_numpy()
    kind = pd.api.types.infer_dtype(values, skipna=False) if len(values) else "empty"
    if kind == "integer":
        far = np.zeros(len(column), bool)
        far[known] = (values < -(2**63)) | (values >= 2**63)
        table.check(name, far, "must be from -2^63 to 2^63 - 1")
        ids[known] = values.astype(np.int64)
    elif kind == "string":
        ids[known] = text_ids(values)
    else:
        wrong = np.zeros(len(column), bool)
        wrong[known] = [
            isinstance(v, bool) or not isinstance(v, (int, str)) for v in values.tolist()
        ]
        table.check(name, wrong, "must be an integer or a text")
        ids[known] = [v if isinstance(v, int) else text_ids([v])[0] for v in values.tolist()]
    return ids
