# SPDX-License-Identifier: Apache-2.0
"""What the clock's relatives share: a call that is checked under their own name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longclock import ops
from longclock.baselines.layout import (
    OUTSIDE,
    check_behaviours,
    check_call,
    check_ids,
    sequences_of,
    windows_of,
)
from longclock.nn import LongTermInterestClock
from longclock.types import Lookup


def check_clock(
    op: str,
    clock: LongTermInterestClock,
    candidate: Tensor,
    behaviours: Tensor | Lookup,
    behaviour_time: Tensor,
    query_time: Tensor,
    lengths: Tensor | None = None,
    **layout: Any,
) -> None:
    """A call of ``clock``, in the call's words and under the name ``op``, before the ops tell it in theirs.

    On a GPU values are left to the kernels, which clamp them: no call waits for them.
    """
    call = (candidate, clock.candidate_dim, behaviour_time, query_time, lengths)
    check_call(op, *call, **layout)
    check_behaviours(op, behaviours, behaviour_time, clock.behaviour_dim)
    if behaviour_time.is_cuda:
        return
    windows_of(op, *call, **layout)
    if isinstance(behaviours, Lookup) and clock.ops is not ops:  # the compiled ops check ids
        bounds = {name: layout.get(name) for name in ("starts", "ends", "offsets")}
        windows = sequences_of(op, behaviour_time, lengths, **bounds)
        ids = behaviours.ids.flatten()[_counting(*windows, behaviour_time, layout.get("mask"))]
        check_ids(op, "behaviours.ids", ids, len(behaviours.table), OUTSIDE)


class CheckedClock(LongTermInterestClock):
    """A clock whose calls are checked under its own name."""

    def forward(
        self,
        *call: Any,
        keys: Tensor | None = None,
        found: Tensor | None = None,
        return_context: bool = False,
        **rest: Any,
    ) -> Any:
        check_clock(type(self).__name__, self, *call, **rest)
        return super().forward(*call, keys=keys, found=found, return_context=return_context, **rest)


def _counting(starts: Tensor, ends: Tensor, behaviour_time: Tensor, mask: Tensor | None) -> Tensor:
    """Which of the flattened behaviours count in any window: bool [T]."""
    edges = torch.zeros(behaviour_time.numel() + 1, dtype=torch.int64, device=starts.device)
    edges.index_add_(0, starts, torch.ones_like(starts))
    edges.index_add_(0, ends, -torch.ones_like(ends))
    counting = edges.cumsum(0)[:-1] > 0
    return counting if mask is None else counting & mask.flatten()
