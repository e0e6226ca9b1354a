# SPDX-License-Identifier: Apache-2.0
"""Kernels and PyTorch ops for the Long-term Interest Clock: time-of-day-aware search and attention
over behaviour histories of 10,000 and more."""

from longclock import ops, reference
from longclock.nn import LongTermInterestClock, TimeSimilarity
from longclock.ops import (
    block_topk,
    circular_delta,
    clock_gsu,
    clock_time,
    esu_attention,
    gsu_score,
    time_features,
    time_similarity,
)
from longclock.types import Lookup, TopK

__version__ = "0.1.0"

__all__ = [
    "LongTermInterestClock",
    "Lookup",
    "TimeSimilarity",
    "TopK",
    "block_topk",
    "circular_delta",
    "clock_gsu",
    "clock_time",
    "esu_attention",
    "gsu_score",
    "ops",
    "reference",
    "time_features",
    "time_similarity",
]
