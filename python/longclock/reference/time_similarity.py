# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from torch import Tensor

from longclock._mlp import require_integers, resolve_unit
from longclock.reference._named import named_as_op


@named_as_op
def time_features(
    delta: Tensor, unit: float | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """``phi(x) = [x, sqrt(x), x^2, log(x + 1)]`` of ``x = delta / unit``: [...] -> [..., 4]."""
    require_integers("time_features", delta=delta)
    x = delta.to(dtype) / resolve_unit("time_features", unit)
    return torch.stack([x, x.sqrt(), x * x, torch.log1p(x)], dim=-1)


@named_as_op
def time_similarity(
    delta: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, unit: float | None = None
) -> Tensor:
    """``s(x) = w2 . relu(w1 phi(x) + b1) + b2`` in the dtype of the weights: [...] -> [...]."""
    phi = time_features(delta, unit, dtype=w1.dtype)
    return (phi @ w1.T + b1).relu() @ w2 + b2.reshape(())
