# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from torch import Tensor

from longclock._mlp import require_integers, resolve_offset, resolve_period
from longclock.reference._named import named_as_op


@named_as_op
def clock_time(timestamps: Tensor, utc_offset: int | Tensor = 0, period: int = 86400) -> Tensor:
    """``g(t) = (t + utc_offset) mod period``, int32 in [0, period)."""
    require_integers("clock_time", timestamps=timestamps)
    period = resolve_period("clock_time", period)
    utc_offset = resolve_offset("clock_time", utc_offset) % period
    time = torch.remainder(timestamps.to(torch.int64), period)
    return torch.remainder(time + utc_offset, period).to(torch.int32)


@named_as_op
def circular_delta(a: Tensor, b: Tensor, period: int = 86400) -> Tensor:
    """``min(x, period - x)``, ``x = |a mod period - b mod period|``; broadcasts."""
    require_integers("circular_delta", a=a, b=b)
    period = resolve_period("circular_delta", period)
    x = (torch.remainder(a, period) - torch.remainder(b, period)).abs()
    return torch.minimum(x, period - x)
