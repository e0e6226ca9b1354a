# SPDX-License-Identifier: Apache-2.0
"""Shapes and dtypes of a history and of the queries that look at it, in the compiled ops' words. Nothing is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

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
from longclock.quantize import LARGEST
from longclock.types import Lookup, QuantizedRows

if TYPE_CHECKING:
    from longclock.history.history import History

MAX_COUNT = 2**31 - 1  # behaviours of a sequence
MAX_TABLES = 8  # of a Lookup


class Words(NamedTuple):
    """What a caller calls the parts of a history, and the letter of a row's width, for its errors."""

    rows: str = "rows"
    time: str = "time"
    width: str = "L"


WORDS = Words()
OF_MODULE = Words("history.rows", "history.time")


def check_device(op: str, name: str, value: Tensor, time: Tensor) -> None:
    check(op, value.device == time.device, lambda: f"{name} must be on the device of time, {time.device}, got "
          f"{value.device}; move it there with .to()")  # fmt: skip


def check_combination(op: str, h: History, words: Words = WORDS) -> None:
    """Which parts go together: they tell the layout."""
    given, other = ("starts", "ends") if h.ends is None else ("ends", "starts")
    check(op, (h.starts is None) == (h.ends is None), lambda: f"{given} must come with {other} (windows), got {other}=None")  # fmt: skip
    check(op, h.starts is None or h.offsets is None, lambda: "starts must not be given with offsets; windows take starts and "
          "ends, ragged takes offsets")  # fmt: skip
    check(op, not h.is_dense or h.query_offsets is None, lambda: "query_offsets must come with offsets (ragged), or starts "
          "and ends (windows), got neither")  # fmt: skip
    check(op, h.is_dense or h.lengths is None, lambda: "lengths must be None for ragged and windows; it belongs to the "
          "dense layout")  # fmt: skip
    check(op, h.is_dense or h.time.dim() == 1, lambda: f"{words.time} must have shape [T] for ragged and windows, got "
          f"{shape_of(h.time)}; flatten the sequences into one")  # fmt: skip
    check(op, not h.is_dense or h.time.dim() == 2, lambda: f"{words.time} must have shape [S, M], got {shape_of(h.time)}; for "
          "flat sequences give offsets, or starts and ends")  # fmt: skip


def check_rows(op: str, h: History, words: Words = WORDS) -> None:
    """A row for every time, or tables."""
    rows = h.rows
    if not isinstance(rows, Lookup) or not rows.has_several:
        looked_up = isinstance(rows, Lookup)
        _check_part(op, h, h.table, looked_up, words.rows, words)
        table = rows.table if isinstance(rows, Lookup) else rows
        if isinstance(table, QuantizedRows):
            check_key_scale(op, f"{words.rows}.scale", table, h.time, looked_up, words)
        return
    assert isinstance(rows.table, tuple)
    given = rows.ids if isinstance(rows.ids, tuple) else ()
    check(op, 1 <= len(rows.table) <= MAX_TABLES and len(given) == len(rows.table), lambda: f"{words.rows} must be at most "
          f"{MAX_TABLES} tables, with ids for each, got {len(rows.table)} tables and ids for {len(given)}")  # fmt: skip
    for i, (table, ids) in enumerate(zip(rows.table, given, strict=True)):
        name = f"{words.rows}[{i}]"
        check(op, table.dtype == h.table.dtype, lambda name=name, table=table: f"{name} must be {dtype_of(h.table)} to match "  # type: ignore[misc]
              f"{words.rows}, got {dtype_of(table)}; convert it with .to()")  # fmt: skip
        _check_part(op, h, table, ids is not None, name, words)


def check_key_scale(
    op: str, name: str, rows: QuantizedRows, time: Tensor, looked_up: bool, words: Words
) -> None:
    """A scale for every row in bytes."""
    values, scale = rows
    check(op, values.dtype in LARGEST, lambda: f"{words.rows}.values must be int8 or float8_e4m3fn, got {dtype_of(values)}")  # fmt: skip
    check(op, scale.dtype == torch.float32, lambda: f"{name} must be float32, got {dtype_of(scale)}; convert it with .float()")  # fmt: skip
    if looked_up:
        check_shape(op, name, scale, {"N": values.shape[0]}, f"to match {words.rows}")
    else:
        check_same_shape(op, scale, time, lambda: f"{name} must have {words.time}'s shape {shape_of(time)}, got "
                         f"{shape_of(scale)}")  # fmt: skip


def _check_part(
    op: str, h: History, table: Tensor, looked_up: bool, name: str, words: Words
) -> None:
    """One of the tables that rows are made of."""
    dense, width = h.is_dense, words.width
    kind = (
        f"[N, {width}] with ids" if looked_up else f"[S, M, {width}] for dense histories" if dense
        else f"[T, {width}] with offsets, or starts and ends"
    )  # fmt: skip
    check(op, table.dim() == (3 if dense and not looked_up else 2), lambda: f"{name} must have shape {kind}, got "
          f"{shape_of(table)}" + (f"; for [T, {width}] pass offsets, or starts and ends" if dense else ""))  # fmt: skip
    if looked_up:
        return
    names = ("S", "M") if dense else ("T",)
    sizes = dict(zip(names, table.shape, strict=False))
    check_shape(op, words.time, h.time, sizes, f"to match {name}")


