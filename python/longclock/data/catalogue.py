# SPDX-License-Identifier: Apache-2.0
"""What a ranking model has rows for."""

from __future__ import annotations

import dataclasses

from longclock.data.stream import EventStream, IntArray, check_stream


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Users, items and the attributes of items, by number.

    Args:
        users, items: how many of each there are.
        categories: of every item, name to ids int64 [items].
        category_sizes: how many ids each of these has.
        labelled: whether an event says how it ended.

    Example::

        >>> import numpy as np
        >>> from longclock.data import Catalogue, EventStream
        >>> user, item, time = np.array([[0, 1], [5, 6], [100, 200]])
        >>> Catalogue.of(EventStream("plays", user, item, time, order_time=time)).items
        7
    """

    users: int
    items: int
    categories: dict[str, IntArray]
    category_sizes: dict[str, int]
    labelled: bool

    @classmethod
    def of(cls, stream: EventStream) -> Catalogue:
        """That of a stream; attributes are as each item's first event gives them."""
        check_stream("Catalogue.of", stream)
        sizes = stream.category_sizes
        return cls(
            stream.users, stream.items, stream.item_categories(), sizes, stream.label is not None
        )
