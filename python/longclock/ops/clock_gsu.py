# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from longclock._library import raw
from longclock.ops._call import SCORE, call, check_k, fake, not_differentiable
from longclock.ops._errors import named_errors
from longclock.ops._layout import SearchOptions, search_arguments
from longclock.ops._shapes import check_search
from longclock.types import Mlp, QuantizedRows, TopK


@named_errors
def clock_gsu(
    query: Tensor,
    keys: Tensor | QuantizedRows | tuple[Tensor, ...],
    key_time: Tensor,
    query_time: Tensor,
    mlp: Mlp,
    k: int = 100,
    **options: Unpack[SearchOptions],
) -> TopK:
    """Clock-GSU: the k behaviours that matter most to each query, now.

    The best k by ``scale key_m . query + s(delta(t_m, t_now) / unit)``, score descending, then
    index ascending; NaN before every number. The scores never lie in memory. Not differentiable:
    a search that trains scores what it found with ``gsu_score``, or attends with ``esu_attention``.
    Source: Long-term Interest Clock, arXiv 2501.15817.

    Args:
        query: [S, D], [S, C, D] or [Q, D]; keys' dtype, or float32.
        keys: [S, M, D] or [T, D], float32, float16 or bfloat16; the table [N, D] where ``ids`` is
            given. Table rows are gathered in the kernel. A tuple of up to eight tables, with a tuple of ids (None: a row
            a behaviour), is their rows side by side, which are never made, see :class:`longclock.Lookup`; D is the sum.
            Or :class:`longclock.QuantizedRows` of one table or a row a behaviour.
        key_time, query_time: int32 or int64, seconds; [S, M] and [S]; [T] and [S] (ragged);
            [T] and [S] (windows). Keys (or ids) and key_time may be nested tensors of layout ``torch.jagged``: ragged,
            by their offsets.
        mlp: (w1, b1, w2, b2), float32, or a TimeSimilarity; of C > 1 clocks [C, h, 4], [C, h], [C, h] and [C].
        k: 0 to 2048.
        ids: [S, M] or [T], rows of the table; a tuple of them for several.
        lengths: [S], behaviours that count in each dense row; None is M.
        offsets: [S + 1], where each ragged sequence begins in keys.
        query_offsets: [S + 1], where the queries of each sequence or window begin; None: one each.
        starts, ends: [S]; window s is rows starts[s] to ends[s] - 1 of keys.
        mask: bool, shape of key_time; False is as if the behaviour were not there.
        exclude_future: nor is one whose key_time is at or after query_time.
        scale: None is 1 / sqrt(D), right for one head; 1 / (n sqrt(d)) for n heads of width d.
        clocks: a period in seconds, ``ELAPSED``, or a tuple of up to 4 of them, whose s add up; None: the module's, else a day.
        unit: seconds of one x, one number or one a clock; None: the module's, else 3,600, of ``ELAPSED`` 60.
        query_dtype: of keys in bytes, to what a query is rounded: "float32", "bfloat16", or of int8 keys "int8" as ``quantize_rows``
            does, D up to 1,024; None: nothing, it may be of any of the float dtypes.
    Returns:
        TopK(scores float32, indices int64), [S, k], [S, C, k] or [Q, k]; indices count from the
        start of the sequence or window; padded with -inf and -1.
    Raises:
        ValueError: an argument that does not fit; the message names it and the remedy.

    Reads every key once: O(Q M D) operations, O(M D) bytes a sequence, O(k) memory a query.

    Example::

        >>> import torch, longclock as lc
        >>> coffee, wine = torch.eye(2)
        >>> keys = torch.stack([coffee, wine, coffee, coffee])[None]
        >>> when, now = 3600 * torch.tensor([[8, 20, 20, 9]]), torch.tensor([32 * 3600])
        >>> found = lc.clock_gsu(coffee[None], keys, when, now, lc.TimeSimilarity(), k=3)
        >>> found.indices  # the next day at 8:00: coffee of 8:00, 9:00 and 20:00
        tensor([[0, 3, 2]])
    """
    arguments = search_arguments("clock_gsu", query, keys, key_time, query_time, mlp, **options)
    return TopK(*call(raw.clock_gsu.default, **arguments, k=check_k("clock_gsu", k)))


@fake("clock_gsu")
def _(k: int, **given: Any) -> tuple[Tensor, Tensor]:
    check_k("clock_gsu", k, SCORE)
    check_search("clock_gsu", given)
    query = given["query"]
    shape = (*query.shape[:-1], k)
    return (
        query.new_empty(shape, dtype=torch.float32),
        query.new_empty(shape, dtype=torch.int64),
    )


not_differentiable("clock_gsu")
