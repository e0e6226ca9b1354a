# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import longclock as lc

L, H, D, N, K = 16, 12, 8, 4, 10
COUNTS = (50, 3, 0, 31)


@dataclass
class Batch:
    """C candidates of each request over dense histories that are poisoned past their lengths."""

    candidate: Tensor
    behaviours: Any
    behaviour_time: Tensor
    query_time: Tensor
    lengths: Tensor | None
    mask: Tensor | None = None

    def history(self) -> lc.History:
        return lc.History.dense(self.behaviours, self.behaviour_time, self.lengths, self.mask)

    def arguments(self) -> tuple[Tensor, lc.History, Tensor]:
        return self.candidate, self.history(), self.query_time

    def run(self, module: torch.nn.Module, **options: Any) -> Any:
        return module(*self.arguments(), **options)

    def cpu(self) -> Batch:
        return Batch(*(x if x is None else x.cpu() for x in vars(self).values()))


def make_batch(device: str, candidates: int = 3) -> Batch:
    s, m = len(COUNTS), max(COUNTS)
    behaviours, lengths = torch.randn(s, m, L), torch.tensor(COUNTS)
    behaviours[torch.arange(m) >= lengths[:, None]] = torch.nan
    time, now = torch.randint(0, 10**9, (s, m)), torch.randint(0, 10**9, (s,))
    candidate = torch.randn(s, candidates, H)
    return Batch(*(x.to(device) for x in (candidate, behaviours, time, now, lengths)))


