# SPDX-License-Identifier: Apache-2.0
"""Eager calls take a shorter way than PyTorch's own to the registered autograd formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from cases import make_case, make_mlp
from esu_cases import make_esu, make_found
from tolerance import assert_bitwise
from torch import Tensor

import longclock as lc
from longclock._library import raw


@dataclass
class Ways:
    leaves: list[Tensor]
    ours: Callable[[], Tensor]
    dispatched: Callable[[], Tensor]


def esu_attention(device: str) -> Ways:
    case = make_esu().to(device).trained()
    return Ways(
        list(case.leaves().values()),
        lambda: case.run(lc.esu_attention),
        lambda: raw.esu_attention(*case.raw())[0],
    )


def attention_to_what_was_found(device: str) -> Ways:
    case = make_found("ragged_many", rows="table").to(device).trained()
    keys, (at, _, now) = case.search, case.positions()
    return Ways(
        list(case.leaves().values()),
        lambda: case.run(lc.esu_attention),
        lambda: raw.esu_attention(
            case.u, keys.keys, keys.layout["ids"], keys.key_time, now, at, *keys.mlp, None, [86400], [3600.0], [], [],
            False,
        )[0],
    )  # fmt: skip


attention_to_what_was_found.__name__ = "esu_attention"  # the op that it calls


def gsu_score(device: str) -> Ways:
    case = make_case().with_layout(scale=0.5).to(device).trained()
    return Ways(
        list(case.leaves().values()),
        lambda: case.score(lc.gsu_score),
        lambda: raw.gsu_score(*case.raw(case.total())),
    )


def time_similarity(device: str) -> Ways:
    delta = torch.randint(0, 43201, (7,), device=device)
    mlp = [weight.to(device).requires_grad_() for weight in make_mlp()]
    return Ways(
        mlp,
        lambda: lc.time_similarity(delta, *mlp),
        lambda: raw.time_similarity(delta, *mlp, 3600.0, False),
    )


def block_topk(device: str) -> Ways:
    scores = torch.randn(3, 9, device=device, requires_grad=True)
    return Ways(
        [scores],
        lambda: lc.block_topk(scores, 4).scores,
        lambda: raw.block_topk(scores, 4, None)[0],
    )


OPS = [esu_attention, attention_to_what_was_found, gsu_score, time_similarity, block_topk]
every_op = pytest.mark.parametrize("op", OPS)


@every_op
def test_both_ways_give_the_same(op: Callable[[str], Ways], device: str) -> None:
    ways = op(device)
    result, expected = ways.ours(), ways.dispatched()
    assert result.grad_fn is not None
    assert expected.grad_fn is not None
    assert result.grad_fn.name() == f"{op.__name__}_formulaBackward"
    assert expected.grad_fn.name().startswith("GeneratedBackwardFor_longclock")
    assert_bitwise(result, expected)
    grad = torch.randn_like(result)
    assert_bitwise(
        torch.autograd.grad(result, ways.leaves, grad),
        torch.autograd.grad(expected, ways.leaves, grad),
    )


class Ignored(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:
        return None


@every_op
def test_no_gradient_of_the_result_is_none_of_the_inputs(
    op: Callable[[str], Ways], device: str
) -> None:
    ways = op(device)
    for way in (ways.ours, ways.dispatched):
        found = torch.autograd.grad(Ignored.apply(way()), ways.leaves, allow_unused=True)
        assert found == (None,) * len(ways.leaves)


@every_op
def test_nothing_is_recorded_where_nothing_needs_a_gradient(
    op: Callable[[str], Ways], device: str
) -> None:
    ways = op(device)
    with torch.no_grad():
        assert not ways.ours().requires_grad
    for leaf in ways.leaves:
        leaf.requires_grad_(False)
    assert not ways.ours().requires_grad
