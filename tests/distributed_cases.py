# SPDX-License-Identifier: Apache-2.0
"""Searches by chance whose behaviours are cut into parts of ranks: every layout, and all that makes ties and padding."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import torch
from torch import Tensor

import longclock as lc

LAYOUTS = ("dense", "ragged", "windows")
CANDIDATES = (None, 1, 7, 130)


class Chance:
    """Choices from one seed, each independent of the others."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def below(self, n: int) -> int:
        return int(torch.randint(0, n, (), generator=self.generator))

    def pick(self, *options: Any) -> Any:
        return options[self.below(len(options))]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def ints(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator)

    def cuts(self, pieces: int, end: int) -> list[int]:
        """Where ``pieces`` parts of 0 to ``end`` begin, and the end; several may be empty."""
        return [0, *sorted(self.below(end + 1) for _ in range(pieces - 1)), end]


@dataclasses.dataclass
class Parts:
    """A search, and what each rank holds of it."""

    query: Tensor
    whole: lc.History
    query_time: Tensor
    k: int
    exclude_future: bool
    parts: list[lc.History]
    begins: list[Tensor]  # of each part, [S]
    candidates: int | None

    def found_by_one(self, mlp: Any) -> lc.TopK:
        return lc.clock_gsu(self.query, query_time=self.query_time, mlp=mlp, k=self.k,
                            exclude_future=self.exclude_future, **self.whole.arguments())  # fmt: skip


def make_parts(seed: int, ranks: int | None = None, most: int = 700) -> Parts:
    c = Chance(seed)
    layout, candidates = c.pick(*LAYOUTS), c.pick(*CANDIDATES)
    ranks = ranks or 1 + c.below(4)
    sequences, width, k = c.below(5), 1 + c.below(70), c.below(60)
    length = c.below(most)
    places = sequences * length if layout == "dense" else length
    rows, time, query = rows_of(c, places, width, sequences, candidates)
    mask = c.normal(places) > -0.5 if c.pick(False, True) else None
    query_time = c.ints(0, 10**9, sequences)
    exclude_future = c.pick(False, True)
    make = {"dense": _dense, "ragged": _ragged, "windows": _windows}[layout]
    whole, parts, begins = make(c, rows, time, mask, (sequences, length), ranks)
    if layout == "dense" and candidates is not None:
        query = query.view(sequences, candidates, width)
    elif candidates is not None:
        offsets = torch.arange(sequences + 1) * candidates
        whole = whole._replace(query_offsets=offsets)
        parts = [part._replace(query_offsets=offsets) for part in parts]
    return Parts(query, whole, query_time, k, exclude_future, parts, begins, candidates)


def rows_of(
    c: Chance, places: int, width: int, sequences: int, candidates: int | None
) -> tuple[Tensor | lc.Lookup, Tensor, Tensor]:
    """Rows, times and queries: with ties, and with values that are no numbers."""
    dtype, ties, odd = c.pick(torch.float32, torch.float16, torch.bfloat16), c.below(3) == 0, c.below(4) == 0  # fmt: skip
    looked_up = c.pick(False, True)
    items = 1 + c.below(300) if looked_up else places
    table, query = c.normal(items, width), c.normal(sequences * (candidates or 1), width).round()
    time = c.ints(0, 10**9, places)
    if ties:
        table, time = table.round(), time // 3600 % 24 * 3600
    if odd and items:
        table[items // 2], table[items // 3], table[0] = torch.nan, -torch.inf, torch.inf
        query = query.abs() + 1
    table, query = table.to(dtype), query.to(c.pick(dtype, torch.float32))
    time = time.to(c.pick(torch.int32, torch.int64))
    rows = lc.Lookup(table, c.ints(0, items, places)) if looked_up else table
    return rows, time, query


def taken(value: Any, at: Any) -> Any:
    """Rows, a Lookup's ids, or nothing."""
    if isinstance(value, lc.Lookup):
        return value._replace(ids=value.ids[at])
    return None if value is None else value[at]


def _dense(
    c: Chance, rows: Any, time: Tensor, mask: Any, sizes: tuple[int, int], ranks: int
) -> tuple[lc.History, list[lc.History], list[Tensor]]:
    sequences, length = sizes
    shaped = torch.arange(sequences * length).view(sizes)
    lengths = c.ints(0, length + 1, sequences) if c.pick(False, True) else None
    cuts = c.cuts(ranks, length)
    parts, begins = [], []
    for begin, end in [(0, length), *itertools.pairwise(cuts)]:
        at = shaped[:, begin:end]
        count = None if lengths is None else (lengths - begin).clamp(0, end - begin)
        parts.append(lc.History.dense(taken(rows, at), time[at], count, taken(mask, at)))
        begins.append(torch.full((sequences,), begin))
    return parts[0], parts[1:], begins[1:]


def _ragged(
    c: Chance, rows: Any, time: Tensor, mask: Any, sizes: tuple[int, int], ranks: int
) -> tuple[lc.History, list[lc.History], list[Tensor]]:
    sequences, length = sizes
    offsets = torch.tensor(c.cuts(sequences, length) if sequences else [0])
    if not sequences:
        rows, time, mask = (taken(value, slice(0, 0)) for value in (rows, time, mask))
    whole = lc.History.ragged(rows, time, offsets, mask=mask)
    cuts = torch.tensor([c.cuts(ranks, int(n)) for n in offsets.diff()], dtype=torch.int64)
    cuts = cuts.view(sequences, ranks + 1)
    parts = []
    for r in range(ranks):
        spans = [torch.arange(o + a, o + b) for o, a, b in
                 zip(offsets.tolist(), cuts[:, r].tolist(), cuts[:, r + 1].tolist(), strict=False)]  # fmt: skip
        at = torch.cat([torch.arange(0), *spans])
        local = torch.zeros(sequences + 1, dtype=c.pick(torch.int32, torch.int64))
        local[1:] = (cuts[:, r + 1] - cuts[:, r]).cumsum(0)
        parts.append(lc.History.ragged(taken(rows, at), time[at], local, mask=taken(mask, at)))
    return whole, parts, [cuts[:, r] for r in range(ranks)]


def _windows(
    c: Chance, rows: Any, time: Tensor, mask: Any, sizes: tuple[int, int], ranks: int
) -> tuple[lc.History, list[lc.History], list[Tensor]]:
    sequences, length = sizes
    edges = c.ints(0, length + 1, 2, sequences).sort(0).values
    if sequences > 1 and c.pick(False, True):
        edges[:, 1] = edges[:, 0]
    starts, ends = edges
    cuts = c.cuts(ranks, length)
    parts, begins = [], []
    for begin, end in itertools.pairwise(cuts):
        at = slice(begin, end)
        local = [edge.clamp(begin, end) - begin for edge in (starts, ends)]
        parts.append(lc.History.windows(taken(rows, at), time[at], *local, mask=taken(mask, at)))
        begins.append(local[0] + begin - starts)
        empty = local[0] == local[1]
        begins[-1][empty] = 0
    return lc.History.windows(rows, time, starts, ends, mask=mask), parts, begins
