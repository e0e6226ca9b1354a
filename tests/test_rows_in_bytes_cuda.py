# SPDX-License-Identifier: Apache-2.0
"""Searches of rows in bytes on CUDA: whichever kernel reads a row, a score has the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import emulator
import pytest
import torch
from cases import NOWHERE, Case, keys_in_bytes, make_case
from test_cuda_kernels import profile
from test_few_candidates import bounds, laid_out
from test_few_candidates_cuda import one_by_one
from test_gsu_score_few_cuda import one_by_one as scores_one_by_one
from test_many_candidates_cuda import launched, names
from test_rows_ahead import MANY, in_any_layout, repeated
from test_rows_in_bytes import NO_S
from tolerance import assert_bitwise, assert_close, assert_selection

import longclock as lc

# To what a query is rounded, and what rows are.
Kind = tuple[str, torch.dtype]
KINDS: list[Kind] = [
    *((query, torch.int8) for query in ("float32", "bfloat16", "int8")),
    *((query, torch.float8_e4m3fn) for query in ("float32", "bfloat16")),
]
DEAD: list[dict[str, Any]] = [{}, {"mask": True, "exclude_future": True}]
COUNTS = (300, 0, 70)


def by_the_same_kernels(case: Case, kind: Kind) -> tuple[str, ...]:
    """Layouts in which candidates have the bits that each has alone: all, but where a sweep multiplies floats."""
    every = "candidates", "ragged_many", "windows", "windows_many"
    candidates, width = case.query.shape[1:]
    if kind[0] == "int8" or width % 16 != 0:
        return every
    return ("candidates", "windows") if candidates < 16 else ("windows",)


def same_as_alone(case: Case, kind: Kind, device: str, k: int = 20) -> None:
    """Of a dense case of floats, in bytes."""
    alone = one_by_one(keys_in_bytes(case, *kind), k, device)
    all_alone = scores_one_by_one(keys_in_bytes(case, *kind), device)
    lengths = bounds(case).diff().tolist()
    flat = torch.cat([x[:n].flatten() for of, n in zip(all_alone, lengths, strict=True) for x in of])  # fmt: skip
    for layout in by_the_same_kernels(case, kind):
        there = keys_in_bytes(laid_out(case, layout), *kind).to(device)
        found = there.run(lc.clock_gsu, k)
        assert_bitwise([part.view(alone.scores.shape) for part in found], list(alone))
        assert_bitwise(there.score(lc.gsu_score), all_alone if layout == "candidates" else flat)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 16, 33, 64, 80, 128, 144, 256, 400])
@pytest.mark.parametrize("sm", [75, 80, 90])
def test_widths(device: str, emulated: bool, sm: int, width: int, kind: Kind) -> None:
    """Rows of one step, of several, and of none that is whole."""
    with profile(emulated, sm=sm):
        case = make_case("candidates", counts=COUNTS, candidates=5, width=width)
        same_as_alone(case, kind, device)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("candidates", [2, 9, 15, 16, 35])
def test_any_number_of_candidates(device: str, candidates: int, kind: Kind) -> None:
    case = make_case("candidates", counts=COUNTS, candidates=candidates, width=64)
    same_as_alone(case, kind, device)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("dead", DEAD)
def test_what_is_not_valid(device: str, kind: Kind, table: bool, dead: dict[str, Any]) -> None:
    for width in (33, 48, 128):
        case = make_case("candidates", counts=COUNTS, candidates=5, width=width, table=table, **dead)  # fmt: skip
        for k in (1, 200):
            same_as_alone(case, kind, device, k)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("width", [16, 64, 80, 128, 144, 256, 512])
@pytest.mark.parametrize("sm", [80, 90])
def test_many_candidates(
    device: str, emulated: bool, sm: int, kind: Kind, table: bool, width: int
) -> None:
    """By sweeps where they read such rows."""
    with profile(emulated, sm=sm):
        for layout in ("candidates", "ragged_many", "windows_many"):
            candidates = 20 if layout == "candidates" else 3
            made = make_case(layout, counts=(300, 9, 70), candidates=candidates, width=width, table=table, mask=True)  # fmt: skip
            case, exact = keys_in_bytes(made, *kind), keys_in_bytes(made.double(), *kind)
            exact.query = case.query.double()
            for size in (1.0, 1e-20, 1e20):
                case.query, exact.query = made.query * size, (made.query * size).double()
                close(case.with_layout(scale=0.3 / size), exact.with_layout(scale=0.3 / size), device)  # fmt: skip


def close(case: Case, exact: Case, device: str, k: int = 20) -> None:
    right, rival = exact.run(lc.reference.gsu_score), case.run(lc.reference.gsu_score)
    there = case.to(device)
    assert_close(there.score(lc.gsu_score), right, rival)
    found = there.run(lc.clock_gsu, k)
    if case.key_time.dim() == 2:
        rows = (x.cpu().flatten(0, -2) for x in (*found, right, rival))
        for scores, indices, of_query, of_rival in zip(*rows, strict=True):
            assert_selection(scores, indices, of_query, of_rival)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("dead", DEAD)
@pytest.mark.parametrize("width", [16, 64, 144, 384, 640])
def test_rows_copied_ahead(
    device: str, kind: Kind, table: bool, dead: dict[str, Any], width: int
) -> None:
    """A small batch has the bits of a large one, whose rows are loaded."""
    case = make_case("dense", counts=(700, 0, 1, 33, 257), width=width, table=table, **dead)
    s, k = len(case.query), 20
    few = keys_in_bytes(case, *kind).to(device).run(lc.clock_gsu, k)
    many = keys_in_bytes(repeated(case, -(-MANY // s)), *kind).to(device).run(lc.clock_gsu, k)
    assert_bitwise(few, [part[-s:] for part in many])
    for layout in ("ragged", "windows"):
        there = keys_in_bytes(in_any_layout(case, layout), *kind).to(device)
        assert_bitwise(there.run(lc.clock_gsu, k), few)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("made", "k", "kernels"),
    [
        (lambda: make_case("dense", counts=(700,) * 3, width=64), 20, ["clock_gsu_ahead"]),
        (lambda: make_case("dense", counts=(40,) * MANY, width=64), 20, ["clock_gsu"]),
        (lambda: make_case("dense", counts=(40,) * MANY, width=64), None, ["gsu_score"]),
        (lambda: make_case("candidates", candidates=5, width=64), 20, ["few_candidates"]),
        (lambda: make_case("candidates", candidates=5, width=64), None, ["gsu_score_few"]),
        (
            lambda: make_case("candidates", candidates=16, width=128),
            20,
            ["sweep", "choose_by_warp", "sweep", "select_by_warp"],
        ),
        (lambda: make_case("candidates", candidates=16, width=128), None, ["sweep"]),
        (lambda: make_case("candidates", candidates=16, width=40), 20, ["few_candidates"]),
    ],
)
def test_which_kernels_read_them(
    emulator_only: None, device: str, made: Callable[[], Case], k: int | None, kernels: list[str],
    kind: Kind,
) -> None:  # fmt: skip
    assert names(launched(keys_in_bytes(made(), *kind).to(device), k)) == kernels


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("candidates", [1, 5])
def test_only_the_row_of_an_unknown_id_is_nan(
    device: str, emulated: bool, candidates: int, kind: Kind
) -> None:
    for width in (16, 33, 128):
        case = make_case("candidates", counts=(40, 40), table=True, width=width, candidates=candidates)  # fmt: skip
        case.layout["ids"][0, 3], case.layout["ids"][1, 39] = -1, NOWHERE
        case = keys_in_bytes(case, *kind).to(device)
        found = case.run(lc.clock_gsu, 40)
        assert (found.indices[:, :, 0].cpu() == torch.tensor([[3], [39]])).all()
        assert found.scores.isnan().sum().item() == 2 * candidates
        assert case.score(lc.gsu_score).isnan().sum().item() == 2 * candidates
        nothing = replace(case, keys=case.keys.mapped(lambda x: x[:0]))
        assert nothing.run(lc.clock_gsu, 40).scores.isnan().all()


@pytest.mark.parametrize("query_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("candidates", [1, 5, 16])
def test_every_float8(device: str, candidates: int, query_dtype: str) -> None:
    """Also NaN, in each place that a byte has in a piece of a row."""
    codes = torch.arange(256, dtype=torch.uint8)
    keys = torch.zeros(16, 256, 16, dtype=torch.uint8)
    keys[range(16), :, range(16)] = codes
    rows = lc.QuantizedRows(keys.view(torch.float8_e4m3fn), torch.ones(16, 256)).mapped(lambda x: x.to(device))  # fmt: skip
    query = torch.eye(16)[:, None].expand(16, candidates, 16).to(device)
    times = torch.zeros(16, 256, dtype=torch.int64, device=device)
    found = lc.gsu_score(
        query, rows, times, times[:, 0], tuple(x.to(device) for x in NO_S), scale=1.0, query_dtype=query_dtype
    )  # fmt: skip
    right = codes.view(torch.float8_e4m3fn).float().expand(16, candidates, 256)
    torch.testing.assert_close(found.cpu(), right, rtol=0, atol=0, equal_nan=True)
    assert right.isnan().sum() == 16 * candidates * 2


@pytest.mark.parametrize("kind", KINDS)
def test_schedules_give_the_same_bits(emulator_only: None, device: str, kind: Kind) -> None:
    for candidates in (1, 5):
        case = make_case("candidates", counts=(1_500, 1, 300), width=64, candidates=candidates, mask=True)  # fmt: skip
        case = keys_in_bytes(case, *kind).to(device)
        first = case.run(lc.clock_gsu, 100)
        for seed in (1, 2):
            for sm in (80, 90):
                with emulator.options(sm=sm, seed=seed, threads=seed):
                    assert_bitwise(case.run(lc.clock_gsu, 100), first)


@pytest.mark.parametrize("op", [lc.clock_gsu, lc.gsu_score])
def test_float8_that_does_not_fit_is_refused_by_name(device: str, op: Callable[..., Any]) -> None:
    case = keys_in_bytes(make_case("dense"), "int8", torch.float8_e4m3fn).to(device)
    text = f"{op.__name__}: query_dtype must not be 'int8' for float8_e4m3fn keys; take 'bfloat16'"
    with pytest.raises(ValueError, match=text):
        case.run(op, 3)
    bare = replace(case, keys=case.keys.values).with_layout(query_dtype=None)
    text = f"{op.__name__}: key_scale must be a tensor for float8_e4m3fn keys, got None"
    with pytest.raises(ValueError, match=text):
        bare.run(op, 3)
