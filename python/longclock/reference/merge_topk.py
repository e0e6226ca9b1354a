# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from torch import Tensor

from longclock._mlp import require_integers
from longclock.reference._named import named_as_op
from longclock.reference.block_topk import select
from longclock.types import TopK


@named_as_op
def merge_topk(scores: Tensor, indices: Tensor, k: int) -> TopK:
    """The best k of results that have indices of their own, below 0 for nothing: by score, then by index."""
    require_integers("merge_topk", indices=indices)
    if k < 0:
        raise ValueError(f"merge_topk: k must not be negative, got {k}")
    order = indices.long().argsort(dim=-1, stable=True)
    scores, indices = scores.gather(-1, order), indices.long().gather(-1, order)
    best = select(scores, k, indices >= 0)
    found = indices.gather(-1, best.indices.clamp(min=0)) if indices.shape[-1] else best.indices
    return TopK(best.scores, found.masked_fill(best.indices < 0, -1))
