# SPDX-License-Identifier: Apache-2.0
"""Eager calls take a shorter way than PyTorch's own to the registered autograd formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tolerance import assert_bitwise
from torch import Tensor

import longclock as lc
from longclock._library import raw


def esu_attention(device: str) -> tuple[Callable[..., Any], Callable[..., Any], list[Tensor]]:
    time, now = torch.randint(0, 86400, (3, 5), device=device), torch.zeros(3, device=device).long()
    leaves = [torch.randn(3, 2, 8), torch.randn(3, 5, 8), *lc.TimeSimilarity().mlp()]

    def ours(u: Tensor, z: Tensor, *mlp: Tensor) -> Tensor:
        return lc.esu_attention(u, z, time, now, mlp)

    def dispatched(u: Tensor, z: Tensor, *mlp: Tensor) -> Tensor:
        found: tuple[Tensor, Tensor] = raw.esu_attention(
            u, z, None, time, now, *mlp, None, 86400, 3600.0, False
        )
        return found[0]

    return ours, dispatched, leaves


def gsu_score(device: str) -> tuple[Callable[..., Any], Callable[..., Any], list[Tensor]]:
    time, now = torch.randint(0, 86400, (3, 5), device=device), torch.zeros(3, device=device).long()
    leaves = [torch.randn(3, 8), torch.randn(3, 5, 8), *lc.TimeSimilarity().mlp()]

    def ours(query: Tensor, keys: Tensor, *mlp: Tensor) -> Tensor:
        return lc.gsu_score(query, keys, time, now, mlp, scale=0.5)

    def dispatched(query: Tensor, keys: Tensor, *mlp: Tensor) -> Tensor:
        layout = [None] * 7
        scores: Tensor = raw.gsu_score(
            query, keys, time, now, *mlp, *layout, False, 0.5, 86400, 3600.0, None
        )
        return scores

    return ours, dispatched, leaves


def time_similarity(device: str) -> tuple[Callable[..., Any], Callable[..., Any], list[Tensor]]:
    delta = torch.randint(0, 43201, (7,), device=device)

    def ours(*mlp: Tensor) -> Tensor:
        return lc.time_similarity(delta, *mlp)

    def dispatched(*mlp: Tensor) -> Tensor:
        s: Tensor = raw.time_similarity(delta, *mlp, 3600.0)
        return s

    return ours, dispatched, list(lc.TimeSimilarity().mlp())


def block_topk(device: str) -> tuple[Callable[..., Any], Callable[..., Any], list[Tensor]]:
    def ours(scores: Tensor) -> Tensor:
        return lc.block_topk(scores, 4).scores

    def dispatched(scores: Tensor) -> Tensor:
        found: tuple[Tensor, Tensor] = raw.block_topk(scores, 4, None)
        return found[0]

    return ours, dispatched, [torch.randn(3, 9)]


every_op = pytest.mark.parametrize("op", [esu_attention, gsu_score, time_similarity, block_topk])


def trained(leaves: list[Tensor], device: str) -> list[Tensor]:
    return [leaf.detach().to(device).requires_grad_() for leaf in leaves]


@every_op
def test_both_ways_give_the_same(op: Callable[..., Any], device: str) -> None:
    ours, dispatched, leaves = op(device)
    short, long = trained(leaves, device), trained(leaves, device)
    result, expected = ours(*short), dispatched(*long)
    assert result.grad_fn.name() == f"{op.__name__}_formulaBackward"
    assert expected.grad_fn.name().startswith("GeneratedBackwardFor_longclock")
    assert_bitwise(result, expected)
    grad = torch.randn_like(result)
    for got, wanted in zip(
        torch.autograd.grad(result, short, grad),
        torch.autograd.grad(expected, long, grad),
        strict=True,
    ):
        assert_bitwise(got, wanted)


class Ignored(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:
        return None


@every_op
def test_no_gradient_of_the_result_is_none_of_the_inputs(
    op: Callable[..., Any], device: str
) -> None:
    for way in op(device)[:2]:
        leaves = trained(op(device)[2], device)
        ignored = Ignored.apply(way(*leaves))
        assert torch.autograd.grad(ignored, leaves, allow_unused=True) == (None,) * len(leaves)


@every_op
def test_nothing_is_recorded_where_nothing_needs_a_gradient(
    op: Callable[..., Any], device: str
) -> None:
    ours, _, leaves = op(device)
    assert not ours(*(leaf.detach().to(device) for leaf in leaves)).requires_grad
    with torch.no_grad():
        assert not ours(*trained(leaves, device)).requires_grad
