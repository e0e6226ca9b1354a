# SPDX-License-Identifier: Apache-2.0
"""Every public name in plain PyTorch: the executable definition, for any float dtype."""

from longclock.reference.block_topk import block_topk
from longclock.reference.circular_delta import circular_delta, clock_time
from longclock.reference.clock_gsu import clock_gsu
from longclock.reference.esu_attention import esu_attention
from longclock.reference.gsu_score import gsu_score
from longclock.reference.long_term_interest_clock import LongTermInterestClock, TimeSimilarity
from longclock.reference.time_similarity import time_features, time_similarity

__all__ = [
    "LongTermInterestClock",
    "TimeSimilarity",
    "block_topk",
    "circular_delta",
    "clock_gsu",
    "clock_time",
    "esu_attention",
    "gsu_score",
    "time_features",
    "time_similarity",
]
