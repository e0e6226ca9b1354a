# SPDX-License-Identifier: Apache-2.0
"""Modules whose heads, or whose search and attention, have an s each."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from cases import CLOCKS
from torch import Tensor

import longclock as lc
from longclock.baselines import TWIN, ClockSearch, FullClock
from longclock.types import Clocks

HEADS, L, K = 3, 8, 7


def build(device: str, kind: Any = lc.LongTermInterestClock, **options: Any) -> Any:
    """Its similarities differ: each has weights of its own."""
    torch.manual_seed(1)
    module = kind(L, L, 4, HEADS, out_dim=5, hidden_dim=6, **{"k": K, **options})
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, lc.TimeSimilarity):
                part.w1.mul_(1 + torch.rand_like(part.w1))
                part.w2.mul_(2 * torch.rand_like(part.w2))
                part.b2.normal_()
    return module.to(device)


def inputs(device: str, layout: str = "dense") -> tuple[Tensor, lc.History, Tensor]:
    torch.manual_seed(0)
    rows, when = torch.randn(60, L), torch.randint(0, 10**8, (60,))
    now = torch.tensor([10**8, 10**8 - 5000, 10**7])
    if layout == "dense":
        history = lc.History.dense(rows.view(3, 20, L), when.view(3, 20))
    elif layout == "table":
        ids = torch.randint(0, 60, (3, 20))
        history = lc.History.dense(lc.Lookup(rows, ids), when.view(3, 20))
    elif layout == "ragged":
        history = lc.History.ragged(rows, when, torch.tensor([0, 25, 30, 60]))
    else:
        starts, ends = torch.tensor([3, 0, 30]), torch.tensor([40, 9, 60])
        history = lc.History.windows(rows, when, starts, ends)
    return torch.randn(3, L).to(device), history.to(device), now.to(device)


def window(history: lc.History, query: int) -> tuple[Tensor, Tensor]:
    """A query's rows and times, in fp64 and in order."""
    rows, time = history.rows, history.time
    if isinstance(rows, lc.Lookup):
        return rows.table[rows.ids[query]].double().cpu(), time[query].cpu()
    if time.dim() == 2:
        return rows[query].double().cpu(), time[query].cpu()
    edges = (history.starts, history.ends) if history.offsets is None else (history.offsets[:-1], history.offsets[1:])  # fmt: skip
    begin, end = (int(edge[query]) for edge in edges)
    return rows[begin:end].double().cpu(), time[begin:end].cpu()


def similarity(s: Any, clocks: tuple[Any, ...], now: Tensor, time: Tensor) -> Tensor:
    """s of one set of parameters, in fp64."""
    weights = [weight.detach().double().cpu() for weight in s.mlp()]
    query, rows = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, len(time), 1, dtype=torch.float64)  # fmt: skip
    given = {"clocks": clocks, "unit": s.units}
    return lc.reference.gsu_score(query[0:1], rows, time[None], now.cpu().view(1), tuple(weights), **given)[0]  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize("layout", ["dense", "table", "ragged", "windows"])
@pytest.mark.parametrize("clocks", CLOCKS)
def test_each_head_attends_by_its_own_and_the_search_by_their_mean(device: str, clocks: Clocks, layout: str) -> None:  # fmt: skip
    module = build(device, clocks=clocks, time_per="head", time_hidden=5)
    candidate, history, now = inputs(device, layout)
    found = module.search(candidate, history, now).cpu()
    _, context = module(candidate, history, now, return_context=True)
    projected = (candidate.double().cpu() @ module.w_q.double().cpu().transpose(1, 2)).transpose(0, 1)  # fmt: skip
    for q in range(3):
        rows, time = window(history, q)
        u = torch.einsum("nd,ndl->nl", projected[q], module.w_b.double().cpu()) / 2
        each = [similarity(s, module.clocks, now[q], time) for s in module.time.of_head]
        alpha = u @ rows.T + torch.stack(each)
        score, best = alpha.mean(0), found[q][found[q] >= 0]
        assert len(best.unique()) == min(K, len(time))
        torch.testing.assert_close(score[best], score.topk(len(best)).values, rtol=1e-5, atol=1e-5)
        expected = alpha[:, best].softmax(1) @ rows[best]
        got = context[q, :, :L].double().cpu()
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_heads_that_are_alike_are_one(device: str) -> None:
    call = inputs(device)
    alike = lc.LongTermInterestClock(L, L, 4, HEADS, k=K, time_per="head").to(device)
    shared = lc.LongTermInterestClock(L, L, 4, HEADS, k=K).to(device)
    weights = {name.replace("time.of_head.0.", "time."): value for name, value in alike.state_dict().items()}  # fmt: skip
    shared.load_state_dict(
        {name: value for name, value in weights.items() if "of_head" not in name}
    )
    torch.testing.assert_close(alike(*call), shared(*call), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"time_per": "head"}, {"time_per": "head", "k": None},
                                     {"time_per": "stage", "own_search": True}])  # fmt: skip
