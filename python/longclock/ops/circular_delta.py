# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import torch
from torch import Tensor

from longclock._checks import check, check_int, shape_of
from longclock._constants import FARTHEST
from longclock._library import raw
from longclock._mlp import require_integers, resolve_offset, resolve_period
from longclock._torch_state import reads_values
from longclock.ops._call import call, fake, require_one_device
from longclock.ops._errors import named_errors, wrong_tensor
from longclock.ops._shapes import check_period

_PROCESS = os.getpid()


@named_errors
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
        ValueError: timestamps or an offset that are no integers, shapes that do not broadcast, a
            period outside 1 to 2^31 - 1, or (on the CPU) times beyond 10^11, which are no seconds.

    Example::

        >>> import torch, longclock as lc
        >>> time = lc.clock_time(torch.tensor(1_740_000_000), utc_offset=9 * 3600)
        >>> divmod(time.item() // 60, 60)  # 21:20 in London is 6:20 in Tokyo
        (6, 20)
    """
    require_integers("clock_time", timestamps=timestamps)
    for wrong in wrong_tensor("timestamps", timestamps):  # which PyTorch's operations may take
        raise ValueError(f"clock_time: {wrong}")
    period = resolve_period("clock_time", period)
    utc_offset = resolve_offset("clock_time", utc_offset)
    if os.getpid() != _PROCESS:  # PyTorch would wait for threads that did not survive the fork
        torch.set_num_threads(1)
    given = timestamps
    if isinstance(utc_offset, Tensor):
        timestamps, utc_offset = _broadcast(
            "clock_time", timestamps=timestamps, utc_offset=utc_offset
        )
        utc_offset = torch.remainder(utc_offset.to(torch.int64), period)
    if timestamps.numel() > 0:
        _check_seconds("clock_time", "timestamps", given)
    # Each brought to the clock first: the sum of two times may be past the end of int64.
    time = torch.remainder(timestamps.to(torch.int64), period)
    if isinstance(utc_offset, Tensor) or utc_offset != 0:
        time = torch.remainder(time + utc_offset % period, period)
    return time.to(torch.int32)


def _check_seconds(op: str, name: str, times: Tensor) -> None:
    """Refuses times that are surely no seconds, where values may be read: on the CPU, outside graphs."""
    if times.dtype == torch.int32 or times.numel() == 0 or not reads_values(times):
        return
    for time in map(int, torch.aminmax(times)):
        if abs(time) > FARTHEST:
            raise ValueError(
                f"{op}: {name} must be seconds, from -10^11 to 10^11, got {time}; "
                "milliseconds are divided by 10^3, microseconds by 10^6, nanoseconds by 10^9"
            )


def _broadcast(op: str, **pair: Tensor) -> tuple[Tensor, Tensor]:
    (a_name, a), (b_name, b) = pair.items()
    require_one_device(op, pair)
    try:
        a, b = torch.broadcast_tensors(a, b)
    except RuntimeError:
        raise ValueError(
            f"{op}: {a_name} must broadcast with {b_name} = {list(b.shape)}, got {list(a.shape)}"
        ) from None
    return a, b


@named_errors
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
        ValueError: floating inputs, shapes that do not broadcast, a period outside
            1 to 2^31 - 1, or (on the CPU) times beyond 10^11, which are no seconds.

    Example::

        >>> import torch, longclock as lc
        >>> evening, others = torch.tensor(23 * 3600), 3600 * torch.tensor([22, 1, 11])
        >>> lc.circular_delta(evening, others) // 3600  # hours from 23:00 to 22:00, 1:00 and 11:00
        tensor([ 1,  2, 12])
    """
    period = resolve_period("circular_delta", period)
    a, b = _broadcast("circular_delta", a=a, b=b)
    delta: Tensor = call(raw.circular_delta.default, a=a, b=b, period=period)
    return delta


@fake("circular_delta")
def _(a: Tensor, b: Tensor, period: int) -> Tensor:
    check_int("circular_delta", "a", a)
    check_int("circular_delta", "b", b)

    check_period("circular_delta", period)

    def text() -> str:
        return f"a and b must have one shape, got {shape_of(a)} and {shape_of(b)}; broadcast them first"

    check("circular_delta", a.dim() == b.dim(), text)
    for size, other in zip(a.shape, b.shape, strict=True):
        check("circular_delta", size == other, text)
    return a.new_empty(a.shape, dtype=torch.promote_types(a.dtype, b.dtype))
