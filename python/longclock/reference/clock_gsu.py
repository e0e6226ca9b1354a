# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longclock._clocks import resolve_time
from longclock.reference._named import named_as_op
from longclock.reference.block_topk import select
from longclock.reference.gsu_score import accumulate, blocks, first_of, score
from longclock.types import Clocks, Mlp, QuantizedRows, TopK


@named_as_op
@torch.no_grad()
def clock_gsu(
    query: Tensor,
    keys: Tensor | QuantizedRows | tuple[Tensor, ...],
    key_time: Tensor,
    query_time: Tensor,
    mlp: Mlp,
    k: int = 100,
    *,
    scale: float | None = None,
    clocks: Clocks | None = None,
    unit: float | tuple[float, ...] | None = None,
    query_dtype: str | None = None,
    **layout: Any,
) -> TopK:
    """The best k behaviours of each query by ``gsu_score``: [S, K], [S, C, K] or [Q, K]."""
    time = resolve_time("clock_gsu", mlp, clocks, unit)
    best = [
        select(
            score(piece, time, scale, query_dtype),
            k,
            None if piece.valid is None else piece.valid[:, None],
        )
        for piece in blocks("clock_gsu", query, keys, key_time, query_time, **layout)
    ]
    return join(best, query, key_time, k, accumulate(query, first_of(keys))[0].dtype)


def join(best: list[TopK], query: Tensor, key_time: Tensor, k: int, dtype: torch.dtype) -> TopK:
    """The selections of ``blocks`` as one: [S, K], [S, C, K] or [Q, K]. dtype: of the scores."""
    if key_time.dim() == 2:
        return best[0] if query.dim() == 3 else TopK(best[0].scores[:, 0], best[0].indices[:, 0])
    if not best:
        return TopK(
            query.new_zeros((0, k), dtype=dtype), key_time.new_zeros((0, k), dtype=torch.int64)
        )
    return TopK(
        torch.cat([piece.scores.flatten(0, 1) for piece in best]),
        torch.cat([piece.indices.flatten(0, 1) for piece in best]),
    )
