# SPDX-License-Identifier: Apache-2.0
"""query_offsets on CUDA, where the host reads none: of whatever values, each query has one sequence."""

from __future__ import annotations

import pytest
import torch
from cases import FLOATS, LAYOUTS, Case, make_case
from test_cuda_kernels import profile
from test_few_candidates import laid_out
from test_hamming_gsu import hashed
from test_hamming_gsu import run as nearest
from test_many_candidates import ragged
from tolerance import assert_bitwise

import longclock as lc

FAR = 2**40
# Offsets of 24 queries and 4 sequences, and those that say the same without a fault: of the queries the last two sequences
# have those from the middle offset on, and of either two the second has those from its own on, as far as they are among them.
OFFSETS = {
    "turn back": ([0, 22, 3, 24, 24], [0, 3, 3, 24, 24]),
    "fall": ([20, 9, 3, 1, 0], [0, 3, 3, 3, 24]),
    "far": ([FAR, -FAR, 0, 1, FAR], [0, 0, 0, 1, 24]),
    "all to each": ([0, 24, 0, 24, 0], [0, 0, 0, 24, 24]),
    "overlap": ([0, 20, 10, 12, 24], [0, 10, 10, 12, 24]),
    "leave some out": ([2, 5, 9, 20, 21], [0, 5, 9, 20, 24]),
    "fit": ([0, 5, 9, 9, 24], [0, 5, 9, 9, 24]),
}
# Rows in panels and whole ones, of the sweeps; and rows that few candidates share where there are none.
ROWS = [(7, 80), (8, 80), (8, 75)]


def of_layout(layout: str, dtype: torch.dtype, width: int) -> Case:
    case = ragged((300, 0, 5, 64), (24, 0, 0, 0), dtype, width=width, table=True)
    if layout == "windows":  # that overlap
        del case.layout["offsets"]
        starts, ends = torch.tensor([0, 40, 7, 300]), torch.tensor([369, 340, 7, 369])
        return case.with_layout(starts=starts, ends=ends)
    return case


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("width", "sm"), ROWS)
@pytest.mark.parametrize("layout", ["ragged", "windows"])
@pytest.mark.parametrize("name", list(OFFSETS))
def test_each_query_has_the_result_of_one_sequence(
    device: str, emulated: bool, name: str, layout: str, width: int, sm: int, dtype: torch.dtype
) -> None:
    """The same one in every op, and in the gradients of queries and s."""
    with profile(emulated, sm=sm):
        check_results(device, name, layout, width, dtype)


def check_results(device: str, name: str, layout: str, width: int, dtype: torch.dtype) -> None:
    case, given, as_fits = of_layout(layout, dtype, width), *map(torch.tensor, OFFSETS[name])
    total, hashes = case.with_layout(query_offsets=as_fits).total(), hashed(case, 1)
    results = []
    for offsets in (given, as_fits):
        each = case.with_layout(query_offsets=offsets).to(device).trained()
        found = [*each.run(lc.clock_gsu, 7), *each.run(lc.clock_gsu, 200)]
        found += nearest(hashes.with_layout(query_offsets=offsets).to(device), lc.hamming_gsu, 7)
        scores = each.run(lc.gsu_score, total=total)
        leaves = [each.query, *each.mlp]
        grad = torch.linspace(-1, 1, len(scores), device=device)
        results.append([*found, scores, *torch.autograd.grad(scores, leaves, grad)])
    ours, expected = results
    assert_bitwise(ours, expected)


@pytest.mark.parametrize(("width", "sm"), ROWS)
@pytest.mark.parametrize("layout", [*LAYOUTS, "equal windows", "many candidates"])
def test_checks_accept_what_fits(
    device: str,
    emulated: bool,
    layout: str,
    width: int,
    sm: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with profile(emulated, sm=sm):
        check_checks(device, layout, width, monkeypatch)


def check_checks(device: str, layout: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if layout in LAYOUTS:
        case = make_case(layout, width=width)
    else:
        case = make_case("candidates", candidates=20, width=width)
        case = laid_out(case, "windows" if layout == "equal windows" else "candidates")
    case = case.to(device)
    expected = [*case.run(lc.clock_gsu, 9), case.score(lc.gsu_score)]
    monkeypatch.setenv("LONGCLOCK_CHECK", "1")
    assert_bitwise([*case.run(lc.clock_gsu, 9), case.score(lc.gsu_score)], expected)
