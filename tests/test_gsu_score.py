# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from cases import CLOCKS, FLOATS, LAYOUTS, Case, make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerance import assert_bitwise, assert_close

import longclock as lc
from longclock.types import Clocks


def check_values(case: Case, device: str, **options: Any) -> None:
    ours = case.to(device).score(lc.gsu_score, **options)
    assert ours.dtype == torch.float32
    exact = case.double().run(lc.reference.gsu_score, **options)
    assert_close(ours, exact, case.run(lc.reference.gsu_score, **options))


def check_gradients(case: Case, device: str) -> None:
    ours, exact, rival = case.to(device).trained(), case.double().trained(), case.trained()
    scores = ours.score(lc.gsu_score)
    grad = torch.randn(scores.shape)
    scores.backward(grad.to(device))
    exact.run(lc.reference.gsu_score).backward(grad.double())
    rival.run(lc.reference.gsu_score).backward(grad)
    for name, leaf in ours.leaves().items():
        mine, fine, other = leaf.grad, exact.leaves()[name].grad, rival.leaves()[name].grad
        assert mine is not None
        assert mine.dtype == leaf.dtype
        zero = torch.zeros(leaf.shape)
        fine = zero.double() if fine is None else fine  # nothing to score: no graph
        terms = 1 if name in ("query", "keys") else scores.numel()
        assert_close(mine, fine, zero if other is None else other, name, terms)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dead", [{}, {"mask": True}, {"mask": True, "exclude_future": True}])
def test_value(
    level: str, device: str, layout: str, table: bool, dtype: torch.dtype, dead: dict[str, bool]
) -> None:
    check_values(make_case(layout, dtype, table=table, **dead), device)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dead", [{}, {"mask": True, "exclude_future": True}])
def test_gradients(
    level: str, device: str, layout: str, table: bool, dtype: torch.dtype, dead: dict[str, bool]
) -> None:
    check_gradients(make_case(layout, dtype, table=table, **dead), device)


