# SPDX-License-Identifier: Apache-2.0
"""The history of a call, checked, and every layout as windows of one list of behaviours. Bounds are read, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from longclock._checks import check
from longclock._torch_state import has_values, reads_values
from longclock.history.checks import OF_MODULE, check_history, check_queries
from longclock.history.history import History, require_history
from longclock.types import Lookup, QuantizedRows


def check_call(
    op: str,
    h: Any,
    queries: Sequence[Any],
    query_time: Tensor,
    got: Sequence[Any],
) -> None:
    """A history and the candidates of a module's call, as :func:`check_history` and :func:`check_queries`."""
    require_history(op, h)
    for name, value in (("query_time", query_time), ("history.time", h.time)):
        check(op, isinstance(value, Tensor), lambda name=name, value=value: f"{name} must be a tensor, got "  # type: ignore[misc]
              f"{type(value).__name__}")  # fmt: skip
    check_history(op, h, OF_MODULE)
    check_queries(op, h, queries, query_time, "candidate", OF_MODULE, got)


def _first(wrong: Tensor) -> int | None:
    """Where the first True is; None where there is none, or where nothing can be read."""
    if not has_values(wrong) or not wrong.any():
        return None
    return int(wrong.to(torch.uint8).argmax())


def _check_offsets(op: str, name: str, offsets: Tensor, end: str, last: int) -> None:
    if not has_values(offsets):
        return
    for what, at, expected, told in (("start", 0, 0, "0"), ("end", -1, last, end)):
        if int(offsets[at]) != expected:
            raise ValueError(f"{op}: {name} must {what} at {told}, got {int(offsets[at])}")
    falls = _first(offsets[1:] < offsets[:-1])
    if falls is not None:
        before, after = offsets[falls : falls + 2].tolist()
        raise ValueError(
            f"{op}: {name} must not decrease, got {before} then {after} at {falls + 1}"
        )


def bounds_of(op: str, h: History) -> tuple[Tensor, Tensor]:
    """Where each sequence or window of a checked history begins and ends among its flattened behaviours: int64 [S] twice.

    The values are checked, which on a GPU waits for them.
    """
    places = h.time.numel()
    if h.offsets is not None:
        _check_offsets(op, "offsets", h.offsets, f"T = {places}", places)
        return h.offsets[:-1].long(), h.offsets[1:].long()
    if h.starts is not None and h.ends is not None:
        starts, ends = h.starts.long(), h.ends.long()
        at = _first((starts < 0) | (ends < starts) | (ends > places))
        if at is not None:
            raise ValueError(
                f"{op}: starts and ends must satisfy 0 <= start <= end <= T = {places}, got {int(starts[at])} and "
                f"{int(ends[at])} at {at}"
            )
        return starts, ends
    sequences, columns = h.time.shape
    starts = torch.arange(sequences, device=h.time.device) * columns
    if h.lengths is None:
        return starts, starts + columns
    at = _first((h.lengths < 0) | (h.lengths > columns))
    if at is not None:
        raise ValueError(
            f"{op}: lengths must be from 0 to M = {columns}, got {int(h.lengths[at])} at {at}"
        )
    return starts, starts + h.lengths


def within(op: str, h: History) -> Tensor:
    """Which of a checked history's flattened behaviours lie in a sequence or window and are not masked out, bool [T]."""
    starts, ends = bounds_of(op, h)
    steps = starts.new_zeros(h.time.numel() + 1)
    steps = steps.index_add(0, starts, torch.ones_like(starts)).index_add(0, ends, -torch.ones_like(ends))  # fmt: skip
    inside = steps.cumsum(0)[:-1] > 0
    return inside if h.mask is None else inside & h.mask.flatten()