def test_agrees_with_the_reference(device: str, options: dict[str, Any]) -> None:
    call = inputs(device)
    ours, plain = build(device, **options), build(device, backend="reference", **options)
    v, expected = ours(*call), plain(*call)
    torch.testing.assert_close(v, expected, rtol=1e-4, atol=1e-4)
    v.square().sum().backward()
    expected.square().sum().backward()
    for (name, mine), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        if other.grad is None:
            assert mine.grad is None
            assert name in ("w_s", "t_s") or name.startswith("time_s.")
            continue
        size = max(float(other.grad.abs().max()), 1e-3)  # a softmax has none in b2
        torch.testing.assert_close(mine.grad / size, other.grad / size, rtol=1e-2, atol=2e-3, msg=name)  # fmt: skip


def test_a_stage_searches_by_its_own(device: str) -> None:
    candidate, history, now = inputs(device)
    module = build(device, time_per="stage", own_search=True)
    found, v = module.search(candidate, history, now), module(candidate, history, now)
    with torch.no_grad():
        module.time_s.w2.mul_(100)
    other = module.search(candidate, history, now)
    assert not torch.equal(found, other)
    assert torch.equal(module(candidate, history, now, found=found), v)  # not the attention's
    module.search_loss(candidate, history, now).backward()
    taught = {name for name, weight in module.named_parameters() if weight.grad is not None}
    assert taught == {"w_s", "t_s", *(f"time_s.{name}" for name in ("w1", "b1", "w2", "b2"))}
    assert module.time_s.w2.grad.abs().sum() > 0


def test_search_loss_of_heads_is_zero_where_the_search_is_the_attention(device: str) -> None:
    """One head: the mean of softmaxes is the softmax of the mean, and the search is that at the attention's scale."""
    torch.manual_seed(0)
    module = lc.LongTermInterestClock(L, L, 4, 1, k=K, time_per="head").to(device)
    assert float(module.search_loss(*inputs(device)).detach()) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("options", [{"time_per": "head"}, {"time_per": "stage", "own_search": True}])  # fmt: skip
def test_compiles_exports_and_copies(device: str, options: dict[str, Any]) -> None:
    call, module = inputs(device), build(device, **options).eval()
    expected = module(*call)
    assert torch.equal(copy.deepcopy(module)(*call), expected)
    other = lc.LongTermInterestClock(L, L, 4, HEADS, K, 5, 6, **options).to(device)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(*call), expected)
    torch.testing.assert_close(torch.compile(module, backend="aot_eager", fullgraph=True)(*call), expected)  # fmt: skip
    exported = torch.export.export(module, call).module()
    torch.testing.assert_close(exported(*call), expected)


@pytest.mark.parametrize("kind", [TWIN, ClockSearch])
def test_rivals_without_time_freeze_every_s(device: str, kind: Any) -> None:
    module = build(device, kind, time_per="head")
    assert not any(p.requires_grad for name, p in module.named_parameters() if name.startswith("time"))  # fmt: skip


def test_no_search_has_no_bound_on_hidden_units(device: str) -> None:
    call = inputs(device)
    module = FullClock(L, L, 4, 9, time_per="head").to(device)
    assert module(*call).shape == (3, 64)


@pytest.mark.parametrize(("options", "text"), [
    ({"time_per": "layer"}, "time_per must be 'module', 'stage' or 'head', got 'layer'"),
    ({"time_per": "stage"}, "time_per must be 'module' or 'head' without own_search, got 'stage'"),
    ({"time_per": "head", "heads": 9}, "heads * time_hidden, of all clocks, must be at most 64 for time_per='head' with a search, got 72"),
    ({"time_per": "head", "clocks": (86400, lc.ELAPSED, 7)}, "heads * time_hidden, of all clocks, must be at most 64 for time_per='head' with a search, got 96"),
])  # fmt: skip
def test_errors(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        lc.LongTermInterestClock(L, L, **options)
    assert str(caught.value).startswith(f"LongTermInterestClock: {text}")