@pytest.mark.parametrize("width", [1, 7, 8, 16, 31, 33, 64, 100])
@pytest.mark.parametrize("layout", ["dense", "candidates", "windows"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_widths(level: str, device: str, layout: str, width: int, dtype: torch.dtype) -> None:
    case = make_case(layout, dtype, width=width, counts=(40, 1))
    check_values(case, device)
    check_gradients(case, device)


@pytest.mark.parametrize(
    "counts", [(), (0,), (1,), (0, 0, 0), (255,), (256,), (257, 3), (511, 513)]
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_lengths(level: str, device: str, layout: str, counts: tuple[int, ...]) -> None:
    case = make_case(layout, counts=counts)
    check_values(case, device)
    check_gradients(case, device)


@pytest.mark.parametrize("period", [1, 2, 86399, 604800, 2**31 - 1])
@pytest.mark.parametrize("time_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("hidden", [1, 8, 33, 64])
def test_clocks(level: str, device: str, period: int, time_dtype: torch.dtype, hidden: int) -> None:
    case = make_case("dense", time_dtype=time_dtype, clocks=period, hidden=hidden)
    check_values(case, device)
    check_gradients(case, device)


@pytest.mark.parametrize("clocks", CLOCKS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_several_clocks(level: str, device: str, layout: str, clocks: Clocks) -> None:
    for time_dtype in (torch.int32, torch.int64):
        case = make_case(layout, clocks=clocks, time_dtype=time_dtype, mask=True)
        check_values(case, device)
        check_gradients(case, device)
    # Often enough for tables of s.
    case = make_case(layout, clocks=clocks, counts=(3000, 1, 500, 700)).to(device)
    first = case.score(lc.gsu_score)
    for _ in range(40 if device == "cpu" else 1):
        assert torch.equal(case.score(lc.gsu_score), first)


@pytest.mark.parametrize("candidates", [0, 1, 2, 5, 8, 9])
def test_candidates(level: str, device: str, candidates: int) -> None:
    case = make_case("candidates", candidates=candidates, width=24)
    check_values(case, device)
    check_gradients(case, device)


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_integers_are_exact(level: str, device: str, layout: str, table: bool) -> None:
    for dtype in FLOATS:
        case = make_case(layout, dtype, table=table, integers=True, width=33)
        exact = case.double().run(lc.reference.gsu_score)
        assert torch.equal(case.to(device).score(lc.gsu_score).cpu().double(), exact)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_wider_query_is_rounded_first(level: str, device: str, dtype: torch.dtype) -> None:
    for layout in LAYOUTS:
        case = make_case(layout, dtype, width=32)
        case.query = torch.randn_like(case.query, dtype=torch.float32)
        ours = case.to(device).score(lc.gsu_score)
        case.query = case.query.to(dtype)
        assert_bitwise(ours, case.to(device).score(lc.gsu_score))


def test_scale_and_unit(level: str, device: str) -> None:
    case = make_case("dense")
    for options in ({"scale": 0.25}, {"scale": 0.0}, {"unit": 60.0}, {"scale": -3.0, "unit": 9e9}):
        check_values(case, device, **options)


def test_not_contiguous(level: str, device: str) -> None:
    case = make_case("candidates", counts=(20, 20), width=12).to(device)
    expected = case.score(lc.gsu_score)
    wide = torch.full((20, 3, 24), torch.nan, device=device)
    wide[:, :2, ::2] = case.keys.transpose(0, 1)
    case.keys = wide[:, :2, ::2].transpose(0, 1)
    case.key_time = case.key_time.T.contiguous().T
    case.query = case.query.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    case.query_time = case.query_time.repeat_interleave(2)[::2]
    case.layout["lengths"] = case.layout["lengths"].repeat_interleave(3)[::3]
    assert_bitwise(case.score(lc.gsu_score), expected)


def test_odd_values_are_seen(level: str, device: str) -> None:
    for bad in (torch.nan, torch.inf, -torch.inf):
        case = make_case("dense", counts=(20, 20), width=8, poison=False)
        case.keys[0, 3, 2] = bad
        case.query[1, 1] = bad
        check_values(case, device)


@given(st.lists(st.integers(0, 40), max_size=6), st.data())
@settings(max_examples=40, deadline=None)
def test_any_flat_layout(
    device: str, checks_data: bool, counts: list[int], data: st.DataObject
) -> None:
    layout = data.draw(st.sampled_from(["ragged", "ragged_many", "windows"]))
    case = make_case(
        layout, data.draw(st.sampled_from(FLOATS)), counts=tuple(counts), integers=True,
        table=data.draw(st.booleans()), mask=data.draw(st.booleans()),
        exclude_future=data.draw(st.booleans()), width=data.draw(st.integers(1, 20)),
    )  # fmt: skip
    exact = case.double().run(lc.reference.gsu_score)
    assert torch.equal(case.to(device).score(lc.gsu_score).cpu().double(), exact)
    if checks_data:  # CUDA does not count
        assert torch.equal(case.run(lc.gsu_score).double(), exact)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bitwise_repeatable(level: str, device: str, layout: str, same_at_any_threads) -> None:  # type: ignore[no-untyped-def]
    case = make_case(layout, counts=(300, 1, 700, 500), width=24, table=True).to(device).trained()
    grad = torch.randn_like(case.score(lc.gsu_score).detach())

    def run() -> list[torch.Tensor]:
        scores = case.score(lc.gsu_score)
        return [scores, *torch.autograd.grad(scores, list(case.leaves().values()), grad)]

    same_at_any_threads(run)


def test_a_row_does_not_depend_on_its_batch(level: str, device: str) -> None:
    for layout in ("dense", "candidates"):
        case = make_case(layout, counts=(300, 30, 256), width=24).to(device)
        together = case.score(lc.gsu_score)
        for s in range(3):
            one = slice(s, s + 1)
            alone = lc.gsu_score(
                case.query[one], case.keys[one], case.key_time[one], case.query_time[one],
                case.mlp, lengths=case.layout["lengths"][one],
            )  # fmt: skip
            assert_bitwise(alone, together[one])


@pytest.mark.parametrize("layout", ["dense", "candidates"])
def test_rows_of_no_width(level: str, device: str, layout: str) -> None:
    """The time term alone; in a thread of its own, which has no memory from calls before."""
    case = make_case(layout, counts=(40, 3), width=0)
    found: list[torch.Tensor] = []
    case = case.with_layout(scale=1.0)
    thread = threading.Thread(target=lambda: found.append(case.to(device).run(lc.gsu_score).cpu()))
    thread.start()
    thread.join()
    torch.testing.assert_close(found[0], case.run(lc.reference.gsu_score))
