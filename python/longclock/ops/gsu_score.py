# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from longclock._library import raw
from longclock.ops._call import (
    ByName,
    call,
    differentiable,
    fake,
    forbid_double_backward,
    gradients_of,
    mlp_gradients,
)
from longclock.ops._errors import named_errors
from longclock.ops._layout import SearchOptions, search_arguments
from longclock.ops._shapes import check_search
from longclock.types import Mlp, QuantizedRows


@named_errors
def gsu_score(
    query: Tensor,
    keys: Tensor | QuantizedRows | tuple[Tensor, ...],
    key_time: Tensor,
    query_time: Tensor,
    mlp: Mlp,
    total: int | None = None,
    **options: Unpack[SearchOptions],
) -> Tensor:
    """Scores of Clock-GSU: how much each behaviour matters to each query, now.

    ``scale key_m . query + s(delta(t_m, t_now) / unit)``; -inf where a behaviour does not count.
    Differentiable in query, keys (or the table) and mlp; not with keys in bytes.
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
        total: elements of a flat result. None: T for ragged with one query a sequence, else
            counted, on the CPU only.
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
        float32 [S, M] or [S, C, M]; flat [total], query after query, for ragged and windows.
    Raises:
        ValueError: an argument that does not fit; the message names it and the remedy.

    Reads every key once: O(Q M D) operations, O(M D) bytes a sequence.

    Example::

        >>> import torch, longclock as lc
        >>> coffee, wine = torch.eye(2)
        >>> keys = torch.stack([coffee, wine, coffee])[None]
        >>> when, now = 3600 * torch.tensor([[8, 8, 20]]), torch.tensor([32 * 3600])
        >>> mlp = -torch.eye(1, 4), torch.tensor([4.0]), torch.ones(1), torch.zeros(1)  # relu(4 - x)
        >>> lc.gsu_score(coffee[None], keys, when, now, mlp, scale=2.0)  # 2 + 4, 0 + 4, 2 + 0
        tensor([[6., 4., 2.]])
    """
    arguments = search_arguments("gsu_score", query, keys, key_time, query_time, mlp, **options)
    counted = options.get("starts") is not None or options.get("query_offsets") is not None
    if total is None and counted and query.is_meta:
        raise ValueError(
            "gsu_score: total must be given on meta for windows and for ragged with query_offsets, got None; count it where "
            "the starts and ends are made"
        )
    scores: Tensor = call(raw.gsu_score.default, **arguments, total=total)
    return scores


@fake("gsu_score")
def _(total: int | None, **given: Any) -> Tensor:
    check_search("gsu_score", given)
    query, key_time = given["query"], given["key_time"]
    size: tuple[Any, ...]
    if key_time.dim() == 2:
        size = (*query.shape[:-1], key_time.shape[1])
    elif total is not None:
        size = (total,)
    elif given["query_offsets"] is None and given["starts"] is None:
        size = (key_time.shape[0],)
    else:
        size = (torch.library.get_ctx().new_dynamic_size(),)
    scores: Tensor = query.new_empty(size, dtype=torch.float32)
    return scores


@fake("gsu_score_backward")
def _(need_query: bool, need_keys: bool, need_mlp: bool, **given: Any) -> tuple[Tensor, ...]:
    check_search("gsu_score_backward", given)
    query, keys = given["query"], given["keys"]
    return (
        query.new_empty(query.shape if need_query else (0,)),
        keys.new_empty(keys.shape if need_keys else (0,)),
        *mlp_gradients(given, need_mlp),
    )


def _gradients(kept: ByName, grad: Tensor, needs: Mapping[str, Any]) -> ByName:
    """The scores are a sum over tables: each is asked by itself, with its columns of the query, and s with the first."""
    op = raw.gsu_score_backward.default
    if kept["key_scale"] is not None:
        raise RuntimeError(
            "gsu_score: gradients through keys in bytes are not implemented; train on the rows that they were made of, or score under "
            "torch.no_grad()"
        )
    features, feature_ids = kept["features"] or [], kept["feature_ids"] or []
    tables = [kept["keys"], *features]
    queries = kept["query"].split([table.shape[-1] for table in tables], -1)
    of_first = {**kept, "query": queries[0]}
    found: dict[str, Any] = dict(gradients_of(op, of_first, grad, needs))
    if not features:
        return found
    of_queries, of_features = [found["query"]], []
    mlp = dict.fromkeys(("w1", "b1", "w2", "b2"), False)
    time = kept["key_time"]
    for query, table, ids, need in zip(queries[1:], features, feature_ids, needs["features"], strict=True):  # fmt: skip
        own = ids.numel() == 0 and table.shape[0] == time.numel()
        keys = table.unflatten(0, time.shape) if own and time.dim() == 2 else table
        part = {**kept, "query": query, "keys": keys, "ids": None if own else ids}
        gradient = gradients_of(op, part, grad, {"query": needs["query"], "keys": need, **mlp})
        of_queries.append(gradient["query"])
        of_features.append(None if gradient["keys"] is None else gradient["keys"].view_as(table))
    if needs["query"]:
        found["query"] = torch.cat(of_queries, -1)
    return {**found, "features": of_features}


differentiable("gsu_score", gradients=_gradients)
forbid_double_backward("gsu_score", "gsu_score_backward")
