# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from longclock._mlp import require_integers, resolve_mlp, resolve_period
from longclock.ops._call import reads_values
from longclock.reference._named import named_as_op
from longclock.reference.circular_delta import circular_delta
from longclock.reference.time_similarity import time_similarity
from longclock.types import Mlp


class Block(NamedTuple):
    """A dense piece of a layout: B sequences, C queries each, M behaviours each."""

    query: Tensor  # [B, C, D]
    keys: Tensor  # [B, M, D]
    key_time: Tensor  # [B, M]
    query_time: Tensor  # [B]
    live: Tensor | None  # bool [B, M]; None: all count


def gather_rows(table: Tensor, ids: Tensor, live: Tensor | None) -> Tensor:
    """``table[ids]``; where not live the id is never read and any row stands in."""
    if table.shape[0] == 0:
        return table.new_zeros(*ids.shape, table.shape[-1])
    ids = ids if live is None else ids.masked_fill(~live, 0)
    if reads_values(ids) and bool((ids < 0).any()):
        raise IndexError("ids must not be negative, which would count from the end")
    return table[ids]


def blocks(
    query: Tensor,
    keys: Tensor,
    key_time: Tensor,
    query_time: Tensor,
    *,
    ids: Tensor | None = None,
    lengths: Tensor | None = None,
    offsets: Tensor | None = None,
    query_offsets: Tensor | None = None,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    mask: Tensor | None = None,
    exclude_future: bool = False,
) -> list[Block]:
    """Every layout as dense blocks: the batch itself, or one block a sequence or window."""
    require_integers(
        "gsu_score",
        key_time=key_time, query_time=query_time, ids=ids, lengths=lengths,
        offsets=offsets, query_offsets=query_offsets, starts=starts, ends=ends,
    )  # fmt: skip

    if reads_values(key_time):
        _check_bounds(query, keys, key_time, query_time, ids, lengths, offsets,
                      query_offsets, starts, ends, mask)  # fmt: skip

    def block(query: Tensor, rows: slice, query_time: Tensor, lengths: Tensor | None) -> Block:
        def take(flat: Tensor) -> Tensor:
            return flat if key_time.dim() == 2 else flat[rows].unsqueeze(0)

        time, live = take(key_time), None
        if lengths is not None:
            live = torch.arange(time.shape[1], device=time.device) < lengths[:, None]
        if mask is not None:
            live = take(mask) if live is None else live & take(mask)
        if exclude_future:
            past = time < query_time[:, None]
            live = past if live is None else live & past
        behaviours = take(keys) if ids is None else gather_rows(keys, take(ids), live)
        return Block(query, behaviours, time, query_time, live)

    if key_time.dim() == 2:
        query = query if query.dim() == 3 else query[:, None]
        return [block(query, slice(None), query_time, lengths)]
    if starts is not None and ends is not None:
        return [
            block(query[q, None, None], slice(start, end), query_time[q, None], None)
            for q, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True))
        ]
    if offsets is None:
        raise IndexError("flat keys need offsets, or starts and ends")
    bounds = offsets.tolist()
    query_bounds = list(range(len(bounds))) if query_offsets is None else query_offsets.tolist()
    return [
        block(
            query[None, query_bounds[s] : query_bounds[s + 1]],
            slice(bounds[s], bounds[s + 1]),
            query_time[s, None],
            None,
        )
        for s in range(len(bounds) - 1)
    ]