def flat(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The rows that count, their times, and where each sequence begins."""
    rows = [batch.behaviours[s, :count] for s, count in enumerate(COUNTS)]
    times = [batch.behaviour_time[s, :count] for s, count in enumerate(COUNTS)]
    return (
        torch.cat(rows),
        torch.cat(times),
        torch.tensor([0, *COUNTS]).cumsum(0).to(rows[0].device),
    )


def build(device: str, **options: Any) -> Any:
    torch.manual_seed(7)
    return lc.LongTermInterestClock(L, H, D, N, K, 9, 24, **options).to(device)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[lc.TopK]:
    """What every search of a module has found, in order."""
    seen: list[lc.TopK] = []
    search = lc.ops.clock_gsu

    def recorded(*args: Any, **options: Any) -> lc.TopK:
        seen.append(search(*args, **options))
        return seen[-1]

    monkeypatch.setattr(lc.ops, "clock_gsu", recorded)
    return seen


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_agrees_with_the_reference(level: str, device: str) -> None:
    batch, ours = make_batch(device), build(device)
    reference = build("cpu", backend="reference")
    reference.load_state_dict(ours.state_dict())
    v, c = batch.run(ours, return_context=True)
    v_expected, c_expected = batch.cpu().run(reference, return_context=True)
    assert v.shape == (4, 3, 9)
    assert c.shape == (4, 3, N, L + 4)
    close(v.cpu(), v_expected)
    torch.testing.assert_close(c.cpu(), c_expected, rtol=1e-3, atol=1e-3)
    v.square().sum().backward()
    v_expected.square().sum().backward()
    for (name, mine), other in zip(ours.named_parameters(), reference.parameters(), strict=True):
        assert mine.grad is not None, name
        assert mine.grad.abs().sum() > 0, name
        torch.testing.assert_close(mine.grad.cpu(), other.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("literal_scale", [False, True])
def test_folded_and_precomputed_select_the_same(
    level: str, device: str, literal_scale: bool, searches: list[lc.TopK]
) -> None:
    batch = make_batch(device)
    folded = build(device, literal_scale=literal_scale)
    precomputed = build(device, literal_scale=literal_scale, scoring="precomputed")
    precomputed.load_state_dict(folded.state_dict())
    v = batch.run(folded)
    close(batch.run(precomputed), v)
    of_folded, of_precomputed = searches
    assert torch.equal(of_folded.indices, of_precomputed.indices)
    close(of_precomputed.scores, of_folded.scores)
    keys = precomputed.project(batch.behaviours)
    assert keys.shape == (4, 50, N * D)
    assert torch.equal(batch.run(precomputed, keys=keys), batch.run(precomputed))
    table = lc.Lookup(batch.behaviours.flatten(0, 1), torch.arange(200, device=device).view(4, 50))
    close(replace(batch, behaviours=table).run(precomputed), v)
    with pytest.raises(ValueError, match="keys must be None for folded scoring; build the module"):
        batch.run(folded, keys=keys)


@pytest.mark.parametrize("scoring", ["folded", "precomputed"])
@pytest.mark.parametrize("own_search", [False, True])
def test_queries_that_were_stored(device: str, scoring: str, own_search: bool) -> None:
    """The same bits; what lies in a table of items may be looked up for candidates of any shape."""
    batch, module = make_batch(device), build(device, scoring=scoring, own_search=own_search)
    if own_search:
        with torch.no_grad():
            module.w_s.normal_()
    items = torch.randn(70, H, device=device)
    stored = module.project_query(items)
    assert stored.shape == (70, (1 + own_search) * N * D)
    chosen = torch.randint(0, 70, batch.candidate.shape[:2], device=device)
    batch = replace(batch, candidate=items[chosen])
    assert torch.equal(batch.run(module, query=stored[chosen]), batch.run(module))
    found = module.search(*batch.arguments(), query=stored[chosen])
    assert torch.equal(found, module.search(*batch.arguments()))
    other = module.project_query(items.flip(0))[chosen]
    assert not torch.equal(batch.run(module, query=other), batch.run(module))  # it is what counts
    for wrong in (stored, stored[chosen].double(), stored[chosen][..., 1:]):
        with pytest.raises(ValueError, match=r"LongTermInterestClock: query must be project_query\(candidate\), torch.float32 \[4, 3"):  # fmt: skip
            batch.run(module, query=wrong)


def test_the_search_scores_the_mean_of_the_heads(device: str, searches: list[lc.TopK]) -> None:
    batch, module = make_batch(device, 1), build(device)
    batch.run(module)
    q = torch.einsum("sh,ndh->snd", batch.candidate[:, 0], module.w_q)
    alpha = torch.einsum("sml,ndl,snd->smn", batch.behaviours, module.w_b, q) / D**0.5
    delta = lc.circular_delta(batch.behaviour_time, batch.query_time[:, None])
    scores = alpha.mean(-1) + module.time(delta)
    (found,) = searches
    for s, count in enumerate(COUNTS):
        close(found.scores[s, 0, : min(K, count)], scores[s, :count].sort(descending=True)[0][:K])


def test_candidates_are_each_on_their_own(level: str, device: str) -> None:
    batch, module = make_batch(device), build(device)
    together = batch.run(module)
    for c in range(3):
        close(replace(batch, candidate=batch.candidate[:, c]).run(module), together[:, c])


def test_windows_and_ragged_equal_dense_prefixes(level: str, device: str) -> None:
    batch, module = make_batch(device), build(device)
    expected, (rows, times, offsets) = batch.run(module).flatten(0, 1), flat(batch)
    candidate, bounds = batch.candidate.flatten(0, 1), offsets.repeat_interleave(3)
    windows = lc.History.windows(rows, times, bounds[:-3], bounds[3:])
    close(module(candidate, windows, batch.query_time.repeat_interleave(3)), expected)
    query_offsets = torch.arange(0, 13, 3, device=device)
    windows = lc.History.windows(rows, times, offsets[:-1], offsets[1:], query_offsets)
    close(module(candidate, windows, batch.query_time), expected)
    ragged = lc.History.ragged(rows, times, offsets, query_offsets)
    close(module(candidate, ragged, batch.query_time), expected)
    one = module(candidate[::3], lc.History.ragged(rows, times, offsets), batch.query_time)
    close(one, expected[::3])
    ids = torch.randperm(len(rows), device=device)
    table = lc.Lookup(rows[ids.argsort()], ids)
    close(module(candidate, ragged._replace(rows=table), batch.query_time), expected)
    whole = copy.deepcopy(module)
    whole.k = None
    for flat_search in (module, whole):
        with pytest.raises(
            ValueError,
            match=r"LongTermInterestClock: history.time must have shape \[S, M\], got \[84\]; for flat "
            "sequences give offsets, or starts and ends",
        ):
            flat_search(candidate, lc.History(rows, times), batch.query_time)


def test_a_left_padded_mask_equals_lengths(level: str, device: str) -> None:
    batch, module = make_batch(device), build(device)
    left = replace(
        batch,
        behaviours=torch.stack(
            [x.roll(50 - n, 0) for x, n in zip(batch.behaviours, COUNTS, strict=False)]
        ),
        behaviour_time=torch.stack(
            [x.roll(50 - n) for x, n in zip(batch.behaviour_time, COUNTS, strict=False)]
        ),
        lengths=None,
    )
    left.mask = torch.arange(50, device=device) >= 50 - batch.lengths[:, None]  # type: ignore[index]
    close(left.run(module), batch.run(module))


def test_exclude_future_equals_a_prefix(level: str, device: str) -> None:
    batch = make_batch(device)
    batch.behaviour_time = batch.behaviour_time.sort(dim=1).values
    batch.query_time = batch.behaviour_time[:, 20].clone()  # as late as now is the future too
    earlier = replace(batch, lengths=batch.lengths.clamp(max=20))  # type: ignore[union-attr]
    close(batch.run(build(device, exclude_future=True)), earlier.run(build(device)))


def test_only_selected_rows_get_gradient(level: str, device: str, searches: list[lc.TopK]) -> None:
    batch, module = make_batch(device, 1), build(device)
    rows = batch.behaviours.clone().requires_grad_()
    replace(batch, behaviours=rows).run(module).sum().backward()
    table = batch.behaviours.flatten(0, 1).clone().requires_grad_()
    ids = torch.arange(200, device=device).view(4, 50)
    for sparse in (False, True):
        table.grad = None
        replace(batch, behaviours=lc.Lookup(table, ids, sparse)).run(module).sum().backward()
        close(table.grad.to_dense().view(4, 50, L), rows.grad)
    hit = (rows.grad != 0).any(-1)
    for s in range(4):
        chosen = searches[0].indices[s, 0]
        assert set(hit[s].nonzero().flatten().tolist()) == set(chosen[chosen >= 0].tolist())


def test_not_contiguous_histories(level: str, device: str) -> None:
    batch, module = make_batch(device), build(device)
    wide = torch.full((4, 70, L), torch.nan, device=device)
    wide[:, 5:55] = batch.behaviours
    close(replace(batch, behaviours=wide[:, 5:55]).run(module), batch.run(module))


@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 0, 5), (2, 3, 0)])
def test_empty(device: str, shape: tuple[int, int, int]) -> None:
    s, c, m = shape
    module, times = build(device), torch.zeros(s, m, dtype=torch.int64, device=device)
    candidate = torch.randn(s, c, H, device=device)
    history = lc.History.dense(torch.randn(s, m, L, device=device), times)
    v = module(candidate, history, times.new_zeros(s))
    assert v.shape == (s, c, 9)
    assert v.isfinite().all()
    v.sum().backward()


def test_state_dict_and_copies(device: str) -> None:
    batch, module = make_batch(device), build(device)
    names = {"w_b", "w_q", "w_v", "time.w1", "time.b1", "time.w2", "time.b2"}
    head = {f"head.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")}
    assert set(module.state_dict()) == names | head
    other = lc.LongTermInterestClock(L, H, D, N, K, 9, 24).to(device)
    other.load_state_dict(module.state_dict())
    assert torch.equal(batch.run(other), batch.run(module))
    assert torch.equal(batch.run(copy.deepcopy(module)), batch.run(module))
    assert "heads=4" in repr(module)
    other = build(device, literal_scale=True, unit=60)
    for text in ("out_dim=9", "unit=60", "literal_scale=True"):
        assert text in repr(other).splitlines()[0] + other.extra_repr()


@pytest.mark.parametrize(
    "layout", ["dense", "lookup", "windows", "windows of many", "ragged", "one a sequence"]
)
@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_the_whole_sequence(device: str, layout: str, restricted: bool, backend: str) -> None:
    """No k finds what the k of the longest history finds."""
    batch, ours = make_batch(device), build(device, backend=backend, exclude_future=restricted)
    search = build(device, backend=backend, exclude_future=restricted)
    ours.k, search.k = None, max(COUNTS)
    rows, times, offsets = flat(batch)
    candidate, now = batch.candidate.flatten(0, 1), batch.query_time
    many = torch.arange(0, 13, 3, device=device)
    if layout == "dense":
        candidate, history = batch.candidate, batch.history()
    elif layout == "lookup":
        ids = torch.arange(200, device=device).view(4, 50)
        table = lc.Lookup(batch.behaviours.flatten(0, 1), ids)
        candidate, history = batch.candidate, batch.history()._replace(rows=table)
    elif layout == "windows":
        bounds = offsets.repeat_interleave(3)
        history = lc.History.windows(rows, times, bounds[:-3], bounds[3:])
        now = now.repeat_interleave(3)
    elif layout == "windows of many":
        history = lc.History.windows(rows, times, offsets[:-1], offsets[1:], many)
    elif layout == "ragged":
        history = lc.History.ragged(rows, times, offsets, many)
    else:
        candidate, history = candidate[::3], lc.History.ragged(rows, times, offsets)
    if restricted:
        mask = torch.rand(history.time.shape, device=device) < 0.7
        history = history._replace(mask=mask)
    results = [module(candidate, history, now, return_context=True) for module in (ours, search)]
    close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-3)
    for v, _ in results:
        v.square().sum().backward()
    for mine, other in zip(ours.parameters(), search.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [0, None])
def test_arguments_are_checked_without_a_search(
    device: str, checks_data: bool, k: int | None
) -> None:
    batch, module = make_batch(device), build(device)
    module.k = k
    assert batch.run(module).shape == (4, 3, 9)
    if checks_data:
        batch.lengths = torch.tensor([50, 3, 0, 51])
        with pytest.raises(ValueError, match="lengths must be from 0 to M = 50, got 51"):
            batch.run(module)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scoring": "x"}, "scoring must be 'folded' or 'precomputed', got 'x'"),
        ({"behaviour_dim": 0}, "behaviour_dim must be at least 1, got 0"),
        ({"candidate_dim": -1}, "candidate_dim must be at least 1, got -1"),
        ({"head_dim": 0}, "head_dim must be at least 1, got 0"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"heads": 2.0}, "heads must be an int, got float"),
        ({"out_dim": 0}, "out_dim must be at least 1, got 0"),
        ({"hidden_dim": 0}, "hidden_dim must be at least 1, got 0"),
        ({"k": -1}, "k must be from 0 to 2048, got -1; k=None attends to the whole sequence"),
        ({"k": 2049}, "k must be from 0 to 2048, got 2049; k=None attends"),
        ({"k": True}, "k must be an int, got bool"),
    ],
)
def test_wrong_sizes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^LongTermInterestClock: " + message):
        lc.LongTermInterestClock(**{"behaviour_dim": L, "candidate_dim": H, **options})


def test_wrong_widths(device: str) -> None:
    batch, module = make_batch(device), build(device)
    with pytest.raises(
        ValueError, match=r"candidate must have candidate_dim = 12 in the last .*16"
    ):
        replace(batch, candidate=torch.randn(4, 3, 16, device=device)).run(module)
    with pytest.raises(ValueError, match=r"candidate must have shape \[S, 12\] .* got \[12\]; for"):
        replace(batch, candidate=torch.randn(12, device=device)).run(module)
    narrow = batch.behaviours[..., :-1]
    ids = torch.zeros(4, 50, dtype=torch.int64, device=device)
    for behaviours in (narrow, lc.Lookup(narrow.flatten(0, 1), ids)):
        with pytest.raises(
            ValueError, match=r"history.rows must have behaviour_dim = 16 .*15\]; build"
        ):
            replace(batch, behaviours=behaviours).run(module)


@pytest.mark.parametrize("scoring", ["folded", "precomputed"])
def test_a_search_made_elsewhere(device: str, scoring: str) -> None:
    batch, module = make_batch(device), build(device, scoring=scoring)
    u = torch.einsum("sch,ndh,ndl->scl", batch.candidate, module.w_q, module.w_b)
    found = lc.clock_gsu(
        u, batch.behaviours, batch.behaviour_time, batch.query_time, module.time, K,
        lengths=batch.lengths, scale=1 / (N * D**0.5),
    ).indices  # fmt: skip
    module.project = None  # nothing is searched: no keys
    expected = build(device, scoring="folded")
    expected.load_state_dict(module.state_dict())
    close(batch.run(module, found=found), batch.run(expected))
    # fewer, in any order, and the mask holds for them as well
    some = found[..., [4, 0]]
    mask = torch.ones_like(batch.behaviour_time, dtype=torch.bool)
    mask[0, some[0, 0, 0]] = False
    dropped = some.clone()
    dropped[0, :, :][some[0] == some[0, 0, 0]] = -1
    masked = replace(batch, mask=mask)
    close(masked.run(module, found=some), batch.run(module, found=dropped))
    for wrong, message in (
        (found.int(), "found must be int64, got int32; pass the indices of a search"),
        (found[0, 0], r"found must have shape \[S, K\] or \[S, C, K\], got \[10\]"),
        (
            found[:3],
            r"found must have S = 4 in its first dimension to match history.rows, got \[3, 3, 10\]",
        ),
        (found[:, 0], r"found must have a row of K for each of Q = 12 queries, got \[4, 10\]"),
    ):
        with pytest.raises(ValueError, match=rf"^LongTermInterestClock: {message}$"):
            batch.run(module, found=wrong)
