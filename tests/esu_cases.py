# SPDX-License-Identifier: Apache-2.0
"""Inputs of esu_attention, poisoned wherever nothing may be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from cases import NOWHERE, Case, Mapped, make_case, raw_clocks, stacked_mlp
from torch import Tensor

import longclock as lc
from longclock._clocks import resolve_time
from longclock.reference.time_term import features_of
from longclock.types import Clocks


@dataclass
class EsuCase(Mapped):
    u: Tensor
    z: Tensor  # [Q, K, L], or the table where ids is given
    ids: Tensor | None
    z_time: Tensor
    query_time: Tensor
    mlp: tuple[Tensor, ...]
    valid: Tensor | None
    clocks: Clocks = 86400
    sparse: bool = False

    def map(self, change: Callable[[Tensor], Tensor]) -> EsuCase:
        def visit(value: Any) -> Any:
            return change(value) if isinstance(value, Tensor) else value

        return EsuCase(
            visit(self.u), visit(self.z), visit(self.ids), visit(self.z_time),
            visit(self.query_time), tuple(visit(weight) for weight in self.mlp),
            visit(self.valid), self.clocks, self.sparse,
        )  # fmt: skip

    def leaves(self) -> dict[str, Tensor]:
        names = ("u", "z", "w1", "b1", "w2", "b2")
        return dict(zip(names, (self.u, self.z, *self.mlp), strict=True))

    def run(self, op: Callable[..., Tensor]) -> Tensor:
        z = self.z if self.ids is None else lc.Lookup(self.z, self.ids, self.sparse)
        return op(self.u, z, self.z_time, self.query_time, self.mlp, self.valid, self.clocks)

    def sizes(self, grad: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The largest of each time feature, and how large the terms of each gradient are."""
        case = self.double()
        time = resolve_time("test", case.mlp, case.clocks, None)
        of_clocks = features_of(case.z_time, case.query_time[:, None], time, torch.float64)
        phi = torch.cat(of_clocks, -1)
        if case.valid is not None:
            phi = phi.masked_fill(~case.valid[..., None], 0)
        z = case.z.nan_to_num(0)
        features = phi.flatten(0, -2)
        largest = (
            features.abs().amax(0).clamp(min=1)
            if len(features)
            else torch.ones(phi.shape[-1]).double()
        )
        top = {name: max(float(value.abs().max()), 1.0) if value.numel() else 1.0
               for name, value in case.leaves().items()}  # fmt: skip
        wide = torch.cat([z.abs().flatten(0, -2).amax(0) if z.numel() else z.new_zeros(z.shape[-1]),
                          largest])  # fmt: skip
        term = float((grad.double().abs() @ wide).max()) if grad.numel() else 1.0
        w1, b1 = case.mlp[0].abs(), case.mlp[1].abs()
        each = largest.view(-1, 4, 1) if w1.dim() == 3 else largest.view(4, 1)
        hidden = float((w1 @ each + b1[..., None]).max())
        return largest, {
            "u": term * float(z.abs().max()) if z.numel() else 1.0, "z": term * top["u"],
            "w1": term * top["w2"], "b1": term * top["w2"], "w2": term * hidden, "b2": term,
        }  # fmt: skip

    def raw(self) -> tuple[Any, ...]:
        return (
            self.u, self.z, self.ids, self.z_time, self.query_time, None, *self.mlp, self.valid,
            *raw_clocks(self.clocks), [], [], self.sparse,
        )  # fmt: skip


def make_esu(
    dtype: torch.dtype = torch.float32,
    *,
    queries: int = 5,
    heads: int = 4,
    k: int = 37,
    width: int = 7,
    table: bool = False,
    some_invalid: bool = True,
    hidden: int = 8,
    time_dtype: torch.dtype = torch.int64,
    clocks: Clocks = 86400,
    poison: bool = True,
) -> EsuCase:
    """Query 0 has nothing valid, query 1 only its last behaviour, the others a random part."""
    u = torch.randn(queries, heads, width).to(dtype)
    z = torch.randn(queries, k, width).to(dtype)
    edge = 2**31 - 1 if time_dtype == torch.int32 else 2**33
    z_time = torch.randint(-edge, edge, (queries, k)).to(time_dtype)
    query_time = torch.randint(-edge, edge, (queries,)).to(time_dtype)
    valid = None
    dead = torch.zeros(queries, k, dtype=torch.bool)
    if some_invalid:
        valid = torch.rand(queries, k) < 0.7
        valid[:2] = False
        valid[1:2, -1:] = True
        dead = ~valid
    ids = None
    if table:  # fewer rows than lookups, so that rows repeat
        z = torch.randn(max(k, 1), width).to(dtype)
        ids = torch.randint(0, len(z), (queries, k))
        ids = ids.masked_fill(dead, -1 if time_dtype == torch.int32 else NOWHERE).to(time_dtype)
    elif poison:
        z[dead] = torch.nan
    mlp = stacked_mlp(clocks, hidden)
    return EsuCase(u, z, ids, z_time, query_time, mlp, valid, clocks)


