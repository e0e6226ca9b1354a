# SPDX-License-Identifier: Apache-2.0
"""Baselines that read the most recent behaviours: their mean, their mean and the hour, and DIN."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock.baselines._checks import check_sizes, dtype_of
from longclock.baselines.pooled import Pooled, check_item_columns
from longclock.history import History
from longclock.nn.pooling import bags_of, last_of, mean_of_last, table_of


class NoTime(Pooled):
    """Mean of the last ``k`` behaviours through a two-layer network: neither search nor time.

    ``v_cur = h(mean_m b_m)`` over the last ``k`` behaviours that count. Arguments and call: as
    :class:`longclock.baselines.Pooled`.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import NoTime
        >>> history = lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None])
        >>> now = torch.tensor([5 * 3600])
        >>> _, context = NoTime(8, 8, k=2)(torch.randn(1, 8), history, now, return_context=True)
        >>> torch.allclose(context[0, 0], history.rows[0, -2:].mean(0))
        True
    """

    of_candidate = False

    def pool(self, candidate: Tensor, windows: History, query_time: Tensor) -> Tensor:
        return mean_of_last(type(self).__name__, self.k, windows)


class HourEmbedding(NoTime):
    """As :class:`NoTime`, beside the pooled behaviours an embedding of the hour of the request.

    The clock is cut into ``hours`` equal parts (24: hours of the day), each with its own vector: what
    production systems usually do, and what jumps at the edge of an hour.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import HourEmbedding
        >>> model, candidate = HourEmbedding(8, 8), torch.randn(1, 8)
        >>> history = lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None])
        >>> times = (32400, 32401, 35999)  # all three are at nine
        >>> first, next, last = (model(candidate, history, torch.tensor([t])) for t in times)
        >>> torch.equal(first, next), torch.equal(first, last)
        (True, True)
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

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import DIN
        >>> history = lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None])
        >>> now = torch.tensor([5 * 3600])
        >>> many = torch.randn(1, 20, 8)  # candidates of one request
        >>> DIN(8, 8, out_dim=3)(many, history, now).shape
        torch.Size([1, 20, 3])
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

    def pool(self, candidate: Tensor, windows: History, query_time: Tensor) -> Tensor:
        index, counts = last_of(self.k, windows)
        op = type(self).__name__
        table, ids, sparse = table_of(op, windows, index)
        rows = F.embedding(ids, table, sparse=sparse)  # one after another, those that count only
        query = candidate.repeat_interleave(counts, 0)
        item = rows[:, : self.candidate_dim]
        met = torch.cat([query, rows, query - item, query * item], -1)
        weight = self.attention(met.to(dtype_of(self.attention)))
        weight = weight.squeeze(-1).to(rows.dtype)
        return bags_of(op, windows, index, counts, "sum", weight)


def hour_of(time: Tensor, period: int, hours: int) -> Tensor:
    """Which of ``hours`` equal parts of the clock a time lies in."""
    return time.long() % period * hours // period
