# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import torch
from torch import Tensor

from longclock._constants import DEFAULT_UNIT, ELAPSED_UNIT
from longclock._mlp import require_integers, resolve_unit
from longclock.reference._named import named_as_op


def kept_seconds(delta: Tensor) -> Tensor:
    """Of the time elapsed, up to 2^31 - 1 seconds: the 7 highest bits that count."""
    delta = delta.to(torch.int64).abs().clamp(0, 2**31 - 1)  # the least integer has no magnitude
    dropped = (torch.frexp(delta.double()).exponent.long() - 7).clamp(min=0)
    return delta >> dropped << dropped


@named_as_op
def time_features(
    delta: Tensor,
    unit: float | None = None,
    elapsed: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """``phi(x) = [x, sqrt(x), x^2, log(x + 1)]`` of ``x = delta / unit``: [...] -> [..., 4].

    Of the time elapsed, ``x = log2(1 + kept_seconds(delta) / unit)``.
    """
    require_integers("time_features", delta=delta)
    unit = resolve_unit("time_features", unit, ELAPSED_UNIT if elapsed else DEFAULT_UNIT)
    if elapsed:
        x = torch.log1p(kept_seconds(delta).to(dtype) / unit) / math.log(2)
    else:
        x = delta.to(dtype) / unit
    return torch.stack([x, x.sqrt(), x * x, torch.log1p(x)], dim=-1)


@named_as_op
def time_similarity(
    delta: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    unit: float | None = None,
    elapsed: bool = False,
) -> Tensor:
    """``s(x) = w2 . relu(w1 phi(x) + b1) + b2`` in the dtype of the weights: [...] -> [...]."""
    phi = time_features(delta, unit, elapsed, dtype=w1.dtype)
    return (phi @ w1.T + b1).relu() @ w2 + b2.reshape(())