@dataclass
class FoundCase(Mapped):
    """What a search found in a history: u, whole rows and times, and indices [S, K], [S, C, K] or [Q, K]."""

    u: Tensor
    search: Case  # the history and its layout; its query tells the shape of the queries
    found: Tensor
    sparse: bool = False

    def map(self, change: Callable[[Tensor], Tensor]) -> FoundCase:
        return FoundCase(change(self.u), self.search.map(change), change(self.found), self.sparse)

    def leaves(self) -> dict[str, Tensor]:
        names = ("u", "z", "w1", "b1", "w2", "b2")
        return dict(zip(names, (self.u, self.search.keys, *self.search.mlp), strict=True))

    def run(self, op: Callable[..., Tensor], **options: Any) -> Tensor:
        case, ids = self.search, self.search.layout.get("ids")
        z = case.keys if ids is None else lc.Lookup(case.keys, ids, self.sparse)
        layout = {
            name: value for name, value in case.layout.items() if name not in ("ids", "scale")
        }
        given = {"found": self.found, **layout, **options}
        return op(self.u, z, case.key_time, case.query_time, case.mlp, **given)

    def positions(self) -> tuple[Tensor, Tensor, Tensor]:
        """By hand: where in the flattened history each entry lies, -1 where nothing counts; each query's time."""
        case, found = self.search, self.found.flatten(0, -2).tolist()
        mask, late = case.layout.get("mask"), case.layout.get("exclude_future", False)
        times = case.key_time.flatten().tolist()
        rows, moments = [], []
        for (start, now), indices in zip(queries_of(case), found, strict=True):
            at = [-1 if index < 0 else start + index for index in indices]
            if mask is not None:
                at = [place if place >= 0 and mask.flatten()[place] else -1 for place in at]
            rows.append([place if place >= 0 and not (late and times[place] >= now) else -1 for place in at])  # fmt: skip
            moments.append(now)
        k, device = self.found.shape[-1], self.found.device
        where = torch.tensor(rows, dtype=torch.int64, device=device).view(len(rows), k)
        return where, where >= 0, torch.tensor(moments, dtype=torch.int64, device=device)

    def gathered(self) -> EsuCase:
        """The same rows, looked up one by one, with their own times and what is valid."""
        case, (at, valid, moments) = self.search, self.positions()
        place, ids = at.clamp(min=0), case.layout.get("ids")

        def taken(values: Tensor) -> Tensor:
            flat = values.flatten()
            return flat[place] if len(flat) else flat.new_zeros(at.shape)

        lines = place if ids is None else taken(ids)
        lines = lines.masked_fill(~valid, NOWHERE).long()
        table = case.keys.flatten(0, -2)  # of a table nothing changes
        return EsuCase(
            self.u, table, lines, taken(case.key_time).masked_fill(~valid, 0), moments, case.mlp, valid,
            case.layout["clocks"], self.sparse,
        )  # fmt: skip


def queries_of(case: Case) -> list[tuple[int, int]]:
    """Of each query in order: where its history begins, and its time."""
    layout, times = case.layout, case.query_time.tolist()
    if case.key_time.dim() == 2:
        columns = case.key_time.shape[1]
        each = case.query.shape[1] if case.query.dim() == 3 else 1
        return [(s * columns, now) for s, now in enumerate(times) for _ in range(each)]
    starts = layout["starts"] if "starts" in layout else layout["offsets"][:-1]
    counts = layout["query_offsets"].diff().tolist() if "query_offsets" in layout else [1] * len(times)  # fmt: skip
    return [
        (start, now)
        for start, now, count in zip(starts.tolist(), times, counts, strict=True)
        for _ in range(count)
    ]


def make_found(
    layout: str = "dense",
    dtype: torch.dtype = torch.float32,
    *,
    k: int = 6,
    heads: int = 4,
    width: int = 7,
    rows: str = "rows",
    **options: Any,
) -> FoundCase:
    """Indices of which some come twice and some are -1, those of query 1 all of them; poison wherever nothing was found.

    rows: "rows"; "columns", the first ones of wider rows; "table" or "sparse", a Lookup.
    """
    case = make_case(
        layout, dtype, width=width, table=rows in ("table", "sparse"), poison=False, **options
    )
    queries = queries_of(case)
    lengths = lengths_of(case)
    u = torch.randn(len(queries), heads, width).to(dtype)
    found = torch.full((len(queries), k), -1)
    for q, length in enumerate(lengths):
        if length and q != 1:
            found[q] = torch.randint(-1, length, (k,))
    made = FoundCase(u, case, found.view(*case.query.shape[:-1], k), rows == "sparse")
    at, valid, _ = made.positions()
    dead = torch.ones(case.key_time.numel(), dtype=torch.bool)
    dead[at[valid]] = False
    dead = dead.view(case.key_time.shape)
    looked_at = torch.zeros(case.key_time.numel(), dtype=torch.bool)
    for (start, _), indices in zip(queries, found.tolist(), strict=True):
        looked_at[[start + index for index in indices if index >= 0]] = True
    edge = torch.iinfo(case.key_time.dtype).max
    case.key_time[~looked_at.view(case.key_time.shape)] = edge  # no second of any clock
    if "ids" in case.layout:
        case.layout["ids"][dead] = NOWHERE
    else:
        case.keys[dead] = torch.nan
    if rows == "columns":
        wide = torch.full((len(case.keys), case.keys.shape[1] + 3, width), torch.nan, dtype=dtype)
        wide[:, 1:-2] = case.keys
        case.keys = wide[:, 1:-2]
    return made


def lengths_of(case: Case) -> list[int]:
    """Behaviours of each query."""
    layout = case.layout
    if case.key_time.dim() == 2:
        each = case.query.shape[1] if case.query.dim() == 3 else 1
        return [length for length in layout["lengths"].tolist() for _ in range(each)]
    counts = layout["ends"] - layout["starts"] if "starts" in layout else layout["offsets"].diff()
    many = layout["query_offsets"].diff() if "query_offsets" in layout else torch.ones_like(counts)
    return counts.repeat_interleave(many).tolist()
