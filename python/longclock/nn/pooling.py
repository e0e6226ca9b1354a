# SPDX-License-Identifier: Apache-2.0
"""Means and sums of the last behaviours of windows, straight from where they lie."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from longclock._checks import OUTSIDE, check_ids
from longclock.history import History
from longclock.history.rows import floating_rows, rows_at
from longclock.history.windows import edges_of
from longclock.types import Lookup


def table_of(op: str, windows: History, index: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Behaviours by their position: a table, its rows, and whether its gradient is sparse."""
    rows = floating_rows(op, windows)
    if not isinstance(rows, Lookup):
        return rows, index, False
    if isinstance(rows.table, Tensor) and isinstance(rows.ids, Tensor):
        ids = rows.ids[index].long()
        check_ids(op, "history.rows.ids", ids, len(rows.table), OUTSIDE)
        return rows.table, ids, rows.sparse
    gathered = rows_at(op, "history.rows.ids", rows, index)
    return gathered, torch.arange(len(index), device=index.device), False


def bags_of(
    op: str,
    windows: History,
    index: Tensor,
    counts: Tensor,
    mode: str,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean, or sum weighted by ``weight``, of the first ``counts[0]`` behaviours of ``index``, of the next
    ``counts[1]``, and so on: [Q, L], 0 where a count is 0."""
    table, ids, sparse = table_of(op, windows, index)
    first = counts.cumsum(0) - counts
    return F.embedding_bag(ids, table, first, mode=mode, sparse=sparse, per_sample_weights=weight)


def last_of(k: int | None, windows: History) -> tuple[Tensor, Tensor]:
    """Positions of the last ``k`` behaviours (None: of all) of every window where its mask is True, the latest first.

    Returns the positions of one window after another, and how many each has, [Q].
    """
    (starts, ends), mask, rows = edges_of(windows), windows.mask, None
    if mask is not None:  # count in masked rows, then map back
        before = F.pad(mask.cumsum(0), (1, 0))
        rows = mask.nonzero().flatten()
        starts, ends = before[starts.long()], before[ends.long()]
    if k is None:
        k = int((ends - starts).max()) if len(starts) else 0
    position = ends[:, None] - 1 - torch.arange(k, device=ends.device)
    there = position >= starts[:, None]
    index = position[there].long()
    return index if rows is None else rows[index], there.sum(1)


def mean_of_last(op: str, k: int | None, windows: History) -> Tensor:
    """Mean of the last ``k`` rows of every window where its mask is True; 0 where there is none."""
    return bags_of(op, windows, *last_of(k, windows), mode="mean")
