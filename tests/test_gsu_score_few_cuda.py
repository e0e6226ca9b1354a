# SPDX-License-Identifier: Apache-2.0
"""All scores of few candidates on CUDA: a key is read once for all of them, and each has the bits that it has alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import CLOCKS, FLOATS, Case, make_case, several_tables
from test_cuda_kernels import profile
from test_few_candidates import bounds, laid_out
from test_few_candidates_cuda import COUNTS, DEAD
from test_gsu_score import check_gradients, check_values
from test_many_candidates_cuda import launched, misfits, names
from tolerance import assert_bitwise
from torch import Tensor

import longclock as lc
from longclock.types import Clocks

FEW = ["gsu_score_few"]


def one_by_one(case: Case, device: str) -> Tensor:
    """A call for each candidate of a dense case, of the kernel for one: [S, C, M]."""
    each = [replace(case, query=query.contiguous()) for query in case.query.unbind(1)]
    return torch.stack([one.to(device).score(lc.gsu_score) for one in each], 1)


def same_as_alone(case: Case, device: str, layouts: tuple[str, ...] = ("candidates",)) -> None:
    """Of flat layouts each query has its sequence's scores, and no more."""
    expected = one_by_one(case, device)
    for layout in layouts:
        ours = laid_out(case, layout).to(device).score(lc.gsu_score)
        if layout == "candidates":
            assert_bitwise(ours, expected)
            continue
        lengths = bounds(case).diff().tolist()
        flat = [one[:length] for s, length in enumerate(lengths) for one in expected[s].unbind(0)]
        assert_bitwise(ours, torch.cat(flat))


@pytest.mark.parametrize("candidates", [2, 3, 5, 8, 9, 15])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sm", [75, 80, 90])
def test_every_number_of_them(
    device: str, emulated: bool, candidates: int, dtype: torch.dtype, sm: int
) -> None:
    with profile(emulated, sm=sm):
        for width in (16, 64):
            case = make_case("candidates", dtype, counts=COUNTS, candidates=candidates, width=width)
            same_as_alone(case, device, ("candidates", "windows"))
            check_values(case, device)


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dead", DEAD)
def test_layouts(
    device: str, emulated: bool, dtype: torch.dtype, table: bool, dead: dict[str, bool]
) -> None:
    """Those with query_offsets where no sweep takes them."""
    case = make_case("candidates", dtype, counts=COUNTS, candidates=5, width=33, table=table, **dead)  # fmt: skip
    same_as_alone(case, device, ("candidates", "windows"))
    if emulated:
        with profile(emulated, sm=75):
            same_as_alone(case, device, ("ragged_many", "windows_many"))
            check_values(laid_out(case, "windows_many"), device)
    case = make_case("candidates", dtype, counts=COUNTS, candidates=5, width=40, table=table, **dead)  # fmt: skip
    same_as_alone(case, device, ("candidates", "windows"))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [1, 7, 8, 31, 32, 100, 136, 264, 520])
def test_widths(device: str, width: int, dtype: torch.dtype) -> None:
    case = make_case("candidates", dtype, counts=(300, 70), candidates=7, width=width)
    same_as_alone(case, device, ("candidates", "windows"))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("widths", [(3, 2, 2), (40, 8, 16), (8, 72, 8)])
def test_several_tables(device: str, dtype: torch.dtype, widths: tuple[int, ...]) -> None:
    case = make_case("candidates", dtype, counts=COUNTS, candidates=6, width=sum(widths))
    same_as_alone(several_tables(case, widths), device)


@pytest.mark.parametrize("clocks", [86400, *CLOCKS])
def test_clocks(device: str, clocks: Clocks) -> None:
    case = make_case("candidates", counts=COUNTS, candidates=6, width=16, clocks=clocks, mask=True)
    same_as_alone(case, device)


def test_gradients_meet_the_same_scores(device: str) -> None:
    for layout in ("candidates", "windows"):
        case = make_case("candidates", counts=(70, 0, 9), candidates=5, width=9)
        check_gradients(laid_out(case, layout), device)


def test_nan_infinity_and_unknown_ids(device: str) -> None:
    for dtype in FLOATS:
        case = make_case("candidates", dtype, counts=(900, 50), candidates=4, width=16, poison=False)  # fmt: skip
        keys = case.keys
        assert isinstance(keys, Tensor)
        for i, odd in enumerate((torch.nan, torch.inf, -torch.inf)):
            keys[:, i::41, 3] = odd
        case.query[:, 1, 2], case.query[:, 2] = torch.inf, torch.nan
        same_as_alone(case, device, ("candidates", "windows"))
        case = make_case("candidates", dtype, counts=(40, 40), candidates=5, table=True, width=16)
        ids = case.layout["ids"]
        ids[0, 3], ids[1, 39] = -1, len(case.keys)
        unknown = case.to(device).score(lc.gsu_score).isnan().cpu()
        assert unknown.nonzero().tolist() == [
            [s, c, m] for s, m in ((0, 3), (1, 39)) for c in range(5)
        ]
        assert replace(case, keys=case.keys[:0]).to(device).score(lc.gsu_score).isnan().all()


