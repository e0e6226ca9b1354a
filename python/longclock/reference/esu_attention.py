# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding

from longclock._clocks import resolve_time
from longclock._mlp import require_integers
from longclock._torch_state import reads_values
from longclock.history import History
from longclock.history.rows import floating_rows
from longclock.history.windows import bounds_of, each_query, windows_of
from longclock.ops.esu_attention import check_found, check_keywords
from longclock.reference._named import named_as_op
from longclock.reference.gsu_score import accumulate
from longclock.reference.time_term import features_of, similarity_of
from longclock.types import Clocks, Lookup, Mlp


@named_as_op
def esu_attention(
    u: Tensor,
    z: Tensor | Lookup,
    z_time: Tensor,
    query_time: Tensor,
    mlp: Mlp,
    valid: Tensor | None = None,
    clocks: Clocks | None = None,
    unit: float | tuple[float, ...] | None = None,
    *,
    found: Tensor | None = None,
    **layout: Any,
) -> Tensor:
    """``p = softmax_k(u_i . z_k + s(x_k))``, ``c_i = sum_k p_k [z_k ; phi(x_k)]``: [Q, n, L + 4 C], C clocks."""
    require_integers("esu_attention", z_time=z_time, query_time=query_time)
    time = resolve_time("esu_attention", mlp, clocks, unit)
    check_keywords(found, valid, layout)
    exclude_future = layout.pop("exclude_future", False)
    if found is not None:
        history = History(z, z_time, **layout)
        check_found(u, history, query_time, found)
        z, z_time, query_time, valid = found_rows(history, found, query_time, exclude_future)
    elif valid is None:
        valid = torch.ones_like(z_time, dtype=torch.bool)
    if isinstance(z, Lookup):
        z = looked_up(z, valid)
    u, z = accumulate(u, z.masked_fill(~valid[..., None], 0))
    phi = features_of(z_time, query_time[:, None], time, u.dtype)
    s = similarity_of(phi, time)
    alpha = torch.baddbmm(s[:, None], u, z.transpose(1, 2))  # [Q, n, K]
    alpha = alpha.masked_fill(~valid[:, None], -torch.inf)
    nothing = ~valid.any(dim=-1)
    alpha = alpha.masked_fill(nothing[:, None, None], 0)  # a softmax of nothing but -inf is NaN
    p = alpha.softmax(dim=-1).masked_fill(~valid[:, None], 0)
    return torch.cat([p @ z, *(p @ of_clock for of_clock in phi)], dim=-1)


def looked_up(z: Lookup, valid: Tensor) -> Tensor:
    """The rows of [Q, K] behaviours, those of several tables side by side; of what is not valid, any."""
    pieces = []
    for table, ids in z.parts():
        if ids is None:
            pieces.append(table)
        elif table.shape[0] == 0:
            pieces.append(table.new_zeros(*ids.shape, table.shape[1]))
        else:
            pieces.append(embedding(ids.masked_fill(~valid, 0), table, sparse=z.sparse))
    return torch.cat(pieces, -1)


def found_rows(
    history: History, found: Tensor, query_time: Tensor, exclude_future: bool
) -> tuple[Tensor | Lookup, Tensor, Tensor, Tensor]:
    """What was found: rows, [Q, K] each, their times, the time of each query, [Q], and which of them count."""
    op, queries = "esu_attention", found.shape[:-1]
    windows = windows_of(op, history, queries)
    (query_time,) = each_query(op, history, queries, query_time)
    starts, ends = bounds_of(op, windows)
    found = found.flatten(0, -2)
    outside = (found < -1) | (found >= (ends - starts)[:, None])
    if reads_values(found) and outside.any():
        raise IndexError("found holds an index that is outside its query's history")
    valid = (found >= 0) & ~outside
    position = torch.where(valid, found + starts[:, None], 0)

    def take(values: Tensor) -> Tensor:
        return (
            values[position]
            if len(values)
            else values.new_zeros(*position.shape, *values.shape[1:])
        )

    time, rows = take(windows.time), floating_rows(op, windows, "z")
    if windows.mask is not None:
        valid = valid & take(windows.mask)
    if exclude_future:
        valid = valid & (time < query_time[:, None])
    rows = rows.mapped(take) if isinstance(rows, Lookup) else take(rows)
    return rows, time, query_time, valid
