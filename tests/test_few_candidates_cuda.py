# SPDX-License-Identifier: Apache-2.0
"""Few candidates of a request on CUDA: a key is read once for all of them, and each finds, to the bit, what it does alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import emulator
import pytest
import torch
from cases import CLOCKS, FLOATS, Case, make_case, several_tables
from test_clock_gsu import check
from test_cuda_kernels import asserted, profile
from test_few_candidates import laid_out
from test_many_candidates import BLOCK, exact, of_scores, patterns
from test_many_candidates_cuda import launched, misfits, names
from tolerance import assert_bitwise

import longclock as lc
from longclock.types import Clocks

COUNTS = (1300, 0, 5, 300)
FEW = ["few_candidates"]
MERGED = [*FEW, "topk_merge_by_warp"]
DEAD: list[dict[str, bool]] = [{}, {"mask": True, "exclude_future": True}]


def one_by_one(case: Case, k: int, device: str) -> lc.TopK:
    """A call for each candidate of a dense case, of the kernel for one."""
    found = []
    for query in case.query.unbind(1):
        found.append(replace(case, query=query.contiguous()).to(device).run(lc.clock_gsu, k))
    return lc.TopK(*(torch.stack(parts, 1) for parts in zip(*found, strict=True)))


def same_as_alone(case: Case, k: int, device: str, layouts: tuple[str, ...] = ("candidates", "windows")) -> None:  # fmt: skip
    expected = one_by_one(case, k, device)
    for layout in layouts:
        found = laid_out(case, layout).to(device).run(lc.clock_gsu, k)
        assert_bitwise(
            [part.view(expected.scores.shape) for part in found],
            [expected.scores, expected.indices],
        )


@pytest.mark.parametrize("candidates", [2, 3, 5, 8, 9, 15])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sm", [75, 80, 90])
def test_every_number_of_them(
    device: str, emulated: bool, candidates: int, dtype: torch.dtype, sm: int
) -> None:
    with profile(emulated, sm=sm):
        for width in (16, 64):
            case = make_case("candidates", dtype, counts=COUNTS, candidates=candidates, width=width)
            same_as_alone(case, 20, device)
            check(case, 20, device)


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dead", DEAD)
def test_layouts(device: str, dtype: torch.dtype, table: bool, dead: dict[str, bool]) -> None:
    for width in (33, 40):
        case = make_case("candidates", dtype, counts=COUNTS, candidates=5, width=width, table=table, **dead)  # fmt: skip
        for k in (1, 100):
            same_as_alone(case, k, device)
        check(case, 100, device)
        check(laid_out(case, "windows"), 100, device)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dead", DEAD)
def test_several_tables(device: str, dtype: torch.dtype, dead: dict[str, bool]) -> None:
    for widths in ((3, 2, 2), (40, 8, 16), (8, 72, 8)):
        case = make_case(
            "candidates", dtype, counts=COUNTS, candidates=6, width=sum(widths), **dead
        )
        same_as_alone(several_tables(case, widths), 20, device)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [1, 7, 8, 31, 32, 64, 100, 128, 136, 264, 520])
def test_widths(device: str, width: int, dtype: torch.dtype) -> None:
    case = make_case("candidates", dtype, counts=(300, 70), candidates=7, width=width)
    same_as_alone(case, 20, device)


@pytest.mark.parametrize("clocks", [86400, *CLOCKS])
def test_clocks(device: str, clocks: Clocks) -> None:
    case = make_case("candidates", counts=COUNTS, candidates=6, width=16, clocks=clocks, mask=True)
    same_as_alone(case, 9, device)


@pytest.mark.parametrize("pattern", list(patterns(BLOCK)))
@pytest.mark.parametrize("k", [1, 100, 128, 129, 300])
def test_every_order(device: str, pattern: str, k: int) -> None:
    """Rounds of which all scores pass, and rounds of which none does."""
    for dtype in FLOATS:
        for m in (1, 255, 257, 1029):
            exact(of_scores(patterns(m)[pattern], dtype, candidates=5), k, device)


@pytest.mark.parametrize("pattern", ["random", "ascending", "equal", "few values", "descending"])
@pytest.mark.parametrize("k", [129, 255, 800, 1100, 2047, 2048])
def test_long_lists(device: str, pattern: str, k: int) -> None:
    """Lists longer than a warp has registers for, that are cut to k several times or never."""
    for dtype, m in ((torch.float32, 7_000), (torch.float16, 2_500)):
        exact(of_scores(patterns(m)[pattern], dtype, candidates=3), k, device)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_long_lists_of_scores_that_differ_in_the_last_bits(device: str, sign: float) -> None:
    """1 + j 2^-23, all different, and one apart from the next."""
    case = of_scores(torch.zeros(4_096), torch.float32, candidates=4)
    case.keys[0, :, 0] = sign * (1.0 + torch.randperm(4_096) * 2.0**-23)
    case.query[0, :, 0] = torch.tensor([1.0, -1.0, 2.0, 1.0])
    case.query[0, 3, 1], case.keys[0, 5::7, 1] = 1.0, -torch.inf
    for k in (600, 1500):
        exact(case, k, device)


@pytest.mark.parametrize("k", [300, 1025, 2048])
@pytest.mark.parametrize("sm", [75, 80, 86, 90])
def test_long_lists_of_as_many_candidates_as_memory_holds(
    device: str, emulated: bool, sm: int, k: int
) -> None:
    with profile(emulated, sm=sm):
        for candidates in (2, 7, 15):
            case = make_case("candidates", counts=(1_100, 70), candidates=candidates, width=8)
            same_as_alone(case, k, device)


def test_parts_of_a_long_history(device: str) -> None:
    case = of_scores(patterns(16_000)["random"].repeat(3), torch.float16, candidates=5)
    for k in (1, 100, 128, 700):
        exact(case, k, device)
    exact(laid_out(case.with_layout(lengths=torch.tensor([48_000])), "windows"), 100, device)


def test_nan_and_infinity(device: str) -> None:
    for dtype in FLOATS:
        case = make_case(
            "candidates", dtype, counts=(900, 50), candidates=4, width=16, poison=False
        )
        keys = case.keys
        assert isinstance(keys, torch.Tensor)
        for i, odd in enumerate((torch.nan, torch.inf, -torch.inf)):
            keys[:, i::41, 3] = odd
        case.query[:, 1, 2], case.query[:, 2] = torch.inf, torch.nan
        for k in (7, 100, 200):
            same_as_alone(case, k, device)


def test_only_the_row_of_an_unknown_id_is_nan(device: str) -> None:
    for dtype in FLOATS:
        case = make_case("candidates", dtype, counts=(40, 40), candidates=5, table=True, width=16)
        ids = case.layout["ids"]
        ids[0, 3], ids[1, 39] = -1, len(case.keys)
        found = case.to(device).run(lc.clock_gsu, 40)
        assert found.indices[:, :, 0].cpu().tolist() == [[3] * 5, [39] * 5]
        assert found.scores.isnan().sum().item() == 2 * 5
        nothing = replace(case, keys=case.keys[:0])
        assert nothing.to(device).run(lc.clock_gsu, 40).scores.isnan().all()


def test_equal_windows_change_nobodys_bits(device: str) -> None:
    """However many lie next to each other, and where only the time, the start or the end differs."""
    for candidates in (40, 300):
        case = make_case(
            "candidates", torch.float16, counts=(90, 70), candidates=candidates, width=8
        )
        same_as_alone(case, 7, device, ("windows",))
    starts = torch.tensor([0, 0, 0, 0, 7, 7, 7, 0, 300, 300])
    ends = torch.tensor([500, 500, 500, 400, 400, 400, 700, 500, 300, 300])
    now = torch.tensor([5, 5, 6, 6, 6, 6, 6, 5, 5, 5]) * 9000
    case = make_case("ragged", counts=(700,), width=40)
    layout = {"starts": starts, "ends": ends, "clocks": 86400}
    case = replace(case, query=torch.randn(10, 40), query_time=now, layout=layout)
    found = case.to(device).run(lc.clock_gsu, 20)
    for q in range(10):
        alone = replace(case, query=case.query[q : q + 1], query_time=now[q : q + 1])
        alone = alone.with_layout(starts=starts[q : q + 1], ends=ends[q : q + 1])
        expected = alone.to(device).run(lc.clock_gsu, 20)
        assert_bitwise([part[q : q + 1] for part in found], list(expected))


@pytest.mark.parametrize("layout", ["ragged_many", "windows_many"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_queries_of_a_sequence_where_there_are_no_sweeps(
    emulator_only: None, device: str, layout: str, dtype: torch.dtype
) -> None:
    with emulator.options(sm=75):
        case = make_case(layout, dtype, counts=(300, 0, 5, 640), width=7, integers=True, mask=True)
        exact(case, 20, device)
        case = make_case("candidates", dtype, counts=(70, 9), candidates=40, width=7)
        same_as_alone(case, 9, device)


@pytest.mark.parametrize(
    ("case", "k", "expected"),
    [
        (make_case("candidates", candidates=5, width=8), 5, FEW),
        (make_case("candidates", candidates=5, width=8, counts=(4_000, 3_000)), 5, MERGED),
        (make_case("candidates", candidates=15, width=7), 5, FEW),
        (make_case("candidates", candidates=1, width=8), 5, ["clock_gsu_ahead"]),
        (make_case("candidates", candidates=5, width=8), 129, FEW),
        (
            make_case("candidates", candidates=5, width=8, counts=(4_000, 3_000)),
            129,
            [*FEW, "topk_merge"],
        ),
        (make_case("candidates", candidates=5, width=20_000, counts=(9,)), 5, ["clock_gsu"]),
        (make_case("ragged", width=8), 5, ["clock_gsu_ahead"]),
        (make_case("windows", width=8), 5, [*FEW, "clock_gsu_ahead"]),
        (make_case("windows", width=8), 129, [*FEW, "clock_gsu_ahead"]),
    ],
)
def test_which_kernels_run(
    emulator_only: None, device: str, case: Case, k: int, expected: list[str]
) -> None:
    case.keys.nan_to_num_(0.0)
    assert names(launched(case, k)) == expected


@pytest.mark.parametrize(
    "case",
    [
        make_case("candidates", candidates=40, width=8),
        make_case("candidates", candidates=16, width=132),
        make_case("ragged_many", width=7),
    ],
)
def test_which_kernels_run_where_there_are_no_sweeps(
    emulator_only: None, device: str, case: Case
) -> None:
    case.keys.nan_to_num_(0.0)
    assert names(launched(case, 5, 75)) == FEW


@pytest.mark.parametrize("k", [100, 600])
@pytest.mark.parametrize("layout", ["candidates", "windows"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_key_is_read_once_for_all(
    emulator_only: None, device: str, dtype: torch.dtype, layout: str, k: int
) -> None:
    s, m, width = 6, 3_000, 64
    case = make_case("candidates", dtype, counts=(m,) * s, candidates=5, width=width)
    first, *_ = launched(laid_out(case, layout), k)
    assert "few_candidates" in first["kernel"]
    keys: Any = case.keys
    wide = sum(
        x["global"]["bytes"] for x in first["places"] if x.get("lane_bytes") == 16 and "global" in x
    )
    # Of windows the host does not know the lengths: they are cut into more parts.
    most = 1.02 if layout == "candidates" else 1.15
    assert wide <= most * keys.numel() * keys.element_size()
    if layout == "candidates":  # besides keys and times: queries, weights
        bytes_read = first["global_loads"]["sectors"] * 32
        assert bytes_read <= 1.04 * (keys.numel() * keys.element_size() + case.key_time.numel() * 8)


@pytest.mark.parametrize("name", list(misfits()))
def test_values_that_do_not_fit_read_nothing_out_of_bounds(
    device: str, emulated: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a device that has no sweeps."""
    case = misfits()[name]
    case.keys.nan_to_num_(0.0)
    with profile(emulated, sm=75):
        case.to(device).run(lc.clock_gsu, 7)
        if emulated:
            assert "few_candidates" in names(launched(case, 7, 75))
            assert name.split()[0] in asserted(case, monkeypatch)


@pytest.mark.parametrize("dtype", FLOATS)
def test_schedules_and_profiles_give_the_same_bits(
    device: str, emulated: bool, dtype: torch.dtype
) -> None:
    case = make_case("candidates", dtype, counts=(1_500, 1, 700), candidates=7, width=32, table=True, mask=True)  # fmt: skip
    first = case.to(device).run(lc.clock_gsu, 100)
    for options in ({"seed": 1, "threads": 1}, {"seed": 2, "threads": 2}, {"sm": 86}, {"sm": 90}, {"sm": 120}):  # fmt: skip
        with profile(emulated, **options):
            assert_bitwise(case.to(device).run(lc.clock_gsu, 100), first)
