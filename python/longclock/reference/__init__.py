# SPDX-License-Identifier: Apache-2.0
"""Every public name in plain PyTorch: the executable definition, for any float dtype."""

from longclock.reference import _ops
from longclock.reference._ops import *  # noqa: F403 - every op, as _ops.py lists them
from longclock.reference.long_term_interest_clock import LongTermInterestClock, TimeSimilarity

__all__ = ["LongTermInterestClock", "TimeSimilarity"]
__all__ += _ops.__all__
