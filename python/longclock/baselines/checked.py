# SPDX-License-Identifier: Apache-2.0
"""The clock in plain PyTorch, whose calls are checked: the compiled ops check theirs, PyTorch's read on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longclock import reference
from longclock.baselines.layout import (
    OUTSIDE,
    check_behaviours,
    check_call,
    check_ids,
    each_candidate,
    sequences_of,
)
from longclock.types import Lookup


class LongTermInterestClock(reference.LongTermInterestClock):
    """What the rivals that come a second time in plain PyTorch derive from."""

    def forward(
        self,
        candidate: Tensor,
        behaviours: Tensor | Lookup,
        behaviour_time: Tensor,
        query_time: Tensor,
        lengths: Tensor | None = None,
        *,
        keys: Tensor | None = None,
        found: Tensor | None = None,
        longest: int | None = None,
        return_context: bool = False,
        **layout: Any,
    ) -> Any:
        op = type(self).__name__
        check_call(op, candidate, self.candidate_dim, behaviour_time, query_time, lengths, **layout)
        check_behaviours(op, behaviours, behaviour_time, self.behaviour_dim)
        bounds = {name: layout.get(name) for name in ("starts", "ends", "offsets")}
        windows = sequences_of(op, behaviour_time, lengths, **bounds)
        each_candidate(op, candidate, layout.get("query_offsets"), *windows)
        if isinstance(behaviours, Lookup):
            ids = behaviours.ids.flatten()[_counting(*windows, behaviour_time, layout.get("mask"))]
            check_ids(op, "behaviours.ids", ids, len(behaviours.table), OUTSIDE)
        return super().forward(
            candidate, behaviours, behaviour_time, query_time, lengths, keys=keys, found=found, longest=longest,
            return_context=return_context, **layout,
        )  # fmt: skip


def _counting(starts: Tensor, ends: Tensor, behaviour_time: Tensor, mask: Tensor | None) -> Tensor:
    """Which of the flattened behaviours count in any window: bool [T]."""
    edges = torch.zeros(behaviour_time.numel() + 1, dtype=torch.int64, device=starts.device)
    edges.index_add_(0, starts, torch.ones_like(starts))
    edges.index_add_(0, ends, -torch.ones_like(ends))
    counting = edges.cumsum(0)[:-1] > 0
    return counting if mask is None else counting & mask.flatten()
