# SPDX-License-Identifier: Apache-2.0
"""How close is close enough, for every test: the error against fp64 may be twice that of the same
maths in torch at that dtype, plus a floor for where torch happens to be exact."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

# A few units in the last place of the largest value compared, by the dtype of the result.
FLOOR = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float64: 1e-12}


def error(value: Tensor, exact: Tensor) -> float:
    """The largest difference where exact is finite."""
    finite = exact.isfinite()
    difference = (value.double().cpu() - exact)[finite].abs()
    return float(difference.max()) if difference.numel() else 0.0


def allowed(
    rival: Tensor, exact: Tensor, dtype: torch.dtype, terms: int = 1, size: float = 1.0
) -> float:
    finite = exact[exact.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    return 2 * error(rival, exact) + FLOOR[dtype] * max(size, largest) * max(terms, 1) ** 0.5


def assert_close(
    ours: Tensor,
    exact: Tensor,
    rival: Tensor,
    what: str = "result",
    terms: int = 1,
    size: float = 1.0,
) -> None:
    """ours against the fp64 reference; rival is the reference at ours' dtype.

    terms: how many were added into each value of a weight's gradient. The rounding of a sum of
    either sign grows with their root while the sum may cancel, and with only a handful of values
    torch's own error is too small a sample to go by.
    size: how large those terms are, where the sum cancels by its nature (a softmax's gradient sums
    to 0 over the behaviours, whatever its terms).
    """
    assert ours.shape == exact.shape, f"{what}: shape {ours.shape}, expected {exact.shape}"
    ours = ours.detach().cpu()
    exact, rival = exact.detach().double(), rival.detach()
    odd = ~exact.isfinite()
    torch.testing.assert_close(
        ours.double()[odd], exact[odd], equal_nan=True, rtol=0, atol=0, msg=f"{what}: inf or NaN"
    )
    found, limit = error(ours, exact), allowed(rival, exact, ours.dtype, terms, size)
    assert found <= limit, f"{what}: error {found:.3e} against fp64, allowed {limit:.3e}"


def assert_selection(
    scores: Tensor, indices: Tensor, exact: Tensor, rival: Tensor, what: str = "selection"
) -> None:
    """One row's choice, compared by score. exact, rival: [M] scores, -inf where not selectable."""
    scores, indices = scores.detach().cpu(), indices.cpu()
    exact, rival = exact.detach().double(), rival.detach()
    count = min(len(indices), int((exact > -torch.inf).sum()))
    assert (indices[count:] == -1).all(), f"{what}: {count} exist, got {indices.tolist()}"
    assert (scores[count:] == -torch.inf).all(), f"{what}: padding must score -inf"
    if count == 0:
        return
    chosen = indices[:count]
    assert ((chosen >= 0) & (chosen < len(exact))).all(), f"{what}: {indices.tolist()}"
    assert len(set(chosen.tolist())) == count, f"{what}: an index comes twice"
    limit = allowed(rival, exact, scores.dtype)
    assert error(scores[:count], exact[chosen]) <= limit, f"{what}: scores are not those chosen"
    assert (scores[:count].diff() <= 0).all(), f"{what}: not sorted"
    equal = scores[:count].diff() == 0
    assert (chosen.diff()[equal] > 0).all(), f"{what}: equal scores must come by index"
    kth = exact.topk(count).values[-1]
    passed_over = torch.ones(len(exact), dtype=torch.bool)
    passed_over[chosen] = False
    worst, best = exact[chosen].min(), exact[passed_over].max() if passed_over.any() else kth
    assert worst >= kth - limit, f"{what}: chose {worst}, the K-th is {kth}"
    assert best <= kth + limit, f"{what}: passed over {best}, the K-th is {kth}"


def assert_bitwise(ours: object, expected: object) -> None:
    """Tensors, or trees of them, equal to the bit."""
    for a, b in zip(
        tree_leaves(ours),
        tree_leaves(expected),
        strict=True,
    ):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if a.is_floating_point():
            kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.dtype.itemsize]
            a, b = a.detach().contiguous().view(kind), b.detach().contiguous().view(kind)
        assert torch.equal(a, b), f"differs at {(a != b).nonzero()[:5].tolist()}"
