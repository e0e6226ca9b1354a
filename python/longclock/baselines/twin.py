# SPDX-License-Identifier: Apache-2.0
"""TWIN, which is the Long-term Interest Clock without its time, and the clocks with half of it."""

from __future__ import annotations

from typing import Any

import torch

from longclock.baselines import checked
from longclock.nn import LongTermInterestClock


class TWIN(LongTermInterestClock):
    """Search and attention by content alone, through the same ops: ``s = 0`` and no time features.

    ``c_i = sum_m softmax_m(W_q^i q . W_b^i b_m / sqrt(d)) b_m`` over the ``k`` behaviours with the largest
    mean over heads of these products. Search and attention share their projections, which makes the two
    stages consistent. Every time is replaced by 0, so every difference and all four time features are 0, and
    ``s`` is a constant, which moves neither a selection nor a softmax; its parameters are set so that the
    constant is 0, and frozen. Arguments and call: as :class:`longclock.LongTermInterestClock`.
    Source: TWIN, arXiv 2302.02352, without its cross features.

    Raises:
        ValueError: ``exclude_future`` is set.
    """

    search_sees_time = False
    attention_sees_time = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.time.requires_grad_(False)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.time.w2.zero_()
        self.time.b2.zero_()


class ReferenceTWIN(TWIN, checked.LongTermInterestClock):
    """:class:`TWIN` in plain PyTorch; the same parameters."""


class ClockSearch(LongTermInterestClock):
    """An ablation: the search is by content and time, the attention by content alone.

    As the search passes no gradient on, s stays as it was initialised.
    """

    attention_sees_time = False


class ClockAttention(LongTermInterestClock):
    """An ablation: the search is by content alone, the attention by content and time."""

    search_sees_time = False


class ReferenceClockSearch(ClockSearch, checked.LongTermInterestClock):
    """:class:`ClockSearch` in plain PyTorch; the same parameters."""


class ReferenceClockAttention(ClockAttention, checked.LongTermInterestClock):
    """:class:`ClockAttention` in plain PyTorch; the same parameters."""
