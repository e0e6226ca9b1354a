# SPDX-License-Identifier: Apache-2.0
"""What the compiled ops check of shapes and dtypes, in the same words, for tensors that have nothing else.

Eager calls are checked by the ops themselves, which see more (csrc/search, csrc/esu_attention.cpp). Here are the same checks for the
fakes, so that ``torch.compile`` and ``torch.export`` refuse what an eager call refuses: tests/test_fakes.py holds the two against each
other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from longclock._checks import (
    check,
    check_int,
    check_ints,
    check_same_shape,
    check_shape,
    dtype_of,
    shape_of,
)
from longclock.history.checks import (
    MAX_TABLES,
    Words,
    check_combination,
    check_places,
    check_queries,
    check_rows,
)
from longclock.history.history import LAYOUT, History, from_arguments
from longclock.quantize import LARGEST

Given = Mapping[str, Any]
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
MAX_PERIOD = 2**31 - 1
MAX_CLOCKS = 4
MAX_HIDDEN = 64
MAX_INT8_DIM = 1024  # whose products with int8 queries a float holds exactly
QUERY_DTYPES = ("float32", "bfloat16", "int8")
OF_SEARCH = Words("keys", "key_time", "D")
OF_ATTENTION = Words("z", "z_time")


def _remedy(op: str, tensor: Tensor) -> str:
    public = op.removesuffix("_backward").removesuffix("_table_grad")
    double = tensor.dtype == torch.float64
    return f"longclock.reference.{public} takes float64" if double else "convert it with .float()"


def check_float(op: str, name: str, tensor: Tensor) -> None:
    check(op, tensor.dtype in FLOATS, lambda: f"{name} must be float32, float16 or bfloat16, got {dtype_of(tensor)}; "
          f"{_remedy(op, tensor)}")  # fmt: skip


def check_matches(op: str, name: str, tensor: Tensor, rows_name: str, rows: Tensor) -> None:
    check_float(op, name, tensor)
    either = "" if rows.dtype == torch.float32 else "float32, or "
    check(op, tensor.dtype in (rows.dtype, torch.float32), lambda: f"{name} must be {either}{dtype_of(rows)} to match "
          f"{rows_name}, got {dtype_of(tensor)}; convert it with .to({rows_name}.dtype)")  # fmt: skip


def _check_weight(op: str, name: str, weight: Tensor) -> None:
    check(op, weight.dtype == torch.float32,
          lambda: f"mlp {name} must be float32, got {dtype_of(weight)}; {_remedy(op, weight)}")  # fmt: skip


def check_mlp(op: str, a: Given, clocks: int = 1) -> None:
    """The parameters of s, of one clock or stacked."""
    w1, b1, w2, b2 = (a[name] for name in ("w1", "b1", "w2", "b2"))
    for name in ("w1", "b1", "w2", "b2"):
        _check_weight(op, name, a[name])
    most = MAX_HIDDEN // clocks

    def text() -> str:
        stacked = f"[C, h, 4] with C = {clocks} clocks and" if clocks > 1 else "[h, 4] with"
        return f"mlp w1 must have shape {stacked} h from 1 to {most}, got {shape_of(w1)}"

    check(op, w1.dim() == (2 if clocks == 1 else 3), text)
    check(op, clocks == 1 or w1.shape[0] == clocks, text)
    hidden = w1.shape[-2]
    check(op, w1.shape[-1] == 4, text)
    check(op, hidden >= 1, text)
    check(op, hidden <= most, text)
    dims = {"h": hidden} if clocks == 1 else {"C": clocks, "h": hidden}
    check_shape(op, "mlp b1", b1, dims, "to match w1")
    check_shape(op, "mlp w2", w2, dims, "to match w1")
    if clocks > 1:
        check_shape(op, "mlp b2", b2, {"C": clocks}, "to match w1")
    else:
        check(op, b2.dim() <= 1 and b2.numel() == 1,
              lambda: f"mlp b2 must be a scalar, got shape {shape_of(b2)}")  # fmt: skip


def check_period(op: str, period: Any) -> None:
    check(op, (period >= 1) & (period <= MAX_PERIOD), lambda: f"period must be from 1 to {MAX_PERIOD} seconds, got {period}; "
          "a day is 86400")  # fmt: skip


def _check_clock(op: str, period: Any) -> None:
    check(op, 0 <= period <= MAX_PERIOD, lambda: f"periods must be from 1 to {MAX_PERIOD} seconds, or 0 for the time elapsed, "
          f"got {period}; a day is 86400")  # fmt: skip


def _check_unit(op: str, unit: Any) -> None:
    usable = unit > 0 and math.isfinite(unit) and math.isfinite(1 / unit)
    check(op, usable, lambda: f"units must be a positive number of seconds, got {unit:g}; an hour is 3600")  # fmt: skip


def check_time(op: str, a: Given) -> None:
    """The clocks and the parameters of s."""
    periods, units = a["periods"], a["units"]
    clocks = len(periods)
    check(op, 1 <= clocks <= MAX_CLOCKS, lambda: f"periods must be of 1 to {MAX_CLOCKS} clocks, got {clocks}")  # fmt: skip
    check(op, len(units) == clocks, lambda: f"units must be one for each of periods, {clocks}, got {len(units)}")  # fmt: skip
    for period, unit in zip(periods, units, strict=True):
        _check_clock(op, period)
        _check_unit(op, unit)
    check_mlp(op, a, clocks)


def _check_words(op: str, name: str, words: Tensor) -> None:
    check(op, words.dtype == torch.int64, lambda: f"{name} must be int64, hashes in words of 64 bits, got {dtype_of(words)}; "
          "pack_signs makes them")  # fmt: skip


def layout_of(a: Given) -> dict[str, Any]:
    return {name: a[name] for name in LAYOUT}


def check_search(op: str, a: Given) -> None:
    """The arguments of a search; one without s() compares hashes."""
    query, keys = a["query"], a["keys"]
    hashes = "w1" not in a
    history = from_arguments(keys, a["key_time"], a["ids"], **layout_of(a))
    features, feature_ids = a.get("features") or (), a.get("feature_ids") or ()
    check_combination(op, history, OF_SEARCH)
    if hashes:
        _check_words(op, "keys", keys)
        _check_words(op, "query", query)
    else:
        check_time(op, a)
        _check_dtypes(op, a)
    check_int(op, "key_time", a["key_time"])
    check_int(op, "query_time", a["query_time"])
    dense = history.is_dense
    check_rows(op, history, OF_SEARCH)
    check(op, query.dim() == 2 or (dense and query.dim() == 3),
          lambda: f"query must have shape {'[S, D] or [S, C, D]' if dense else '[Q, D]'}, got {shape_of(query)}")  # fmt: skip
    width = keys.shape[-1] + _feature_columns(op, OF_SEARCH, features)
    check(op, query.shape[-1] == width, lambda: f"query must have D = {width} in its last dimension to match "
          f"keys, got {shape_of(query)}")  # fmt: skip
    check_queries(op, history, query.shape[:-1], a["query_time"], "query", OF_SEARCH, query.shape)
    check_places(op, history, OF_SEARCH)
    if _has_quantized_keys(a):
        _check_key_scale(op, a, features)
    _check_features(op, OF_SEARCH, keys, history.time, features, feature_ids)
    check(op, keys.dtype != torch.float8_e4m3fn or keys.device.type != "cpu", lambda: "keys must be int8 or floats of 16 or 32 bits on "
          "the CPU, got float8_e4m3fn, which CUDA alone reads; quantize_rows makes int8")  # fmt: skip


def _has_quantized_keys(a: Given) -> bool:
    """Of an op that takes them."""
    return "key_scale" in a and a["keys"].dtype in LARGEST


def _check_dtypes(op: str, a: Given) -> None:
    query, keys = a["query"], a["keys"]
    dtype = a.get("query_dtype")
    if not _has_quantized_keys(a):
        check_float(op, "keys", keys)
        check_matches(op, "query", query, "keys", keys)
        check(op, a.get("key_scale") is None, lambda: f"key_scale must be None for {dtype_of(keys)} keys; rows in bytes have it")  # fmt: skip
        check(op, dtype is None, lambda: f"query_dtype must be None for {dtype_of(keys)} keys, got {dtype!r}; a query is rounded to "
              "its keys' dtype")  # fmt: skip
        return
    check(op, a["key_scale"] is not None, lambda: f"key_scale must be a tensor for {dtype_of(keys)} keys, got None; quantize_rows makes both")  # fmt: skip
    check_float(op, "query", query)
    names = ", ".join(map(repr, QUERY_DTYPES))
    check(op, dtype is None or dtype in QUERY_DTYPES, lambda: f"query_dtype must be {names} or None, got {dtype!r}")  # fmt: skip
    check(op, dtype != "int8" or keys.dtype == torch.int8, lambda: f"query_dtype must not be 'int8' for {dtype_of(keys)} keys; take "
          "'bfloat16'")  # fmt: skip


def _check_key_scale(op: str, a: Given, features: Sequence[Tensor]) -> None:
    keys, scale, key_time, width = a["keys"], a["key_scale"], a["key_time"], a["keys"].shape[-1]
    check(op, a["query_dtype"] != "int8" or width <= MAX_INT8_DIM, lambda: "query_dtype must not be 'int8' for keys of more than "
          f"{MAX_INT8_DIM} columns, got D = {width}; take 'bfloat16'")  # fmt: skip
    check(op, not features, lambda: f"keys must be one table where they are {dtype_of(keys)}, got {len(features) + 1}; widen them, or put the "
          "rows side by side")  # fmt: skip
    check(op, scale.dtype == torch.float32, lambda: f"key_scale must be float32, got {dtype_of(scale)}; convert it with .float()")  # fmt: skip
    if a["ids"] is not None:
        check_shape(op, "key_scale", scale, {"N": keys.shape[0]}, "to match keys")
    else:
        check_same_shape(op, scale, key_time, lambda: f"key_scale must have key_time's shape {shape_of(key_time)}, got "
                         f"{shape_of(scale)}")  # fmt: skip


def _feature_columns(op: str, words: Words, features: Sequence[Tensor]) -> Any:
    """Of all tables beside the first."""
    for i, table in enumerate(features, 1):
        check(op, table.dim() == 2, lambda i=i, table=table: f"{words.rows}[{i}] must have shape [N, {words.width}] with ids, "  # type: ignore[misc]
              f"got {shape_of(table)}")  # fmt: skip
    return sum(table.shape[1] for table in features)


def _check_features(
    op: str,
    words: Words,
    rows: Tensor,
    time: Tensor,
    features: Sequence[Tensor],
    feature_ids: Sequence[Tensor],
) -> None:
    """The tables beside the first, and their ids, which have no elements where every behaviour has a row."""
    name = words.rows
    fits = len(features) < MAX_TABLES and len(feature_ids) == len(features)
    check(op, fits, lambda: f"{name} must be at most {MAX_TABLES} tables, with ids for each, got {len(features) + 1} tables "
          f"and ids for {len(feature_ids) + 1}")  # fmt: skip
    for i, (table, ids) in enumerate(zip(features, feature_ids, strict=True), 1):
        check(op, table.dtype == rows.dtype, lambda i=i, table=table: f"{name}[{i}] must be {dtype_of(rows)} to match {name}, got "  # type: ignore[misc]
              f"{dtype_of(table)}; convert it with .to()")  # fmt: skip
        check_int(op, f"ids[{i}]", ids)
        if ids.dim() == 1 and ids.shape[0] == 0:
            check(op, time.numel() == 0 or table.shape[0] == time.numel(), lambda i=i, table=table: f"{name}[{i}] must have a "  # type: ignore[misc]
                  f"row for every behaviour, where it has no ids, got {shape_of(table)}")  # fmt: skip
        else:
            check_same_shape(op, ids, time, lambda i=i, ids=ids: f"ids[{i}] must have {words.time}'s shape, got {shape_of(ids)}")  # type: ignore[misc] # fmt: skip


def check_indices(op: str, history: History, found: Tensor) -> None:
    """What a search found in a layout."""
    check(op, found.dtype == torch.int64, lambda: f"found must be int64, got {dtype_of(found)}; pass the indices of a search")  # fmt: skip
    dense = history.is_dense
    check(op, found.dim() == 2 or (dense and found.dim() == 3), lambda: "found must have shape "
          f"{'[S, K] or [S, C, K]' if dense else '[Q, K]'}, got {shape_of(found)}")  # fmt: skip


def check_positions(op: str, a: Given) -> None:
    """The arguments of esu_attention_positions."""
    found = a["found"]
    history = History(found, a["key_time"], **layout_of(a))  # whose rows are not looked at
    words = Words("key_time", "key_time")
    check_combination(op, history, words)
    check_int(op, "key_time", history.time)
    check_indices(op, history, found)
    check_queries(op, history, found.shape[:-1], a["query_time"], "found", words, found.shape)
    check_places(op, history, words)


def check_attention(op: str, a: Given) -> None:
    """The arguments of esu_attention, and of its backward but for what that adds."""
    u, z, z_time, query_time = (a[name] for name in ("u", "z", "z_time", "query_time"))
    check_time(op, a)
    check_float(op, "z", z)
    check_matches(op, "u", u, "z", z)
    check_int(op, "z_time", z_time)
    check_int(op, "query_time", query_time)
    check(op, u.dim() == 3, lambda: f"u must have shape [Q, n, L], got {shape_of(u)}")
    width = _own_width(op, a)
    if a["positions"] is None:
        _check_own_rows(op, a, width)
    else:
        _check_found_rows(op, a, width)
    check_shape(op, "query_time", query_time, {"Q": u.shape[0]}, "to match u")
    _check_features(op, OF_ATTENTION, z, z_time, a["features"] or (), a["feature_ids"] or ())


def _own_width(op: str, a: Given) -> Any:
    """Columns of z, which are those of u but for those of features."""
    u, z, features = a["u"], a["z"], a["features"]
    if not features:
        return u.shape[2]
    own = z.shape[-1] if z.dim() else 0
    width = own + _feature_columns(op, OF_ATTENTION, features)
    check(op, u.shape[2] == width, lambda: f"u must have L = {width} in its last dimension to match z, got "
          f"{shape_of(u)}")  # fmt: skip
    return own


def _check_own_rows(op: str, a: Given, width: Any) -> None:
    """K rows, times and ids a query."""
    u, z, ids, z_time, valid = (a[name] for name in ("u", "z", "ids", "z_time", "valid"))
    queries = u.shape[0]

    def wrong_times() -> str:
        return f"z_time must have shape [Q, K] with Q = {queries} to match u, got {shape_of(z_time)}"  # fmt: skip

    check(op, z_time.dim() == 2, wrong_times)
    check(op, z_time.shape[0] == queries, wrong_times)
    size = {"Q": queries, "K": z_time.shape[1]}
    if ids is not None:

        def wrong_table() -> str:
            return f"the table must have shape [N, L] with L = {width} to match u, got {shape_of(z)}"  # fmt: skip

        check(op, z.dim() == 2, wrong_table)
        check(op, z.shape[1] == width, wrong_table)
        check_ints(op, "ids", ids, size, "to match z_time")
    else:
        check_shape(op, "z", z, {**size, "L": width}, "to match u and z_time")
    if valid is not None:
        _check_valid(op, valid, size, "to match z_time")


def _check_found_rows(op: str, a: Given, width: Any) -> None:
    """Rows, times and ids of whole histories, and where in them the K of a query lie."""
    u, z, ids, z_time, positions = (a[name] for name in ("u", "z", "ids", "z_time", "positions"))
    queries = u.shape[0]

    def wrong_positions() -> str:
        return f"positions must have shape [Q, K] with Q = {queries} to match u, got {shape_of(positions)}"

    check(op, positions.dtype == torch.int64, lambda: f"positions must be int64, got {dtype_of(positions)}")  # fmt: skip
    check(op, positions.dim() == 2, wrong_positions)
    check(op, positions.shape[0] == queries, wrong_positions)
    check(op, a["valid"] is None, lambda: "valid must be None with positions; one below 0 is not valid")  # fmt: skip
    check(op, z_time.dim() == 1, lambda: f"z_time must have shape [T] with positions, got {shape_of(z_time)}")  # fmt: skip

    def wrong_rows() -> str:
        letter = "T" if ids is None else "N"
        return f"z must have shape [{letter}, L] with L = {width} to match u, got {shape_of(z)}"

    check(op, z.dim() == 2, wrong_rows)
    check(op, z.shape[1] == width, wrong_rows)
    if ids is not None:
        check_ints(op, "ids", ids, {"T": z_time.shape[0]}, "to match z_time")
    else:
        check_shape(op, "z_time", z_time, {"T": z.shape[0]}, "to match z")


def check_table_grad(op: str, a: Given) -> None:
    """The arguments of esu_attention_table_grad."""
    z_grad, ids, positions, rows = (a[name] for name in ("z_grad", "ids", "positions", "table_rows"))  # fmt: skip
    check_float(op, "z_grad", z_grad)
    check(op, z_grad.dim() == 3, lambda: f"z_grad must have shape [Q, K, L], got {shape_of(z_grad)}")  # fmt: skip
    check(op, rows >= 0, lambda: f"table_rows must be at least 0, got {rows}")
    size = {"Q": z_grad.shape[0], "K": z_grad.shape[1]}
    check_int(op, "ids", ids)
    if positions is None:
        check_shape(op, "ids", ids, size, "to match z_grad")
    else:
        check(op, positions.dtype == torch.int64, lambda: f"positions must be int64, got {dtype_of(positions)}")  # fmt: skip
        check_shape(op, "positions", positions, size, "to match z_grad")
        check(op, ids.dim() == 1, lambda: f"ids must have shape [T] with positions, got {shape_of(ids)}")  # fmt: skip
    if a["valid"] is not None:
        _check_valid(op, a["valid"], size, "to match z_grad")


def _check_valid(op: str, valid: Tensor, size: Mapping[str, Any], why: str) -> None:
    check(op, valid.dtype == torch.bool, lambda: f"valid must be bool, got {dtype_of(valid)}")
    check_shape(op, "valid", valid, size, why)
