# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from longclock._checks import check, check_int, shape_of
from longclock._library import raw
from longclock.ops._call import (
    SCORE,
    ByName,
    call,
    check_k,
    differentiable,
    fake,
    forbid_double_backward,
)
from longclock.ops._errors import named_errors
from longclock.ops._shapes import check_float
from longclock.types import TopK


@named_errors
def block_topk(scores: Tensor, k: int, lengths: Tensor | None = None) -> TopK:
    """The best k of the last dimension, as ``torch.topk``, with an exact order.

    Sorted by score descending, then index ascending; NaN before every number, -0 equal to +0.
    Differentiable in scores.

    Args:
        scores: float32, float16 or bfloat16, [..., M].
        k: 0 to 2048; more than M is padded.
        lengths: int32 or int64 [...]: only the first ``lengths`` positions of a row count, whatever
            lies past them. None: all M.
    Returns:
        TopK(scores [..., k] in the input's dtype, indices [..., k] int64); padded with -inf and -1.
    Raises:
        ValueError: float64, k outside 0 to 2048, lengths of another shape or (on the CPU) outside
            0 to M.

    Example::

        >>> import torch, longclock as lc
        >>> scores = torch.tensor([[2.0, 5.0, 5.0], [1.0, 9.0, 9.0]])
        >>> best = lc.block_topk(scores, k=2, lengths=torch.tensor([3, 1]))
        >>> best.indices.tolist()  # the second row has one score that counts
        [[1, 2], [0, -1]]
    """
    return TopK(
        *call(raw.block_topk.default, scores=scores, k=check_k("block_topk", k), lengths=lengths)
    )


@fake("block_topk")
def _(scores: Tensor, k: int, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    op = "block_topk"
    check_float(op, "scores", scores)
    check(op, scores.dim() >= 1, lambda: "scores must have at least one dimension, got a scalar")
    shape = (*scores.shape[:-1], check_k(op, k, SCORE))
    if lengths is not None:
        check_int(op, "lengths", lengths)

        def text() -> str:
            return f"lengths must have the shape of scores without its last dimension; scores has {shape_of(scores)}, got {shape_of(lengths)}"

        check(op, lengths.dim() + 1 == scores.dim(), text)
        for got, size in zip(lengths.shape, scores.shape[:-1], strict=True):
            check(op, got == size, text)
    return scores.new_empty(shape), scores.new_empty(shape, dtype=torch.int64)


@fake("block_topk_backward")
def _(grad: Tensor, m: int, **_: Any) -> Tensor:
    return grad.new_empty((*grad.shape[:-1], m))


def _keep(given: ByName, found: ByName) -> ByName:
    return {"indices": found["indices"], "m": given["scores"].shape[-1]}


def _gradients(kept: ByName, grad: Tensor, needs: Mapping[str, bool]) -> ByName:
    return {"scores": call(raw.block_topk_backward.default, grad=grad, **kept)}


differentiable("block_topk", _keep, _gradients)
forbid_double_backward("block_topk", "block_topk_backward")