def _check_bounds(
    query: Tensor,
    keys: Tensor,
    key_time: Tensor,
    query_time: Tensor,
    ids: Tensor | None,
    lengths: Tensor | None,
    offsets: Tensor | None,
    query_offsets: Tensor | None,
    starts: Tensor | None,
    ends: Tensor | None,
    mask: Tensor | None,
) -> None:
    """What PyTorch would broadcast, or cut short, in place of refusing it; the op of that name tells which it is."""
    end, fits = key_time.shape[-1], True
    if mask is not None:
        fits = mask.dtype == torch.bool and mask.shape == key_time.shape
    fits = fits and (ids is None or ids.shape == key_time.shape)
    fits = fits and (ids is not None or keys.shape[:-1] == key_time.shape)
    if key_time.dim() == 2:
        sequences = key_time.shape[:1]
        fits = fits and query_time.shape == sequences and query.shape[:1] == sequences
        if lengths is not None:
            fits = fits and lengths.shape == sequences and _within(lengths, end)
    elif starts is not None and ends is not None:
        fits = fits and starts.shape == ends.shape == query_time.shape == query.shape[:1]
        fits = fits and _within(starts, end) and _within(ends, end) and not (ends < starts).any()
    elif offsets is not None:
        fits = fits and _rises(offsets, query_time.shape[0], end)
        if query_offsets is None:
            fits = fits and query.shape[:1] == query_time.shape
        else:
            fits = fits and _rises(query_offsets, query_time.shape[0], query.shape[0])
    if not fits:
        raise IndexError("behaviours and queries must fit each other")


def _within(bounds: Tensor, end: int) -> bool:
    return bounds.numel() == 0 or (int(bounds.min()) >= 0 and int(bounds.max()) <= end)


def _rises(offsets: Tensor, sequences: int, end: int) -> bool:
    """Whether offsets [S + 1] run from 0 to ``end`` and never fall."""
    ends = offsets.shape == (sequences + 1,) and int(offsets[0]) == 0 and int(offsets[-1]) == end
    return ends and not bool((offsets.diff() < 0).any())


def accumulate(query: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the dtype of the arithmetic, at least fp32; a query is first rounded to 16-bit rows."""
    if rows.dtype.itemsize == 2:
        query = query.to(rows.dtype)
    dtype = torch.promote_types(torch.promote_types(query.dtype, rows.dtype), torch.float32)
    return query.to(dtype), rows.to(dtype)


def score(block: Block, mlp: Any, scale: float | None, period: int, unit: float) -> Tensor:
    """``scale key_m . query + s(delta(t_m, t_now) / unit)`` of one block, [B, C, M]."""
    keys = block.keys
    if block.live is not None and (block.query.requires_grad or keys.requires_grad):
        # What lies past a length must not reach the query's gradient as 0 times NaN.
        keys = keys.masked_fill(~block.live[..., None], 0)
    query, keys = accumulate(block.query, keys)
    scale = max(query.shape[-1], 1) ** -0.5 if scale is None else scale
    delta = circular_delta(block.key_time, block.query_time[:, None], period)
    w1, b1, w2, b2 = (weight.to(query.dtype) for weight in mlp)
    s = time_similarity(delta, w1, b1, w2, b2, unit)
    scores = torch.baddbmm(s[:, None], query, keys.transpose(1, 2), alpha=scale)
    return scores if block.live is None else scores.masked_fill(~block.live[:, None], -torch.inf)


@named_as_op
def gsu_score(
    query: Tensor,
    keys: Tensor,
    key_time: Tensor,
    query_time: Tensor,
    mlp: Mlp,
    total: int | None = None,
    *,
    scale: float | None = None,
    period: int = 86400,
    unit: float | None = None,
    **layout: Any,
) -> Tensor:
    """``scale key_m . query + s(delta(t_m, t_now) / unit)``; -inf where a behaviour does not count.

    Dense: [S, M] or [S, C, M]. Ragged and windows: one flat tensor, query after query.
    """
    by_name, unit = resolve_mlp("gsu_score", mlp, unit)
    weights = tuple(by_name.values())
    period = resolve_period("gsu_score", period)
    pieces = blocks(query, keys, key_time, query_time, **layout)
    scores = [score(piece, weights, scale, period, unit) for piece in pieces]
    if key_time.dim() == 2:
        return scores[0] if query.dim() == 3 else scores[0][:, 0]
    if not scores:
        return accumulate(query, keys)[0].sum(-1)  # no query: nothing, in the right dtype
    return torch.cat([piece.flatten() for piece in scores])
