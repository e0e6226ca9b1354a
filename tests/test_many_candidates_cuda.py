# SPDX-License-Identifier: Apache-2.0
"""The sweeps of many candidates: what they launch, write and do with values that do not fit."""

from __future__ import annotations

import re
from typing import Any

import emulator
import pytest
import torch
from bench.cuda_report.workloads import evaluations_of_s
from cases import FLOATS, NOWHERE, Case, make_case
from test_cuda_kernels import asserted, profile
from test_many_candidates import BLOCK, exact, of_scores, patterns, ragged
from tolerance import assert_bitwise

import longclock as lc

KERNELS = ["sweep", "choose_by_warp", "sweep", "select_by_warp"]
OF_LARGE_K = ["sweep", "choose", "sweep", "select"]
STORED = ["sweep", "choose_by_warp", "select_by_warp"]  # fp32 whose scores the cache keeps


def launched(case: Case, k: int | None, sm: int = 80) -> list[dict[str, Any]]:
    """The launches of a search, or for k=None of all scores, which is run on the emulator."""
    with emulator.options(sm=sm, counters=1):
        emulator.take_counters()
        case.score(lc.gsu_score) if k is None else case.run(lc.clock_gsu, k)
        return emulator.take_counters()


def names(launches: list[dict[str, Any]]) -> list[str]:
    found = (re.search(r"(\w+)_kernel", launch["kernel"]) for launch in launches)
    return [match.group(1).removeprefix("sweep_") for match in found if match]


