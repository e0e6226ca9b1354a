# SPDX-License-Identifier: Apache-2.0
"""What items are called in reports."""

from __future__ import annotations

from longclock.data.stream import EventStream


class ItemNames:
    """Of a stream's items by their numbers: ``Coffee Shop (12)``, the finest known attribute that has names, and what the events call the item."""

    def __init__(self, stream: EventStream) -> None:
        self._tables, self._names = stream.item_categories(), stream.category_names
        self._items = stream.item_names

    def __call__(self, item: int) -> str:
        called = item if self._items is None else self._items[item]
        for field in reversed(list(self._tables)):
            if category := self.category(field, item):
                return f"{category} ({called})"
        return called if isinstance(called, str) else f"item {called}"

    def category(self, field: str, item: int) -> str:
        """The name of an item's attribute; empty where it is not known, or has none."""
        table, names = self._tables.get(field, ()), self._names.get(field)
        number = int(table[item]) if item < len(table) else 0
        return names[number] if names is not None and number else ""
