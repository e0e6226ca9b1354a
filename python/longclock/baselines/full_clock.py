# SPDX-License-Identifier: Apache-2.0
"""The Long-term Interest Clock without its search."""

from __future__ import annotations

from typing import Any

from longclock.nn import LongTermInterestClock


class FullClock(LongTermInterestClock):
    """Time-aware attention over every behaviour: what the search saves, and what it loses.

    ``k`` is ignored, so that it can take the place of a model that searches; all else is as in
    :class:`longclock.LongTermInterestClock` with ``k=None``.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import FullClock
        >>> model, clock = FullClock(8, 8), lc.LongTermInterestClock(8, 8, k=5)
        >>> clock.load_state_dict(model.state_dict())
        <All keys matched successfully>
        >>> call = torch.randn(1, 8), lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None]), torch.tensor([0])
        >>> torch.allclose(model(*call), clock(*call), atol=1e-4)  # five is all there is
        True
    """

    takes_quantized_keys = False

    def __init__(
        self,
        behaviour_dim: int,
        candidate_dim: int,
        head_dim: int = 32,
        heads: int = 4,
        k: int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(behaviour_dim, candidate_dim, head_dim, heads, None, *args, **kwargs)
