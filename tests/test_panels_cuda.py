# SPDX-License-Identifier: Apache-2.0
"""Many candidates whose rows come in panels: wide ones, of several tables, and not in whole pieces of 16 bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import emulator
import pytest
import torch
from cases import FLOATS, NOWHERE, Case, make_case, several_tables
from test_clock_gsu import check
from test_cuda_kernels import asserted, profile
from test_gsu_score import check_values
from test_many_candidates import BLOCK, exact, of_scores, patterns, ragged
from test_many_candidates_cuda import launched, misfits, names
from tolerance import assert_bitwise
from torch import Tensor

import longclock as lc

PANELS = ["panels", "choose_by_warp", "panels", "select_by_warp"]
STORED = ["panels", "choose_by_warp", "select_by_warp"]
DEAD: list[dict[str, bool]] = [{}, {"mask": True, "exclude_future": True}]
# Whole pieces of a row of 512 bytes and more, in one panel more or in several; words; of 16 bits also halves of words.
WIDTHS = {2: (264, 520, 50, 33), 4: (132, 264, 50, 33)}


def widths_of(dtype: torch.dtype) -> tuple[int, ...]:
    return WIDTHS[dtype.itemsize]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("pattern", list(patterns(BLOCK)))
def test_every_order(device: str, pattern: str, dtype: torch.dtype) -> None:
    for width in widths_of(dtype)[::3]:
        for m in (1, 63, 517):
            for k in (1, 100, 256):
                exact(of_scores(patterns(m)[pattern], dtype, 21, width), k, device)


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dead", DEAD)
def test_layouts(device: str, dtype: torch.dtype, table: bool, dead: dict[str, bool]) -> None:
    for layout in ("candidates", "ragged_many", "windows_many"):
        for width in widths_of(dtype):
            case = make_case(
                layout, dtype, counts=(300, 0, 5, 64), candidates=19, width=width, integers=True,
                table=table, **dead,
            )  # fmt: skip
            exact(case, 20, device)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("queries", [(3, 4, 130, 0, 129, 1), (70, 0, 0, 200, 0, 1)])
def test_tiles_of_candidates(device: str, dtype: torch.dtype, queries: tuple[int, ...]) -> None:
    """Several of a sequence, and of some sequences none."""
    for width in widths_of(dtype)[::3]:
        case = ragged((90, 0, 400, 5, 64, 1), queries, dtype, integers=True, width=width, mask=True)
        exact(case, 33, device)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "widths", [(3, 2, 2), (136, 8, 40), (0, 70, 5), (64, 32, 200), (33, 0, 64)]
)
def test_several_tables(device: str, dtype: torch.dtype, widths: tuple[int, ...]) -> None:
    """Each in panels of its own, also without columns."""
    for layout in ("candidates", "ragged_many", "windows_many"):
        case = make_case(
            layout, dtype, counts=(150, 0, 40), candidates=18, width=sum(widths), integers=True,
            mask=True,
        )  # fmt: skip
        exact(several_tables(case, widths), 20, device)


@pytest.mark.parametrize("dtype", FLOATS)
def test_values(device: str, dtype: torch.dtype) -> None:
    for width in (*widths_of(dtype), 7, 1000):
        case = make_case("candidates", dtype, width=width, counts=(200, 40), candidates=18)
        check(case, 30, device)
        check_values(case, device)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("where", ["keys", "query"])
def test_nan_and_infinity(device: str, where: str, dtype: torch.dtype) -> None:
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, -torch.inf], dtype=dtype)
    for width in widths_of(dtype):
        case = make_case(
            "candidates", dtype, counts=(200,), candidates=40, width=width, integers=True, mask=True
        )
        tensor: Any = case.keys if where == "keys" else case.query
        rows = torch.randperm(tensor.shape[1])[: tensor.shape[1] // 2]
        columns = torch.randint(0, width, rows.shape)
        tensor[0, rows, columns] = odd[torch.randint(0, 4, rows.shape)]
        for k in (7, 200):
            exact(case, k, device)


@pytest.mark.parametrize("dtype", FLOATS)
def test_only_the_row_of_an_unknown_id_is_nan(device: str, dtype: torch.dtype) -> None:
    for width in widths_of(dtype):
        case = make_case("candidates", dtype, counts=(40, 40), candidates=16, table=True, width=width)  # fmt: skip
        ids, keys = case.layout["ids"], case.keys
        assert isinstance(keys, Tensor)
        ids[0, 3], ids[1, 39] = -1, len(keys)
        found = case.to(device).run(lc.clock_gsu, 40)
        assert found.indices[:, :, 0].cpu().tolist() == [[3] * 16, [39] * 16]
        assert found.scores.isnan().sum().item() == 2 * 16
        nothing = replace(case, keys=keys[:0]).to(device).score(lc.gsu_score)
        assert nothing.isnan().all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_queries_in_fp32_and_at_any_place(device: str, dtype: torch.dtype) -> None:
    """Read where they lie, or rounded and padded first: the same bits."""
    for width in widths_of(dtype):
        case = make_case("candidates", dtype, width=width, counts=(150, 40), candidates=18)
        exact_query = torch.randn(case.query.shape)
        case.query = exact_query.to(dtype)
        moved = torch.empty(case.query.numel() + 1, dtype=dtype)[1:].view(case.query.shape)
        shifted = replace(case, query=moved.copy_(case.query))
        expected = case.to(device)
        results = [*expected.run(lc.clock_gsu, 30), expected.score(lc.gsu_score)]
        for other in (replace(case, query=exact_query), shifted):
            # A copy to a device would move it.
            ours = other if device == "cpu" else other.to(device)
            assert_bitwise([*ours.run(lc.clock_gsu, 30), ours.score(lc.gsu_score)], results)


@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_at_any_place_have_the_same_bits(device: str, dtype: torch.dtype) -> None:
    """Pieces of 16 bytes, words, and halves of words."""
    width = widths_of(dtype)[0]
    case = make_case("candidates", dtype, width=width, counts=(300, 70), candidates=20).to(device)
    keys: Any = case.keys
    expected = [*case.run(lc.clock_gsu, 30), case.score(lc.gsu_score)]
    for first, behind in ((0, 2), (2, 0), (0, 1), (1, 0), (1, 1)):
        wide = torch.zeros(*keys.shape[:-1], first + width + behind, dtype=dtype, device=device)
        part = wide[..., first : first + width].copy_(keys)
        ours = replace(case, keys=part)
        assert_bitwise([*ours.run(lc.clock_gsu, 30), ours.score(lc.gsu_score)], expected)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_candidate_does_not_depend_on_the_others(device: str, dtype: torch.dtype) -> None:
    width = widths_of(dtype)[0]
    case = make_case("candidates", dtype, counts=(500, 70), candidates=150, width=width).to(device)
    together, scores = case.run(lc.clock_gsu, 100), case.run(lc.gsu_score)
    for first, last in ((0, 16), (67, 99)):
        some = replace(case, query=case.query[:, first:last])
        expected = lc.TopK(together.scores[:, first:last], together.indices[:, first:last])
        assert_bitwise(some.run(lc.clock_gsu, 100), expected)
        assert_bitwise(some.run(lc.gsu_score), scores[:, first:last])
    chosen = scores.gather(-1, together.indices.clamp(min=0))
    there = together.indices >= 0
    assert_bitwise(together.scores[there], chosen[there])


@pytest.mark.parametrize(
    ("dtype", "width", "packed"),
    [
        (torch.float16, 264, False),
        (torch.float16, 50, True),
        (torch.bfloat16, 7, True),
        (torch.float32, 132, False),
        (torch.float32, 7, True),
    ],
)
def test_which_kernels_run(
    emulator_only: None, device: str, dtype: torch.dtype, width: int, packed: bool
) -> None:
    """Candidates that do not lie in whole pieces are copied first; of all scores there is one sweep."""
    case = make_case("candidates", dtype, candidates=16, width=width)
    first = ["pack"] if packed else []
    expected = STORED if dtype == torch.float32 else PANELS
    assert names(launched(case, 5)) == [*first, *expected]
    assert names(launched(case, None)) == [*first, "panels"]


@pytest.mark.parametrize(("width", "row_bytes"), [(264, 528), (50, 128)])
def test_each_sweep_copies_each_key_once_for_a_tile_of_candidates(
    emulator_only: None, device: str, width: int, row_bytes: int
) -> None:
    """And the candidates, whose rows are padded where they are packed, once for each tile of 64 keys."""
    m, candidates = 1024, 128
    case = make_case("candidates", torch.float16, counts=(m,), candidates=candidates, width=width)
    sweeps = [x for x in launched(case, 20) if "panels" in x["kernel"]]
    assert len(sweeps) == 2
    for launch in sweeps:
        places = [
            x for x in launch["places"] if "global" in x and "async_copy.cuh" in x["source"][0]
        ]
        keys = m * width * 2
        assert sum(x["global"]["bytes"] for x in places) == keys + m // 64 * candidates * row_bytes
        assert sum(x["global"]["first_bytes"] for x in places) == keys + candidates * row_bytes


def flat_misfits(width: int) -> dict[str, Case]:
    """Those of rows of another width."""
    found = {}
    for name, case in misfits().items():
        keys: Any = case.keys
        wide = keys.new_ones(*keys.shape[:-1], width)
        wide[..., : keys.shape[-1]] = keys.nan_to_num(0.0)
        found[name] = replace(case, query=case.query.new_ones(*case.query.shape[:-1], width), keys=wide)  # fmt: skip
    return found


@pytest.mark.parametrize("width", [132, 33])
@pytest.mark.parametrize("name", list(misfits()))
def test_values_that_do_not_fit_read_nothing_out_of_bounds(
    device: str, emulated: bool, name: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = flat_misfits(width)[name]
    case.to(device).run(lc.clock_gsu, 7)
    total = None if name in ("lengths", "ids") else 1_000
    case.to(device).run(lc.gsu_score, total=total)
    if emulated:
        assert "panels" in names(launched(case, 7))
        assert name.split()[0] in asserted(case, monkeypatch)


@pytest.mark.parametrize("dtype", FLOATS)
def test_schedules_and_profiles_give_the_same_bits(
    device: str, emulated: bool, dtype: torch.dtype
) -> None:
    """Of eight tables as well, whose rows take so much memory that fewer panels are on their way."""
    for width in (widths_of(dtype)[0], 33, 160):
        case = make_case(
            "candidates", dtype, counts=(700, 1, 300), candidates=70, width=width, mask=True
        )
        if width == 160:
            tables = tuple(torch.randn(50, 20).to(dtype) for _ in range(8))
            ids = tuple(torch.randint(50, case.key_time.shape) for _ in tables)
            case = replace(case, keys=tables, layout=case.layout | {"ids": ids})
        case = case.to(device)
        first = case.run(lc.clock_gsu, 100)
        for options in ({"seed": 1, "threads": 1}, {"seed": 3, "threads": 3}, {"sm": 80}, {"sm": 86}, {"sm": 90}, {"sm": 120}):  # fmt: skip
            with profile(emulated, **options):
                assert_bitwise(case.run(lc.clock_gsu, 100), first)


def test_rounds_of_a_bounded_workspace(device: str, emulated: bool) -> None:
    """Of which packed candidates take a part."""
    case = ragged((90, 999_000, 70), (300, 0, 400), torch.float16, integers=True, width=9, poison=False)  # fmt: skip
    if emulated:
        one = ["pack", "panels", "choose", "panels", "select_by_warp"]
        assert names(launched(case, 33)) == 2 * one
    alone = ragged((90, 0, 70), (300, 0, 400), torch.float16, integers=True, width=9)
    kept = torch.cat([torch.arange(90), torch.arange(999_090, 999_160)])
    keys: Any = case.keys
    alone = replace(
        alone, query=case.query, mlp=case.mlp, keys=keys[kept], key_time=case.key_time[kept],
        query_time=case.query_time,
    )  # fmt: skip
    exact(alone, 33, device)
    assert_bitwise(case.to(device).run(lc.clock_gsu, 33), alone.to(device).run(lc.clock_gsu, 33))


@pytest.mark.parametrize("dtype", FLOATS)
def test_portions_of_a_bounded_grid(emulator_only: None, device: str, dtype: torch.dtype) -> None:
    case = make_case("candidates", dtype, counts=(1_500,) * 4, width=33, candidates=16)
    whole = case.run(lc.clock_gsu, 7)
    with emulator.options(blocks=64):
        assert_bitwise(case.run(lc.clock_gsu, 7), whole)


def test_ids_of_masked_behaviours_are_not_read(device: str) -> None:
    case = make_case("candidates", torch.float16, counts=(300,), candidates=16, width=33, table=True, mask=True, integers=True)  # fmt: skip
    assert (case.layout["ids"] == NOWHERE).any()
    exact(case, 20, device)