def each_query(
    op: str, h: History, queries: Sequence[int], *of_sequences: Tensor, wait: bool = True
) -> tuple[Tensor, ...]:
    """Rows of the sequences of a checked call, [S, ...] each, as one row a query: [Q, ...] each.

    Args:
        wait: offsets are checked on every device, which on a GPU waits for them; False: on the CPU alone.
    """
    if h.query_offsets is not None:
        if wait or reads_values(h.query_offsets):
            _check_offsets(op, "query_offsets", h.query_offsets, f"Q = {queries[0]}", queries[0])
        return tuple(_repeated(row, h.query_offsets, queries[0]) for row in of_sequences)
    if len(queries) == 2:  # [S, C]: one history, C queries
        return tuple(row.repeat_interleave(queries[1], 0) for row in of_sequences)
    return of_sequences


def _repeated(of_sequences: Tensor, query_offsets: Tensor, queries: int) -> Tensor:
    """A row a query, whatever the offsets say where they cannot be read."""
    if not len(of_sequences):
        return of_sequences.new_zeros(queries, *of_sequences.shape[1:])
    query = torch.arange(queries, dtype=query_offsets.dtype, device=query_offsets.device)
    sequence = torch.searchsorted(query_offsets[1:].contiguous(), query, right=True)
    return of_sequences[sequence.clamp(max=len(of_sequences) - 1)]


def flattened(h: History) -> History:
    """The same behaviours in one list, their layout left out."""
    rows = h.rows
    if h.is_dense:
        rows = rows.mapped(_flat) if isinstance(rows, (QuantizedRows, Lookup)) else _flat(rows)
    return History(rows, h.time.flatten(), mask=None if h.mask is None else h.mask.flatten())


def _flat(of_sequences: Tensor) -> Tensor:
    return of_sequences.flatten(0, 1)


def edges_of(windows: History) -> tuple[Tensor, Tensor]:
    """``starts`` and ``ends`` of what :func:`windows_of` gave."""
    assert windows.starts is not None
    assert windows.ends is not None
    return windows.starts, windows.ends


def windows_of(op: str, h: History, queries: Sequence[int]) -> History:
    """A checked call as windows of the flattened behaviours, one for each of its Q queries."""
    starts, ends = each_query(op, h, queries, *bounds_of(op, h))
    return flattened(h)._replace(starts=starts, ends=ends)


def everything(
    op: str, h: History, candidate: Tensor, query_time: Tensor, longest: int | None
) -> Tensor:
    """Every behaviour of each query, as a search for all of them would find: int64 [*queries, longest].

    Args:
        op, candidate, query_time: who asks, and the queries, [*queries, H], with their times, which are checked.
        longest: the most behaviours of a query; None: M, or counted, on the CPU and outside graphs only.
    """
    queries = candidate.shape[:-1]
    check_call(op, h, queries, query_time, got=candidate.shape)
    if h.is_dense:
        longest, counts = h.time.shape[1], h.lengths
    else:
        of_sequences = h.offsets if h.offsets is not None else h.starts
        assert of_sequences is not None
        if reads_values(of_sequences):
            starts, ends = bounds_of(op, h)
            counts = ends - starts
        else:
            counts = h.offsets.diff() if h.offsets is not None else h.ends - of_sequences  # type: ignore[operator]
        longest = min(_longest(op, counts, longest), h.time.shape[0])
    place = torch.arange(longest, device=h.time.device)
    if counts is not None:
        (counts,) = each_query(op, h, queries[:1], counts, wait=False)
        place = torch.where(place < counts.view(-1, *(1,) * len(queries)), place, -1)
    return place.expand(*queries, longest)


def _longest(op: str, counts: Tensor, longest: int | None) -> int:
    if longest is None:
        if not reads_values(counts):
            raise ValueError(
                f"{op}: longest must be given on CUDA and in graphs for windows and ragged histories with k=None, got None; "
                "nothing is read on the host there: take it where starts and ends, or offsets, are made"
            )
        return int(counts.max()) if counts.numel() > 0 else 0
    if reads_values(counts) and (counts > longest).any():
        raise ValueError(
            f"{op}: longest must be at least the most behaviours of a query = {int(counts.max())}, got {longest}"
        )
    return longest
