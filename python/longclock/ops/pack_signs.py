# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from torch import Tensor

from longclock._checks import check
from longclock._library import raw
from longclock.ops._call import call, fake, not_differentiable
from longclock.ops._errors import named_errors
from longclock.ops._shapes import check_float


@named_errors
def pack_signs(x: Tensor) -> Tensor:
    """A bit a value: which are positive.

    Bit i of word w is ``x[..., 64 w + i] > 0``; the bits past the last are 0. NaN is not positive. Not
    differentiable. ``pack_signs(x @ directions)`` with random directions is a SimHash: the share of bits
    in which two of them differ estimates the angle between the vectors, divided by pi.

    Args:
        x: float32, float16 or bfloat16, [..., D].
    Returns:
        int64 [..., ceil(D / 64)].
    Raises:
        ValueError: float64 or integers, or a scalar.

    Example::

        >>> import torch, longclock as lc
        >>> lc.pack_signs(torch.tensor([0.5, -1.0, 2.0]))  # bits 0 and 2
        tensor([5])
        >>> lc.pack_signs(torch.randn(10_000, 48) @ torch.randn(48, 128)).shape
        torch.Size([10000, 2])
    """
    words: Tensor = call(raw.pack_signs.default, x=x)
    return words


@fake("pack_signs")
def _(x: Tensor) -> Tensor:
    check_float("pack_signs", "x", x)
    check("pack_signs", x.dim() >= 1, lambda: "x must have at least one dimension, got a scalar")
    return x.new_empty((*x.shape[:-1], (x.shape[-1] + 63) // 64), dtype=torch.int64)


not_differentiable("pack_signs")
