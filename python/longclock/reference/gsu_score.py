# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from longclock._checks import check_int
from longclock._clocks import TimeTerm, resolve_time
from longclock._torch_state import reads_values
from longclock.history.checks import (
    check_combination,
    check_places,
    check_queries,
    check_rows,
)
from longclock.history.history import History, from_arguments
from longclock.history.windows import bounds_of, each_query
from longclock.ops._shapes import OF_SEARCH
from longclock.quantize import quantize_rows
from longclock.reference._named import named_as_op
from longclock.reference.time_term import features_of, similarity_of
from longclock.types import Clocks, Lookup, Mlp, QuantizedRows


class Block(NamedTuple):
    """A dense piece of a layout: B sequences, C queries each, M behaviours each."""

    query: Tensor  # [B, C, D]
    keys: Tensor | QuantizedRows  # [B, M, D]
    key_time: Tensor  # [B, M]
    query_time: Tensor  # [B]
    valid: Tensor | None  # bool [B, M]; None: all are


def rows_of(rows: Any, valid: Tensor | None) -> Any:
    """The rows of behaviours, those of several tables side by side; int8 ones as they are."""
    if not isinstance(rows, Lookup):
        return rows
    if isinstance(rows.table, QuantizedRows):
        values, scale = rows.table
        return QuantizedRows(
            rows_of(Lookup(values, rows.ids), valid),
            rows_of(Lookup(scale[:, None], rows.ids), valid)[..., 0],
        )
    parts = rows.parts()
    return torch.cat(
        [table if ids is None else gather_rows(table, ids, valid) for table, ids in parts], -1
    )


def gather_rows(table: Tensor, ids: Tensor, valid: Tensor | None) -> Tensor:
    """``table[ids]``; where not valid the id is never read and any row stands in."""
    if table.shape[0] == 0:
        return table.new_zeros(*ids.shape, table.shape[-1])
    ids = ids if valid is None else ids.masked_fill(~valid, 0)
    if reads_values(ids) and bool((ids < 0).any()):
        raise IndexError("ids must not be negative, which would count from the end")
    return table[ids]


def blocks(
    op: str,
    query: Tensor,
    keys: Tensor | QuantizedRows | tuple[Tensor, ...],
    key_time: Tensor,
    query_time: Tensor,
    *,
    exclude_future: bool = False,
    **layout: Any,
) -> list[Block]:
    """Every layout as dense blocks: the batch itself, or one block a sequence or window."""
    history = from_arguments(keys, key_time, **layout)
    check_combination(op, history, OF_SEARCH)
    check_int(op, "key_time", key_time)
    check_rows(op, history, OF_SEARCH)
    check_queries(op, history, query.shape[:-1], query_time, "query", OF_SEARCH, query.shape)
    check_places(op, history, OF_SEARCH)
    starts, ends = bounds_of(op, history)

    def block(
        query: Tensor, part: History, query_time: Tensor, lengths: Tensor | None = None
    ) -> Block:
        time, valid = part.time, part.mask
        if lengths is not None:
            within = torch.arange(time.shape[1], device=time.device) < lengths[:, None]
            valid = within if valid is None else valid & within
        if exclude_future:
            past = time < query_time[:, None]
            valid = past if valid is None else valid & past
        return Block(query, rows_of(part.rows, valid), time, query_time, valid)

    if history.is_dense:
        query = query if query.dim() == 3 else query[:, None]
        return [block(query, history, query_time, history.lengths)]
    firsts = (
        torch.arange(len(starts) + 1) if history.query_offsets is None else history.query_offsets
    )
    each_query(op, history, query.shape[:-1])  # checks query_offsets
    return [
        block(query[None, first:last], stretch(history, start, end), query_time[s, None])
        for s, (start, end, first, last) in enumerate(
            zip(
                starts.tolist(),
                ends.tolist(),
                firsts[:-1].tolist(),
                firsts[1:].tolist(),
                strict=True,
            )
        )
    ]


def stretch(history: History, start: int, end: int) -> History:
    """Behaviours from ``start`` to ``end - 1`` of a flat layout as one dense sequence."""

    def take(values: Any) -> Any:
        return values if values is None else values[None, start:end]

    rows = history.rows
    rows = rows.mapped(take) if isinstance(rows, (Lookup, QuantizedRows)) else take(rows)
    return History(rows, take(history.time), mask=take(history.mask))


