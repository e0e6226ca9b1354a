# SPDX-License-Identifier: Apache-2.0
"""Two clocks side by side: one of a day, one of a week."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from longclock.nn import LongTermInterestClock


class DayAndWeek(nn.Module):
    """The sum of two clocks' ``v_cur``: one compares times of day, the other times of the week.

    Each searches and attends for itself; the context has the heads of both. Call: as
    :class:`longclock.LongTermInterestClock`.

    Args:
        period: of the slower clock, seconds; the faster one's is a seventh of it.
        unit: seconds of one x of the faster clock; the slower one's is 7 times as long.
        The others: both clocks'.
    """

    def __init__(
        self,
        behaviour_dim: int,
        candidate_dim: int,
        *args: Any,
        period: int = 7 * 86400,
        unit: float = 3600.0,
        **options: Any,
    ) -> None:
        super().__init__()
        sizes = (behaviour_dim, candidate_dim, *args)
        self.day = LongTermInterestClock(*sizes, period=period // 7, unit=unit, **options)
        self.week = LongTermInterestClock(*sizes, period=period, unit=7 * unit, **options)

    def forward(self, *args: Any, return_context: bool = False, **layout: Any) -> Any:
        v_day, day = self.day(*args, return_context=True, **layout)
        v_week, week = self.week(*args, return_context=True, **layout)
        v = v_day + v_week
        return (v, torch.cat([day, week], -2)) if return_context else v
