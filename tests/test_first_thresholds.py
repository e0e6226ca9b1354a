# SPDX-License-Identifier: Apache-2.0
"""A search of few candidates begins with thresholds that its first behaviours give: whatever these are like."""

from __future__ import annotations

import pytest
import torch
from cases import make_mlp
from tolerance import assert_bitwise
from torch import Tensor

import longclock as lc
from longclock import TopK

M, D, C = 6000, 16, 3
FIRST = 2048  # behaviours that thresholds come from, at most


def ordered(scores: Tensor, valid: Tensor, k: int) -> TopK:
    """By score, NaN largest, then by index; what is not valid is not there."""
    scores = scores.clone() + 0.0
    scores[scores.isnan()] = torch.inf
    index = torch.where(valid, torch.arange(M), M)
    rows = []
    for row in scores:
        by_index = index.sort(stable=True).indices
        order = by_index[row[by_index].sort(descending=True, stable=True).indices]
        rows.append(order[valid[order]][:k])
    count = min(k, int(valid.sum()))
    found = torch.full((len(scores), k), -1)
    values = torch.full((len(scores), k), -torch.inf)
    for i, order in enumerate(rows):
        found[i, :count], values[i, :count] = order, scores[i][order]
    return TopK(values, found)


def check(keys: Tensor, k: int, valid: Tensor | None = None, candidates: int = C) -> None:
    query = torch.randn(1, candidates, D)
    time, now = torch.randint(0, 10**6, (1, M)), torch.tensor([10**6])
    # So short a period that s is looked up: else there are no limits, and no first thresholds.
    case = (query, keys[None], time, now, make_mlp())
    mask = None if valid is None else valid[None]
    scores = lc.gsu_score(*case, clocks=600, mask=mask)[0]
    there = torch.ones(M, dtype=torch.bool) if valid is None else valid
    found = lc.clock_gsu(*case, k, clocks=600, mask=mask)
    assert_bitwise([part[0] for part in found], list(ordered(scores, there, k)))


@pytest.mark.parametrize("candidates", [1, 2, 5])
@pytest.mark.parametrize("k", [1, 100, 256, 257, 2048])
@pytest.mark.parametrize("first", [0.0, 0.01, 1.0, 100.0])
def test_small_and_large_ones(level: str, first: float, k: int, candidates: int) -> None:
    keys = torch.randn(M, D)
    keys[:FIRST] *= first
    check(keys, k, candidates=candidates)


@pytest.mark.parametrize("k", [1, 100])
def test_equals(level: str, k: int) -> None:
    """Many first ones equal each other, and ones that come later."""
    keys = torch.randn(5, D)[torch.arange(M) % 5]
    check(keys, k)
    check(torch.zeros(M, D), k)


@pytest.mark.parametrize("there", [0, 1, 99, 100, 101, 500])
def test_few_valid_ones(level: str, there: int) -> None:
    valid = torch.ones(M, dtype=torch.bool)
    valid[:FIRST] = False
    valid[torch.randperm(FIRST)[:there]] = True
    check(torch.randn(M, D), 100, valid)
    valid[FIRST:] = False
    check(torch.randn(M, D), 100, valid)


@pytest.mark.parametrize("odd", [torch.inf, -torch.inf])
@pytest.mark.parametrize("step", [1, 3, 40])
def test_infinities(level: str, odd: float, step: int) -> None:
    keys = torch.randn(M, D)
    keys[:FIRST:step] = 0
    keys[:FIRST:step, 0] = odd
    check(keys, 100)


@pytest.mark.parametrize("step", [1, 3, 40])
def test_nan(level: str, step: int) -> None:
    keys = torch.randn(M, D)
    keys[:FIRST:step, 0] = torch.nan
    query, time = torch.randn(1, C, D), torch.randint(0, 10**6, (1, M))
    case = (query, keys[None], time, torch.tensor([10**6]), make_mlp(), 100)
    found, expected = lc.clock_gsu(*case, clocks=600), lc.reference.clock_gsu(*case, clocks=600)
    nans = expected.scores.isnan()
    assert torch.equal(found.scores.isnan(), nans)
    assert torch.equal(found.indices[nans], expected.indices[nans])
