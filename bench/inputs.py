# SPDX-License-Identifier: Apache-2.0
"""Inputs and plain-PyTorch rivals that several ops share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import longclock as lc
from bench.checks import close
from bench.harness import Check, Step

PERIOD, UNIT = 86400, 3600.0
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Mlp = tuple[Tensor, Tensor, Tensor, Tensor]


def make_mlp() -> Mlp:
    return torch.randn(8, 4) / 10, torch.randn(8), torch.randn(8), torch.randn(())


def wide(mlp: Mlp) -> Mlp:
    """In fp64."""
    w1, b1, w2, b2 = mlp
    return w1.double(), b1.double(), w2.double(), b2.double()


def stacked_mlp(clocks: int) -> Mlp:
    """Of several clocks."""
    w1, b1, w2, b2 = zip(*(make_mlp() for _ in range(clocks)), strict=True)
    return torch.stack(w1), torch.stack(b1), torch.stack(w2), torch.stack(b2)


def times(*shape: int) -> Tensor:
    """Unix seconds of a few years."""
    return torch.randint(1_600_000_000, 1_700_000_000, shape)


def plain_similarity(delta: Tensor, mlp: Mlp) -> Tensor:
    """s() as one writes it in PyTorch."""
    w1, b1, w2, b2 = mlp
    x = delta.to(w1.dtype) / UNIT
    phi = torch.stack([x, x.sqrt(), x * x, torch.log1p(x)], dim=-1)
    return (phi @ w1.T + b1).relu() @ w2 + b2


def plain_delta(a: Tensor, b: Tensor) -> Tensor:
    x = (torch.remainder(a, PERIOD) - torch.remainder(b, PERIOD)).abs()
    return torch.minimum(x, PERIOD - x)


@dataclasses.dataclass
class Search:
    """Arguments of gsu_score and clock_gsu."""

    query: Tensor
    keys: Tensor
    key_time: Tensor
    query_time: Tensor
    mlp: Mlp
    layout: dict[str, Any]

    def run(self, op: Callable[..., Any], *extra: Any) -> Any:
        return op(
            self.query, self.keys, self.key_time, self.query_time, self.mlp, *extra, **self.layout
        )

    def gathered(self) -> Search:
        """Without a table: its rows copied out."""
        layout = dict(self.layout)
        ids = layout.pop("ids", None)
        keys = self.keys if ids is None else self.keys[ids]
        return dataclasses.replace(self, keys=keys, layout=layout)

    def double(self) -> Search:
        return dataclasses.replace(
            self, query=self.query.to(self.keys.dtype).double(), keys=self.keys.double(),
            mlp=wide(self.mlp),
        )  # fmt: skip

    def exact(self) -> Tensor:
        """Scores in fp64."""
        scores: Tensor = self.gathered().double().run(lc.reference.gsu_score)
        return scores

    def plain_scores(self) -> Tensor:
        """A batched product in the keys' dtype and s(), dense layouts only."""
        found = self.gathered()
        keys, now = found.keys, found.query_time[:, None]
        scale = keys.shape[-1] ** -0.5
        s = plain_similarity(plain_delta(found.key_time, now), found.mlp)
        if self.query.dim() == 3:
            product = torch.bmm(self.query, keys.transpose(1, 2))
            return product.float() * scale + s[:, None]
        return torch.bmm(keys, self.query[..., None])[..., 0].float() * scale + s


def make_search(
    s: int, m: int, d: int, dtype: torch.dtype, *, candidates: int | None = None, table: int = 0
) -> Search:
    query = torch.randn(*(s,) if candidates is None else (s, candidates), d).to(dtype)
    layout = {"ids": torch.randint(0, table, (s, m))} if table else {}
    keys = torch.randn(*(table,) if table else (s, m), d).to(dtype)
    return Search(query, keys, times(s, m), times(s), make_mlp(), layout)


def make_ragged(s: int, shortest: int, longest: int, d: int) -> Search:
    """One query a sequence. Lengths are log-normal with both limits two deviations from the median,
    and cut off there."""
    low, high = math.log(shortest), math.log(longest)
    lengths = ((low + high) / 2 + (high - low) / 4 * torch.randn(s)).exp().round().long()
    lengths = lengths.clamp(shortest, longest)
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    total = int(offsets[-1])
    return Search(torch.randn(s, d), torch.randn(total, d), times(total), times(s), make_mlp(),
                  {"offsets": offsets})  # fmt: skip


def make_windows(q: int, m: int, d: int) -> Search:
    """q windows of m behaviours, each a little later than the one before, over one history."""
    step = max(m // 250, 1)
    starts = torch.arange(q) * step
    total = int(starts[-1]) + m
    return Search(torch.randn(q, d), torch.randn(total, d), times(total), times(q), make_mlp(),
                  {"starts": starts, "ends": starts + m})  # fmt: skip


def shared_windows(case: Search) -> Search:
    """The candidates of dense requests with a window each, equal to those of the same request."""
    s, candidates, d = case.query.shape
    m = case.key_time.shape[1]
    starts = (torch.arange(s) * m).repeat_interleave(candidates)
    return Search(case.query.view(-1, d), case.keys.view(-1, d), case.key_time.view(-1),
                  case.query_time.repeat_interleave(candidates), case.mlp,
                  {"starts": starts, "ends": starts + m})  # fmt: skip


def trained(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)


def check_step(
    ours: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    leaves: tuple[Tensor, ...],
    grad: Tensor,
    terms: int,
    size: float = 1.0,
) -> Check:
    """The result and all gradients against fp64; terms and size as in ``close``."""
    exact = trained(*(leaf.double() for leaf in leaves))
    return close(
        Step(ours, leaves, grad)(),
        Step(reference, exact, grad.double())(),
        Step(reference, leaves, grad)(),
        terms,
        size,
    )
