# SPDX-License-Identifier: Apache-2.0
"""What items are called in reports."""

from __future__ import annotations

from longclock.data.stream import EventStream


class ItemNames:
    """Of a stream's items: ``Coffee Shop (12)``, the finest known attribute that has names, and the item's number."""

    def __init__(self, stream: EventStream) -> None:
        self._tables, self._names = stream.item_categories(), stream.category_names

    def __call__(self, item: int) -> str:
        for name in reversed(list(self._tables)):
            ids = int(self._tables[name][item]) if item < len(self._tables[name]) else 0
            if ids and name in self._names:
                return f"{self._names[name][ids]} ({item})"
        return f"item {item}"
