# SPDX-License-Identifier: Apache-2.0
"""Gradients of tables of which one row is looked up by many of all positions: its sum is cut into parts on CUDA."""

from __future__ import annotations

import emulator
import pytest
import torch
from cases import FLOATS, LAYOUTS, NOWHERE, Case, make_case
from test_gsu_score import check_gradients
from tolerance import assert_bitwise
from torch import Tensor

import longclock as lc

TABLE_GRAD = torch.ops.longclock.esu_attention_table_grad
PART = 64  # positions
COUNTS = (1, 63, 64, 65, 127, 128, 129, 192, 1_500)  # of the popular row


def lists_of(count: int, others: int, rows: int) -> tuple[Tensor, Tensor]:
    """Ids of which `count` are of one row in the middle of the table, and where these are."""
    ids = torch.randint(0, rows, (count + others,))
    ids[ids == rows // 2] += 1
    popular = torch.randperm(count + others)[:count].sort().values
    ids[popular] = rows // 2
    return ids, popular


def gradient(z_grad: Tensor, ids: Tensor, rows: int, device: str) -> Tensor:
    found: Tensor = TABLE_GRAD(
        z_grad[None].to(device), ids[None].to(device), None, None, rows
    ).cpu()
    return found


def in_parts(terms: Tensor) -> Tensor:
    """Their sum in fp32: those of a part in order, then the parts in order."""

    def in_order(values: Tensor) -> Tensor:
        total = torch.zeros(terms.shape[1])
        for value in values:
            total = total + value
        return total

    return in_order(torch.stack([in_order(part) for part in terms.float().split(PART)]))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [8, 37, 264])
def test_a_popular_row_of_the_attention(
    level: str, device: str, dtype: torch.dtype, width: int
) -> None:
    for count in COUNTS:
        ids, popular = lists_of(count, 300, 40)
        z_grad = torch.randn(len(ids), width).to(dtype)
        found = gradient(z_grad, ids, 41, device)
        if level == "device":
            assert torch.equal(found[20], in_parts(z_grad[popular]).to(dtype))
        if dtype == torch.float32 or level == "device":  # on the CPU sums are of the table's dtype
            exact, size = (
                torch.zeros(41, width).double().index_add_(0, ids, terms)
                for terms in (z_grad.double(), z_grad.double().abs())
            )
            eps, rounding = torch.finfo(torch.float32).eps, torch.finfo(dtype).eps
            assert ((found.double() - exact).abs() <= 4 * eps * size + rounding * exact.abs()).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_no_other_row_shows_in_a_popular_row(level: str, device: str, dtype: torch.dtype) -> None:
    terms = torch.randn(1_100, 16).to(dtype)
    alone = gradient(terms, torch.full((1_100,), 20), 41, device)[20]
    for others in (1, 63, 64, 3_000):
        ids, popular = lists_of(1_100, others, 40)
        z_grad = torch.randn(len(ids), 16).to(dtype)
        z_grad[popular] = terms
        assert torch.equal(gradient(z_grad, ids, 41, device)[20], alone)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_every_row_is_popular(level: str, device: str, rows: int) -> None:
    ids, z_grad = torch.randint(0, rows, (5_000,)), torch.randn(5_000, 20)
    expected = torch.zeros(rows, 20).double().index_add_(0, ids, z_grad.double())
    found = gradient(z_grad, ids, rows, device).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)


def popular_case(layout: str, dtype: torch.dtype, counts: tuple[int, ...], part: float) -> Case:
    case = make_case(layout, dtype, counts=counts, table=True, width=20, mask=True)
    ids = case.layout["ids"]
    known = ids != NOWHERE
    if known.any():
        ids[known & (torch.rand(ids.shape) < part)] = ids[known][0].clone()
    return case


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("part", [0.5, 1.0])
def test_a_popular_row_of_the_search(
    level: str, device: str, layout: str, dtype: torch.dtype, part: float
) -> None:
    check_gradients(popular_case(layout, dtype, (210, 0, 300), part), device)


@pytest.mark.parametrize("count", [63, 64, 65, 128, 129, 1_000])
def test_parts_of_the_search(level: str, device: str, count: int) -> None:
    """To the bit, since all sums are exact."""
    case = make_case("dense", counts=(count, 40), table=True, width=8, integers=True)
    case.layout["ids"][0] = case.layout["ids"][1, 0]
    grad = torch.randint(-3, 4, (2, count)).float()
    found = []
    for mine, op in ((case.to(device).trained(), lc.gsu_score), (case.double().trained(), lc.reference.gsu_score)):  # fmt: skip
        mine.run(op).backward(grad.to(mine.query))
        found.append(mine.keys.grad.double().cpu())  # type: ignore[union-attr]
    assert torch.equal(*found)


def test_no_other_sequence_shows_in_a_popular_row(level: str, device: str) -> None:
    case = make_case("dense", counts=(700, 700), table=True, width=20, poison=False).to(device)
    case.layout["ids"][0, ::2] = case.layout["ids"][0, 0].clone()
    hot, grad = int(case.layout["ids"][0, 0]), torch.randn(2, 700, device=device)
    found = []
    for some in (slice(0, 2), slice(0, 1)):
        layout = {name: case.layout[name][some] for name in ("ids", "lengths")}
        mine = Case(case.query[some], case.keys, case.key_time[some], case.query_time[some], case.mlp, layout).trained()  # fmt: skip
        mine.run(lc.gsu_score).backward(grad[some])
        assert isinstance(mine.keys, Tensor)
        assert mine.keys.grad is not None
        found.append(mine.keys.grad[hot])
    assert_bitwise(*found)


@pytest.mark.parametrize("op", ["attention", "search"])
def test_no_warp_adds_up_a_popular_row_alone(device: str, emulator_only: None, op: str) -> None:
    """It would take 50 instructions and more for each of 6,000 positions."""
    emulator.take_counters()
    with emulator.options(counters=1, checks="none"):
        if op == "attention":
            gradient(torch.randn(6_000, 16), torch.zeros(6_000, dtype=torch.int64), 9, device)
        else:
            case = make_case("dense", counts=(6_000,), table=True, width=16, poison=False)
            assert isinstance(case.keys, Tensor)
            case.keys.requires_grad_()
            case.layout["ids"].zero_()
            case.run(lc.gsu_score).sum().backward()
    launches = emulator.take_counters()
    # The sort's warps wait for each other in loops.
    assert sum(x["busiest_warp"] for x in launches if "cub::" not in x["kernel"]) < 12_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rows_numbered_by_how_many_look_them_up(  # type: ignore[no-untyped-def]
    level: str, device: str, dtype: torch.dtype, same_at_any_threads
) -> None:
    """As tables often are: threads have ranges of rows of about equal work, and the bits of one thread."""
    ids = (torch.rand(2, 10_000) ** 4 * 3_000).long()
    case = make_case("dense", dtype, counts=(10_000, 10_000), table=True, width=16, poison=False)
    case = case.with_layout(ids=ids, mask=torch.rand(2, 10_000) < 0.9).to(device)
    assert isinstance(case.keys, Tensor)
    keys, z_grad = case.keys.requires_grad_(), torch.randn(20_000, 16).to(dtype)
    scores = case.run(lc.gsu_score)
    grad = torch.randn_like(scores)

    def run() -> list[Tensor]:
        of_search = torch.autograd.grad(scores, keys, grad, retain_graph=True)
        return [*of_search, gradient(z_grad, ids.flatten(), 3_000, device)]

    same_at_any_threads(run)
