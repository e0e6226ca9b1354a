# SPDX-License-Identifier: Apache-2.0
"""ETA: search by the Hamming distance of hashes, attention by content."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longclock import reference
from longclock.baselines.twin import TWIN


class ETA(TWIN):
    """The ``k`` behaviours whose SimHash is nearest to the candidate's, then :class:`TWIN`'s attention.

    ``h(x) = sign(R x)`` with ``hash_bits`` fixed random directions R, which candidate and behaviours share;
    x are the projections of all heads side by side, ``W_q q`` and ``W_b b``. The search keeps the
    smallest Hamming distances, among equal ones the earliest behaviours. Vectors of signs have the product
    ``hash_bits - 2 distance``, exact in bfloat16, so the search is ``clock_gsu`` over signs, in every layout.
    Source: ETA, arXiv 2108.04468.

    Args:
        hash_bits: signs of a hash (ETA: 64 and fewer). The others: as :class:`longclock.LongTermInterestClock`,
            without ``scoring``: hashes are of projections, and follow them as they are trained.

    Parameters: as TWIN's; the buffer rotations, [n d, hash_bits], is saved with them.

    Raises:
        ValueError: ``hash_bits`` is less than 1.
    """

    rotations: Tensor

    def __init__(self, *args: Any, hash_bits: int = 64, **kwargs: Any) -> None:
        if isinstance(hash_bits, bool) or not isinstance(hash_bits, int) or hash_bits < 1:
            raise ValueError(f"ETA: hash_bits must be an int of at least 1, got {hash_bits!r}")
        if "scoring" in kwargs:
            raise ValueError("ETA: scoring must be left out: the search compares hashes")
        super().__init__(*args, scoring="precomputed", **kwargs)
        width = self.heads * self.head_dim
        self.register_buffer("rotations", torch.randn(width, hash_bits))

    def hashes(self, projections: Tensor) -> Tensor:
        """Signs, -1 or 1, in bfloat16: [..., n d] -> [..., hash_bits]."""
        positive = projections @ self.rotations.to(projections.dtype) > 0
        return torch.where(positive, 1.0, -1.0).to(torch.bfloat16)

    def _search_by(
        self, candidate: Tensor, projected: Tensor, u: Tensor, rows: Tensor, keys: Tensor | None
    ) -> tuple[Tensor, Tensor, float]:
        query, keys, _ = super()._search_by(candidate, projected, u, rows, keys)
        return self.hashes(query), self.hashes(keys), 1.0


class ReferenceETA(ETA, reference.LongTermInterestClock):
    """:class:`ETA` in plain PyTorch; the same parameters and hashes."""
