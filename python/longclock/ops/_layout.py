# SPDX-License-Identifier: Apache-2.0
"""The keywords of the searches, and their arguments by the names that raw ops have for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypedDict, cast

from torch import Tensor
from typing_extensions import Unpack

from longclock._checks import check_not_strided
from longclock._clocks import resolve_time
from longclock._mlp import require_number, require_tensor
from longclock.history.jagged import apart
from longclock.types import Clocks, Lookup, Mlp, QuantizedRows


class Sequences(TypedDict, total=False):
    """Which behaviours each query sees; which arguments are given tells the layout, see :class:`longclock.History`.

    dense: key_time [S, M], query [S, D] or [S, C, D], ``lengths`` [S] or None; ragged: key_time
    [T], query [Q, D], query_time [S], ``offsets`` [S + 1]; windows: key_time [T], query [Q, D], query_time [S],
    ``starts`` and ``ends`` [S]; of both, ``query_offsets`` [S + 1], or None: one query a sequence.
    """

    lengths: Tensor | None
    offsets: Tensor | None
    query_offsets: Tensor | None
    starts: Tensor | None
    ends: Tensor | None
    mask: Tensor | None
    exclude_future: bool


class Layout(Sequences, total=False):
    """The same for rows that may be looked up: ``ids`` (shape of key_time) makes ``keys`` a table [N, D]."""

    ids: Tensor | None


class TablesLayout(Sequences, total=False):
    """The same for rows of several tables side by side: ``keys`` and ``ids`` are tuples, see :class:`longclock.Lookup`."""

    ids: Tensor | tuple[Tensor | None, ...] | None


class SearchOptions(TablesLayout, total=False):
    """A layout, and what a score with s() takes beside it."""

    scale: float | None
    clocks: Clocks | None
    unit: float | tuple[float, ...] | None
    query_dtype: str | None


def tables_apart(
    op: str, keys: Any, key_time: Tensor, ids: Any, name: str = "keys"
) -> dict[str, Any]:
    """keys and ids, and what stands beside them: features and feature_ids, by the names that raw ops have for them.

    Args:
        name: what a caller calls keys.
    """
    if type(keys) not in (tuple, list):
        require_rows(op, **{name: keys})
        if isinstance(ids, (tuple, list)):
            raise ValueError(
                f"{op}: ids must be a tensor for one table, got a {type(ids).__name__}; a tuple of them is for a tuple of tables"
            )
        return {"keys": keys, "ids": ids, "features": None, "feature_ids": None}
    given = [None] * len(keys) if ids is None else ids
    if not isinstance(given, (tuple, list)) or len(given) != len(keys) or not keys:
        got = f"{len(given)} of them" if isinstance(given, (tuple, list)) else type(ids).__name__
        raise ValueError(f"{op}: ids must be a tuple of one for each of the {len(keys)} tables, got {got}")  # fmt: skip
    require_rows(op, **{f"{name}[{i}]": table for i, table in enumerate(keys)})
    features, feature_ids = [], []
    for table, rows in zip(keys[1:], given[1:], strict=True):
        own = rows is None  # which raw ops are told by ids without elements
        features.append(table.flatten(0, 1) if own and table.dim() == 3 else table)
        feature_ids.append(key_time.new_empty(0) if own else rows)
    return {"keys": keys[0], "ids": given[0], "features": features, "feature_ids": feature_ids}


def require_rows(op: str, **arguments: Tensor) -> None:
    """Searches take a table and its ids apart, where the attention takes a Lookup."""
    for name, value in arguments.items():
        if isinstance(value, Lookup):
            raise ValueError(
                f"{op}: {name} must be a tensor, got Lookup; "
                f"give its table as {name} and its ids as ids"
            )
        require_tensor(op, name, value)


def flat_of_nested(
    op: str, keys: Any, key_time: Tensor, ids: Any, layout: Mapping[str, Any], words: tuple[str, str] = ("keys", "key_time")
) -> tuple[Any, Any, Any, dict[str, Any]]:  # fmt: skip
    """Nested tensors of layout ``torch.jagged`` as keys, times, ids and layout of sequences one behind the other."""
    check_not_strided(op, **{words[0]: keys, words[1]: key_time}, ids=ids, mask=layout.get("mask"))
    for name in ("lengths", "offsets", "starts", "ends"):
        if layout.get(name) is not None:
            raise ValueError(f"{op}: {name} must be None where {words[1]} is nested and brings its own, got both")  # fmt: skip
    rows = keys if ids is None else Lookup(keys, ids)
    found = apart(op, rows, key_time, None, None, words)
    places = {"offsets": found.offsets, "starts": found.starts, "ends": found.ends}
    mask = layout.get("mask")
    if isinstance(mask, Tensor) and mask.is_nested:
        places["mask"] = mask.values()
    if ids is None:
        return found.rows, found.time, None, {**layout, **places}
    return found.rows.table, found.time, found.rows.ids, {**layout, **places}


def layout_arguments(
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
) -> dict[str, Any]:
    """The times and the layout, by the names that raw ops have for them."""
    return {
        "key_time": key_time, "query_time": query_time, "ids": ids, "lengths": lengths, "offsets": offsets,
        "query_offsets": query_offsets, "starts": starts, "ends": ends, "mask": mask,
        "exclude_future": exclude_future,
    }  # fmt: skip


def search_arguments(
    op: str,
    query: Tensor,
    keys: Tensor | QuantizedRows | tuple[Tensor, ...],
    key_time: Tensor,
    query_time: Tensor,
    mlp: Mlp,
    *,
    ids: Tensor | tuple[Tensor | None, ...] | None = None,
    scale: float | None = None,
    clocks: Clocks | None = None,
    unit: float | tuple[float, ...] | None = None,
    query_dtype: str | None = None,
    **layout: Unpack[Sequences],
) -> dict[str, Any]:
    """The arguments of a search with s(), by the names that raw ops have for them."""
    require_rows(op, query=query)
    if isinstance(key_time, Tensor) and key_time.is_nested:
        keys, key_time, ids, places = flat_of_nested(op, keys, key_time, ids, layout)
        layout = cast(Sequences, places)
    key_scale = None
    if isinstance(keys, QuantizedRows):
        keys, key_scale = keys
        require_rows(op, **{"keys.values": keys, "keys.scale": key_scale})
    rows = tables_apart(op, keys, key_time, ids)
    time = resolve_time(op, mlp, clocks, unit)
    places = layout_arguments(key_time, query_time, **layout)
    if scale is None:
        scale = 1.0 / math.sqrt(max(query.shape[-1], 1))
    else:
        scale = require_number(op, "scale", scale)
    if query_dtype is not None and not isinstance(query_dtype, str):
        raise ValueError(
            f"{op}: query_dtype must be 'float32', 'bfloat16', 'int8' or None, got {query_dtype!r}"
        )
    return {
        "query": query, **places, **rows, "scale": float(scale), **time.arguments(), "key_scale": key_scale,
        "query_dtype": query_dtype,
    }  # fmt: skip
