# SPDX-License-Identifier: Apache-2.0
"""What the compiled ops check of shapes and dtypes, in the same order and words, for tensors that have nothing else.

Eager calls are checked by the ops themselves, which see more (csrc/search/search.cpp, csrc/esu_attention.cpp). Here are the same checks
for the fakes, so that ``torch.compile`` and ``torch.export`` refuse what an eager call refuses: tests/test_fakes.py holds the two
against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Given = Mapping[str, Any]
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
INTEGERS = (torch.int32, torch.int64)
MAX_COUNT = MAX_PERIOD = 2**31 - 1
MAX_HIDDEN = 64


def check(op: str, holds: Any, text: Callable[[], str]) -> None:
    """``holds`` may be of symbolic sizes: what is not known yet is asserted where it runs."""
    if isinstance(holds, torch.SymBool):
        torch._check(holds, lambda: f"{op}: {text()}")
    elif not holds:
        raise ValueError(f"{op}: {text()}")


def shape_of(tensor: Tensor) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"


def dtype_of(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def check_shape(op: str, name: str, tensor: Tensor, dims: Mapping[str, Any], why: str) -> None:
    sizes = list(dims.values())

    def text() -> str:
        wanted = ", ".join(map(str, sizes))
        return (
            f"{name} must have shape [{', '.join(dims)}] = [{wanted}] {why}, got {shape_of(tensor)}"
        )

    check(op, tensor.dim() == len(sizes), text)
    for size, got in zip(sizes, tensor.shape, strict=True):
        check(op, got == size, text)


def check_int(op: str, name: str, tensor: Tensor) -> None:
    check(op, tensor.dtype in INTEGERS, lambda: f"{name} must be int32 or int64, got {dtype_of(tensor)}; "
          f"convert with {name}.to(torch.int64)")  # fmt: skip


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


def check_mlp(op: str, a: Given) -> None:
    w1, b1, w2, b2 = (a[name] for name in ("w1", "b1", "w2", "b2"))
    for name in ("w1", "b1", "w2", "b2"):
        _check_weight(op, name, a[name])

    def text() -> str:
        return f"mlp w1 must have shape [h, 4] with h from 1 to {MAX_HIDDEN}, got {shape_of(w1)}"

    check(op, w1.dim() == 2, text)
    check(op, w1.shape[1] == 4, text)
    check(op, w1.shape[0] >= 1, text)
    check(op, w1.shape[0] <= MAX_HIDDEN, text)
    check_shape(op, "mlp b1", b1, {"h": w1.shape[0]}, "to match w1")
    check_shape(op, "mlp w2", w2, {"h": w1.shape[0]}, "to match w1")
    check(op, b2.dim() <= 1 and b2.numel() == 1,
          lambda: f"mlp b2 must be a scalar, got shape {shape_of(b2)}")  # fmt: skip


def check_period(op: str, period: Any) -> None:
    check(op, (period >= 1) & (period <= MAX_PERIOD), lambda: f"period must be from 1 to {MAX_PERIOD} seconds, got {period}; "
          "a day is 86400")  # fmt: skip


def _check_combination(op: str, a: Given) -> None:
    """Which arguments go together: they tell the layout."""
    starts, ends, offsets = a["starts"], a["ends"], a["offsets"]
    given, other = ("starts", "ends") if ends is None else ("ends", "starts")
    check(op, (starts is None) == (ends is None), lambda: f"{given} must come with {other} (windows), got {other}=None")  # fmt: skip
    check(op, starts is None or offsets is None, lambda: "starts must not be given with offsets; windows take starts and "
          "ends, ragged takes offsets")  # fmt: skip
    check(op, offsets is not None or a["query_offsets"] is None, lambda: "query_offsets must come with offsets (ragged), got "
          "offsets=None")  # fmt: skip
    flat = starts is not None or offsets is not None
    check(op, not flat or a["lengths"] is None, lambda: "lengths must be None for ragged and windows; it belongs to the "
          "dense layout")  # fmt: skip
    key_time = a["key_time"]
    check(op, not flat or key_time.dim() == 1, lambda: "key_time must have shape [T] for ragged and windows, got "
          f"{shape_of(key_time)}; flatten the sequences into one")  # fmt: skip
    check(op, flat or key_time.dim() == 2, lambda: f"key_time must have shape [S, M], got {shape_of(key_time)}; for flat "
          "sequences give offsets, or starts and ends")  # fmt: skip


def _check_words(op: str, name: str, words: Tensor) -> None:
    check(op, words.dtype == torch.int64, lambda: f"{name} must be int64, hashes in words of 64 bits, got {dtype_of(words)}; "
          "pack_signs makes them")  # fmt: skip


def check_search(op: str, a: Given) -> None:
    """The arguments of a search; one without s() compares hashes."""
    query, keys, key_time, query_time = (a[name] for name in ("query", "keys", "key_time", "query_time"))  # fmt: skip
    hashes = "w1" not in a
    if not hashes:
        check_mlp(op, a)
    _check_combination(op, a)
    if hashes:
        _check_words(op, "keys", keys)
        _check_words(op, "query", query)
    else:
        check_float(op, "keys", keys)
        check_matches(op, "query", query, "keys", keys)
    check_int(op, "key_time", key_time)
    check_int(op, "query_time", query_time)
    if not hashes:
        check_period(op, a["period"])
    ids, starts, offsets = a["ids"], a["starts"], a["offsets"]
    dense = starts is None and offsets is None
    kind = "[N, D] with ids" if ids is not None else "[S, M, D] for dense histories" if dense else "[T, D] with offsets, or starts and ends"  # fmt: skip
    check(op, keys.dim() == (3 if dense and ids is None else 2), lambda: f"keys must have shape {kind}, got {shape_of(keys)}"
          + ("; for [T, D] pass offsets, or starts and ends" if dense else ""))  # fmt: skip
    width = keys.shape[-1]
    check(op, query.dim() == 2 or (dense and query.dim() == 3),
          lambda: f"query must have shape {'[S, D] or [S, C, D]' if dense else '[Q, D]'}, got {shape_of(query)}")  # fmt: skip
    check(op, query.shape[-1] == width, lambda: f"query must have D = {width} in its last dimension to match keys, got "
          f"{shape_of(query)}")  # fmt: skip
    check(op, query_time.dim() == 1, lambda: f"query_time must have shape {'[S]' if starts is None else '[Q]'}, got "
          f"{shape_of(query_time)}")  # fmt: skip
    layout = _check_dense if dense else _check_ragged if starts is None else _check_windows
    layout(op, a)
    mask = a["mask"]
    if mask is not None:

        def wrong_mask() -> str:
            return f"mask must be bool of key_time's shape {shape_of(key_time)}, got {dtype_of(mask)} {shape_of(mask)}"

        check(op, mask.dtype == torch.bool and mask.dim() == key_time.dim(), wrong_mask)
        for got, size in zip(mask.shape, key_time.shape, strict=True):
            check(op, got == size, wrong_mask)
    if ids is not None:
        check_int(op, "ids", ids)

        def wrong_ids() -> str:
            return f"ids must have key_time's shape {shape_of(key_time)}, got {shape_of(ids)}"

        check(op, ids.dim() == key_time.dim(), wrong_ids)
        for got, size in zip(ids.shape, key_time.shape, strict=True):
            check(op, got == size, wrong_ids)


def _check_dense(op: str, a: Given) -> None:
    query, keys, key_time, query_time, ids = (a[name] for name in ("query", "keys", "key_time", "query_time", "ids"))  # fmt: skip
    sequences, columns = (keys if ids is None else key_time).shape[:2]
    like = "keys" if ids is None else "key_time"
    check_shape(op, "key_time", key_time, {"S": sequences, "M": columns}, "to match keys")
    check_shape(op, "query_time", query_time, {"S": sequences}, f"to match {like}")
    check(op, query.shape[0] == sequences, lambda: f"query must have S = {sequences} in its first dimension to match {like}, "
          f"got {shape_of(query)}")  # fmt: skip
    check(op, columns <= MAX_COUNT, lambda: f"M must be at most {MAX_COUNT}, got {columns}")
    if a["lengths"] is not None:
        _check_ints(op, "lengths", a["lengths"], {"S": sequences}, "to match keys")


def _check_ragged(op: str, a: Given) -> None:
    keys, key_time, query_time, ids = (a[name] for name in ("keys", "key_time", "query_time", "ids"))  # fmt: skip
    why, sequences = "to match query_time [S]", query_time.shape[0]
    if ids is None:
        check_shape(op, "key_time", key_time, {"T": keys.shape[0]}, "to match keys")
    _check_ints(op, "offsets", a["offsets"], {"S + 1": sequences + 1}, why)
    if a["query_offsets"] is not None:
        _check_ints(op, "query_offsets", a["query_offsets"], {"S + 1": sequences + 1}, why)
    else:
        check_shape(op, "query_time", query_time, {"S": a["query"].shape[0]},
                    "to match query, one a sequence; pass query_offsets for more")  # fmt: skip


def _check_windows(op: str, a: Given) -> None:
    queries, key_time = a["query"].shape[0], a["key_time"]
    check_shape(op, "query_time", a["query_time"], {"Q": queries}, "to match query")
    if a["ids"] is None:
        check_shape(op, "key_time", key_time, {"T": a["keys"].shape[0]}, "to match keys")
    _check_ints(op, "starts", a["starts"], {"Q": queries}, "to match query")
    _check_ints(op, "ends", a["ends"], {"Q": queries}, "to match query")


def _check_ints(op: str, name: str, tensor: Tensor, dims: Mapping[str, Any], why: str) -> None:
    check_int(op, name, tensor)
    check_shape(op, name, tensor, dims, why)


def check_attention(op: str, a: Given) -> None:
    """The arguments of esu_attention, and of its backward but for what that adds."""
    u, z, ids, z_time, query_time, valid = (a[name] for name in ("u", "z", "ids", "z_time", "query_time", "valid"))  # fmt: skip
    check_mlp(op, a)
    check_float(op, "z", z)
    check_matches(op, "u", u, "z", z)
    check_int(op, "z_time", z_time)
    check_int(op, "query_time", query_time)
    check_period(op, a["period"])
    check(op, u.dim() == 3, lambda: f"u must have shape [Q, n, L], got {shape_of(u)}")
    queries, _, width = u.shape

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
        _check_ints(op, "ids", ids, size, "to match z_time")
    else:
        check_shape(op, "z", z, {**size, "L": width}, "to match u and z_time")
    check_shape(op, "query_time", query_time, {"Q": queries}, "to match u")
    if valid is not None:
        _check_valid(op, valid, size, "to match z_time")


def _check_valid(op: str, valid: Tensor, size: Mapping[str, Any], why: str) -> None:
    check(op, valid.dtype == torch.bool, lambda: f"valid must be bool, got {dtype_of(valid)}")
    check_shape(op, "valid", valid, size, why)
