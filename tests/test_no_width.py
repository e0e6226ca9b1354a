# SPDX-License-Identifier: Apache-2.0
"""Rows without elements (D = 0): every product is 0, whatever scratch memory held before."""

from __future__ import annotations

import pytest
import torch
from cases import LAYOUTS, make_case
from raw_error import RAW_ERROR

import longclock as lc


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_are_those_of_the_times(level: str, device: str, layout: str, table: bool) -> None:
    before = make_case(layout, table=table, width=8).to(device)  # leaves its products behind
    case = make_case(layout, table=table, width=0).to(device)
    expected = case.run(lc.reference.gsu_score, scale=1.0)
    for _ in range(2):
        before.score(lc.gsu_score)
        torch.testing.assert_close(case.score(lc.gsu_score, scale=1.0), expected)
        before.run(lc.clock_gsu, 5)
        found = case.run(lc.clock_gsu, 5, scale=1.0)
        best = case.run(lc.reference.clock_gsu, 5, scale=1.0)
        torch.testing.assert_close(found.scores, best.scores)


def test_a_table_of_a_size_that_no_memory_holds_is_named(device: str) -> None:
    grad, ids = torch.zeros(2, 5, 8, device=device), torch.zeros(2, 5, dtype=torch.int64)
    if device != "cpu":
        pytest.skip("what a device cannot hold its allocator says")
    for rows in (2**40, 2**62, 2**63 - 1):
        with pytest.raises(RAW_ERROR, match=f"^esu_attention_table_grad: table_rows must .*{rows}"):
            torch.ops.longclock.esu_attention_table_grad(grad, ids, None, None, rows)
