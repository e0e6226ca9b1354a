# SPDX-License-Identifier: Apache-2.0
"""Modules for any PyTorch model."""

from longclock.nn.clock_attention_stack import ClockAttentionStack
from longclock.nn.interest_module import InterestModule
from longclock.nn.long_term_interest_clock import LongTermInterestClock
from longclock.nn.parameter_groups import parameter_groups
from longclock.nn.time_similarity import TimeSimilarity

__all__ = [
    "ClockAttentionStack",
    "InterestModule",
    "LongTermInterestClock",
    "TimeSimilarity",
    "parameter_groups",
]
