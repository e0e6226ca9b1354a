# SPDX-License-Identifier: Apache-2.0
"""Baselines that pool the most recent behaviours: without time, and with an embedding of the hour."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock.types import Lookup


class NoTime(nn.Module):
    """Mean of the last ``k`` behaviours through a two-layer network: neither search nor time.

    ``v_cur = h(mean_m b_m)`` over the last ``k`` behaviours that count. Takes every layout of
    :class:`longclock.LongTermInterestClock` and returns the same shapes; the context has one head and no
    time features: ``[..., 1, L]``. A history without behaviours has the mean 0.
    """

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
        starts: Tensor | None = None,
        ends: Tensor | None = None,
        offsets: Tensor | None = None,
        query_offsets: Tensor | None = None,
        return_context: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        if starts is None or ends is None:
            starts, ends = _windows(behaviour_time, lengths, offsets)
        if query_offsets is not None:
            counts = query_offsets.diff()
            starts, ends, query_time = (
                rows.repeat_interleave(counts) for rows in (starts, ends, query_time)
            )
        pooled = mean_of_last(self.k, behaviours, starts, ends, mask)
        v = self.head(self.features(pooled, query_time))
        context = pooled.unsqueeze(-2)
        if candidate.dim() == 3:  # [S, C, H]: one history, C candidates
            v = v.unsqueeze(1).expand(-1, candidate.shape[1], -1)
            context = context.unsqueeze(1).expand(-1, candidate.shape[1], -1, -1)
        return (v, context) if return_context else v

    def features(self, pooled: Tensor, query_time: Tensor) -> Tensor:
        """What the network reads: the pooled behaviours; [Q, L]."""
        return pooled


class HourEmbedding(NoTime):
    """As :class:`NoTime`, beside the pooled behaviours an embedding of the hour of the request.

    The clock is cut into ``hours`` equal parts (24: hours of the day), each with its own vector: what
    production systems usually do, and what jumps at the edge of an hour.
    """

    def __init__(
        self,
        behaviour_dim: int,
        candidate_dim: int,
        k: int = 100,
        out_dim: int = 64,
        hidden_dim: int = 128,
        *,
        period: int = 86400,
        hours: int = 24,
        hour_dim: int = 16,
    ) -> None:
        super().__init__(
            behaviour_dim, candidate_dim, k, out_dim, hidden_dim, period=period, extra_dim=hour_dim
        )
        self.hour = nn.Embedding(hours, hour_dim)

    def features(self, pooled: Tensor, query_time: Tensor) -> Tensor:
        part = (query_time.long() % self.period) * self.hour.num_embeddings // self.period
        return torch.cat([pooled, self.hour(part)], -1)


def _windows(time: Tensor, lengths: Tensor | None, offsets: Tensor | None) -> tuple[Tensor, Tensor]:
    """Every sequence's first row and the row after its last, in the flattened behaviours."""
    if offsets is not None:
        return offsets[:-1].long(), offsets[1:].long()
    sequences, longest = time.shape
    starts = torch.arange(sequences, device=time.device) * longest
    return starts, starts + (longest if lengths is None else lengths.long())


def mean_of_last(
    k: int, behaviours: Tensor | Lookup, starts: Tensor, ends: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Mean of the last ``k`` rows of every window where ``mask`` is True; 0 where there is none."""
    if isinstance(behaviours, Lookup):
        table, ids = behaviours.table, behaviours.ids.flatten()
    else:
        table, ids = behaviours.flatten(0, -2), None
    rows = None
    if mask is not None:  # count in masked rows, then map back
        before = F.pad(mask.flatten().cumsum(0), (1, 0))
        rows = mask.flatten().nonzero().flatten()
        starts, ends = before[starts.long()], before[ends.long()]
    position = ends[:, None] - 1 - torch.arange(k, device=ends.device)
    counts = position >= starts[:, None]
    index = position[counts]  # only rows that count are ever read
    index = index if rows is None else rows[index]
    index = index if ids is None else ids[index]
    first = counts.sum(1).cumsum(0) - counts.sum(1)
    return F.embedding_bag(index.long(), table, first, mode="mean")
