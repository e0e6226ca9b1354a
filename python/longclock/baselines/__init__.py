# SPDX-License-Identifier: Apache-2.0
"""The clock's rivals; each is called as :class:`longclock.LongTermInterestClock` is.

What a model reads beyond that call (categories, say) its attribute ``reads`` names, see :class:`longclock.nn.InterestModule`. Those
that search take ``backend="reference"`` as the clock does. One more control, shuffled behaviour times, is not a model but an option of the data: :meth:`longclock.data.Histories.with_shuffled_times`.
"""

from longclock.baselines.day_and_week import DayAndWeek
from longclock.baselines.eta import ETA
from longclock.baselines.full_clock import FullClock
from longclock.baselines.hstu import HSTU
from longclock.baselines.interest_clock import InterestClock
from longclock.baselines.period_graph import PeriodGraph
from longclock.baselines.pooled import Pooled
from longclock.baselines.recent import DIN, HourEmbedding, NoTime
from longclock.baselines.sdim import SDIM
from longclock.baselines.sim import SIMHard, SIMSoft
from longclock.baselines.transact_v2 import TransActV2
from longclock.baselines.twin import (
    TWIN,
    ClockAttention,
    ClockSearch,
)
from longclock.baselines.twin_v2 import TWINV2
from longclock.baselines.with_hour import WithHour

__all__ = [
    "DIN", "ETA", "HSTU", "SDIM", "TWIN", "TWINV2", "ClockAttention", "ClockSearch", "DayAndWeek", "FullClock",
    "HourEmbedding", "InterestClock", "NoTime", "PeriodGraph", "Pooled", "SIMHard", "SIMSoft", "TransActV2", "WithHour",
]  # fmt: skip
