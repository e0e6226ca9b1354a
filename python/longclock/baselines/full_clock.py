# SPDX-License-Identifier: Apache-2.0
"""The Long-term Interest Clock without its search."""

from __future__ import annotations

from typing import Any

from longclock.baselines import checked
from longclock.nn import LongTermInterestClock


class FullClock(LongTermInterestClock):
    """Time-aware attention over every behaviour: what the search saves, and what it loses.

    ``k`` is ignored, so that it can take the place of a model that searches; all else is as in
    :class:`longclock.LongTermInterestClock` with ``k=None``.
    """

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


class ReferenceFullClock(FullClock, checked.LongTermInterestClock):
    """:class:`FullClock` in plain PyTorch; the same parameters."""
