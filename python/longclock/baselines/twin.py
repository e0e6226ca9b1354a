# SPDX-License-Identifier: Apache-2.0
"""TWIN, which is the Long-term Interest Clock without its time, and the clocks with half of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from longclock.nn import LongTermInterestClock, TimeSimilarity


def similarities(module: nn.Module) -> list[TimeSimilarity]:
    """Every s of a module."""
    return [part for part in module.modules() if isinstance(part, TimeSimilarity)]


class TWIN(LongTermInterestClock):
    """Search and attention by content alone, through the same ops: ``s = 0`` and no time features.

    ``c_i = sum_m softmax_m(W_q^i q . W_b^i b_m / sqrt(d)) b_m`` over the ``k`` behaviours with the largest
    mean over heads of these products. Search and attention share their projections, which makes the two
    stages consistent. The clock has one second, so every difference and all four time features are 0, and
    ``s`` is a constant, which moves neither a selection nor a softmax; its parameters are set so that the
    constant is 0, and frozen. Arguments and call: as :class:`longclock.LongTermInterestClock`.
    Source: TWIN, arXiv 2302.02352, without its cross features.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import TWIN
        >>> model, candidate = TWIN(8, 8), torch.randn(1, 8)
        >>> history = lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None])
        >>> hours = (torch.tensor([hour * 3600]) for hour in (8, 20))
        >>> morning, evening = (model(candidate, history, hour) for hour in hours)
        >>> torch.equal(morning, evening)
        True
    """

    search_sees_time = False
    attention_sees_time = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for similarity in similarities(self):
            similarity.requires_grad_(False)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        for similarity in similarities(self):
            similarity.w2.zero_()
            similarity.b2.zero_()


class ClockSearch(LongTermInterestClock):
    """An ablation: the search is by content and time, the attention by content alone.

    As the search passes no gradient on, s stays as it was initialised; its parameters are frozen.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import ClockSearch
        >>> history = lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None])
        >>> candidate = torch.randn(1, 8)
        >>> _, c = ClockSearch(8, 8, k=1)(candidate, history, torch.tensor([0]), return_context=True)
        >>> c[..., 8:].any().item()  # no features of time
        False
    """

    attention_sees_time = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for similarity in similarities(self):
            similarity.requires_grad_(False)


class ClockAttention(LongTermInterestClock):
    """An ablation: the search is by content alone, the attention by content and time.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import ClockAttention
        >>> history = lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None])
        >>> candidate = torch.randn(1, 8)
        >>> _, c = ClockAttention(8, 8)(candidate, history, torch.tensor([0]), return_context=True)
        >>> c[..., 8:].any().item()  # features of time
        True
    """

    search_sees_time = False
