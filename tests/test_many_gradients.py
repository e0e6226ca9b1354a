# SPDX-License-Identifier: Apache-2.0
"""Gradients of many candidates: on CUDA two products by tensor cores, from 16 candidates a sequence on."""

from __future__ import annotations

from typing import Any

import emulator
import pytest
import torch
from cases import FLOATS, Case, make_case
from test_gsu_score import check_gradients
from tolerance import assert_bitwise
from torch import Tensor

import longclock as lc


def gradients(case: Case, grad: Tensor) -> list[Tensor]:
    trained = case.trained()
    leaves = [trained.query, trained.keys]
    return list(torch.autograd.grad(trained.run(lc.gsu_score), leaves, grad))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("dead", [{}, {"mask": True, "exclude_future": True}])
@pytest.mark.parametrize(("candidates", "longest"), [(16, 300), (65, 77)])
def test_gradients(
    level: str, device: str, dtype: torch.dtype, table: bool, dead: dict[str, Any], candidates: int, longest: int
) -> None:  # fmt: skip
    case = make_case("candidates", dtype, counts=(longest, 0, 5), table=table, width=24, candidates=candidates, **dead)  # fmt: skip
    check_gradients(case, device)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [8, 64, 72, 128, 136, 264])
def test_widths(level: str, device: str, dtype: torch.dtype, width: int) -> None:
    check_gradients(make_case("candidates", dtype, counts=(70, 3), width=width, candidates=33), device)  # fmt: skip


@pytest.mark.parametrize("longest", [1, 31, 32, 33, 64, 255, 257, 8_200])
def test_lengths(level: str, device: str, longest: int) -> None:
    check_gradients(make_case("candidates", counts=(longest,), width=8, candidates=17), device)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_wider_query(level: str, device: str, dtype: torch.dtype) -> None:
    """Is rounded to the keys' dtype, and has a gradient of its own."""
    case = make_case("candidates", dtype, counts=(70, 300), width=16, candidates=20)
    case.query = case.query.float()
    check_gradients(case, device)


