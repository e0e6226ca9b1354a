# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from cases import FLOATS
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_error import RAW_ERROR
from tolerance import assert_bitwise

import longclock as lc

ODD = [torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 65504.0]


def check(scores: torch.Tensor, k: int, lengths: torch.Tensor | None, device: str) -> None:
    """The reference is exact, so ours is equal to it, to the bit."""
    ours = lc.block_topk(scores.to(device), k, None if lengths is None else lengths.to(device))
    expected = lc.reference.block_topk(scores, k, lengths)
    assert ours.scores.dtype == scores.dtype
    assert ours.indices.dtype == torch.int64
    assert torch.equal(ours.indices.cpu(), expected.indices)
    torch.testing.assert_close(ours.scores.cpu(), expected.scores, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("m", [0, 1, 2, 15, 16, 17, 255, 256, 257, 1000, 5000])
@pytest.mark.parametrize("k", [0, 1, 2, 100, 256, 2048])
def test_random(level: str, device: str, dtype: torch.dtype, m: int, k: int) -> None:
    scores = torch.randn(3, m).to(dtype)
    check(scores, k, None, device)
    check(scores, k, torch.tensor([0, m // 2, m]), device)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("k", [1, 7, 100, 700, 2048])
def test_ties_and_odd_values(level: str, device: str, dtype: torch.dtype, k: int) -> None:
    choice = torch.randint(0, len(ODD), (4, 1500))
    scores = torch.tensor(ODD)[choice].to(dtype)
    check(scores, k, None, device)
    check(scores, k, torch.tensor([1500, 1, 0, 777], dtype=torch.int32), device)
    check(torch.zeros(2, 1500, dtype=dtype), k, None, device)
    check(torch.full((2, 1500), -torch.inf, dtype=dtype), k, None, device)
    check(torch.full((2, 1500), torch.nan, dtype=dtype), k, None, device)


@pytest.mark.parametrize("order", ["ascending", "descending", "saw"])
def test_the_order_of_the_data_does_not_matter(level: str, device: str, order: str) -> None:
    scores = torch.arange(9000, dtype=torch.float32)
    scores = {"ascending": scores, "descending": scores.flip(0), "saw": scores % 301}[order]
    for k in (1, 100, 2048):
        check(scores[None], k, None, device)


@pytest.mark.parametrize("k", [20, 100, 128, 129])
@pytest.mark.parametrize("m", [2000, 3000, 10_240, 10_241, 30_000])
def test_the_largest_in_few_places(level: str, device: str, m: int, k: int) -> None:
    """CUDA bounds the k-th best by the largest of each thread, or of 128 groups, which are then of little use; and a warp's
    share of a row may hold more of the largest than there is room for, or none."""
    place = torch.arange(m)
    scores = torch.randn(2, m)
    check(scores + 100 * (place % 256 == 7), k, None, device)
    check(scores + 100 * (place // 4 % 256 == 7), k, None, device)
    check(scores + 100 * (place % 128 < 50), k, None, device)
    check(scores + 100 * (place // 1280 == 1), k, None, device)
    check(scores.clamp(max=0) + (place // 1280 == 1), k, None, device)
    many = scores.round(decimals=1)
    check(many, k, torch.tensor([m, m - 1]), device)
    check(many.clamp(max=0.5), k, None, device)


@pytest.mark.parametrize("k", [100, 700])
def test_a_row_of_many_parts(level: str, device: str, k: int) -> None:
    """On CUDA the best of the parts of a long row are themselves merged in parts."""
    scores = torch.randn(1, 300_000)
    check(scores, k, None, device)
    check(scores.round(decimals=2).half(), k, None, device)


def test_zeros_of_either_sign_tie(device: str, level: str) -> None:
    scores = torch.tensor([-1.0, -0.0, 0.0, -0.0, 0.0], device=device)
    assert lc.block_topk(scores, 4).indices.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_what_lies_past_the_length_never_counts(level: str, device: str, bad: float) -> None:
    scores = torch.randn(5, 300)
    lengths = torch.tensor([0, 1, 16, 299, 300])
    scores[torch.arange(300) >= lengths[:, None]] = bad
    check(scores, 20, lengths, device)
    assert lc.block_topk(scores.to(device), 20, lengths.to(device)).indices[0].eq(-1).all()


@pytest.mark.parametrize("shape", [(50,), (0, 50), (2, 0, 50), (2, 3, 50), (4, 0)])
def test_shapes(level: str, device: str, shape: tuple[int, ...]) -> None:
    scores = torch.randn(shape)
    check(scores, 5, None, device)
    check(scores, 5, torch.randint(0, shape[-1] + 1, shape[:-1]), device)


def test_not_contiguous(level: str, device: str) -> None:
    wide = torch.randn(300, 8).to(device)
    for scores in (wide.T, wide[::3, ::2].T, wide[:1].expand(4, 8), wide.T[:, 50:]):
        ours = lc.block_topk(scores, 9)
        assert_bitwise(ours, lc.block_topk(scores.contiguous(), 9))


def test_agrees_with_torch_topk(level: str, device: str) -> None:
    scores = torch.randn(6, 3000, device=device)
    expected = torch.topk(scores, 100)
    ours = lc.block_topk(scores, 100)
    assert torch.equal(ours.scores, expected.values)
    assert torch.equal(ours.indices, expected.indices)


@given(st.data())
@settings(deadline=None)
def test_any_rows(device: str, data: st.DataObject) -> None:
    m, k = data.draw(st.integers(0, 600)), data.draw(st.integers(0, 700))
    values = st.sampled_from([*ODD, 2.0, 3.0, 4.0])
    seed = data.draw(st.lists(values, min_size=1, max_size=20))
    row = torch.tensor((seed * (m // len(seed) + 1))[:m])
    length = torch.tensor(data.draw(st.integers(0, m)))
    check(row, k, length, device)


@pytest.mark.parametrize("dtype", FLOATS)
def test_gradient(level: str, device: str, dtype: torch.dtype) -> None:
    values = torch.randn(4, 300).to(dtype)
    lengths, grad = torch.tensor([300, 5, 0, 77]), torch.randn(4, 20).to(dtype)
    ours, expected = (values.to(d).requires_grad_() for d in (device, "cpu"))
    lc.block_topk(ours, 20, lengths.to(device)).scores.backward(grad.to(device))
    lc.reference.block_topk(expected, 20, lengths).scores.backward(grad)
    assert ours.grad is not None
    assert ours.grad.dtype == dtype
    assert torch.equal(ours.grad.cpu(), expected.grad)
    assert ours.grad[2].eq(0).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("columns", [1, 7, 4_096, 8_193, 30_005])  # rows that no 16 bytes divide
def test_gradient_of_wide_rows(level: str, device: str, dtype: torch.dtype, columns: int) -> None:
    k = min(columns, 60)
    grad = torch.randn(3, k).to(dtype)
    indices = torch.stack([torch.randperm(columns)[:k] for _ in range(3)])
    indices[0, 0], indices[1, -1], indices[2, k // 2 :] = columns - 1, 0, -1
    indices[0, 1:][indices[0, 1:] == columns - 1] = -1
    indices[1, :-1][indices[1, :-1] == 0] = -1
    expected = torch.zeros(3, columns + 1, dtype=dtype)
    expected.scatter_(1, indices.where(indices >= 0, columns), grad)
    backward = torch.ops.longclock.block_topk_backward
    found = backward(grad.to(device), indices.to(device), columns)
    assert torch.equal(found.cpu(), expected[:, :columns])


def test_indices_are_not_differentiable(device: str) -> None:
    top = lc.block_topk(torch.randn(2, 9, device=device, requires_grad=True), 3)
    assert top.scores.requires_grad
    assert not top.indices.requires_grad


def test_bitwise_repeatable(level: str, device: str, same_at_any_threads) -> None:  # type: ignore[no-untyped-def]
    scores = (torch.randn(64, 3000) * 8).round().to(device)
    same_at_any_threads(lambda: lc.block_topk(scores, 200))
    alone = [lc.block_topk(row, 200) for row in scores[:5]]
    assert_bitwise(lc.block_topk(scores, 200).indices[:5], torch.stack([a.indices for a in alone]))


def test_double_backward_explains_itself(device: str) -> None:
    scores = torch.randn(2, 9, device=device, requires_grad=True)
    top = lc.block_topk(scores, 3).scores
    (first,) = torch.autograd.grad(top.square().sum(), scores, create_graph=True)
    with pytest.raises(RuntimeError, match="block_topk_backward: a double backward is not impl"):
        first.sum().backward()


def test_errors(device: str, checks_data: bool) -> None:
    scores = torch.randn(3, 20, device=device)
    for k in (-1, 2049):
        with pytest.raises(ValueError, match=f"block_topk: k must be from 0 to 2048, got {k}"):
            lc.block_topk(scores, k)
        with pytest.raises(RAW_ERROR, match="block_topk: k must"):
            torch.ops.longclock.block_topk(scores, k, None)
    with pytest.raises(
        ValueError, match=r"scores must be .*float64; longclock.reference.block_topk"
    ):
        lc.block_topk(scores.double(), 3)
    with pytest.raises(ValueError, match="block_topk: lengths must"):
        lc.block_topk(scores, 3, torch.zeros(4, dtype=torch.int64, device=device))
    with pytest.raises(ValueError, match="block_topk: lengths must be int32 or int64"):
        lc.block_topk(scores, 3, torch.zeros(3, device=device))
    if checks_data:
        for bad in (-1, 21):
            with pytest.raises(ValueError, match="block_topk: lengths must"):
                lc.block_topk(scores, 3, torch.tensor([0, bad, 20]))
