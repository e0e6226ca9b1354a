# SPDX-License-Identifier: Apache-2.0
"""Baselines that read the most recent behaviours: their mean, their mean and the hour, and DIN."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock.baselines.layout import check_sizes, dtype_of
from longclock.baselines.pooled import Pooled, bags_of, check_item_columns, table_of
from longclock.types import Lookup


class NoTime(Pooled):
    """Mean of the last ``k`` behaviours through a two-layer network: neither search nor time.

    ``v_cur = h(mean_m b_m)`` over the last ``k`` behaviours that count. Arguments and call: as
    :class:`longclock.baselines.Pooled`.
    """

    of_candidate = False

    def pool(
        self,
        candidate: Tensor,
        behaviours: Tensor | Lookup,
        starts: Tensor,
        ends: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        return mean_of_last(type(self).__name__, self.k, behaviours, starts, ends, mask)


class HourEmbedding(NoTime):
    """As :class:`NoTime`, beside the pooled behaviours an embedding of the hour of the request.

    The clock is cut into ``hours`` equal parts (24: hours of the day), each with its own vector: what
    production systems usually do, and what jumps at the edge of an hour.
    """

    def __init__(self, *args: Any, hours: int = 24, hour_dim: int = 16, **kwargs: Any) -> None:
        check_sizes(type(self).__name__, hours=hours, hour_dim=hour_dim)
        super().__init__(*args, extra_dim=hour_dim, **kwargs)
        self.hour = nn.Embedding(hours, hour_dim)

    def beside(self, query_time: Tensor) -> tuple[Tensor, ...]:
        return (self.hour(hour_of(query_time, self.period, self.hour.num_embeddings)),)


class DIN(Pooled):
    """Deep Interest Network over the last ``k`` behaviours: weights from a network, without a softmax.

    ``c = sum_m a(q, b_m) b_m``, ``a = MLP([q ; b ; q - b ; q * b])``: two layers with a ReLU between them.
    Where behaviours are wider than candidates, differences and products are of their first H columns: a
    behaviour begins with its item's vector. Arguments and call: as
    :class:`longclock.baselines.Pooled`, with ``attention_dim``, the hidden width of a.
    Source: DIN, arXiv 1706.06978, with ReLU in place of Dice.

    Raises:
        ValueError: candidate_dim is larger than behaviour_dim.
    """

    def __init__(self, *args: Any, attention_dim: int = 32, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_sizes(type(self).__name__, attention_dim=attention_dim)
        check_item_columns(self)
        self.attention = nn.Sequential(
            nn.Linear(3 * self.candidate_dim + self.behaviour_dim, attention_dim),
            nn.ReLU(),
            nn.Linear(attention_dim, 1),
        )

    def pool(
        self,
        candidate: Tensor,
        behaviours: Tensor | Lookup,
        starts: Tensor,
        ends: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        index, counts = last_of(self.k, starts, ends, mask)
        op = type(self).__name__
        table, ids, sparse = table_of(op, behaviours, index)
        rows = F.embedding(ids, table, sparse=sparse)  # one after another, those that count only
        query = candidate.repeat_interleave(counts, 0)
        item = rows[:, : self.candidate_dim]
        met = torch.cat([query, rows, query - item, query * item], -1)
        weight = self.attention(met.to(dtype_of(self.attention)))
        return bags_of(op, behaviours, index, counts, "sum", weight.squeeze(-1).to(rows.dtype))


def hour_of(time: Tensor, period: int, hours: int) -> Tensor:
    """Which of ``hours`` equal parts of the clock a time lies in."""
    return time.long() % period * hours // period


def last_of(
    k: int | None, starts: Tensor, ends: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Places of the last ``k`` behaviours (None: of all) of every window where ``mask`` is True, the latest first.

    Returns the places of one window after another, and how many each has, [Q].
    """
    rows = None
    if mask is not None:  # count in masked rows, then map back
        before = F.pad(mask.cumsum(0), (1, 0))
        rows = mask.nonzero().flatten()
        starts, ends = before[starts.long()], before[ends.long()]
    if k is None:
        k = int((ends - starts).max()) if len(starts) else 0
    position = ends[:, None] - 1 - torch.arange(k, device=ends.device)
    there = position >= starts[:, None]
    index = position[there].long()
    return index if rows is None else rows[index], there.sum(1)


def mean_of_last(
    op: str,
    k: int | None,
    behaviours: Tensor | Lookup,
    starts: Tensor,
    ends: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Mean of the last ``k`` rows of every window where ``mask`` is True; 0 where there is none."""
    return bags_of(op, behaviours, *last_of(k, starts, ends, mask), mode="mean")