def first_of(tables: Tensor | QuantizedRows | tuple[Tensor, ...]) -> Tensor:
    """The table whose dtype all have; of rows in bytes their values."""
    return tables if isinstance(tables, Tensor) else tables[0]


def accumulate(query: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the dtype of the arithmetic, at least fp32; a query is first rounded to 16-bit rows."""
    if rows.dtype.itemsize == 2:
        query = query.to(rows.dtype)
    dtype = torch.promote_types(torch.promote_types(query.dtype, rows.dtype), torch.float32)
    return query.to(dtype), rows.to(dtype)


def score_quantized(
    block: Block, keys: QuantizedRows, time: TimeTerm, scale: float, query_dtype: str | None
) -> Tensor:
    """Of keys in bytes: ``(scale query_scale) (key_scale (key . query)) + s``, where a query of int8 alone has a scale other than 1."""
    (values, key_scale), query = keys, block.query
    dtype = torch.promote_types(query.dtype, torch.float32)
    own: Tensor | float = 1.0
    if query_dtype == "int8":
        query, own = quantize_rows(query)
        own = own[..., None]
    elif query_dtype is not None:
        query = query.to(getattr(torch, query_dtype))
    query, rows = query.to(dtype), values.to(dtype)
    s = similarity_of(features_of(block.key_time, block.query_time[:, None], time, dtype), time)
    products = query @ rows.transpose(1, 2) * key_scale.to(dtype)[:, None]
    return (scale * own) * products + s[:, None]


def score(
    block: Block, time: TimeTerm, scale: float | None, query_dtype: str | None = None
) -> Tensor:
    """``scale key_m . query + s(delta(t_m, t_now) / unit)`` of one block, [B, C, M]."""
    scale = max(block.query.shape[-1], 1) ** -0.5 if scale is None else scale
    if isinstance(block.keys, QuantizedRows):
        scores = score_quantized(block, block.keys, time, scale, query_dtype)
    elif query_dtype is not None:
        raise ValueError(
            "query_dtype must be None for floating keys"
        )  # which named_as_op says better
    else:
        scores = _score_floats(block, block.keys, time, scale)
    return scores if block.valid is None else scores.masked_fill(~block.valid[:, None], -torch.inf)


def _score_floats(block: Block, keys: Tensor, time: TimeTerm, scale: float) -> Tensor:
    if block.valid is not None and (block.query.requires_grad or keys.requires_grad):
        # What lies past a length must not reach the query's gradient as 0 times NaN.
        keys = keys.masked_fill(~block.valid[..., None], 0)
    query, keys = accumulate(block.query, keys)
    now = block.query_time[:, None]
    s = similarity_of(features_of(block.key_time, now, time, query.dtype), time)
    return torch.baddbmm(s[:, None], query, keys.transpose(1, 2), alpha=scale)


@named_as_op
def gsu_score(
    query: Tensor,
    keys: Tensor | QuantizedRows | tuple[Tensor, ...],
    key_time: Tensor,
    query_time: Tensor,
    mlp: Mlp,
    total: int | None = None,
    *,
    scale: float | None = None,
    clocks: Clocks | None = None,
    unit: float | tuple[float, ...] | None = None,
    query_dtype: str | None = None,
    **layout: Any,
) -> Tensor:
    """``scale key_m . query + s(delta(t_m, t_now) / unit)``; -inf where a behaviour does not count.

    Dense: [S, M] or [S, C, M]. Ragged and windows: one flat tensor, query after query.
    """
    time = resolve_time("gsu_score", mlp, clocks, unit)
    pieces = blocks("gsu_score", query, keys, key_time, query_time, **layout)
    scores = [score(piece, time, scale, query_dtype) for piece in pieces]
    if key_time.dim() == 2:
        return scores[0] if query.dim() == 3 else scores[0][:, 0]
    if not scores:
        return accumulate(query, first_of(keys))[0].sum(-1)  # no query: nothing, in the right dtype
    return torch.cat([piece.flatten() for piece in scores])
