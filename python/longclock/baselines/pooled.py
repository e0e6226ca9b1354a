# SPDX-License-Identifier: Apache-2.0
"""What baselines without a search share: one vector pooled from the behaviours, then a network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock._mlp import resolve_period
from longclock.baselines.layout import (
    LAYOUT,
    OUTSIDE,
    check_behaviours,
    check_call,
    check_ids,
    check_sizes,
    dtype_of,
    each_candidate,
    sequences_of,
)
from longclock.ops._errors import check_size
from longclock.types import Lookup


class Pooled(nn.Module):
    """``v_cur = h([pooled ; beside])``, one vector pooled from a window of behaviours: what a baseline derives from.

    Takes every layout of :class:`longclock.LongTermInterestClock` and returns the same shapes; the context
    has one head and no time features: ``[..., 1, L]``. Both have the weights' dtype.

    Args:
        behaviour_dim, candidate_dim: L and H.
        k: how many of the last behaviours are pooled; None: all.
        out_dim, hidden_dim: sizes of the two-layer network.
        period: of the clock, seconds.
        extra_dim: columns that ``beside`` adds to L.

    Raises:
        ValueError: a size, or an argument of a call, that does not fit; the message names the class, the argument and
            the remedy. Lengths, bounds of windows and the ids that are read are checked on every device, which on a
            GPU waits for them.
    """

    of_candidate = True  # the pooled vector depends on the candidate
    reads: tuple[str, ...] = ()  # what ``beside`` takes beyond the time, by name

    def __init__(
        self,
        behaviour_dim: int,
        candidate_dim: int,
        k: int | None = 100,
        out_dim: int = 64,
        hidden_dim: int = 128,
        *,
        period: int = 86400,
        extra_dim: int = 0,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_sizes(
            name,
            behaviour_dim=behaviour_dim,
            candidate_dim=candidate_dim,
            out_dim=out_dim,
            hidden_dim=hidden_dim,
        )
        check_size(name, "extra_dim", extra_dim, 0)
        if k is not None:
            check_size(name, "k", k, 0, hint="; k=None pools the whole sequence")
        self.behaviour_dim, self.candidate_dim = behaviour_dim, candidate_dim
        self.k, self.period = k, resolve_period(name, period)
        self.head = nn.Sequential(
            nn.Linear(behaviour_dim + extra_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, out_dim),
        )

    def forward(
        self,
        candidate: Tensor,
        behaviours: Tensor | Lookup,
        behaviour_time: Tensor,
        query_time: Tensor,
        lengths: Tensor | None = None,
        *,
        return_context: bool = False,
        **options: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        op = type(self).__name__
        layout = {name: options.pop(name, None) for name in LAYOUT}
        for name in options.keys() - set(self.reads):
            raise TypeError(f"{op}: a call takes no keyword {name!r}")
        check_call(op, candidate, self.candidate_dim, behaviour_time, query_time, lengths, **layout)
        check_behaviours(op, behaviours, behaviour_time, self.behaviour_dim)
        query_offsets, mask = layout.pop("query_offsets"), layout.pop("mask")
        rows = (
            *sequences_of(op, behaviour_time, lengths, **layout),
            *self.beside(query_time, **options),
        )
        queries, many = candidate.shape[:-1], candidate.dim() == 3
        if self.of_candidate or not many:  # else one vector a history, for all its candidates
            rows = each_candidate(op, candidate, query_offsets, *rows)
        starts, ends, *beside = rows
        if isinstance(behaviours, Lookup):
            behaviours = behaviours._replace(ids=behaviours.ids.flatten())
        else:
            behaviours = behaviours.flatten(0, -2)
        mask = None if mask is None else mask.flatten()
        pooled = self.pool(candidate.flatten(0, -2), behaviours, starts, ends, mask)
        pooled = pooled.to(dtype_of(self.head))
        v, context = self.head(torch.cat([pooled, *beside], -1)), pooled.unsqueeze(-2)
        if many:
            v, context = (
                value.unflatten(0, queries)
                if self.of_candidate
                else value.unsqueeze(1).expand(-1, queries[1], *value.shape[1:])
                for value in (v, context)
            )
        return (v, context) if return_context else v

    def pool(
        self,
        candidate: Tensor,
        behaviours: Tensor | Lookup,
        starts: Tensor,
        ends: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        """One vector a query, [Q, L]; 0 where no behaviour counts.

        Args:
            candidate: [Q, H], a row each; without meaning where ``of_candidate`` is False.
            behaviours: [T, L], or a Lookup with ids [T].
            starts, ends: [Q], the query's behaviours. mask: bool [T]; None: all count.
        """
        raise NotImplementedError

    def beside(self, query_time: Tensor) -> tuple[Tensor, ...]:
        """What the network reads beside the pooled behaviours: ``extra_dim`` columns for every query time, [S] or [Q].

        A model that needs more than the time for it takes it by the names in its ``reads``.
        """
        return ()


def table_of(op: str, behaviours: Tensor | Lookup, index: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Behaviours by their place in the storage: a table, its rows, and whether its gradient is sparse."""
    if isinstance(behaviours, Lookup):
        ids = behaviours.ids[index].long()
        check_ids(op, "behaviours.ids", ids, len(behaviours.table), OUTSIDE)
        return behaviours.table, ids, behaviours.sparse
    return behaviours, index, False


def bags_of(
    op: str,
    behaviours: Tensor | Lookup,
    index: Tensor,
    counts: Tensor,
    mode: str,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean, or sum weighted by ``weight``, of the first ``counts[0]`` behaviours of ``index``, of the next
    ``counts[1]``, and so on: [Q, L], 0 where a count is 0."""
    table, ids, sparse = table_of(op, behaviours, index)
    first = counts.cumsum(0) - counts
    return F.embedding_bag(ids, table, first, mode=mode, sparse=sparse, per_sample_weights=weight)


def different_windows(starts: Tensor, ends: Tensor) -> tuple[list[tuple[int, int]], Tensor]:
    """Windows of queries, a row of equal ones once; and which one each query has, [Q].

    Candidates of one history follow each other, so what depends on the history alone is computed once.
    """
    bounds, which = torch.unique_consecutive(
        torch.stack([starts, ends]), dim=1, return_inverse=True
    )
    return [(begin, end) for begin, end in bounds.T.tolist()], which


def rows_of(
    op: str, behaviours: Tensor | Lookup, windows: list[tuple[int, int]], mask: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The behaviours of each window that count, one after another: [P, L] each."""

    def counting(values: Tensor, begin: int, end: int) -> Tensor:
        values = values[begin:end]
        return values if mask is None else values[mask.flatten()[begin:end]]

    if not isinstance(behaviours, Lookup):
        rows = behaviours.flatten(0, -2)
        return tuple(counting(rows, *at) for at in windows)
    flat = behaviours.ids.flatten()
    ids = [counting(flat, *at) for at in windows]
    every = torch.cat([flat[:0], *ids])
    check_ids(op, "behaviours.ids", every, len(behaviours.table), OUTSIDE)
    # One gather, so that the table gets one gradient.
    gathered = F.embedding(every, behaviours.table, sparse=behaviours.sparse)
    return gathered.split([len(part) for part in ids])


def check_item_columns(model: Pooled) -> None:
    """Behaviours must begin with a vector like the candidates'."""
    if model.candidate_dim > model.behaviour_dim:
        raise ValueError(
            f"{type(model).__name__}: behaviour_dim must be at least candidate_dim = {model.candidate_dim}, got "
            f"{model.behaviour_dim}: a behaviour's first columns are compared with the candidate's"
        )
