# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import Unpack

from longclock._library import raw
from longclock.ops._call import SCORE, call, check_k, fake
from longclock.ops._errors import named_errors
from longclock.ops._layout import Layout, flat_of_nested, layout_arguments, require_rows
from longclock.ops._shapes import check_search
from longclock.types import TopK


@named_errors
def hamming_gsu(
    query: Tensor,
    keys: Tensor,
    key_time: Tensor,
    query_time: Tensor,
    k: int = 100,
    **layout: Unpack[Layout],
) -> TopK:
    """The k behaviours whose hashes differ from each query's in the fewest bits.

    The best k by ``-sum_w popcount(key_m[w] xor query[w])``, the earliest behaviours first among equals: a
    search that reads 8 bytes a behaviour for 64 bits. The call is that of ``clock_gsu`` without s().
    Source: ETA, arXiv 2108.04468.

    Args:
        query: int64, words of 64 bits as ``pack_signs`` makes them: [S, W], [S, C, W] or [Q, W].
        keys: int64, [S, M, W] or [T, W]; the table [N, W] where ``ids`` is given.
        key_time, query_time: int32 or int64, seconds; [S, M] and [S]; [T] and [S] (ragged);
            [T] and [S] (windows). They give the layout; the times themselves count only for
            ``exclude_future``. Keys (or ids) and key_time may be nested tensors of layout ``torch.jagged``: ragged, by
            their offsets.
        k: 0 to 2048.
        ids: [S, M] or [T], rows of the table.
        lengths: [S], behaviours that count in each dense row; None is M.
        offsets: [S + 1], where each ragged sequence begins in keys.
        query_offsets: [S + 1], where the queries of each sequence or window begin; None: one each.
        starts, ends: [S]; window s is rows starts[s] to ends[s] - 1 of keys.
        mask: bool, shape of key_time; False is as if the behaviour were not there.
        exclude_future: nor is one whose key_time is at or after query_time.
    Returns:
        TopK(scores float32, indices int64), [S, k], [S, C, k] or [Q, k]; scores are the distances,
        negated; indices count from the start of the sequence or window; padded with -inf and -1.
    Raises:
        ValueError: an argument that does not fit; the message names it and the remedy.

    Example::

        >>> import torch, longclock as lc
        >>> hashes = lc.pack_signs(torch.tensor([[1.0, 1, -1], [-1, 1, 1], [1, 1, 1]]))
        >>> when, now = torch.tensor([[0, 60, 120]]), torch.tensor([180])
        >>> found = lc.hamming_gsu(hashes[:1], hashes[None], when, now, k=2)
        >>> found.indices, found.scores  # itself, and what differs in one bit
        (tensor([[0, 2]]), tensor([[ 0., -1.]]))
    """
    if isinstance(key_time, Tensor) and key_time.is_nested:
        keys, key_time, ids, places = flat_of_nested("hamming_gsu", keys, key_time, layout.get("ids"), layout)  # fmt: skip
        layout = cast(Layout, {**places, "ids": ids})
    require_rows("hamming_gsu", query=query, keys=keys)
    places = layout_arguments(key_time, query_time, **layout)
    return TopK(
        *call(
            raw.hamming_gsu.default, query=query, keys=keys, **places, k=check_k("hamming_gsu", k)
        )
    )


@fake("hamming_gsu")
def _(k: int, **given: Any) -> tuple[Tensor, Tensor]:
    check_k("hamming_gsu", k, SCORE)
    check_search("hamming_gsu", given)
    query = given["query"]
    shape = (*query.shape[:-1], k)
    return query.new_empty(shape, dtype=torch.float32), query.new_empty(shape)
