# SPDX-License-Identifier: Apache-2.0
"""Two clocks side by side: one of a day, one of a week."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longclock._mlp import resolve_period, resolve_unit
from longclock.baselines._checks import require_dense
from longclock.history import History
from longclock.nn import InterestModule, LongTermInterestClock
from longclock.ops._errors import named_method


class DayAndWeek(InterestModule):
    """The sum of two clocks' ``v_cur``: one compares times of day, the other times of the week.

    Each searches and attends for itself; the context has the heads of both. Call: as
    :class:`longclock.LongTermInterestClock`, with keys as ``project`` makes them.

    Args:
        period: of the slower clock, seconds; the faster one's is a seventh of it.
        unit: seconds of one x of the faster clock; the slower one's is 7 times as long.
        The others: both clocks'.

    Raises:
        ValueError: period is less than 7 seconds; else as of the clocks.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import DayAndWeek
        >>> model = DayAndWeek(8, 8)
        >>> history = lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None])
        >>> model.day.clocks, model.week.clocks
        ((86400,), (604800,))
        >>> model(torch.randn(1, 8), history, torch.tensor([5 * 3600])).shape
        torch.Size([1, 64])
    """

    def __init__(
        self,
        behaviour_dim: int,
        candidate_dim: int,
        *args: Any,
        period: int = 7 * 86400,
        unit: float = 3600.0,
        **options: Any,
    ) -> None:
        super().__init__()
        if resolve_period("DayAndWeek", period) < 7:
            raise ValueError(f"DayAndWeek: period must be at least 7 seconds, got {period}")
        unit = resolve_unit("DayAndWeek", unit)
        sizes = (behaviour_dim, candidate_dim, *args)
        self.day = LongTermInterestClock(*sizes, clocks=period // 7, unit=unit, **options)
        self.week = LongTermInterestClock(*sizes, clocks=period, unit=7 * unit, **options)

    def project(self, rows: Tensor) -> Tensor:
        """Keys of precomputed scoring, the two clocks' side by side: [..., L] -> [..., 2 n d]."""
        return torch.cat([self.day.project(rows), self.week.project(rows)], -1)

    @named_method({})
    def forward(
        self,
        candidate: Tensor,
        history: History,
        query_time: Tensor,
        *,
        keys: Tensor | None = None,
        found: Tensor | None = None,
        longest: int | None = None,
        return_context: bool = False,
    ) -> Any:
        v_cur, contexts = [], []
        for clock, its_keys in zip((self.day, self.week), self._each_keys(keys), strict=True):
            v, context = clock(
                candidate, history, query_time, keys=its_keys, found=found, longest=longest, return_context=True
            )  # fmt: skip
            v_cur.append(v)
            contexts.append(context)
        v = v_cur[0] + v_cur[1]
        return (v, torch.cat(contexts, -2)) if return_context else v

    def search_loss(
        self, candidate: Tensor, history: History, query_time: Tensor, **reads: Any
    ) -> Tensor | None:
        """The sum of the two searches'."""
        own = [
            c.search_loss(candidate, history, query_time, **reads) for c in (self.day, self.week)
        ]
        return None if own[0] is None or own[1] is None else own[0] + own[1]

    def _each_keys(self, keys: Tensor | None) -> tuple[Tensor | None, ...]:
        if keys is None:
            return None, None
        require_dense("DayAndWeek", keys=keys)
        width = self.day.heads * self.day.head_dim
        if keys.dim() == 0 or keys.shape[-1] != 2 * width:
            raise ValueError(
                f"DayAndWeek: keys must have 2 n d = {2 * width} in the last dimension, got {list(keys.shape)}; make them "
                "with project"
            )
        return keys.split(width, -1)
