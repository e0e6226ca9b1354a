# SPDX-License-Identifier: Apache-2.0
"""Inputs of esu_attention, poisoned wherever nothing may be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from cases import NOWHERE, make_mlp
from torch import Tensor

import longclock as lc


@dataclass
class EsuCase:
    u: Tensor
    z: Tensor  # [Q, K, L], or the table where ids is given
    ids: Tensor | None
    z_time: Tensor
    query_time: Tensor
    mlp: tuple[Tensor, ...]
    valid: Tensor | None
    period: int = 86400
    sparse: bool = False

    def map(self, change: Callable[[Tensor], Tensor]) -> EsuCase:
        def visit(value: Any) -> Any:
            return change(value) if isinstance(value, Tensor) else value

        return EsuCase(
            visit(self.u), visit(self.z), visit(self.ids), visit(self.z_time),
            visit(self.query_time), tuple(visit(weight) for weight in self.mlp),
            visit(self.valid), self.period, self.sparse,
        )  # fmt: skip

    def to(self, device: str) -> EsuCase:
        return self.map(lambda x: x.to(device))

    def double(self) -> EsuCase:
        return self.map(lambda x: x.detach().double() if x.is_floating_point() else x)

    def trained(self) -> EsuCase:
        return self.map(
            lambda x: x.detach().clone().requires_grad_() if x.is_floating_point() else x
        )

    def leaves(self) -> dict[str, Tensor]:
        names = ("u", "z", "w1", "b1", "w2", "b2")
        return dict(zip(names, (self.u, self.z, *self.mlp), strict=True))

    def run(self, op: Callable[..., Tensor]) -> Tensor:
        z = self.z if self.ids is None else lc.Lookup(self.z, self.ids, self.sparse)
        return op(self.u, z, self.z_time, self.query_time, self.mlp, self.valid, self.period)

    def sizes(self, grad: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The largest of each time feature, and how large the terms of each gradient are."""
        case = self.double()
        delta = lc.reference.circular_delta(case.z_time, case.query_time[:, None], case.period)
        phi = lc.reference.time_features(delta, dtype=torch.float64)
        if case.valid is not None:
            phi = phi.masked_fill(~case.valid[..., None], 0)
        z = case.z.nan_to_num(0)
        features = phi.flatten(0, -2)
        largest = features.abs().amax(0).clamp(min=1) if len(features) else torch.ones(4).double()
        top = {name: max(float(value.abs().max()), 1.0) if value.numel() else 1.0
               for name, value in case.leaves().items()}  # fmt: skip
        wide = torch.cat([z.abs().flatten(0, -2).amax(0) if z.numel() else z.new_zeros(z.shape[-1]),
                          largest])  # fmt: skip
        term = float((grad.double().abs() @ wide).max()) if grad.numel() else 1.0
        hidden = float((case.mlp[0].abs() @ largest + case.mlp[1].abs()).max())
        return largest, {
            "u": term * float(z.abs().max()) if z.numel() else 1.0, "z": term * top["u"],
            "w1": term * top["w2"], "b1": term * top["w2"], "w2": term * hidden, "b2": term,
        }  # fmt: skip

    def raw(self) -> tuple[Any, ...]:
        return (
            self.u, self.z, self.ids, self.z_time, self.query_time, *self.mlp, self.valid,
            self.period, 3600.0, self.sparse,
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
    period: int = 86400,
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
    mlp = make_mlp(hidden, reach=period / 7200)
    return EsuCase(u, z, ids, z_time, query_time, mlp, valid, period)