def test_equal_windows_change_nobodys_bits(device: str) -> None:
    """However many lie next to each other, and where only the time, the start or the end differs."""
    case = make_case("candidates", torch.float16, counts=(90, 70), candidates=300, width=8)
    same_as_alone(case, device, ("windows",))
    starts = torch.tensor([0, 0, 0, 0, 7, 7, 7, 0, 300, 300, 0, 0])
    ends = torch.tensor([500, 500, 500, 400, 400, 400, 700, 500, 300, 300, 9, 9])
    now = torch.tensor([5, 5, 6, 6, 6, 6, 6, 5, 5, 5, 1, 1]) * 9000
    case = make_case("ragged", counts=(700,), width=40)
    layout = {"starts": starts, "ends": ends, "clocks": 86400}
    for count in (12, 11):  # the last query with a neighbour that sees its window, and without
        given = {name: value[:count] if isinstance(value, Tensor) else value for name, value in layout.items()}  # fmt: skip
        some = replace(case, query=torch.randn(count, 40), query_time=now[:count], layout=given)
        total = some.total()
        assert total is not None
        found = some.to(device).score(lc.gsu_score, total=total + 70)
        assert found[total:].eq(-torch.inf).all()
        for q, ours in enumerate(found[:total].split((ends - starts)[:count].tolist())):
            alone = replace(some, query=some.query[q : q + 1], query_time=now[q : q + 1])
            alone = alone.with_layout(starts=starts[q : q + 1], ends=ends[q : q + 1])
            assert_bitwise(ours, alone.to(device).score(lc.gsu_score))
        assert_bitwise(some.to(device).score(lc.gsu_score, total=total - 13), found[: total - 13])


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (make_case("candidates", candidates=5, width=8), FEW),
        (make_case("candidates", candidates=15, width=7), FEW),
        (make_case("candidates", candidates=15, width=132), FEW),
        (make_case("candidates", candidates=16, width=8), ["sweep"]),
        (make_case("candidates", candidates=1, width=8), ["gsu_score"]),
        (make_case("candidates", candidates=5, width=30_000, counts=(9,)), ["gsu_score"]),
        (make_case("ragged", width=8), ["gsu_score"]),
        (make_case("ragged_many", width=7), ["score_begin", "pack", "panels"]),
        (make_case("windows", width=8), ["score_begin", *FEW, "gsu_score"]),
        (make_case("windows_many", width=8), ["score_begin", "sweep"]),
    ],
)
def test_which_kernels_run(
    emulator_only: None, device: str, case: Case, expected: list[str]
) -> None:
    case.keys.nan_to_num_(0.0)
    assert names(launched(case, None)) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_keys_are_read_once_and_scores_written_in_lines(
    emulator_only: None, device: str, dtype: torch.dtype
) -> None:
    s, m, width, candidates = 6, 3_000, 64, 5
    case = make_case("candidates", dtype, counts=(m,) * s, candidates=candidates, width=width)
    (launch,) = launched(case, None)
    keys: Any = case.keys
    loads, least = launch["global_loads"], keys.numel() * keys.element_size() + case.key_time.numel() * 8  # fmt: skip
    assert loads["first_bytes"] <= 1.01 * least
    assert loads["sectors"] * 32 <= 1.15 * least  # each part reads queries and weights
    assert launch["global_stores"]["sectors"] * 32 == s * candidates * m * 4
    shared = [x["shared"] for x in launch["places"] if "shared" in x]
    fewest = sum(x["minimum_wavefronts"] for x in shared)
    assert sum(x["wavefronts"] for x in shared) <= 1.05 * fewest


@pytest.mark.parametrize("name", list(misfits()))
def test_values_that_do_not_fit_read_nothing_out_of_bounds(
    device: str, emulated: bool, name: str
) -> None:
    """By a device that has no sweeps."""
    case = misfits()[name]
    case.keys.nan_to_num_(0.0)
    total = None if name in ("lengths", "ids") else 1_000
    with profile(emulated, sm=75):
        scores = case.to(device).score(lc.gsu_score, total=total)
    assert len(scores) == (total or len(case.query))


@pytest.mark.parametrize("dtype", FLOATS)
def test_schedules_and_profiles_give_the_same_bits(
    device: str, emulated: bool, dtype: torch.dtype
) -> None:
    case = make_case("candidates", dtype, counts=(1_500, 1, 700), candidates=7, width=32, table=True, mask=True)  # fmt: skip
    first = case.to(device).score(lc.gsu_score)
    for options in ({"seed": 1, "threads": 1}, {"seed": 2, "threads": 2}, {"sm": 86}, {"sm": 90}, {"sm": 120}):  # fmt: skip
        with profile(emulated, **options):
            assert_bitwise(case.to(device).score(lc.gsu_score), first)
