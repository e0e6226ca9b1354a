# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longclock._library import raw
from longclock._mlp import require_integers
from longclock.ops._call import (
    call,
    check_k,
    differentiable,
    fake,
    forbid_double_backward,
    refuse_float64,
)
from longclock.ops._errors import named_errors
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
    """
    refuse_float64("block_topk", scores=scores)
    require_integers("block_topk", lengths=lengths)
    return TopK(*call(raw.block_topk.default, scores, check_k("block_topk", k), lengths))


@fake("block_topk")
def _(scores: Tensor, k: int, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    shape = (*scores.shape[:-1], check_k("block_topk", k))
    return scores.new_empty(shape), scores.new_empty(shape, dtype=torch.int64)


@fake("block_topk_backward")
def _(grad: Tensor, indices: Tensor, m: int) -> Tensor:
    return grad.new_empty((*grad.shape[:-1], m))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, indices = output
    ctx.m = inputs[0].shape[-1]
    ctx.mark_non_differentiable(indices)
    ctx.save_for_backward(indices)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (indices,) = ctx.saved_tensors
    return call(raw.block_topk_backward.default, grad, indices, ctx.m), None, None


differentiable("block_topk", _backward, _setup_context)
forbid_double_backward("block_topk", "block_topk_backward")
