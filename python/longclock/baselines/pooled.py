# SPDX-License-Identifier: Apache-2.0
"""What baselines without a search share: one vector pooled from the behaviours, then a network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock.types import Lookup

LAYOUT = ("starts", "ends", "offsets", "query_offsets")


class Pooled(nn.Module):
    """``v_cur = h([pooled ; beside])``, one vector pooled from a window of behaviours: what a baseline derives from.

    Takes every layout of :class:`longclock.LongTermInterestClock` and returns the same shapes; the context
    has one head and no time features: ``[..., 1, L]``.

    Args:
        behaviour_dim, candidate_dim: L and H.
        k: how many of the last behaviours are pooled.
        out_dim, hidden_dim: sizes of the two-layer network.
        period: of the clock, seconds.
        extra_dim: columns that ``beside`` adds to L.
    """

    of_candidate = True  # the pooled vector depends on the candidate

    def __init__(
        self,
        behaviour_dim: int,
        candidate_dim: int,
        k: int = 100,
        out_dim: int = 64,
        hidden_dim: int = 128,
        *,
        period: int = 86400,
        extra_dim: int = 0,
    ) -> None:
        super().__init__()
        self.behaviour_dim, self.candidate_dim = behaviour_dim, candidate_dim
        self.k, self.period = k, period
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
        mask: Tensor | None = None,
        return_context: bool = False,
        **options: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        queries = candidate.shape[:-1]
        if len(queries) == 2 and not self.of_candidate:  # one vector a history, for all candidates
            candidate = candidate.flatten(1)
        layout = {name: options.pop(name, None) for name in LAYOUT}
        beside = self.beside(query_time, **options)
        starts, ends, *beside_each = windows_of(
            candidate, behaviour_time, lengths, *beside, **layout
        )
        candidate = candidate.flatten(0, -2)
        if isinstance(behaviours, Lookup):
            behaviours = behaviours._replace(ids=behaviours.ids.flatten())
        else:
            behaviours = behaviours.flatten(0, -2)
        mask = None if mask is None else mask.flatten()
        pooled = self.pool(candidate, behaviours, starts, ends, mask)
        v, context = self.head(torch.cat([pooled, *beside_each], -1)), pooled.unsqueeze(-2)
        if len(queries) == 2:
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
            candidate: [Q, H], or as given to forward where ``of_candidate`` is False.
            behaviours: [T, L], or a Lookup with ids [T].
            starts, ends: [Q], the query's behaviours. mask: bool [T]; None: all count.
        """
        raise NotImplementedError

    def beside(self, query_time: Tensor) -> tuple[Tensor, ...]:
        """What the network reads beside the pooled behaviours: ``extra_dim`` columns for every query time, [S] or [Q].

        A model that needs more than the time for it takes it by the names in its ``reads``.
        """
        return ()


def table_of(behaviours: Tensor | Lookup, index: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Behaviours by their place in the storage: a table, its rows, and whether its gradient is sparse."""
    if isinstance(behaviours, Lookup):
        return behaviours.table, behaviours.ids[index].long(), behaviours.sparse
    return behaviours, index, False


def bags_of(
    behaviours: Tensor | Lookup,
    index: Tensor,
    counts: Tensor,
    mode: str,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean, or sum weighted by ``weight``, of the first ``counts[0]`` behaviours of ``index``, of the next
    ``counts[1]``, and so on: [Q, L], 0 where a count is 0."""
    table, ids, sparse = table_of(behaviours, index)
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
    behaviours: Tensor | Lookup, windows: list[tuple[int, int]], mask: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The behaviours of each window that count, one after another: [P, L] each."""

    def counting(values: Tensor, begin: int, end: int) -> Tensor:
        values = values[begin:end]
        return values if mask is None else values[mask.flatten()[begin:end]]

    if not isinstance(behaviours, Lookup):
        rows = behaviours.flatten(0, -2)
        return tuple(counting(rows, *at) for at in windows)
    ids = [counting(behaviours.ids.flatten(), *at) for at in windows]
    # One gather, so that the table gets one gradient.
    gathered = F.embedding(torch.cat(ids), behaviours.table, sparse=behaviours.sparse)
    return gathered.split([len(part) for part in ids])


def check_item_columns(model: Pooled) -> None:
    """Behaviours must begin with a vector like the candidates'."""
    if model.candidate_dim > model.behaviour_dim:
        raise ValueError(
            f"{type(model).__name__}: behaviour_dim must be at least candidate_dim = {model.candidate_dim}, got "
            f"{model.behaviour_dim}: a behaviour's first columns are compared with the candidate's"
        )


def windows_of(
    candidate: Tensor,
    behaviour_time: Tensor,
    lengths: Tensor | None,
    *of_sequences: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    offsets: Tensor | None = None,
    query_offsets: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, ...]:
    """Every layout as windows of the flattened behaviours, one for each of the Q candidates.

    Args:
        candidate .. query_offsets: of a call; its other keywords are passed over.
        of_sequences: a row a sequence or window, [S, ...] or [Q, ...].
    Returns:
        starts and ends, int64 [Q], then ``of_sequences``, a row a candidate.
    """
    if starts is None or ends is None:
        if offsets is not None:
            starts, ends = offsets[:-1], offsets[1:]
        else:
            sequences, longest = behaviour_time.shape
            starts = torch.arange(sequences, device=behaviour_time.device) * longest
            ends = starts + (longest if lengths is None else lengths)
    rows = (starts.long(), ends.long(), *of_sequences)
    if query_offsets is not None:
        return tuple(row.repeat_interleave(query_offsets.diff(), 0) for row in rows)
    if candidate.dim() == 3:  # [S, C, H]: one history, C candidates
        return tuple(row.repeat_interleave(candidate.shape[1], 0) for row in rows)
    return rows
