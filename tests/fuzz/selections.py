# SPDX-License-Identifier: Apache-2.0
"""The best k of a row: which they are, and whether a selection is one of the right ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from .compare import Wrong
from .oracle import Array


def ranked(scores: Array, counts: Array, k: int) -> tuple[Array, Array]:
    """The best k of a row, NaN first, then by score, then by index."""
    at = np.flatnonzero(counts)
    at = at[np.lexsort((at, -np.where(np.isnan(scores[at]), 0, scores[at]), ~np.isnan(scores[at])))]
    at = at[:k]
    indices, values = np.full(k, -1, np.int64), np.full(k, -np.inf)
    indices[: len(at)], values[: len(at)] = at, scores[at]
    return values, indices


def check_row(
    values: Any, chosen: Any, right: Any, off: Any, counts: Any, exact: bool, where: str
) -> None:
    """Raises Wrong. right, off: scores of all positions, and how far off each may be."""

    def need(holds: Any, text: str) -> None:
        if not holds:
            raise Wrong(f"{where}: {text}: scores {values[:9]}, indices {chosen[:9]}")

    k = len(values)
    n = min(k, int(counts.sum()))
    need((chosen[n:] == -1).all() and np.isneginf(values[n:]).all(), f"padding of {n}")
    if exact:
        expected, indices = ranked(right, counts, k)
        need(np.array_equal(values, expected, equal_nan=True), f"expected {expected[:9]}")
        need(np.array_equal(chosen, indices), f"expected {indices[:9]}")
        return
    values, chosen = values[:n], chosen[:n]
    need(((chosen >= 0) & (chosen < len(right))).all(), "outside")
    need(counts[chosen].all(), "chose what does not count")
    need(len(np.unique(chosen)) == n, "an index comes twice")
    with np.errstate(all="ignore"):
        expected, limit = right[chosen], off[chosen]
        same = (values == expected) | (np.isnan(values) & np.isnan(expected))
        close = same | (np.abs(values - expected) <= limit) | np.isinf(limit)
    at = int(np.argmin(close)) if n else 0
    need(close.all(), f"score {at} must be {expected[at : at + 1]} +- {limit[at : at + 1]}")
    nans = np.isnan(values)
    need((nans[:-1] >= nans[1:]).all(), "NaN after a number")
    real = values[~nans]
    need((real[:-1] >= real[1:]).all(), "not sorted")
    equal = (values[:-1] == values[1:]) | (nans[:-1] & nans[1:])
    need((chosen[:-1] < chosen[1:])[equal].all(), "equals are not in order of index")
    passed = counts.copy()
    passed[chosen] = False
    passed &= np.isfinite(off)
    if n == 0 or not passed.any() or not np.isfinite(limit).all():
        return
    need(nans.all() or not np.isnan(right[passed]).any(), "passed over a NaN")
    left = np.where(np.isnan(right[passed]), -np.inf, right[passed] - off[passed])
    if not nans[-1] and not np.isnan(expected[-1]):
        worst = np.nanmin(expected + limit)
        need(left.max() <= worst, f"passed over {left.max()}, chose {worst}")
