# SPDX-License-Identifier: Apache-2.0
"""Inputs of gsu_score and clock_gsu in every layout, poisoned wherever nothing may be read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

import longclock as lc
from longclock._clocks import periods_of, resolve_clocks, resolve_units
from longclock.types import Clocks

LAYOUTS = ("dense", "candidates", "ragged", "ragged_many", "windows", "windows_many")
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
NOWHERE = 10**9  # an id that no table has
# Circles that divide each other and circles that do not, with the time elapsed among them and without.
CLOCKS: tuple[Clocks, ...] = (
    lc.ELAPSED, (86400, 604800), (lc.ELAPSED, 3600), (86400, 50000, lc.ELAPSED), (604800, 86400, 3600, lc.ELAPSED),
)  # fmt: skip


class Mapped:
    """Tensors that ``map`` changes one by one."""

    @abstractmethod
    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """A copy."""

    def to(self, device: str) -> Self:
        return self.map(lambda x: x.to(device))

    def double(self) -> Self:
        return self.map(lambda x: x.detach().double() if x.is_floating_point() else x)

    def trained(self) -> Self:
        """A copy whose floats are leaves that ask for their gradient."""
        return self.map(
            lambda x: x.detach().clone().requires_grad_() if x.is_floating_point() else x
        )


@dataclass
class Case(Mapped):
    query: Tensor
    keys: Tensor | lc.QuantizedRows | tuple[Tensor, ...]
    key_time: Tensor
    query_time: Tensor
    mlp: tuple[Tensor, ...]
    layout: dict[str, Any] = field(default_factory=dict)

    def map(self, change: Callable[[Tensor], Tensor]) -> Case:
        def visit(value: Any) -> Any:
            if isinstance(value, lc.QuantizedRows):
                return value.mapped(change)
            if isinstance(value, tuple):
                return tuple(map(visit, value))
            return change(value) if isinstance(value, Tensor) else value

        return Case(
            visit(self.query), visit(self.keys), visit(self.key_time), visit(self.query_time),
            visit(self.mlp),
            {name: visit(value) for name, value in self.layout.items()},
        )  # fmt: skip

    def leaves(self) -> dict[str, Tensor]:
        tables = {"keys": self.keys}
        if isinstance(self.keys, lc.QuantizedRows):
            tables = {}
        elif isinstance(self.keys, tuple):
            tables = {f"keys[{i}]": table for i, table in enumerate(self.keys)}
        mlp = dict(zip(("w1", "b1", "w2", "b2"), self.mlp, strict=True))
        return {"query": self.query, **tables, **mlp}

    def run(self, op: Callable[..., Any], *extra: Any, **options: Any) -> Any:
        return op(
            self.query, self.keys, self.key_time, self.query_time, self.mlp, *extra,
            **(self.layout | options),
        )  # fmt: skip

    def score(self, op: Callable[..., Tensor], **options: Any) -> Tensor:
        """gsu_score with its total, which CUDA cannot count."""
        return op(
            self.query, self.keys, self.key_time, self.query_time, self.mlp,
            **({"total": self.total()} | self.layout | options),
        )  # fmt: skip

    def total(self) -> int | None:
        """Elements of a flat result."""
        given = {name: value.cpu() for name, value in self.layout.items()
                 if isinstance(value, Tensor)}  # fmt: skip
        many = given.get("query_offsets")
        if "starts" in given:
            lengths = given["ends"] - given["starts"]
            return int((lengths if many is None else lengths * many.diff()).sum())
        return None if many is None else int((many.diff() * given["offsets"].diff()).sum())

    def raw(self, extra: Any, **options: Any) -> tuple[Any, ...]:
        """The positional arguments of the raw op."""
        given, keys, features, feature_ids = self.layout | options, self.keys, [], []
        key_scale = None
        if isinstance(keys, lc.QuantizedRows):
            keys, key_scale = keys
        elif isinstance(keys, tuple):
            first, *others = given["ids"]
            given = {**given, "ids": first}
            keys, *features = (x if i is not None else x.flatten(0, -2) for x, i in zip(keys, (self, *others), strict=True))  # fmt: skip
            feature_ids = [self.key_time.new_empty(0) if ids is None else ids for ids in others]
        names = ("ids", "lengths", "offsets", "query_offsets", "starts", "ends", "mask")
        return (
            self.query, keys, self.key_time, self.query_time, *self.mlp,
            *(given.get(name) for name in names), given.get("exclude_future", False),
            given.get("scale", 0.5), *raw_clocks(given.get("clocks", 86400), given.get("unit")),
            features, feature_ids, key_scale, given.get("query_dtype"), extra,
        )  # fmt: skip

    def with_layout(self, **changes: Any) -> Case:
        return replace(self, layout=self.layout | changes)


def several_tables(case: Case, widths: tuple[int, ...] = (3, 2, 2)) -> Case:
    """The case with other rows: of a table of many rows, of a row a behaviour, and of a table of few rows, side by side."""
    keys = case.keys
    assert isinstance(keys, Tensor)
    dead = keys.isnan().any(-1)
    first, own, _ = keys.split(widths, -1)
    many = torch.randperm(max(dead.numel(), 1))[: dead.numel()].view(dead.shape)
    table = torch.full((max(dead.numel(), 1), widths[0]), torch.nan, dtype=keys.dtype)
    table[many.flatten()] = first.flatten(0, -2)
    few = torch.randint(4, dead.shape)
    small = torch.randn(4, widths[2]).to(keys.dtype)
    if not (keys[~dead] % 1).any():
        small = small.round()
    ids = tuple(each.masked_fill(dead, NOWHERE) for each in (many, few))
    return replace(case, keys=(table, own.contiguous(), small), layout={**case.layout, "ids": (ids[0], None, ids[1])})  # fmt: skip


def keys_in_bytes(
    case: Case, query_dtype: str | None = None, dtype: torch.dtype = torch.int8
) -> Case:
    """The case with its rows in bytes, NaN where they were."""
    assert isinstance(case.keys, Tensor)
    layout = {**case.layout, "query_dtype": query_dtype}
    return replace(case, keys=lc.quantize_rows(case.keys, dtype), layout=layout)


def make_mlp(hidden: int = 8, reach: float = 12.0) -> tuple[Tensor, ...]:
    """Weights whose s() is of size 1 for x up to reach."""
    sizes = torch.tensor([reach, reach**0.5, reach**2, torch.log1p(torch.tensor(reach))])
    return (
        torch.randn(hidden, 4) / sizes, torch.randn(hidden),
        torch.randn(hidden) / hidden**0.5, torch.randn(()),
    )  # fmt: skip


def stacked_mlp(clocks: Clocks, hidden: int = 8) -> tuple[Tensor, ...]:
    """Weights of one clock, or of several."""
    each = clocks if isinstance(clocks, tuple) else (clocks,)
    made = [make_mlp(hidden, 26.0 if one == lc.ELAPSED else one / 7200) for one in each]
    if len(made) == 1:
        return made[0]
    return tuple(torch.stack(parts) for parts in zip(*made, strict=True))


def raw_clocks(clocks: Clocks, unit: float | None = None) -> tuple[list[int], list[float]]:
    """Periods and units, as raw ops take them."""
    each = resolve_clocks("test", clocks)
    return periods_of(each), list(resolve_units("test", each, unit))


def integer_mlp() -> tuple[Tensor, ...]:
    """Weights that make s() exact on a clock of 16 seconds with unit=1."""
    w1 = torch.tensor([[1.0, 0, 0, 0], [-2.0, 0, 1.0, 0], [0, 0, -1.0, 0]])
    return w1, torch.tensor([-3.0, 1.0, 9.0]), torch.tensor([1.0, -1.0, 2.0]), torch.tensor(2.0)


def make_case(
    layout: str = "dense",
    dtype: torch.dtype = torch.float32,
    *,
    table: bool = False,
    counts: tuple[int, ...] = (37, 0, 5, 64),
    candidates: int = 3,
    width: int = 7,
    hidden: int = 8,
    integers: bool = False,
    mask: bool = False,
    exclude_future: bool = False,
    time_dtype: torch.dtype = torch.int64,
    clocks: Clocks = 86400,
    poison: bool = True,
) -> Case:
    """counts: behaviours of each sequence. Dense rows are as long as the longest."""
    s, m, total = len(counts), max(counts, default=0), sum(counts)
    flat = layout not in ("dense", "candidates")
    shape = (total,) if flat else (s, m)
    each = {"ragged_many": list(range(s)), "windows_many": [w % 3 for w in range(2 * s)]}.get(
        layout
    )
    many = {"dense": (s,), "candidates": (s, candidates), "ragged": (s,), "windows": (2 * s,)}
    lead = (sum(each),) if each is not None else many[layout]

    def floats(*size: int) -> Tensor:
        if integers:
            return torch.randint(-3, 4, size).to(dtype)
        return torch.randn(size).to(dtype)

    query, keys = floats(*lead, width), floats(*shape, width)
    edge = 2**31 - 1 if time_dtype == torch.int32 else 2**33
    key_time = torch.randint(-edge, edge, shape).to(time_dtype)
    windows = layout.startswith("windows")
    times = 2 * s if windows else s
    query_time = torch.randint(-edge, edge, (times,)).to(time_dtype)
    given: dict[str, Any] = {"clocks": clocks}
    dead = torch.zeros(shape, dtype=torch.bool)
    if not flat:
        lengths = torch.tensor(counts, dtype=time_dtype)
        given["lengths"] = lengths
        dead = torch.arange(m) >= lengths[:, None]
    bounds = torch.tensor([0, *counts]).cumsum(0)
    if layout.startswith("ragged"):
        given["offsets"] = bounds.to(time_dtype)
    if each is not None:  # 0, 1, 2, .. queries a sequence, or no more than 2 a window
        given["query_offsets"] = torch.tensor([0, *each]).cumsum(0).to(time_dtype)
    if windows:  # of each sequence its whole, and a part of it
        starts, ends = bounds[:-1].repeat(2), bounds[1:].repeat(2)
        starts[s:] += (ends - starts)[s:] // 3
        given |= {"starts": starts.to(time_dtype), "ends": ends.to(time_dtype)}
    if mask:
        given["mask"] = torch.rand(shape) < 0.7
        dead = dead | ~given["mask"]
    if exclude_future:
        given["exclude_future"] = True
    if integers:
        given |= {"clocks": 16, "unit": 1.0, "scale": 0.5}
    if table:
        n = max(dead.numel(), 1)
        order = torch.randperm(n)[: dead.numel()].view(shape)
        rows = floats(n, width)
        rows[order.flatten()] = keys.flatten(0, -2)
        ids = order.masked_fill(dead, NOWHERE if poison else 0)
        keys, given["ids"] = rows, ids.to(time_dtype)
        if poison and dead.any():
            rows[order[dead]] = torch.nan
    elif poison:
        keys[dead] = torch.nan
    mlp = integer_mlp() if integers else stacked_mlp(clocks, hidden)
    return Case(query, keys, key_time, query_time, mlp, given)
