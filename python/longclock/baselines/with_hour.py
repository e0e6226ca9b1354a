# SPDX-License-Identifier: Apache-2.0
"""Any model with a learned embedding of the hour beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from longclock.baselines.recent import hour_of
from longclock.types import Lookup


class WithHour(nn.Module):
    """An interest module that also knows the hour of the request, as production systems tell it.

    One of ``hours`` vectors is joined to the candidate before the module, and to ``v_cur`` behind it, where a two-layer network
    reads both. Call: as the module's.

    Args:
        interest: the module's class, or what builds it.
        hours, hour_dim: how many parts the clock is cut into, and the width of their vectors.
        The others: the module's.
    """

    def __init__(
        self,
        interest: Callable[..., nn.Module],
        behaviour_dim: int,
        candidate_dim: int,
        *args: Any,
        out_dim: int = 64,
        hidden_dim: int = 128,
        period: int = 86400,
        hours: int = 24,
        hour_dim: int = 16,
        **options: Any,
    ) -> None:
        super().__init__()
        self.period = period
        self.hour = nn.Embedding(hours, hour_dim)
        self.interest = interest(
            behaviour_dim, candidate_dim + hour_dim, *args,
            out_dim=out_dim, hidden_dim=hidden_dim, period=period, **options,
        )  # fmt: skip
        self.reads: tuple[str, ...] = getattr(self.interest, "reads", ())
        self.head = nn.Sequential(
            nn.Linear(out_dim + hour_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim)
        )

    def forward(
        self,
        candidate: Tensor,
        behaviours: Tensor | Lookup,
        behaviour_time: Tensor,
        query_time: Tensor,
        lengths: Tensor | None = None,
        *,
        query_offsets: Tensor | None = None,
        return_context: bool = False,
        **layout: Any,
    ) -> Any:
        hour = self.hour(hour_of(query_time, self.period, self.hour.num_embeddings))
        if query_offsets is not None:
            layout["query_offsets"] = query_offsets
            hour = hour.repeat_interleave(query_offsets.diff(), 0)
        elif candidate.dim() == 3:
            hour = hour.unsqueeze(1).expand(-1, candidate.shape[1], -1)
        v, context = self.interest(
            torch.cat([candidate, hour.to(candidate.dtype)], -1), behaviours, behaviour_time, query_time, lengths,
            return_context=True, **layout,
        )  # fmt: skip
        v = self.head(torch.cat([v, hour], -1))
        return (v, context) if return_context else v
