# SPDX-License-Identifier: Apache-2.0
"""Comparisons with the fp64 reference: twice the error of the same maths in torch, plus a floor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import longclock as lc
from bench.harness import Check

FLOOR = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.int64: 0.0}
EXACT = "the fp64 reference"


def difference(value: Tensor, exact: Tensor) -> float:
    """The largest where exact is finite; infinite where what is not finite differs."""
    value, finite = value.detach().double(), exact.isfinite()
    if not torch.equal(value.isfinite(), finite):
        return float("inf")
    apart = (value - exact).abs()[finite]
    return float(apart.max()) if apart.numel() else 0.0


def close(ours: Any, exact: Any, eager: Any, terms: int = 1, size: float = 1.0) -> Check:
    """Tensors or sequences of them; the worst one counts.

    ``terms`` of up to ``size`` were added into each value, and may cancel.
    """
    if isinstance(ours, Tensor):
        ours, exact, eager = (ours,), (exact,), (eager,)
    checks = []
    for a, b, c in zip(ours, exact, eager, strict=True):
        if a.shape != b.shape:
            return Check(EXACT, float("inf"), 0.0)
        b = b.detach().double()
        finite = b[b.isfinite()]
        largest = max(size, float(finite.abs().max()) if finite.numel() else 0.0)
        allowed = 2 * difference(c, b) + FLOOR[a.dtype] * largest * terms**0.5
        checks.append(Check(EXACT, difference(a, b), allowed))
    return max(checks, key=lambda check: check.error / check.allowed)


def selection(found: lc.TopK, exact: Tensor, eager: Tensor) -> Check:
    """By score: what was chosen, against the best k of exact [.., M], -inf where there is nothing."""
    scores, indices = found
    k = min(scores.shape[-1], exact.shape[-1])
    best = exact.topk(k, dim=-1).values
    chosen = exact.gather(-1, indices[..., :k].clamp(min=0))
    chosen = chosen.masked_fill(indices[..., :k] < 0, -torch.inf)
    finite = exact[exact.isfinite()]
    size = max(1.0, float(finite.abs().max()) if finite.numel() else 0.0)
    allowed = 2 * difference(eager, exact) + FLOOR[torch.float32] * size
    error = max(difference(scores[..., :k], chosen), difference(chosen.sort(-1)[0], best.flip(-1)))
    return Check(EXACT, error, allowed)


def same(ours: Tensor, expected: Tensor, against: str) -> Check:
    return Check(against, 0.0 if torch.equal(ours, expected) else float("inf"), 0.0)


def same_selection(ours: lc.TopK, expected: lc.TopK) -> Check:
    """To the bit, indices and scores."""
    against = "the reference, exactly"
    found = same(ours.indices, expected.indices, against)
    return found if found.error > 0 else same(ours.scores, expected.scores, against)
