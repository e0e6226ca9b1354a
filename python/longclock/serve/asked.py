# SPDX-License-Identifier: Apache-2.0
"""A request, and what a version of a model takes of it and of its user's history."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from longclock._keywords import named_keywords
from longclock.data.ids import ids_of
from longclock.data.stream import DAY
from longclock.serve.ranking_model import Served
from longclock.store import Behaviours, BehaviourStore
from longclock.store.records import User

OFFSET = "utc_offset"  # the column that says how far the clock of a behaviour's place is ahead


class Request(NamedTuple):
    """One request.

    - ``user``: as the store knows the user.
    - ``candidates``: int64 [C], ids of items: as the events that the model was trained on have them, of texts what
      :func:`longclock.data.sources.text_ids` makes of them.
    - ``now``: seconds; only behaviours before it count.
    - ``utc_offset``: seconds by which the clock where the user is is ahead of ``now``; behaviours have theirs in the store's
      column of this name.

    Example::

        >>> import torch
        >>> from longclock.serve import Request
        >>> Request("ada", torch.tensor([3, 5]), now=1_700_000_000).utc_offset
        0
    """

    user: User
    candidates: Tensor
    now: int
    utc_offset: int = 0


Request.__new__ = named_keywords("Request")(Request.__new__)  # type: ignore[method-assign]


class Asked:
    """What the model takes of one request.

    ``seen`` are the behaviours that count, by the ids of their items; ``items``, int64 [M], the rows of these.
    """

    def __init__(self, served: Served, store: BehaviourStore, request: Request) -> None:
        self._served, self.candidates = served, request.candidates.cpu()
        catalogue, config = served.catalogue, served.config
        self._now = request.now
        self.rows, self.known = _known(served, self.candidates)
        seen = store.get(request.user, before=request.now - config.history_delay)
        seen = _newest(seen, config.history, config.history_days, request.now)
        self.items, of_model = _known(served, seen.item)
        self.seen = seen if of_model is None else _some(seen, of_model)
        row = int(served.numbers("users", torch.from_numpy(ids_of([request.user]))))
        self.user = catalogue.users if row < 0 else row
        self.time = request.now + request.utc_offset
        self.behaviour_time = self.seen.time
        if OFFSET in self.seen.columns:
            self.behaviour_time = self.seen.time + self.seen.columns[OFFSET]
        self.behaviour = self.items
        if catalogue.labelled:
            self.behaviour = self.behaviour + catalogue.items * self.seen.columns["label"].long()

    def outcomes(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Of every candidate that the model knows."""
        counts, categories = self._served.outcomes, self._served.catalogue.categories
        assert counts is not None
        candidates, items = self.rows.numpy(), self.items.numpy()
        fields = [(candidates, items)] + [
            (ids[candidates], ids[items]) for ids in categories.values()
        ]
        of_candidates, of_user = zip(*fields, strict=True)
        label = self.seen.columns["label"].numpy().astype(np.int64)
        return counts.columns(of_candidates, of_user, label, self.seen.time.numpy(), self._now)

    def of_all(self, scores: Tensor) -> Tensor:
        """Scores of the candidates that the model knows as those of all; of the others -inf."""
        if self.known is None:
            return scores
        every = torch.full(self.candidates.shape, -torch.inf)
        every[self.known] = scores
        return every


def together(served: Served, asked: list[Asked]) -> tuple[Tensor | None, ...]:
    """The arguments of :class:`RankingModel` for all of them."""
    device = served.model.items.device

    def counted(sizes: list[int]) -> Tensor:
        return torch.tensor(list(itertools.accumulate(sizes)))

    outcomes = None
    if served.outcomes is not None:
        outcomes = torch.from_numpy(np.concatenate([each.outcomes() for each in asked]))
    arguments = (
        torch.tensor([each.user for each in asked]),
        _joined([each.rows for each in asked]),
        _joined([each.behaviour for each in asked]),
        _joined([each.behaviour_time for each in asked]),
        counted([len(each.behaviour) for each in asked]),
        counted([0, *(len(each.rows) for each in asked)]),
        torch.tensor([each.time for each in asked]),
        outcomes,
    )
    return tuple(x if x is None else x.to(device) for x in arguments)


def _known(served: Served, items: Tensor) -> tuple[Tensor, Tensor | None]:
    """The rows of the items that the model knows, and which those are; None: all."""
    rows = served.numbers("items", items)
    if not len(rows) or rows.min() >= 0:
        return rows, None
    known = rows >= 0
    return rows[known], known


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _newest(seen: Behaviours, longest: int | None, days: int, now: int) -> Behaviours:
    """What the windows of training hold of it."""
    first = 0 if not days else int(torch.searchsorted(seen.time, now - days * DAY))
    if longest is not None:
        first = max(first, len(seen.time) - longest)
    return seen if first <= 0 else _some(seen, slice(first, None))


def _some(seen: Behaviours, which: Any) -> Behaviours:
    columns = {name: values[which] for name, values in seen.columns.items()}
    return Behaviours(seen.item[which], seen.time[which], columns)
