# SPDX-License-Identifier: Apache-2.0
"""Lists of results in any order: the best of them are the best of the row that they come from."""

from __future__ import annotations

import pytest
import torch
from cases import FLOATS
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerance import assert_bitwise

import longclock as lc

ODD = [torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1.0, -1.0, 1e-45, 65504.0]


def lists_of(
    scores: torch.Tensor, cuts: list[int], k: int, valid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What searches of the parts of a row find, the last part first, by indices of the row."""
    found, m = [], scores.shape[-1]
    for begin, end in reversed(list(zip([0, *cuts], [*cuts, m], strict=True))):
        best = lc.reference.block_topk.__wrapped__(scores[..., begin:end], k)  # type: ignore[attr-defined]
        index = torch.where(best.indices < 0, -1, best.indices + begin)
        there = (index >= 0) & valid.gather(-1, index.clamp(min=0)) if m else index >= 0
        found.append((best.scores, torch.where(there, index, -1)))
    return torch.cat([pair[0] for pair in found], -1), torch.cat([pair[1] for pair in found], -1)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("k", [0, 1, 5, 100, 700])
@pytest.mark.parametrize("m", [0, 1, 17, 600])
def test_the_best_of_parts_are_the_best_of_the_row(
    level: str, device: str, dtype: torch.dtype, m: int, k: int
) -> None:
    scores = torch.tensor(ODD)[torch.randint(0, len(ODD), (4, m))].to(dtype)
    every = torch.ones(4, m, dtype=torch.bool)
    cuts = sorted(torch.randint(0, m + 1, (3,)).tolist())
    listed, indices = lists_of(scores, cuts, k, every)
    merged = lc.merge_topk(listed.to(device), indices.to(device), k)
    whole = lc.block_topk(scores.to(device), k)
    assert merged.scores.dtype == dtype
    assert torch.equal(merged.indices, whole.indices)
    assert_bitwise(merged.scores, whole.scores)


def test_nothing_comes_behind_what_scores_no_more(device: str) -> None:
    """An index of -1 is no result, whatever its score, where it stands and which number below 0 it is."""
    inf, nan = torch.inf, torch.nan
    scores = torch.tensor([nan, -inf, inf, -inf, 1.0], device=device)
    indices = torch.tensor([-1, 7, -(2**63), 3, 2**63 - 1], device=device)
    merged = lc.merge_topk(scores, indices, 5)
    assert merged.indices.tolist() == [2**63 - 1, 3, 7, -1, -1]
    assert merged.scores.tolist() == [1.0, -inf, -inf, -inf, -inf]


def test_ties_go_by_the_index_and_not_by_the_place(device: str) -> None:
    scores = torch.tensor([[2.0, -0.0, 0.0, 2.0, torch.nan, torch.nan]], device=device)
    indices = torch.tensor([[9, 8, 4, 1, 3, 2]], dtype=torch.int32, device=device)
    assert lc.merge_topk(scores, indices, 6).indices.tolist() == [[2, 3, 1, 9, 4, 8]]


def test_scores_keep_their_bits(device: str, request: pytest.FixtureRequest) -> None:
    bits = torch.tensor([0x7FC00123, -0x3FFEDD, -(2**31), 0, 0x7FC00001], dtype=torch.int32)
    scores = bits.view(torch.float32).to(device)
    merged = lc.merge_topk(scores, torch.tensor([4, 3, 2, 1, 0], device=device), 5)
    found = merged.scores.view(torch.int32)
    assert merged.indices.tolist() == [0, 3, 4, 1, 2]
    assert torch.equal(found, lc.block_topk(scores.flip(0), 5).scores.view(torch.int32))
    if request.config.getoption("--device") == "cpu":  # on CUDA zeros and NaN have one form
        assert found.tolist() == bits[[4, 1, 0, 3, 2]].tolist()


@pytest.mark.parametrize("shape", [(9,), (0, 9), (2, 0, 9), (2, 3, 9), (4, 0), (0,)])
def test_shapes(device: str, shape: tuple[int, ...]) -> None:
    scores = torch.randn(shape)
    indices = torch.argsort(torch.rand(shape), -1)
    ours = lc.merge_topk(scores.to(device), indices.to(device), 4)
    expected = lc.reference.merge_topk(scores, indices, 4)
    assert ours.scores.shape == ours.indices.shape == (*shape[:-1], 4)
    assert torch.equal(ours.indices.cpu(), expected.indices)
    assert torch.equal(ours.scores.cpu(), expected.scores)


@given(st.data())
@settings(deadline=None)
def test_any_lists(device: str, data: st.DataObject) -> None:
    p, k = data.draw(st.integers(0, 60)), data.draw(st.integers(0, 70))
    values = st.sampled_from([*ODD, 2.0, 3.0])
    scores = torch.tensor(data.draw(st.lists(values, min_size=p, max_size=p)))
    names = data.draw(st.permutations(range(2 * p)))[:p]
    nothing = data.draw(st.lists(st.booleans(), min_size=p, max_size=p))
    indices = torch.tensor(
        [-1 if no else name for no, name in zip(nothing, names, strict=True)], dtype=torch.int64
    )
    ours = lc.merge_topk(scores.to(device), indices.to(device), k)
    expected = lc.reference.merge_topk(scores.double(), indices, k)
    assert torch.equal(ours.indices.cpu(), expected.indices)
    torch.testing.assert_close(
        ours.scores.cpu().double(), expected.scores, rtol=0, atol=0, equal_nan=True
    )


def test_gradient(device: str) -> None:
    scores = torch.randn(2, 8, device=device, requires_grad=True)
    indices = torch.tensor([[7, -1, 5, -1, 3, 2, 1, 0], [-1] * 8], device=device)
    merged = lc.merge_topk(scores, indices, 3)
    assert merged.scores.requires_grad
    assert not merged.indices.requires_grad
    (grad,) = torch.autograd.grad(merged.scores[0].sum(), scores)
    chosen = torch.zeros(2, 8, device=device)
    chosen[0] = (indices[0][:, None] == merged.indices[0]).any(1).float()
    assert torch.equal(grad, chosen)
    assert chosen.sum() == 3


def test_not_contiguous(device: str) -> None:
    wide, indices = (
        torch.randn(40, 3, device=device),
        torch.randperm(120, device=device).view(40, 3),
    )
    ours = lc.merge_topk(wide.T[:, ::2], indices.T[:, ::2], 9)
    alone = lc.merge_topk(wide.T[:, ::2].contiguous(), indices.T[:, ::2].contiguous(), 9)
    assert_bitwise(ours, alone)


def test_compiled_and_exported(device: str) -> None:
    class Merge(torch.nn.Module):
        def forward(self, scores: torch.Tensor, indices: torch.Tensor) -> lc.TopK:
            return lc.merge_topk(scores, indices, 5)

    scores, indices = (
        torch.randn(3, 20, device=device),
        torch.randint(-1, 99, (3, 20), device=device),
    )
    eager = lc.merge_topk(scores, indices, 5)
    compiled = torch.compile(Merge(), fullgraph=True, backend="aot_eager", dynamic=True)
    assert_bitwise(compiled(scores, indices), eager)
    sizes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("results")}
    exported = torch.export.export(Merge(), (scores, indices), dynamic_shapes=(sizes, sizes))
    other = torch.randn(2, 31, device=device), torch.randint(-1, 99, (2, 31), device=device)
    assert_bitwise(exported.module()(*other), lc.merge_topk(*other, 5))
    assert torch.vmap(lambda s, i: lc.merge_topk(s, i, 5).indices)(scores, indices).equal(
        eager.indices
    )


def test_errors(device: str) -> None:
    scores, indices = (
        torch.randn(3, 20, device=device),
        torch.zeros(3, 20, dtype=torch.int64, device=device),
    )
    wrong = {
        r"merge_topk: k must be at least 0, got -1": (scores, indices, -1),
        r"merge_topk: k must be at most 1048576, or P = 20, got 2147483647; behind the P": (scores, indices, 2**31 - 1),
        r"merge_topk: scores must be .*, got float64; longclock.reference.merge_topk": (scores.double(), indices, 3),
        r"merge_topk: indices must be int32 or int64, got float32; convert": (scores, scores, 3),
        r"merge_topk: indices must have the shape of scores, \[3, 20\], got \[3, 19\]": (scores, indices[:, 1:], 3),
        r"merge_topk: scores must have at least one dimension": (scores[0, 0], indices[0, 0], 3),
        r"merge_topk: indices must be on the device of scores, .*, got meta": (scores, indices.to("meta"), 3),
    }  # fmt: skip
    for text, arguments in wrong.items():
        with pytest.raises(ValueError, match=text):
            lc.merge_topk(*arguments)


def test_all_of_very_long_rows(device: str) -> None:
    """As many as there are, however many, but no more."""
    scores = torch.arange(2**20 + 3, dtype=torch.float32, device=device)
    indices = torch.arange(len(scores), device=device)
    merged = lc.merge_topk(scores, indices, len(scores))
    assert torch.equal(merged.indices, indices.flip(0))
    with pytest.raises(ValueError, match=r"k must be at most 1048576, or P = 1048579, got 1048580"):
        lc.merge_topk(scores, indices, len(scores) + 1)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("m", "k"), [(5_000, 2_049), (5_000, 5_000), (3_000, 4_000), (0, 2_050)])
def test_more_than_a_selection_keeps(device: str, dtype: torch.dtype, m: int, k: int) -> None:
    scores = torch.tensor(ODD)[torch.randint(0, len(ODD), (2, m))].to(dtype)
    indices = torch.stack([torch.randperm(m) for _ in range(2)])
    indices[:, ::7] = -1
    merged = lc.merge_topk(scores.to(device), indices.to(device), k)
    expected = lc.reference.merge_topk(scores, indices, k)
    assert merged.scores.shape == (2, k)
    assert torch.equal(merged.indices.cpu(), expected.indices)
    assert_bitwise(merged.scores.cpu(), expected.scores)


def test_a_gradient_of_many(device: str) -> None:
    scores = torch.randn(4_000, device=device, requires_grad=True)
    merged = lc.merge_topk(scores, torch.arange(4_000, device=device), 3_000)
    merged.scores.sum().backward()
    assert scores.grad is not None
    assert scores.grad.nonzero().flatten().tolist() == sorted(merged.indices.tolist())


def test_the_remedy_for_a_large_k(device: str) -> None:
    """What the error of a search says: parts of 2,048, joined."""
    keys, when = torch.randn(2, 5_000, 8, device=device), torch.randint(0, 10**6, (2, 5_000), device=device)  # fmt: skip
    query, now = torch.randn(2, 8, device=device), torch.full((2,), 10**6, device=device)
    s = lc.TimeSimilarity().to(device).requires_grad_(False)
    with pytest.raises(ValueError, match="k must be from 0 to 2048, got 3000; for more, take the best of parts of 2048 and join them with merge_topk"):  # fmt: skip
        lc.clock_gsu(query, keys, when, now, s, k=3_000)
    scores, places = [], []
    for i, (rows, times) in enumerate(zip(keys.split(2_048, 1), when.split(2_048, 1), strict=True)):
        found = lc.clock_gsu(query, rows, times, now, s, k=2_048)
        scores.append(found.scores)
        places.append(found.indices.where(found.indices < 0, found.indices + 2_048 * i))
    best = lc.merge_topk(torch.cat(scores, -1), torch.cat(places, -1), k=3_000)
    every = lc.gsu_score(query, keys, when, now, s)
    torch.testing.assert_close(best.scores, every.sort(descending=True).values[:, :3_000])
    torch.testing.assert_close(best.scores, every.gather(1, best.indices))
    lic = lc.LongTermInterestClock(8, 8, out_dim=3).to(device)  # attends to any number
    history = lc.History.dense(keys, when)
    assert lic(query, history, now, found=best.indices).shape == (2, 3)
