# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from longclock._checks import check, check_int, check_same_shape, shape_of
from longclock._mlp import require_tensor
from longclock.ops._call import MAX_K, check_int_k, require_one_device
from longclock.ops._errors import named_errors, wrong_tensor
from longclock.ops._shapes import check_float
from longclock.ops.block_topk import block_topk
from longclock.types import TopK

MOST_PADDED = (
    1 << 20
)  # of a row's results; a k by mistake would otherwise be all the memory there is
NEGATIVE_LAST = -(2**63)  # an index xor this: those below 0 come behind all others


@named_errors
def merge_topk(scores: Tensor, indices: Tensor, k: int) -> TopK:
    """The best k of lists of results, by score and then by the index that each result has.

    Score descending, then index ascending; NaN before every number, -0 equal to +0, an index of -1 behind everything, also behind
    a score of -inf. So the best k of a long row are those of the best k of its parts, to the bit, however the row was cut and
    in whatever order the parts' lists stand. Differentiable in scores.

    Args:
        scores: float32, float16 or bfloat16, [..., P]: the lists of a row side by side, in any order.
        indices: int32 or int64, of scores' shape; below 0 for nothing. Each index from 0 on comes once in a row; one that comes
            twice is two results.
        k: any number up to P; more is padded, up to 1,048,576.
    Returns:
        TopK(scores [..., k] in the input's dtype, indices [..., k] int64); padded with -inf and -1.
    Raises:
        ValueError: an argument that does not fit; the message names it and the remedy.

    O(P log P) a row. So a search finds more than 2,048: parts of 2,048 behaviours are searched for all that they have.

    Example::

        >>> import torch, longclock as lc
        >>> scores, ends = torch.tensor([1.0, 5.0, 3.0, 5.0, -torch.inf]), torch.tensor([2, 4])
        >>> early, late = lc.block_topk(scores[:2], k=3), lc.block_topk(scores[2:], k=3)
        >>> late = torch.where(late.indices < 0, -1, late.indices + 2), late.scores
        >>> merged = lc.merge_topk(torch.cat([late[1], early.scores]), torch.cat([late[0], early.indices]), k=5)
        >>> merged.indices.tolist() == lc.block_topk(scores, k=5).indices.tolist() == [1, 3, 2, 0, 4]
        True
        >>> row = torch.randn(10_000)
        >>> parts = [lc.block_topk(part, k=2_048) for part in row.split(2_048)]
        >>> places = [part.indices + 2_048 * i for i, part in enumerate(parts)]
        >>> places[-1] = places[-1].where(parts[-1].indices >= 0, -1)  # of a shorter part, which is padded
        >>> best = lc.merge_topk(torch.cat([part.scores for part in parts]), torch.cat(places), k=5_000)
        >>> torch.equal(best.scores, row.sort(descending=True).values[:5_000])
        True
    """
    op = "merge_topk"
    for name, value in (("scores", scores), ("indices", indices)):
        require_tensor(op, name, value)
        for wrong in wrong_tensor(name, value):  # which PyTorch's operations may take
            raise ValueError(f"{op}: {wrong}")
    check_float(op, "scores", scores)
    check_int(op, "indices", indices)
    check(op, scores.dim() >= 1, lambda: "scores must have at least one dimension, got a scalar")
    check_same_shape(op, indices, scores, lambda: f"indices must have the shape of scores, {shape_of(scores)}, got "
                     f"{shape_of(indices)}")  # fmt: skip
    require_one_device(op, {"scores": scores, "indices": indices})
    k = check_int_k(op, k)
    check(op, k >= 0, lambda: f"k must be at least 0, got {k}")
    check(op, k <= MOST_PADDED or k <= scores.shape[-1], lambda: f"k must be at most {MOST_PADDED}, or P = {scores.shape[-1]}, got "
          f"{k}; behind the P results of a row there is padding alone")  # fmt: skip
    indices = indices.long()
    order = (indices ^ NEGATIVE_LAST).argsort(dim=-1, stable=True)
    best = _best(scores.gather(-1, order), k, (indices >= 0).sum(-1))
    of_nothing = F.pad(indices.gather(-1, order), (0, 1), value=-1)  # where what is padded looks
    places = best.indices.where(best.indices >= 0, scores.shape[-1])
    return TopK(best.scores, of_nothing.gather(-1, places))


def _best(scores: Tensor, k: int, lengths: Tensor) -> TopK:
    """``block_topk`` of any k: where it is larger than that takes, by sorting."""
    if k <= MAX_K:
        return block_topk(scores, k, lengths)
    there = torch.arange(scores.shape[-1], device=scores.device) < lengths[..., None]
    # Stable: what is not there stands behind all that is, also behind a score of -inf.
    order = scores.masked_fill(~there, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    order = order[..., :k]
    there = there.gather(-1, order)
    missing = (0, k - order.shape[-1])
    best = scores.gather(-1, order).masked_fill(~there, -torch.inf)
    return TopK(
        F.pad(best, missing, value=-torch.inf), F.pad(order.where(there, -1), missing, value=-1)
    )
