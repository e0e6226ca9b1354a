# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from torch import Tensor

from longclock._library import raw
from longclock._mlp import require_integers, resolve_period
from longclock.ops._call import call


def clock_time(timestamps: Tensor, utc_offset: int | Tensor = 0, period: int = 86400) -> Tensor:
    """Time on a clock of ``period`` seconds.

    ``g(t) = (t + utc_offset) mod period``, mathematically: never negative.
    Source: Long-term Interest Clock, arXiv 2501.15817.

    Args:
        timestamps: int32 or int64, seconds, any epoch, any sign; CPU or CUDA.
        utc_offset: seconds added to make local time of utc; an int, or an integer tensor that
            broadcasts.
        period: seconds in a turn; 86,400 is a day, 604,800 a week.
    Returns:
        int32 in [0, period), the broadcast shape.
    Raises:
        ValueError: floating timestamps, or a period outside 1 to 2^31 - 1.
    """
    if isinstance(utc_offset, Tensor):
        require_integers("clock_time", utc_offset=utc_offset)
    require_integers("clock_time", timestamps=timestamps)
    period = resolve_period("clock_time", period)
    return torch.remainder(timestamps.to(torch.int64) + utc_offset, period).to(torch.int32)


def circular_delta(a: Tensor, b: Tensor, period: int = 86400) -> Tensor:
    """Distance between two times on a clock of ``period`` seconds.

    ``min(x, period - x)`` with ``x = |a mod period - b mod period|``; in [0, period / 2].
    23:00 to 1:00 is 7,200 seconds. Source: Long-term Interest Clock, arXiv 2501.15817.

    Args:
        a, b: int32 or int64, seconds, any epoch, any sign; broadcast, which is never
            materialised; CPU or CUDA.
        period: seconds in a turn.
    Returns:
        The broadcast shape, int64 where a or b is, else int32; seconds.
    Raises:
        ValueError: floating inputs, shapes that do not broadcast, or a period outside
            1 to 2^31 - 1.
    """
    require_integers("circular_delta", a=a, b=b)
    period = resolve_period("circular_delta", period)
    try:
        a, b = torch.broadcast_tensors(a, b)
    except RuntimeError:
        raise ValueError(
            f"circular_delta: a must broadcast with b = {list(b.shape)}, got {list(a.shape)}"
        ) from None
    delta: Tensor = call(raw.circular_delta.default, a, b, period)
    return delta


@torch.library.register_fake("longclock::circular_delta")
def _(a: Tensor, b: Tensor, period: int) -> Tensor:
    return a.new_empty(a.shape, dtype=torch.promote_types(a.dtype, b.dtype))
