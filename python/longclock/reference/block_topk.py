# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from torch import Tensor

from longclock._mlp import require_integers
from longclock.reference._named import named_as_op
from longclock.types import TopK


def ranking(scores: Tensor, k: int, valid: Tensor) -> Tensor:
    """Indices of the best k: the valid ones first; among them NaN first, then score descending
    (-0 equals +0), then index ascending."""
    scores = scores.detach() + 0.0  # -0 becomes +0
    if scores.dtype == torch.float64:
        return _sorted(scores, valid)[..., :k]
    # torch.topk is faster, but leaves the order of ties open. An integer of (score, ~index) has no
    # ties: a float's bits order as integers once those of negative numbers are flipped.
    single = scores.float().contiguous()
    try:
        bits = single.view(torch.int32)
    except RuntimeError:  # in a vmap of PyTorch 2.10, which has no rule for bits
        return _sorted(scores, valid)[..., :k]
    bits = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).masked_fill(scores.isnan(), 0x7FFFFFFF)
    later_first = torch.arange(scores.shape[-1] - 1, -1, -1, device=scores.device)
    key = ((bits.long() << 32) | later_first).masked_fill(~valid, -(2**63))
    return key.topk(k, dim=-1).indices


def _sorted(scores: Tensor, valid: Tensor) -> Tensor:
    """All indices in the order of ``ranking``."""
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    valid_first = valid.gather(-1, order).sort(dim=-1, descending=True, stable=True).indices
    return order.gather(-1, valid_first)


def select(scores: Tensor, k: int, valid: Tensor | None = None) -> TopK:
    """The best k of the positions where ``valid`` (None: everywhere), padded with (-inf, -1)."""
    if valid is None:
        valid = torch.ones((), dtype=torch.bool, device=scores.device)
    valid = valid.expand(scores.shape)
    found = ranking(scores, min(k, scores.shape[-1]), valid)
    counts = valid.gather(-1, found)
    picked = scores.gather(-1, found).masked_fill(~counts, -torch.inf)
    indices = found.masked_fill(~counts, -1)
    padding = (0, k - found.shape[-1])
    return TopK(
        torch.nn.functional.pad(picked, padding, value=-torch.inf),
        torch.nn.functional.pad(indices, padding, value=-1),
    )


@named_as_op
def block_topk(scores: Tensor, k: int, lengths: Tensor | None = None) -> TopK:
    """The best k of the last dimension, of the first ``lengths`` positions of each row."""
    require_integers("block_topk", lengths=lengths)
    if k < 0:
        raise ValueError(f"block_topk: k must not be negative, got {k}")
    if lengths is None:
        return select(scores, k)
    return select(
        scores, k, torch.arange(scores.shape[-1], device=scores.device) < lengths.unsqueeze(-1)
    )
