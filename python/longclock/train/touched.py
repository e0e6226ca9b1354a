# SPDX-License-Identifier: Apache-2.0
"""The items and behaviours that a batch touches, so that a step costs what the batch holds and not what the stream does."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longclock.data import Histories
from longclock.data.stream import IntArray, stretches

MOST_PLACES = (
    1 << 20
)  # 8 MB; of more items looking up their places takes longer than sorting those of a batch


class Places:
    """Finds the different ones among some items: by a place for every item there is, where these are not very many, else by sorting.

    Args:
        items: how many there are.
    """

    def __init__(self, items: int) -> None:
        self.items = items
        self._place = np.empty(items, np.int64) if items <= MOST_PLACES else None

    def distinct(self, ids: IntArray) -> tuple[IntArray, IntArray]:
        """The different ones, ascending, and the place of each id among them."""
        if self._place is None:
            return np.unique(ids, return_inverse=True)
        place, numbers = self._place, np.arange(len(ids))
        place[ids] = numbers  # of an item that is there several times, the last
        different = ids[place[ids] == numbers]
        different.sort()
        place[different] = numbers[: len(different)]
        return different, place[ids]


class Touched(NamedTuple):
    """Behaviours of a batch's windows, each once, and the different items among them and the candidates."""

    items: Tensor  # [U], each once, ascending
    candidate: Tensor  # [R], the candidates' places among them
    behaviour: Tensor  # [B], the behaviours' places among them, or, with labels, among the kinds
    position: Tensor  # [B], the behaviours' rows of the histories
    starts: Tensor  # [E], windows of these behaviours
    ends: Tensor  # [E]
    kind_item: Tensor | None = None  # [P], of each item and label that occur together: the place
    kind_label: Tensor | None = None  # [P], and the label, ascending

    def to(self, device: torch.device) -> Touched:
        """The same elsewhere."""
        return Touched(*(None if column is None else column.to(device) for column in self))  # type: ignore[arg-type]


def touched(
    histories: Histories,
    places: Places,
    kinds: Places | None,
    starts: IntArray,
    ends: IntArray,
    candidates: IntArray,
    always: bool = False,
) -> Touched | None:
    """None where the windows have more behaviours than there are items: all items are then fewer.

    Args:
        places: of all items.
        kinds: of a labelled stream, of all items with label 0, then of all with label 1.
        starts, ends: [E], windows of the batch's events. candidates: [R], their items.
        always: find them all the same.
    """
    order = starts.argsort(kind="stable")
    low, high = starts[order], np.maximum.accumulate(ends[order])
    apart = np.empty(len(order), bool)  # from the windows before it
    apart[:1] = True
    np.greater(low[1:], high[:-1], out=apart[1:])
    first = apart.nonzero()[0]
    end = np.empty_like(first)  # of a stretch of windows
    end[:-1], end[-1:] = first[1:], len(order)
    begin = low[first]
    counts = high[end - 1] - begin
    if counts.sum() >= places.items and not always:
        return None
    position = stretches(begin, counts)
    shift = np.empty_like(order)
    shift[order] = (counts.cumsum() - counts - begin).repeat(end - first)

    items = histories.item[position]
    if kinds is not None:
        pairs, behaviour = kinds.distinct(items + places.items * histories.label[position])
        labels, items = np.divmod(pairs, places.items)
    different, place = places.distinct(np.concatenate([items, candidates]))
    candidate, place = place[len(items) :], place[: len(items)]
    columns = [different, candidate, place, position, starts + shift, ends + shift]
    if kinds is not None:
        columns = [*columns[:2], behaviour, *columns[3:], place, labels]
    return Touched(*map(torch.from_numpy, columns))
