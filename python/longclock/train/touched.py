# SPDX-License-Identifier: Apache-2.0
"""The items and behaviours that a batch touches, so that a step costs what the batch holds and not what the stream does."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longclock.data import Histories
from longclock.data.stream import IntArray


class Touched(NamedTuple):
    """Behaviours of a batch's windows, those of a user once, and the different items among them and the candidates."""

    items: Tensor  # [U], each once, ascending
    candidate: Tensor  # [R], the candidates' places among them
    behaviour: Tensor  # [B], the behaviours' places among them
    position: Tensor  # [B], the behaviours' rows of the histories
    starts: Tensor  # [E], windows of these behaviours
    ends: Tensor  # [E]

    def to(self, device: torch.device) -> Touched:
        """The same elsewhere."""
        return Touched(*(column.to(device) for column in self))


def touched(
    histories: Histories,
    items: int,
    user: IntArray,
    starts: IntArray,
    ends: IntArray,
    candidates: IntArray,
    always: bool = False,
) -> Touched | None:
    """None where the windows have more behaviours than there are items: all items are then fewer.

    Args:
        items: how many there are.
        user, starts, ends: [E], of the batch's events. candidates: [R], their items.
        always: find them all the same.
    """
    users, which = np.unique(user, return_inverse=True)
    low = np.full(len(users), len(histories.item))
    high = np.zeros_like(low)
    np.minimum.at(low, which, starts)
    np.maximum.at(high, which, ends)
    counts = np.maximum(high - low, 0)
    if counts.sum() >= items and not always:
        return None
    begin = counts.cumsum() - counts
    position = np.arange(counts.sum()) + np.repeat(low - begin, counts)
    shift = (begin - low)[which]

    ids = np.concatenate([histories.item[position], candidates])
    different, inverse = np.unique(ids, return_inverse=True)
    places = torch.from_numpy(inverse)
    return Touched(
        torch.from_numpy(different),
        places[len(position) :],
        places[: len(position)],
        torch.from_numpy(position),
        torch.from_numpy(starts + shift),
        torch.from_numpy(ends + shift),
    )
