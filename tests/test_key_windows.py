# SPDX-License-Identifier: Apache-2.0
"""The gradient of keys that windows see: windows overlap, come in any order, and may be empty."""

from __future__ import annotations

import pytest
import torch
from cases import make_mlp
from tolerance import assert_bitwise
from torch import Tensor

BACKWARD = torch.ops.longclock.gsu_score_backward
SCALE = 0.5


def gradient(
    device: str, grad: Tensor, query: Tensor, keys: Tensor, starts: Tensor, ends: Tensor,
    ids: Tensor | None = None, query_offsets: Tensor | None = None,
) -> Tensor:  # fmt: skip
    time = torch.zeros(len(keys) if ids is None else len(ids), dtype=torch.int64)
    now = torch.zeros(len(starts), dtype=torch.int64)
    given = (query, keys, time, now, *make_mlp(), ids, None, None, query_offsets, starts, ends, None)  # fmt: skip
    moved = (None if each is None else each.to(device) for each in (grad, *given))
    found: Tensor = BACKWARD(*moved, False, SCALE, [86400], [3600.0], False, True, False)[1]
    return found.cpu()


def expected(
    grad: Tensor, query: Tensor, rows: int, starts: Tensor, ends: Tensor, ids: Tensor | None = None
) -> Tensor:
    lengths = ends - starts
    window = torch.arange(len(starts)).repeat_interleave(lengths)
    first = (lengths.cumsum(0) - lengths)[window]
    at = starts[window] + torch.arange(len(window)) - first
    at = at if ids is None else ids[at]
    terms = SCALE * grad.double()[:, None] * query.double()[window]
    return torch.zeros(rows, query.shape[1]).double().index_add_(0, at, terms)


def windows_of(count: int, positions: int, longest: int) -> tuple[Tensor, Tensor]:
    starts = torch.randint(0, positions + 1, (count,))
    return starts, (starts + torch.randint(0, longest + 1, (count,))).clamp(max=positions)


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize(
    ("count", "positions", "longest"),
    [
        (1, 5, 5), (31, 40, 40), (33, 200, 7), (1_023, 90, 4), (1_025, 300, 9), (3_000, 2_000, 0), (3_000, 700, 12),
        (34_000, 500, 1),  # more than 32 nodes at the top of the tree
    ],
)  # fmt: skip
def test_windows_in_any_order(
    device: str, table: bool, count: int, positions: int, longest: int
) -> None:
    starts, ends = windows_of(count, positions, longest)
    grad, query = torch.randn(int((ends - starts).sum())), torch.randn(count, 8)
    rows = positions // 3 + 1 if table else positions
    ids = torch.randint(0, rows, (positions,)) if table else None
    found = gradient(device, grad, query, torch.randn(rows, 8), starts, ends, ids)
    exact = expected(grad, query, rows, starts, ends, ids)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("table", [False, True])
def test_one_long_window_among_many(device: str, table: bool) -> None:
    """It holds what all others hold: a bound on the longest window would find nothing out."""
    starts, ends = windows_of(2_500, 400, 3)
    starts[1_700], ends[1_700] = 0, 400
    grad, query = torch.randn(int((ends - starts).sum())), torch.randn(2_500, 8)
    ids = torch.randint(0, 50, (400,)) if table else None
    rows = 50 if table else 400
    found = gradient(device, grad, query, torch.randn(rows, 8), starts, ends, ids)
    exact = expected(grad, query, rows, starts, ends, ids)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)


def test_the_order_of_windows_shows_in_no_bit(device: str, emulated: bool) -> None:
    """On CUDA, where starts differ; the CPU adds windows in the order in which they come."""
    if device == "cpu" and not emulated:
        pytest.skip("on the CPU windows are added in their order")
    starts = torch.randperm(1_500)
    ends = (starts + torch.randint(0, 30, (1_500,))).clamp(max=1_500)
    lengths, query = ends - starts, torch.randn(1_500, 8)
    grads = torch.randn(int(lengths.sum())).split(lengths.tolist())
    order = torch.randperm(1_500)
    keys = torch.randn(1_500, 8)
    found = gradient(device, torch.cat(grads), query, keys, starts, ends)
    moved = torch.cat([grads[i] for i in order])
    assert_bitwise(gradient(device, moved, query[order], keys, starts[order], ends[order]), found)


def test_where_the_scores_of_many_windows_begin(device: str) -> None:
    """More windows than one block scans; the gradient of queries shows each of their places."""
    count = 5_000
    starts, ends = windows_of(count, 60, 3)
    grad, keys = torch.randn(int((ends - starts).sum())), torch.randn(60, 8)
    time, now = torch.zeros(60, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
    arguments = (grad, torch.randn(count, 8), keys, time, now, *make_mlp(), None, None, None, None, starts, ends, None)  # fmt: skip
    moved = (None if each is None else each.to(device) for each in arguments)
    found = BACKWARD(*moved, False, SCALE, [86400], [3600.0], True, False, False)[0].cpu()
    lengths = ends - starts
    window = torch.arange(count).repeat_interleave(lengths)
    at = starts[window] + torch.arange(len(window)) - (lengths.cumsum(0) - lengths)[window]
    terms = SCALE * grad.double()[:, None] * keys.double()[at]
    exact = torch.zeros(count, 8).double().index_add_(0, window, terms)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)
