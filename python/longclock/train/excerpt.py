# SPDX-License-Identifier: Apache-2.0
"""Some events of a source with what their users did before: training data of which little is in memory."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longclock.data import Candidates, Catalogue, OutcomeCounts
from longclock.data.by_user import ByUser
from longclock.data.outcomes import outcomes_of
from longclock.data.stream import IntArray
from longclock.train.batches import Batch, TrainingData
from longclock.train.team import Team
from longclock.train.touched import Touched


@dataclasses.dataclass(frozen=True, kw_only=True)
class Excerpt(TrainingData):
    """Training data whose stream is a stretch of a source, and whose histories are of its users alone.

    Args:
        first: the first event to train on: those before it are of the same moment as the last ones of the excerpt before.
        known: what tables have rows for.
        rows: the histories with the events.
        item_seen: bool [E], whether an event's item occurred before.
        counts: how the events before the stream ended; None without labels.
        lengths: int64 [E], of the events' windows.
        pair_seen: bool [E], whether an event's item is among what is kept of its user's past.
    """

    first: int
    known: Catalogue
    rows: ByUser
    item_seen: npt.NDArray[np.bool_]
    counts: OutcomeCounts | None
    lengths: IntArray
    pair_seen: npt.NDArray[np.bool_]

    @property
    def catalogue(self) -> Catalogue:
        """What a model has rows for."""
        return self.known

    @functools.cached_property
    def seen(self) -> npt.NDArray[np.bool_]:
        """As of any training data, over the whole source."""
        return self.item_seen[self.candidates.event]

    @functools.cached_property
    def outcomes(self) -> Tensor:
        """As of any training data, with the user's own as far as they are kept; attributes are the items'."""
        stream, tables = self.stream, self.known.categories.values()
        assert stream.label is not None
        fields, of_rows = (
            [items, *(table[items] for table in tables)] for items in (stream.item, self.rows.item)
        )
        found = outcomes_of(
            self.rows, stream.label, stream.order_time, fields, of_rows, self.counts
        )
        return torch.from_numpy(found).to(self.device)

    def touched(self, batch: Batch) -> Touched:
        """What a batch touches, however many rows the tables have."""
        found = self._touched(batch, always=True)
        assert found is not None
        return found


def of_all_ranks(
    team: Team,
    user: IntArray,
    width: int,
    found: Candidates,
    lengths: IntArray,
    pair_seen: npt.NDArray[np.bool_],
) -> tuple[Candidates, IntArray, npt.NDArray[np.bool_]]:
    """What every rank has found of the events of its own users, whose histories it has: the same on every rank.

    Args:
        user: of the events, [E].
        width: candidates of an event at most, the first of which is its own item; 0: every rank has found them all.
        found, lengths, pair_seen: candidates, lengths of windows and so on, of all events, of which those of other ranks' do not count.
    """
    if team.world == 1:
        return found, lengths, pair_seen
    items = np.full((len(user), width), -1)
    if width:
        column = np.arange(len(found.event)) - found.first_row[found.event]
        items[found.event, column] = found.item
    values = torch.from_numpy(np.column_stack([items, lengths, pair_seen]))
    team.exchange(values, team.places_of(user))
    items, (lengths, seen) = values[:, :width].numpy(), values[:, width:].T.numpy()
    if width:
        event, column = np.nonzero(items >= 0)
        first_row = np.searchsorted(event, np.arange(len(user) + 1))
        found = Candidates(event, items[event, column], (column == 0).astype(np.int64), first_row)
    return found, lengths, seen == 1
