# SPDX-License-Identifier: Apache-2.0
"""How sequences and queries lie in memory: drawn, what must hold of it, and who looks at what."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from cases import LAYOUTS, Case, make_case
from torch import Tensor

from .draw import INTS, Draw
from .oracle import Array, array
from .rules import Rules, of_kind
from .spec import Given

BOUNDS = ("lengths", "offsets", "query_offsets", "starts", "ends")
NO_LAYOUT: Given = dict.fromkeys((*BOUNDS, "mask"))


def good_cases(dtype: torch.dtype) -> dict[str, Case]:
    """Of every layout one with rows of its own, and one with a table and all that rules behaviours out."""
    return {
        f"{layout}{', table' if full else ''}": make_case(
            layout,
            dtype,
            counts=(5, 0, 3, 8),
            table=full,
            mask=full,
            exclude_future=full,
            poison=False,
        )
        for full in (False, True)
        for layout in LAYOUTS
    }


def place(draw: Draw, layout: str, most: int) -> tuple[Given, tuple[int, ...], int]:
    """The arguments that tell a layout, the shape of key_time, and queries."""
    dtype = draw.pick(*INTS)
    sequences = draw.size(3 if draw.tiny else 5)
    if layout in ("dense", "candidates"):
        m = draw.size(most)
        lengths = draw.dressed(draw.ints(sequences, 0, m + 1, dtype)) if draw.chance(0.7) else None
        return {"lengths": lengths}, (sequences, m), sequences
    counts = np.array([draw.size(most // 2) for _ in range(sequences)], np.int64)
    bounds = np.concatenate([[0], counts.cumsum()])
    total = int(bounds[-1])
    if layout.startswith("windows"):
        total += draw.below(3)  # rows that no window sees
        begin = draw.random.integers(0, total + 1, sequences)
        end = begin + draw.random.integers(0, total - begin + 1)
        starts, ends = (draw.dressed(torch.from_numpy(x).to(dtype)) for x in (begin, end))
        given = {"starts": starts, "ends": ends}
    else:
        given = {"offsets": draw.dressed(torch.from_numpy(bounds).to(dtype))}
    if not layout.endswith("_many"):
        return given, (total,), sequences
    many = np.concatenate([[0], np.array([draw.size(4) for _ in range(sequences)], int).cumsum()])
    given["query_offsets"] = draw.dressed(torch.from_numpy(many).to(draw.pick(*INTS)))
    return given, (total,), int(many[-1])


def sequences_of(given: Given, queries: int) -> int:
    if "starts" in given:
        return len(given["starts"])
    return len(given["offsets"]) - 1 if "offsets" in given else queries


# What must hold.


def check_layout(rules: Rules) -> tuple[bool, bool]:
    """Whether it is flat, and whether the times have as many dimensions as it needs."""
    a = rules.a
    rules.ints("key_time", "query_time", *BOUNDS)
    rules.dtype("mask", torch.bool)
    windows, ragged = a["starts"] is not None, a["offsets"] is not None
    flat = windows or ragged
    rules.need((a["ends"] is not None) == windows, "starts and ends come together")
    rules.need(not (windows and ragged), "starts with offsets")
    rules.need(flat or a["query_offsets"] is None, "query_offsets of a dense layout")
    rules.need(not flat or a["lengths"] is None, "lengths with a flat layout")
    return flat, rules.rank("key_time", 1 if flat else 2) & rules.rank("query_time", 1)


def check_places(rules: Rules, name: str) -> None:
    """Sizes of the layout, for queries that the first dimensions of that argument count."""
    a = rules.a
    leading, queries, sequences = a["key_time"].shape, len(a[name]), len(a["query_time"])
    rules.shape("mask", *leading)
    if a["starts"] is None and a["offsets"] is None:
        for of_sequences in ("query_time", "lengths"):
            rules.shape(of_sequences, leading[0])
        rules.need(queries == leading[0], f"S of {name}")
        return
    for bound in ("starts", "ends"):
        rules.shape(bound, sequences)
    for bound in ("offsets", "query_offsets"):
        rules.shape(bound, sequences + 1)
    if a["query_offsets"] is None:
        rules.shape("query_time", queries)


def check_bounds(rules: Rules, view: Given, queries: int) -> None:
    total = view["key_time"].size
    for name, end in (("offsets", total), ("query_offsets", queries)):
        v = view[name]
        if v is not None:
            rules.data(v[0] == 0 and v[-1] == end and bool((v[1:] >= v[:-1]).all()), name)
    if view["starts"] is not None:
        begin, end = view["starts"], view["ends"]
        rules.data(bool(((begin >= 0) & (begin <= end) & (end <= total)).all()), "starts, ends")
    rules.lengths(view, view["key_time"].shape[-1])


# Who looks at what.


def spans(a: Given) -> Iterator[tuple[int, Array, int, int]]:
    """Of each query in order: its number, the positions it looks at, its time, how many count of
    them from the first on (a dense row's length)."""
    query, now = a["query"], a["query_time"]
    if a.get("starts") is not None or a.get("offsets") is not None:
        windows, many = a.get("starts") is not None, a.get("query_offsets")
        begin, end = (a["starts"], a["ends"]) if windows else (a["offsets"][:-1], a["offsets"][1:])
        for s in range(len(now)):
            at = np.arange(begin[s], end[s])
            for q in range(many[s], many[s + 1]) if many is not None else (s,):
                yield q, at, now[s], len(at)
    else:
        sequences, columns = a["key_time"].shape
        candidates = query.shape[1] if query.ndim == 3 else 1
        for s in range(sequences):
            length = columns if a.get("lengths") is None else a["lengths"][s]
            for c in range(candidates):
                yield s * candidates + c, s * columns + np.arange(columns), now[s], length


def total_of(a: Given) -> int:
    """Scores of all queries, as gsu_score gives them."""
    return sum(len(at) for _, at, _, _ in spans(as_arrays(a)))


def as_arrays(a: Given) -> Given:
    return {name: array(value) for name, value in a.items()}


def shares(a: Given) -> list[tuple[int, int]]:
    """Of each sequence its first query and the one after its last."""
    if a.get("query_offsets") is not None:
        return list(zip(a["query_offsets"][:-1], a["query_offsets"][1:], strict=True))
    candidates = a["query"].shape[1] if a["query"].ndim == 3 else 1
    return [(s * candidates, (s + 1) * candidates) for s in range(len(a["query"]))]


def counting(a: Given, at: Array, now: int, length: int, future: bool | None = None) -> Array:
    """Which of the positions count. future: in place of the call's exclude_future."""
    counts = np.arange(len(at)) < length
    if a.get("mask") is not None:
        counts &= a["mask"].reshape(-1)[at]
    if a.get("exclude_future") if future is None else not future:
        counts &= a["key_time"].reshape(-1)[at] < now
    return counts


# Of the attention.


def everywhere(a: Given) -> Given:
    """What the public function takes for positions: what was found in windows, each of which is all that there is."""
    now, times = a["query_time"], a["z_time"]
    there = isinstance(now, Tensor) and of_kind(now) in ("tensor", "meta") and now.dim() > 0
    queries = len(now) if there else 0
    total = len(times) if of_kind(times) == "tensor" and times.dim() else 0
    starts = torch.zeros(queries, dtype=torch.int64, device=now.device if queries else None)
    return {"found": a["positions"], "starts": starts, "ends": starts + total}
