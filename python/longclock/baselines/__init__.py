# SPDX-License-Identifier: Apache-2.0
"""The clock's rivals; each is called as :class:`longclock.LongTermInterestClock` is.

The fourth control, shuffled behaviour times, is not a model but an option of the data:
:meth:`longclock.data.Histories.with_shuffled_times`.
"""

from longclock.baselines.recent import HourEmbedding, NoTime
from longclock.baselines.twin import ContentSearch, ReferenceContentSearch

__all__ = ["ContentSearch", "HourEmbedding", "NoTime", "ReferenceContentSearch"]