def check_places(op: str, h: History, words: Words = WORDS) -> None:
    """Lengths, offsets and bounds, then mask and ids, against the times."""
    if h.is_dense:
        sequences, columns = h.time.shape
        check(op, columns <= MAX_COUNT, lambda: f"M must be at most {MAX_COUNT}, got {columns}")
        if h.lengths is not None:
            like = words.time if isinstance(h.rows, Lookup) else words.rows
            check_ints(op, "lengths", h.lengths, {"S": sequences}, f"to match {like}")
    mask = h.mask
    if mask is not None:

        def wrong_mask() -> str:
            return f"mask must be bool of {words.time}'s shape {shape_of(h.time)}, got {dtype_of(mask)} {shape_of(mask)}"

        check(op, mask.dtype == torch.bool, wrong_mask)
        check_same_shape(op, mask, h.time, wrong_mask)
    if not isinstance(h.rows, Lookup):
        return
    several = h.rows.has_several
    for i, (_, ids) in enumerate(h.rows.parts()):
        if ids is None:
            continue
        name = f"ids[{i}]" if several else "ids"
        check_int(op, name, ids)
        check_same_shape(op, ids, h.time, lambda name=name, ids=ids: f"{name} must have {words.time}'s shape "  # type: ignore[misc]
                         f"{shape_of(h.time)}, got {shape_of(ids)}")  # fmt: skip


def check_history(op: str, h: History, words: Words = WORDS) -> None:
    """Shapes and dtypes of a history by itself; nothing is read."""
    check_combination(op, h, words)
    check_int(op, words.time, h.time)
    check_rows(op, h, words)
    if not h.is_dense:
        _check_bounds(op, h)
    check_places(op, h, words)


def _check_bounds(op: str, h: History) -> None:
    """One bound for each sequence or window, or one more."""
    parts = (("offsets", h.offsets, 1), ("starts", h.starts, 0), ("ends", h.ends, 0), ("query_offsets", h.query_offsets, 1))  # fmt: skip
    sequences = None
    for name, bound, more in parts:
        if bound is None:
            continue
        letters = "S + 1" if more else "S"
        check_int(op, name, bound)
        check(op, bound.dim() == 1 and bound.shape[0] >= more, lambda name=name, letters=letters, bound=bound:  # type: ignore[misc]
              f"{name} must have shape [{letters}], got {shape_of(bound)}")  # fmt: skip
        if sequences is None:
            sequences = bound.shape[0] - more
        check_shape(op, name, bound, {letters: sequences + more}, "as the other bounds")


def check_candidate(op: str, h: History, candidate: Tensor, width: int) -> None:
    """How many dimensions a layout's candidates may have."""
    if candidate.dim() > (3 if h.is_dense else 2):
        shapes = f"[S, {width}] or [S, C, {width}]" if h.is_dense else f"[Q, {width}]"
        several = "" if h.is_dense else "; give several of a sequence by query_offsets"
        raise ValueError(
            f"{op}: candidate must have shape {shapes}, got {list(candidate.shape)}{several}"
        )


def check_queries(
    op: str,
    h: History,
    queries: Sequence[Any],
    query_time: Tensor,
    query: str,
    words: Words,
    got: Sequence[Any],
) -> None:
    """Shapes of queries and their times against a history; nothing is read.

    Args:
        queries: the shape of the queries, without what follows it: [S], [S, C] or [Q].
        query, got: the argument that has this shape, and its own shape.
    """
    check_int(op, "query_time", query_time)
    one_each = h.starts is not None and h.query_offsets is None
    check(op, query_time.dim() == 1, lambda: f"query_time must have shape {'[Q]' if one_each else '[S]'}, got "
          f"{shape_of(query_time)}")  # fmt: skip
    if h.is_dense:
        sequences = h.time.shape[0]
        like = words.time if isinstance(h.rows, Lookup) else words.rows
        check_shape(op, "query_time", query_time, {"S": sequences}, f"to match {like}")
        check(op, queries[0] == sequences, lambda: f"{query} must have S = {sequences} in its first dimension to match "
              f"{like}, got {list(got)}")  # fmt: skip
        return
    sequences = query_time.shape[0]
    why = "to match query_time [S]"
    if one_each:
        check_shape(op, "query_time", query_time, {"Q": queries[0]}, f"to match {query}")
        why = f"to match {query}"
    letter = "Q" if one_each else "S"
    for name, bound in (("starts", h.starts), ("ends", h.ends)):
        if bound is not None:
            check_ints(op, name, bound, {letter: sequences}, why)
    for name, bound in (("offsets", h.offsets), ("query_offsets", h.query_offsets)):
        if bound is not None:
            check_ints(op, name, bound, {"S + 1": sequences + 1}, why)
    if h.offsets is not None and h.query_offsets is None:
        check_shape(op, "query_time", query_time, {"S": queries[0]},
                    f"to match {query}, one a sequence; pass query_offsets for more")  # fmt: skip
