# SPDX-License-Identifier: Apache-2.0
"""What items and their groups are called, by the ids that a served model and its store have for them."""

from __future__ import annotations

import csv
from collections.abc import Iterable

import numpy as np

from longclock.data import ids
from longclock.data.item_names import ItemNames
from longclock.data.numbering import Numbering
from longclock.data.stream import EventStream

MOST = 2**53 - 1  # of the whole numbers that a browser reads from JSON


class Names:
    """Names by ids.

    Args:
        stream: events of these items, which need not be those that the model learned from; None: ids are all there is.
    """

    def __init__(self, stream: EventStream | None) -> None:
        self._stream = stream
        self._names = None if stream is None else ItemNames(stream)
        called = None if stream is None else stream.item_names
        self._numbers = None if called is None else Numbering.known_as(ids.ids_of(called))

    def called(self, item: int) -> int | str:
        """What the events call an item."""
        number = self._number(item)
        if self._stream is None or self._stream.item_names is None or number < 0:
            return item
        return self._stream.item_names[number]

    def __call__(self, item: int) -> str:
        """What the page calls it."""
        number = self._number(item)
        return f"item {item}" if self._names is None or number < 0 else self._names(number)

    def of_groups(self, field: str, items: Iterable[int], groups: Iterable[int]) -> dict[int, str]:
        """What values of an attribute are called, as the first of the items with it says whose attribute has a name."""
        found: dict[int, str] = {}
        for item, group in zip(items, groups, strict=True):
            number = self._number(item)
            if self._names is not None and number >= 0 and not found.get(group):
                found[group] = self._names.category(field, number)
        return found

    def _number(self, item: int) -> int:
        """That of the stream; -1: it has no such item."""
        if self._numbers is not None:
            return int(self._numbers.find(np.array([item]))[0])
        return item if self._stream is not None and 0 <= item < self._stream.items else -1


def listed(text: str) -> list[int | str]:
    """Items with commas between them, as the events call them; one that has a comma in it stands in double quotes.

    Raises:
        ValueError: something else.
    """
    try:
        words = next(csv.reader([text], skipinitialspace=True, strict=True), [])
    except csv.Error:
        words = []
    items = [ids.called(word.strip()) for word in words]
    if not items or "" in items:
        raise ValueError(f"candidates must be items with commas between them, got {text!r}")
    return items


def plain(name: int | str) -> int | str:
    """A user or an item as JSON that browsers read: a number with too many digits is the text that spells it."""
    return str(name) if isinstance(name, int) and abs(name) > MOST else name
