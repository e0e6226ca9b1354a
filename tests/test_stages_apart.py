# SPDX-License-Identifier: Apache-2.0
"""A module's search and its attention by themselves: elsewhere, or with a look-up between them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tolerance import assert_bitwise
from torch import Tensor, nn

import longclock as lc
from longclock.baselines import ETA, TWIN, SIMHard, SIMSoft

S, T, N, L, H, K = 3, 90, 40, 8, 6, 5
OFFSETS = torch.tensor([0, 50, 50, 90])


def batch() -> tuple[nn.Embedding, Tensor, Tensor, Tensor, Tensor]:
    """Items, ids, times, candidates and moments: of three users, one without behaviours."""
    items, ids = nn.Embedding(N, L), torch.randint(0, N, (T,))
    return items, ids, torch.randint(0, 10**6, (T,)), torch.randn(S, H), torch.full((S,), 10**6)


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


MODULES: dict[str, Any] = {
    "folded": lambda: lc.LongTermInterestClock(L, H, k=K),
    "precomputed": lambda: lc.LongTermInterestClock(L, H, k=K, scoring="precomputed"),
    "own search": lambda: lc.LongTermInterestClock(L, H, k=K, own_search=True, time_per="stage"),
    "an s a head": lambda: lc.LongTermInterestClock(L, H, k=K, heads=2, time_per="head"),
    "several clocks": lambda: lc.LongTermInterestClock(L, H, k=K, clocks=(86400, lc.ELAPSED)),
    "exclude future": lambda: lc.LongTermInterestClock(L, H, k=K, exclude_future=True),
    "reference": lambda: lc.LongTermInterestClock(L, H, k=K, backend="reference"),
    "TWIN": lambda: TWIN(L, H, k=K),
    "SIMSoft": lambda: SIMSoft(L, H, k=K),
}
every_module = pytest.mark.parametrize("name", MODULES)


@every_module
def test_a_search_with_its_scores(name: str) -> None:
    module = MODULES[name]()
    items, ids, time, candidate, now = batch()
    history = lc.History.ragged(lc.Lookup(items.weight, ids), time, OFFSETS)
    best = module.search(candidate, history, now, return_scores=True)
    assert torch.equal(best.indices, module.search(candidate, history, now))
    query, searched, options = module.search_arguments(candidate, history)
    again = module.ops.clock_gsu(query, query_time=now, **searched.arguments(), **options)
    assert_bitwise(best, again)
    assert_bitwise(
        module(candidate, history, now, found=best.indices), module(candidate, history, now)
    )


def test_hashes_have_scores_and_no_arguments_of_clock_gsu() -> None:
    items, ids, time, candidate, now = batch()
    history = lc.History.ragged(lc.Lookup(items.weight, ids), time, OFFSETS)
    module = ETA(L, H, k=K)
    best = module.search(candidate, history, now, return_scores=True)
    assert torch.equal(best.indices, module.search(candidate, history, now))
    assert best.scores[0].is_floating_point() == best.scores.is_floating_point()
    for one in (module, SIMHard(L, H, k=K)):
        with pytest.raises(NotImplementedError, match=f"^{type(one).__name__}: it searches by"):
            one.search_arguments(candidate, history)
    assert (
        lc.LongTermInterestClock(L, H, k=None).search(candidate, history, now, return_scores=True)
        is None
    )


@pytest.mark.parametrize("name", [name for name in MODULES if name != "reference"])
def test_a_search_across_ranks(name: str) -> None:
    module = MODULES[name]()
    items, ids, time, candidate, now = batch()
    history = lc.History.ragged(lc.Lookup(items.weight, ids), time, OFFSETS)
    query, searched, options = module.search_arguments(candidate, history)
    for search in (lc.distributed.clock_gsu, lc.distributed.clock_gsu_at_rows):
        assert torch.equal(search(query, searched, now, **options).indices, module.search(candidate, history, now))  # type: ignore[operator]  # fmt: skip


@every_module
def test_the_winners_are_looked_up_a_second_time(name: str) -> None:
    """What comes out, and the gradients of the items and of the module, are those of one call."""
    module = MODULES[name]()
    items, ids, time, candidate, now = batch()

    def gradients(v_cur: Tensor) -> list[Tensor]:
        v_cur.square().sum().backward()
        found = [items.weight.grad, *(weight.grad for weight in module.parameters())]
        items.weight.grad = None
        module.zero_grad()
        return [grad for grad in found if grad is not None]

    whole = lc.History.ragged(lc.Lookup(items.weight, ids), time, OFFSETS)
    expected = module(candidate, whole, now, return_context=True)
    of_call = gradients(expected[0])
    with torch.no_grad():
        found = module.search(candidate, lc.History.ragged(items(ids), time, OFFSETS), now)
    chosen, times, lengths = lc.jagged.select(found, OFFSETS, ids, time)
    assert int(lengths[1]) == 0
    winners = lc.History.ragged(items(chosen), times, lengths=lengths)
    v_cur, context = module.attend(candidate, winners, now, return_context=True)
    close(v_cur, expected[0])
    close(context, expected[1])
    assert torch.equal(module.attend(candidate, winners, now, longest=K), v_cur)
    of_attention = gradients(v_cur)
    assert len(of_attention) == len(of_call)
    for ours, theirs in zip(of_attention, of_call, strict=True):
        close(ours, theirs)


def test_attention_to_all_of_a_dense_history() -> None:
    """As of a module that does not search."""
    module = lc.LongTermInterestClock(L, H, k=K)
    everything = lc.LongTermInterestClock(L, H, k=None)
    everything.load_state_dict(module.state_dict())
    rows, time, candidate, now = torch.randn(S, 9, L), torch.randint(0, 10**6, (S, 9)), torch.randn(S, 4, H), torch.full((S,), 10**6)  # fmt: skip
    history = lc.History.dense(rows, time, mask=torch.rand(S, 9) < 0.7)
    assert_bitwise(module.attend(candidate, history, now), everything(candidate, history, now))


def test_refusals_name_the_module() -> None:
    items, ids, time, candidate, now = batch()
    module, history = lc.LongTermInterestClock(L, H, k=K), lc.History.ragged(lc.Lookup(items.weight, ids), time, OFFSETS)  # fmt: skip
    wrong: dict[str, Any] = {
        r"history must be a History, got Tensor": lambda: module.attend(candidate, time, now),
        r"candidate must have candidate_dim = 6": lambda: module.attend(candidate[:, :2], history, now),
        r"longest must be at least the most behaviours of a query = 50, got 3": lambda: module.attend(candidate, history, now, longest=3),
        r"offsets must have shape \[S \+ 1\] = \[3\] to match query_time": lambda: module.attend(candidate, history, now[:2]),
        r"keys must be None for folded scoring": lambda: module.search_arguments(candidate, history, keys=items.weight),
    }  # fmt: skip
    for text, call in wrong.items():
        with pytest.raises(ValueError, match=f"^LongTermInterestClock: {text}"):
            call()


def test_compiled() -> None:
    """Lengths, the two stages by themselves, and a search across ranks where there is one, in one graph."""
    module = lc.LongTermInterestClock(L, H, k=K)
    items, ids, time, candidate, now = batch()
    rows = items(ids).detach()

    def stages(candidate: Tensor, rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        history = lc.History.ragged(rows, time, lengths=lengths)
        query, searched, options = module.search_arguments(candidate, history)
        found = lc.distributed.clock_gsu(query, searched, now, **options)
        return found.indices, module.attend(candidate, history, now, longest=50)

    compiled = torch.compile(stages, fullgraph=True, backend="aot_eager")
    assert_bitwise(
        compiled(candidate, rows, OFFSETS.diff()), stages(candidate, rows, OFFSETS.diff())
    )
