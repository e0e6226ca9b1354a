# SPDX-License-Identifier: Apache-2.0
"""What a search and an attention see of the time: a clock, or several, whose s add up."""

from __future__ import annotations

import torch
from torch import Tensor

from longclock._clocks import TimeTerm
from longclock.reference.circular_delta import circular_delta
from longclock.reference.time_similarity import time_features


def features_of(time: Tensor, now: Tensor, term: TimeTerm, dtype: torch.dtype) -> list[Tensor]:
    """phi of each clock, [..., 4]."""
    return [
        time_features(time.long() - now.long(), unit, elapsed=True, dtype=dtype)
        if period == 0
        else time_features(circular_delta(time, now, period), unit, dtype=dtype)
        for period, unit in zip(term.periods, term.units, strict=True)
    ]


def similarity_of(features: list[Tensor], term: TimeTerm) -> Tensor:
    """The sum of the clocks' s."""
    weights = [weight.to(features[0].dtype) for weight in term.weights.values()]
    if len(features) == 1:
        weights = [weight[None] for weight in weights]
    s = [
        (phi @ w1.T + b1).relu() @ w2 + b2.reshape(())
        for phi, w1, b1, w2, b2 in zip(features, *weights, strict=True)
    ]
    return torch.stack(s).sum(0) if len(s) > 1 else s[0]
