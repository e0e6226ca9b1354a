# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from longclock import nn
from longclock.reference import _ops


class TimeSimilarity(nn.TimeSimilarity):
    """``longclock.TimeSimilarity`` in plain PyTorch; the same parameters."""

    ops = _ops


class LongTermInterestClock(nn.LongTermInterestClock):
    """``longclock.LongTermInterestClock`` in plain PyTorch; the same parameters."""

    ops = _ops
    time_similarity = TimeSimilarity