@pytest.mark.parametrize("dtype", FLOATS)
def test_gradients_of_scores_are_not_rounded(level: str, device: str, dtype: torch.dtype) -> None:
    """With keys and queries of powers of two a gradient is that of its one score."""
    case = make_case("candidates", dtype, counts=(40,), width=16, candidates=20, poison=False)
    assert isinstance(case.keys, Tensor)
    case.keys, case.query = torch.zeros_like(case.keys), torch.ones_like(case.query, dtype=torch.float32)  # fmt: skip
    case.keys[0, :16] = torch.eye(16)
    grad = (1 + torch.rand(1, 20, 40)) * 1e-6  # fp16 holds these as few bits
    of_query, _ = gradients(case.with_layout(scale=1.0).to(device), grad.to(device))
    torch.testing.assert_close(of_query.cpu(), grad[:, :, :16], rtol=5e-7, atol=0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite(level: str, device: str, dtype: torch.dtype, bad: float) -> None:
    case = make_case("candidates", dtype, counts=(70, 40), width=16, candidates=20, poison=False)
    assert isinstance(case.keys, Tensor)
    case.keys[0, 3, 2] = bad
    case.query[1, 5, 7] = bad
    check_gradients(case, device)


def test_gradients_that_are_not_finite(level: str, device: str) -> None:
    case = make_case("candidates", counts=(70, 40), width=16, candidates=20, poison=False)
    for bad in (torch.inf, torch.nan):
        grad = torch.randn(2, 20, 70)
        grad[0, 3, 50], grad[1, 19, 0] = bad, -bad
        grad[1, 4, 60] = bad  # of no behaviour
        ours, exact = gradients(case.to(device), grad.to(device)), case.double().trained()
        exact.run(lc.reference.gsu_score).backward(grad.double().masked_fill(~valid(case), 0))
        for mine, leaf in zip(ours, (exact.query, exact.keys), strict=True):
            assert isinstance(leaf, Tensor)
            torch.testing.assert_close(mine.cpu().double(), leaf.grad, rtol=1e-4, atol=1e-4, equal_nan=True)  # fmt: skip


def valid(case: Case) -> Tensor:
    return (torch.arange(70) < case.layout["lengths"][:, None])[:, None]


def test_the_largest_numbers(level: str, device: str) -> None:
    """Which the nearest of TF32 would round to infinity."""
    case = make_case("candidates", counts=(70,), width=16, candidates=20, poison=False)
    assert isinstance(case.keys, Tensor)
    case.keys[0, 3, 2] = torch.finfo(torch.float32).max
    grad = torch.randn(1, 20, 70) / 1000
    ours, exact = gradients(case.to(device), grad.to(device)), case.double().trained()
    exact.run(lc.reference.gsu_score).backward(grad.double())
    assert exact.query.grad is not None
    torch.testing.assert_close(ours[0].cpu().double(), exact.query.grad, rtol=1e-4, atol=1e-4)


def test_no_other_sequence_shows_in_a_gradient(level: str, device: str) -> None:
    case = make_case("candidates", counts=(300, 30, 256), width=24, candidates=20).to(device)
    grad = torch.randn(3, 20, 300, device=device)
    together = gradients(case, grad)
    assert isinstance(case.keys, Tensor)
    for s in range(3):
        one = slice(s, s + 1)
        alone = Case(case.query[one], case.keys[one], case.key_time[one], case.query_time[one], case.mlp, {"lengths": case.layout["lengths"][one]})  # fmt: skip
        assert_bitwise(gradients(alone, grad[one]), [each[one] for each in together])


def test_order_and_device_change_no_bit(device: str, emulator_only: None) -> None:
    case = make_case("candidates", counts=(2_000, 9), width=24, candidates=70, mask=True)
    grad, found = torch.randn(2, 70, 2_000), []
    for sm in (80, 89, 90, 100):
        with emulator.options(sm=sm, seed=sm):
            found.append(gradients(case, grad))
    for other in found[1:]:
        assert_bitwise(other, found[0])


def test_portions_give_the_bits_of_the_whole(device: str, emulator_only: None) -> None:
    case = make_case("candidates", counts=(700, 9), width=136, candidates=70)
    assert isinstance(case.keys, Tensor)
    leaves = [case.query.requires_grad_(), case.keys.requires_grad_()]
    scores, grad = case.run(lc.gsu_score), torch.randn(2, 70, 700)
    found, launches = [], []
    for blocks in (2**31 - 1, 30):
        with emulator.options(blocks=blocks, counters=1, sm=80):
            emulator.take_counters()
            found.append(torch.autograd.grad(scores, leaves, grad, retain_graph=True))
            launches.append([x["kernel"] for x in emulator.take_counters()])
    assert_bitwise(*found)
    for kernel in ("many_query_grad_kernel", "many_key_grad_kernel"):
        once, parts = (sum(kernel in name for name in each) for each in launches)
        assert once == 1 < parts


@pytest.mark.parametrize("queries", [1, 40])
def test_windows_of_many_queries_take_the_room_of_few(
    device: str, emulated: bool, queries: int
) -> None:
    """Of s a window has as many gradients as behaviours, and of one query each as many as scores."""
    case = make_case("windows", counts=(300,), width=8, mask=True)
    starts, ends = torch.tensor([0, 100]), torch.tensor([300, 280])
    case.query, case.query_time = torch.randn(2 * queries, 8), case.query_time[:2]
    offsets = torch.tensor([0, queries, 2 * queries])
    case = case.with_layout(starts=starts, ends=ends, query_offsets=offsets)
    check_gradients(case, device)
    if not emulated:
        return
    trained = case.trained()
    scores = trained.score(lc.gsu_score)
    with emulator.options(counters=1):
        emulator.take_counters()
        torch.autograd.grad(scores.sum(), list(trained.mlp))
        launches = emulator.take_counters()
    (read,) = [
        x["global_loads"]["bytes"] for x in launches if "similarity_backward_kernel" in x["kernel"]
    ]
    of_s = 8 * (480 if queries == 1 else 2 * 300)  # gradients and deltas
    assert of_s <= read <= of_s + 1_000
