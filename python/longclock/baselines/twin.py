# SPDX-License-Identifier: Apache-2.0
"""TWIN: search by the attention's own metric, which is the Long-term Interest Clock without its time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longclock import reference
from longclock.nn import LongTermInterestClock
from longclock.types import Lookup


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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if kwargs.get("exclude_future"):
            raise ValueError(
                f"{type(self).__name__}: exclude_future needs times; pass windows instead"
            )
        self.time.requires_grad_(False)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.time.w2.zero_()
        self.time.b2.zero_()

    def forward(
        self,
        candidate: Tensor,
        behaviours: Tensor | Lookup,
        behaviour_time: Tensor,
        query_time: Tensor,
        *args: Any,
        **layout: Any,
    ) -> Any:
        no_time = torch.zeros_like(behaviour_time), torch.zeros_like(query_time)
        return super().forward(candidate, behaviours, *no_time, *args, **layout)


class ReferenceTWIN(TWIN, reference.LongTermInterestClock):
    """:class:`TWIN` in plain PyTorch; the same parameters."""