@pytest.mark.parametrize("pattern", list(patterns(BLOCK)))
@pytest.mark.parametrize("k", [1, 100, 300])
def test_what_is_written_does_not_depend_on_the_data(
    emulator_only: None, device: str, pattern: str, k: int
) -> None:
    """Eight scores of each of the k best blocks, or of all: the bound that docs/many-candidates.md proves."""
    m, candidates = 1029, 21
    launches = launched(of_scores(patterns(m)[pattern], torch.float16, candidates), k)
    assert names(launches) == (KERNELS if k <= 128 else OF_LARGE_K)
    blocks = -(-m // BLOCK)
    room = -(-m // 64) * 8  # blocks of whole tiles
    times = 4 * m  # s of every behaviour, for the second sweep
    assert launches[0]["global_stores"]["bytes"] == candidates * room * 4 + times
    assert launches[2]["global_stores"]["bytes"] == candidates * min(k, blocks) * BLOCK * 4


@pytest.mark.parametrize("k", [1, 100, 128])
@pytest.mark.parametrize("pattern", [*patterns(BLOCK), "large in few groups"])
def test_a_selection_by_a_warp_is_short_whatever_the_data(
    emulator_only: None, device: str, pattern: str, k: int
) -> None:
    """Large scores in 60 of the 128 groups whose maxima bound the k-th best: 590 blocks of 1,250 reach the bound."""
    m, candidates = 10_000, 16
    found = patterns(m)
    few = torch.arange(m) // BLOCK % 128 < 60
    found["large in few groups"] = found["random"] / 2 + 8192 * few
    case = of_scores(found[pattern].floor(), torch.float16, candidates)
    exact(case, k, device)
    launches = [x for x in launched(case, k) if "by_warp" in x["kernel"]]
    assert len(launches) == 2
    counts = [x["instructions"] for x in launches]
    instructions = sum(sum(count.values()) - count["move"] for count in counts) / candidates
    assert instructions <= (4_500 if pattern == "random" and k <= 100 else 9_000), instructions
    assert sum(x["barriers"] for x in launches) == 0


@pytest.mark.parametrize(
    ("case", "sm", "many"),
    [
        (make_case("candidates", candidates=16, width=8), 80, True),
        (make_case("candidates", torch.float16, candidates=16, width=8), 75, False),
        (make_case("candidates", candidates=15, width=8), 80, False),
        (
            make_case("candidates", candidates=16, width=7),
            80,
            False,
        ),  # in panels, test_panels_cuda.py
        (make_case("candidates", candidates=16, width=128), 80, True),
        (make_case("candidates", candidates=16, width=132), 80, False),  # longer than 512 bytes
        (make_case("candidates", torch.bfloat16, candidates=16, width=256), 80, True),
        (make_case("ragged_many", width=8), 80, True),
        (make_case("ragged", width=8), 80, False),
        (make_case("windows", width=8), 80, False),
    ],
)
def test_which_kernels_run(
    emulator_only: None, device: str, case: Case, sm: int, many: bool
) -> None:
    case.keys.nan_to_num_(0.0)
    expected = STORED if case.query.dtype == torch.float32 else KERNELS
    assert (names(launched(case, 5, sm)) == expected) == many


SMALL_CACHE = 86  # of the profile with 6 MB, of which 24 rows of 33,000 scores are more than half


def more_than_half_a_small_cache() -> dict[str, Case]:
    m, candidates = 33_000, 24
    found = {
        name: of_scores(patterns(2**14)[name].repeat(3)[:m], torch.float32, candidates, width=8)
        for name in ("random", "equal", "few values", "ties across edges")
    }
    odd = found["odd"] = of_scores(torch.randint(0, 2**14, (m,)).float(), torch.float32, candidates, width=8)  # fmt: skip
    for i, value in enumerate((torch.nan, torch.inf, -torch.inf)):
        odd.keys[0, 7 + i :: 1009, 2] = value
    odd.query[0, 3, 2], odd.query[0, 4] = 1.0, torch.nan
    found["mask"] = found["random"].with_layout(mask=torch.rand(1, m) < 0.5)
    return found


@pytest.mark.parametrize("name", list(more_than_half_a_small_cache()))
def test_one_stored_sweep_finds_what_two_do(emulator_only: None, device: str, name: str) -> None:
    case = more_than_half_a_small_cache()[name]
    for k in (100, 300):
        ours, expected = case.run(lc.clock_gsu, k), case.run(lc.reference.clock_gsu, k)
        assert torch.equal(ours.indices, expected.indices)
        with emulator.options(sm=SMALL_CACHE):
            assert_bitwise(case.run(lc.clock_gsu, k), ours)


def test_products_are_computed_once_where_the_cache_keeps_the_scores(
    emulator_only: None, device: str
) -> None:
    case = more_than_half_a_small_cache()["random"]
    stored, twice = launched(case, 100), launched(case, 100, SMALL_CACHE)
    assert [names(each).count("sweep") for each in (stored, twice)] == [1, 2]
    products = [
        [x["instructions"].get("tensor", 0) for x in each if "sweep_kernel" in x["kernel"]]
        for each in (stored, twice)
    ]
    assert products[0] == products[1][:1]
    assert products[1][1] > 0
    # Whole sectors of scores, and half of one of delegates, one for each eight scores.
    stores = stored[0]["global_stores"]
    assert stores["sectors"] <= 1.01 * stores["bytes"] / 9 * (8 / 32 + 1 / 16)


@pytest.mark.parametrize("layout", ["candidates", "ragged_many", "windows_many"])
@pytest.mark.parametrize("k", [5, 300])
def test_a_stored_sweep_in_every_layout(
    emulator_only: None, device: str, layout: str, k: int
) -> None:
    for dead in ({}, {"mask": True, "exclude_future": True}):
        for table in (False, True):
            case = make_case(
                layout, counts=(300, 0, 5, 64), width=8, candidates=67, table=table, integers=True, **dead
            )  # fmt: skip
            exact(case, k, device)
            assert len(launched(case, k)) == 3


@pytest.mark.parametrize(
    ("case", "sm", "many"),
    [
        (make_case("candidates", candidates=16, width=8), 80, True),
        (make_case("candidates", torch.float16, candidates=16, width=8), 75, False),
        (make_case("candidates", candidates=15, width=8), 80, False),
        (make_case("candidates", candidates=16, width=7), 80, False),
        (make_case("candidates", candidates=16, width=132), 80, False),
        (ragged((40, 9), (1, 2), torch.float16, width=8), 80, True),  # whatever the counts
        (make_case("ragged", width=8), 80, False),
        (make_case("windows", counts=(40,) * 9, width=8), 80, False),
    ],
)
def test_which_kernels_run_for_all_scores(
    emulator_only: None, device: str, case: Case, sm: int, many: bool
) -> None:
    case.keys.nan_to_num_(0.0)
    assert ("sweep" in names(launched(case, None, sm))) == many


@pytest.mark.parametrize("k", [100, 250, 2048])
def test_no_more_blocks_are_chosen_than_there_are(emulator_only: None, device: str, k: int) -> None:
    """Where K is more than M / 8: a selection reads M survivors, not 8 K."""
    m, candidates = 700, 16
    case = of_scores(patterns(m)["random"], torch.float16, candidates)
    exact(case, k, device)
    select = launched(case, k)[3]
    read = sum(x["global"]["bytes"] for x in select["places"] if x.get("lane_bytes") == 16 and "global" in x)  # fmt: skip
    assert read == candidates * -(-m // BLOCK) * BLOCK * 4


@pytest.mark.parametrize(
    ("layout", "again"), [("candidates", 0), ("ragged_many", 0), ("windows_many", 1)]
)
@pytest.mark.parametrize("dead", [{}, {"mask": True, "exclude_future": True}])
def test_s_is_evaluated_by_the_first_sweep(
    emulator_only: None, device: str, layout: str, again: int, dead: dict[str, bool]
) -> None:
    """And read by the second, but for windows, which overlap: each sees a behaviour at its own time."""
    case = make_case(layout, torch.float16, counts=(300, 0, 5, 64), width=8, candidates=16, table=True, **dead)  # fmt: skip
    first, _, second, _ = (evaluations_of_s([launch]) for launch in launched(case, 5))
    assert first > 0
    assert (second > 0) == (again > 0)


@pytest.mark.parametrize(("sm", "tiles"), [(80, 4), (86, 2), (90, 4)])
@pytest.mark.parametrize("width", [64, 128, 256])
def test_tiles_in_flight(emulator_only: None, device: str, sm: int, tiles: int, width: int) -> None:
    """As many as let two blocks share a multiprocessor, and the same bits."""
    case = make_case("candidates", torch.float16, counts=(700, 9), candidates=20, width=width)
    expected = case.run(lc.clock_gsu, 20)
    with emulator.options(sm=sm):
        assert_bitwise(case.run(lc.clock_gsu, 20), expected)
    shared, tile = launched(case, 20, sm)[0]["shared_bytes"], 64 * width * 2
    assert shared // tile == {64: 4, 128: tiles, 256: 2}[width]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("m", [1, 3, 6, 64, 127, 1030])
def test_scores_in_rows_that_are_not_aligned(device: str, dtype: torch.dtype, m: int) -> None:
    """Dense rows of m scores, and flat ones of any length."""
    case = make_case("candidates", dtype, counts=(m, m // 2), candidates=67, width=8, integers=True)
    exact(case, 5, device)
    exact(ragged((m, m // 2, 5), (67, 3, 1), dtype, width=8, integers=True), 5, device)


def test_scores_do_not_depend_on_the_other_sequences(device: str) -> None:
    case = ragged((300, 9, 5), (20, 1, 1), torch.float32, width=40).to(device)
    alone = case.with_layout(
        offsets=torch.tensor([0, 300], device=device),
        query_offsets=torch.tensor([0, 20], device=device),
    )
    alone.query, alone.query_time = case.query[:20], case.query_time[:1]
    alone.keys, alone.key_time = case.keys[:300], case.key_time[:300]
    scores = alone.score(lc.gsu_score)
    assert_bitwise(case.score(lc.gsu_score)[:6000], scores)
    best = lc.block_topk(scores.view(20, 300), 7).scores
    assert_bitwise(case.run(lc.clock_gsu, 7).scores[:20], best)


def test_a_total_that_is_not_that_of_the_scores(device: str) -> None:
    """A longer result ends with -inf; of a shorter one, nothing behind the end is touched."""
    case = ragged((64, 40, 9), (30, 2, 20), torch.float32, width=8, integers=True).to(device)
    total = case.total()
    assert total is not None
    scores = case.score(lc.gsu_score)
    longer = case.score(lc.gsu_score, total=total + 301)
    assert_bitwise(longer[:total], scores)
    assert longer[total:].eq(-torch.inf).all()
    assert_bitwise(case.score(lc.gsu_score, total=total - 301), scores[: total - 301])


def test_rounds_of_a_bounded_workspace(device: str, emulated: bool) -> None:
    """A long history that nobody asks for makes the room of a query large: 256 MB hold 500 of them."""
    case = ragged(
        (90, 999_000, 700), (300, 0, 400), torch.float16, integers=True, width=8, poison=False
    )
    if emulated:
        assert names(launched(case, 33)) == 2 * ["sweep", "choose", "sweep", "select_by_warp"]
    alone = ragged((90, 0, 700), (300, 0, 400), torch.float16, integers=True, width=8)
    alone.query, alone.mlp = case.query, case.mlp
    kept = torch.cat([torch.arange(90), torch.arange(999_090, 999_790)])
    alone.keys, alone.key_time, alone.query_time = (
        case.keys[kept],
        case.key_time[kept],
        case.query_time,
    )
    exact(alone, 33, device)
    assert_bitwise(case.to(device).run(lc.clock_gsu, 33), alone.to(device).run(lc.clock_gsu, 33))


def test_rounds_of_too_few_queries_are_left_to_the_other_kernel(
    emulator_only: None, device: str
) -> None:
    """Room for all positions is room for 260 queries here, and 300 are asked for."""
    case = ragged((90, 2_000_000), (300, 0), torch.float16, integers=True, width=8, poison=False)
    assert "sweep" not in names(launched(case, 33))
    exact(case, 33, device)


def misfits() -> dict[str, Case]:
    many = make_case("candidates", counts=(64, 5), candidates=17, width=8)
    table = make_case("candidates", counts=(64, 5), candidates=17, width=8, table=True)
    flat = ragged((64, 5, 9), (1, 20, 3), torch.float32, width=8)
    uneven = ragged((300, 5, 9), (1, 20, 3), torch.float32, width=8)
    far = 2**40
    return {
        "lengths": many.with_layout(lengths=torch.tensor([far, -far])),
        "offsets": flat.with_layout(offsets=torch.tensor([-far, 70, 3, -5])),
        "query_offsets": flat.with_layout(query_offsets=torch.tensor([far, -far, 0, 1])),
        "query_offsets of uneven sequences": uneven.with_layout(
            query_offsets=torch.tensor([far, -far, 0, 1])
        ),
        "query_offsets that turn back": ragged(
            (9, 5, 300), (1, 20, 3), torch.float32, width=8
        ).with_layout(query_offsets=torch.tensor([0, 22, 3, 24])),
        "ids": table.with_layout(ids=torch.full((2, 64), NOWHERE)),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(misfits()))
def test_values_that_do_not_fit_read_nothing_out_of_bounds(device: str, name: str) -> None:
    case = misfits()[name]
    case.keys.nan_to_num_(0.0)
    found = case.to(device).run(lc.clock_gsu, 7)
    total = None if name in ("lengths", "ids") else 1_000
    scores = case.to(device).run(lc.gsu_score, total=total)
    if name == "ids":
        assert scores[0].isnan().all()
        assert scores[1, :, 5:].eq(-torch.inf).all()
        assert found.scores[0].isnan().all()
        assert found.scores[1, :, 5:].eq(-torch.inf).all()


def test_query_offsets_that_leave_queries_out(device: str) -> None:
    """Those before the first sequence's are its, those behind the last one's are its, as with one candidate."""
    case = ragged((64, 40), (2, 20), torch.float32, integers=True, width=8)
    short = case.with_layout(query_offsets=torch.tensor([1, 2, 20]))
    assert_bitwise(short.to(device).run(lc.clock_gsu, 7), case.to(device).run(lc.clock_gsu, 7))


@pytest.mark.parametrize("name", list(misfits()))
def test_checks_on_request(
    emulator_only: None, device: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert name.split()[0] in asserted(misfits()[name].to(device), monkeypatch)


def test_only_the_row_of_an_unknown_id_is_nan(device: str) -> None:
    for dtype in FLOATS:
        case = make_case("candidates", dtype, counts=(40, 40), candidates=16, table=True, width=16)
        ids = case.layout["ids"]
        ids[0, 3], ids[1, 39] = -1, len(case.keys)
        found = case.to(device).run(lc.clock_gsu, 40)
        assert found.indices[:, :, 0].cpu().tolist() == [[3] * 16, [39] * 16]
        assert found.scores.isnan().sum().item() == 2 * 16


@pytest.mark.parametrize("dtype", FLOATS)
def test_schedules_and_profiles_give_the_same_bits(
    device: str, emulated: bool, dtype: torch.dtype
) -> None:
    case = make_case(
        "candidates", dtype, counts=(1_500, 1, 700), candidates=70, width=32, table=True, mask=True
    ).to(device)
    first = case.run(lc.clock_gsu, 100)
    for options in (
        {"seed": 1, "threads": 1},
        {"seed": 2, "threads": 2},
        {"seed": 3, "threads": 3},
    ):
        with profile(emulated, **options):
            assert_bitwise(case.run(lc.clock_gsu, 100), first)
    for sm in (80, 86, 89, 90, 100, 120):
        with profile(emulated, sm=sm):
            assert_bitwise(case.run(lc.clock_gsu, 100), first)
