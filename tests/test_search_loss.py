# SPDX-License-Identifier: Apache-2.0
"""What teaches a search: the attention's mass, the sample, and the loss, against their plain definitions in fp64."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from test_long_term_interest_clock import COUNTS, build, flat, make_batch
from torch import Tensor, nn

import longclock as lc
from longclock.baselines import (
    ETA,
    TWIN,
    ClockAttention,
    ClockSearch,
    DayAndWeek,
    FullClock,
    SIMHard,
    SIMSoft,
    WithHour,
)

L, H, D, N, K, C = 16, 12, 8, 4, 10, 3
ALL = 10_000  # a sample that takes every history whole


def layouts(device: str, lookup: bool) -> dict[str, tuple[Tensor, lc.History, Tensor]]:
    """The same queries and behaviours, C candidates of each history, in every layout."""
    torch.manual_seed(5)
    batch = make_batch(device, C)
    rows, time, offsets = flat(batch)
    now, queries = batch.query_time, batch.candidate.flatten(0, 1)
    shares = torch.arange(len(COUNTS) + 1, device=device) * C
    # Windows: between the histories, and at both ends, lies what nobody may read.
    gap = torch.full((1, L), torch.nan, device=device)
    pieces = [piece for start, end in itertools.pairwise(offsets)
              for piece in (gap, rows[start:end])] + [gap]  # fmt: skip
    times = [piece for start, end in itertools.pairwise(offsets)
             for piece in (time[:1], time[start:end])] + [time[:1]]  # fmt: skip
    shift = torch.arange(1, len(COUNTS) + 1, device=device)

    def wrapped(rows: Tensor) -> Any:
        if not lookup:
            return rows
        shape = rows.shape[:-1]
        return lc.Lookup(
            rows.flatten(0, -2), torch.arange(shape.numel(), device=device).view(shape)
        )

    dense = lc.History.dense(wrapped(batch.behaviours), batch.behaviour_time, batch.lengths)
    ragged = lc.History.ragged(wrapped(rows), time, offsets, shares)
    windows = lc.History.windows(
        wrapped(torch.cat(pieces)),
        torch.cat(times),
        offsets[:-1] + shift,
        offsets[1:] + shift,
        shares,
    )
    return {
        "many": (batch.candidate, dense, now),
        "ragged": (queries, ragged, now),
        "windows": (queries, windows, now),
        "one": (batch.candidate[:, 0], dense, now),
        "one each": (batch.candidate[:, 0], ragged._replace(query_offsets=None), now),
    }


LAYOUTS = ("many", "ragged", "windows", "one", "one each")


def logits_of(clock: Any, candidate: Tensor, rows: Tensor, time: Tensor, now: Tensor) -> Any:
    """[n, M] of the attention and [M] of the search, of one query, as written in the formulas."""
    w_q, w_b = clock.w_q.double(), clock.w_b.double()
    mlp = tuple(weight.double() for weight in clock.time.mlp())
    s = lc.reference.time_similarity(
        lc.reference.circular_delta(time, now, clock.clocks[0]), *mlp, unit=clock.time.units[0]
    )
    keys = torch.einsum("ndl,ml->nmd", w_b, rows.double())

    def heads(w: Tensor) -> Tensor:
        return torch.einsum("nd,nmd->nm", w @ candidate.double(), keys) / math.sqrt(clock.head_dim)

    own = w_q if clock.w_s is None else w_q + clock.w_s.double()
    return heads(w_q) + s, heads(own).sum(0) * (clock.scale * math.sqrt(clock.head_dim)) + s


def plain(clock: Any, call: tuple[Tensor, lc.History, Tensor], valid: Any = None) -> Any:
    """Mass of each query's history, and the loss over the whole of it; ``call`` dense."""
    candidate, history, now = call
    of_each, masses = [], []
    candidate = candidate if candidate.dim() == 3 else candidate[:, None]
    for s, count in enumerate(COUNTS):
        for query in candidate[s]:
            rows, time = history.rows[s, :count], history.time[s, :count]
            if valid is not None:
                rows, time = rows[valid[s, :count]], time[valid[s, :count]]
            attention, search = logits_of(clock, query, rows, time, now[s])
            mass = attention.softmax(-1).mean(0)
            masses.append(mass)
            t = 1.0 if clock.t_s is None else clock.t_s.double().exp()
            of_each.append(
                (mass.detach() * (mass.detach().log() - (t * search).log_softmax(0))).sum()
            )
    return torch.stack(of_each).mean(), masses


def unlike(clock: Any) -> Any:
    """A module whose own search is not the attention's."""
    with torch.no_grad():
        if clock.w_s is not None:
            clock.w_s.copy_(0.3 * torch.randn(clock.w_s.shape))
            clock.t_s.fill_(0.2)
    return clock


@pytest.mark.parametrize("backend", ["compiled", "reference"])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_and_gradients_are_those_of_the_formula(
    device: str, backend: Any, own: bool, layout: str
) -> None:
    if backend == "reference" and device != "cpu":
        pytest.skip("the reference is what everything is compared with, on the CPU")
    clock = unlike(build(device, backend=backend, own_search=own))
    cpu = unlike(build("cpu", backend="reference", own_search=own))
    cpu.load_state_dict(clock.state_dict())
    one = layout.startswith("one")
    expected, masses = plain(cpu, layouts("cpu", False)["one" if one else "many"])
    expected.backward()
    for lookup in (False, True):
        call = layouts(device, lookup)[layout]
        clock.zero_grad()
        loss = clock.search_loss(*call, sample=ALL)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss.cpu().double(), expected.detach(), rtol=1e-4, atol=1e-5)
        loss.backward()
        taught = (
            {"w_s", "t_s"} if own else {"w_q", "w_b", "time.w1", "time.b1", "time.w2", "time.b2"}
        )
        given = {name for name, weight in clock.named_parameters() if weight.grad is not None}
        assert given == taught
        wanted = dict(cpu.named_parameters())
        for name, weight in clock.named_parameters():
            if weight.grad is not None:
                torch.testing.assert_close(
                    weight.grad.cpu(), wanted[name].grad, rtol=2e-3, atol=2e-4
                )
        found = clock.attention_mass(*call).flatten(0, -2).cpu()
        for mine, other in zip(found, masses, strict=True):
            torch.testing.assert_close(
                mine[: len(other)].double(), other.detach(), rtol=1e-3, atol=1e-5
            )
            assert not mine[len(other) :].any()


@pytest.mark.parametrize("own", [False, True])
def test_masks_and_the_future(device: str, own: bool) -> None:
    clock = unlike(build(device, own_search=own, exclude_future=True))
    batch = make_batch(device, C)
    batch.query_time = torch.full_like(batch.query_time, 5 * 10**8)
    batch.mask = torch.rand(batch.behaviour_time.shape, device=device) < 0.6
    valid = batch.mask & (batch.behaviour_time < batch.query_time[:, None])
    valid[1] = batch.mask[1] = False  # a history of which nothing is valid
    batch.behaviours = batch.behaviours.masked_fill(~valid[..., None], torch.nan)
    expected, masses = plain(clock.cpu(), batch.cpu().arguments(), valid.cpu())
    clock = clock.to(device)
    loss = clock.search_loss(*batch.arguments(), sample=ALL)
    torch.testing.assert_close(loss.cpu().double(), expected.detach(), rtol=1e-4, atol=1e-5)
    loss.backward()
    assert all(w.grad.isfinite().all() for w in clock.parameters() if w.grad is not None)
    found = clock.attention_mass(*batch.arguments()).flatten(0, 1).cpu()
    torch.testing.assert_close(
        found.sum(1).double(), torch.stack([m.sum() for m in masses]).detach()
    )
    assert not found[~valid.repeat_interleave(C, 0).cpu()].any()
    drawn = clock.search_loss(*batch.arguments(), sample=7)  # with draws that hit what is not valid
    assert drawn.isfinite()


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_search_is_nothing_to_learn(device: str, count: int) -> None:
    """Empty histories, and histories of one behaviour, which both stages give everything."""
    clock = build(device, own_search=True)
    candidate, now = (
        torch.randn(2, H, device=device),
        torch.zeros(2, dtype=torch.int64, device=device),
    )
    time = torch.zeros(2, count, dtype=torch.int64, device=device)
    history = lc.History.dense(torch.randn(2, count, L, device=device), time)
    loss = clock.search_loss(candidate, history, now)
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert not clock.w_s.grad.abs().max() > 1e-6
    table = lc.Lookup(
        torch.empty(0, L, device=device), torch.empty(0, dtype=torch.int64, device=device)
    )
    none = lc.History.ragged(table, time.new_empty(0), time.new_zeros(3))
    assert clock.search_loss(candidate, none, now).item() == 0
    assert clock.attention_mass(candidate, none, now).shape == (2, 0)
    without = lc.History.dense(torch.randn(0, 5, L, device=device), time.new_zeros(0, 5))
    assert clock.search_loss(candidate[:0], without, now[:0]).item() == 0


def test_the_same_generator_gives_the_same_loss(device: str) -> None:
    clock = unlike(build(device, own_search=True))
    call = layouts(device, True)["windows"]

    def loss(seed: int, **options: Any) -> Tensor:
        generator = torch.Generator(device).manual_seed(seed)
        return clock.search_loss(*call, sample=6, generator=generator, **options)

    assert torch.equal(loss(1), loss(1))
    assert not torch.equal(loss(1), loss(2))
    found = clock.search(*call)
    assert torch.equal(loss(1), loss(1, found=found))
    assert torch.equal(clock(*call), clock(*call, found=found))
    taught = clock.search_loss(*call, sample=6, generator=torch.Generator(device).manual_seed(1),
                               found=torch.full_like(found, -1))  # fmt: skip
    assert not torch.equal(loss(1), taught)


def test_own_search_starts_as_the_shared_one_and_moves_the_selection_alone(device: str) -> None:
    shared, own = build(device), build(device, own_search=True)
    own.load_state_dict({**shared.state_dict(), "w_s": own.w_s, "t_s": own.t_s})
    call = layouts(device, False)["many"]
    assert torch.equal(shared.search(*call), own.search(*call))
    assert torch.equal(shared(*call), own(*call))
    found = own.search(*call)
    unlike(own)
    assert not torch.equal(own.search(*call), found)
    assert torch.equal(own(*call, found=found), shared(*call))
    assert torch.equal(own(*call), own(*call, found=own.search(*call)))
    precomputed = build(device, own_search=True, scoring="precomputed")
    precomputed.load_state_dict(own.state_dict())
    assert torch.equal(precomputed.search(*call), own.search(*call))
    keys = precomputed.project(call[1].rows)
    assert torch.equal(precomputed.search(*call, keys=keys), own.search(*call))
    losses = [clock.search_loss(*call, sample=ALL) for clock in (own, precomputed)]
    assert torch.equal(*losses)
    own.reset_parameters()
    assert not own.w_s.any()
    assert not own.t_s.any()


@pytest.mark.parametrize("own", [False, True])
def test_a_search_that_looks_for_the_wrong_learns(device: str, emulated: bool, own: bool) -> None:
    """The search of literal_scale sums over heads what the attention sees one by one; it is taught to find what counts."""
    if emulated:
        pytest.skip("150 steps: what they teach is the CPU's to show, loss and gradients are compared above")  # fmt: skip
    torch.manual_seed(11)
    if own:
        clock = build(device, literal_scale=True, own_search=True)
    else:
        clock = SIMSoft(L, H, D, N, K, 9, 24, search_dim=24).to(device)
    history = lc.History.dense(
        torch.randn(16, 200, L, device=device), torch.randint(0, 10**6, (16, 200), device=device)
    )
    call = (
        torch.randn(16, C, H, device=device),
        history,
        torch.randint(0, 10**6, (16,), device=device),
    )

    def recall() -> float:
        return float(clock.attention_mass(*call).gather(-1, clock.search(*call)).sum(-1).mean())

    before = {name: weight.detach().clone() for name, weight in clock.named_parameters()}
    best = float(clock.attention_mass(*call).topk(K).values.sum(-1).mean())
    mass, first = clock.attention_mass(*call), recall()
    optimizer = torch.optim.Adam(clock.parameters(), lr=2e-2)
    for _ in range(150):
        loss = clock.search_loss(*call, sample=64)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert recall() > first + 0.5 * (best - first)
    moved = {
        name for name, weight in clock.named_parameters() if not torch.equal(weight, before[name])
    }
    assert moved == ({"w_s", "t_s"} if own else {"search_b", "search_q"})
    assert torch.equal(clock.attention_mass(*call), mass)  # the attention is what it was


def test_what_searches_and_what_can_be_taught(device: str) -> None:
    call = layouts(device, False)["many"]
    sizes = (L, H, D, N, K, 9, 24)
    for kind in (lc.LongTermInterestClock, TWIN, ClockSearch, ClockAttention, SIMSoft):
        module = kind(*sizes).to(device)
        assert module.search_loss(*call).isfinite()
        found, mass = module.search(*call), module.attention_mass(*call)
        assert found.shape == (4, C, K)
        assert mass.shape == (4, C, max(COUNTS))
    hashes = ETA(*sizes).to(device)
    assert hashes.search(*call).shape == (4, C, K)
    assert hashes.search_loss(*call) is None
    assert torch.equal(hashes(*call), hashes(*call, found=hashes.search(*call)))
    everything = FullClock(*sizes[:4]).to(device)
    assert everything.search(*call) is None
    assert everything.search_loss(*call) is None
    both = DayAndWeek(*sizes, own_search=True).to(device)
    assert both.search(*call) is None
    total = both.search_loss(*call, sample=ALL)
    assert torch.equal(total, sum(c.search_loss(*call, sample=ALL) for c in (both.day, both.week)))
    reads = {
        "candidate_category": torch.zeros(4, C, dtype=torch.int64, device=device),
        "behaviour_category": torch.arange(50, device=device).expand(4, 50) % 2,
    }
    category = SIMHard(*sizes).to(device)
    assert category.search_loss(*call, **reads) is None
    assert torch.equal(
        category(*call, **reads),
        TWIN.forward(category, *call, found=category.search(*call, **reads)),
    )
    hour = WithHour(
        lc.LongTermInterestClock, *sizes[:5], out_dim=9, own_search=True, hour_dim=5
    ).to(device)
    assert hour.search(*call).shape == (4, C, K)
    torch.testing.assert_close(
        hour.attention_mass(*call).sum(-1).cpu(),
        torch.tensor(COUNTS).clamp(max=1)[:, None].expand(4, C).float(),
    )
    hour.search_loss(*call).backward()
    assert [name for name, w in hour.named_parameters() if w.grad is not None] == [
        "interest.w_s",
        "interest.t_s",
    ]
    assert nn.Module.__call__(hour, *call).shape == (4, C, 9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_rows(device: str, dtype: torch.dtype) -> None:
    clock = unlike(build(device, own_search=True))
    candidate, history, now = layouts(device, True)["windows"]
    wide = clock.search_loss(
        candidate, history.to(dtype=dtype).to(dtype=torch.float32), now, sample=ALL
    )
    loss = clock.search_loss(candidate, history.to(dtype=dtype), now, sample=ALL)
    torch.testing.assert_close(loss, wide, rtol=0.05, atol=0.05)
    loss.backward()
    assert clock.w_s.grad.isfinite().all()


def test_errors_name_the_argument(device: str) -> None:
    clock = build(device, own_search=True)
    candidate, history, now = layouts(device, False)["many"]
    for call, options, message in (
        ((candidate, history, now), {"sample": 0}, "LongTermInterestClock: sample must be at least 1, got 0"),
        ((candidate[..., :5], history, now), {}, "candidate must have candidate_dim = 12 in the last dimension"),
        ((candidate, history, now[:2]), {}, "query_time must have shape"),
        ((candidate, history.rows, now), {}, "history must be a History"),
        ((candidate, history, now), {"found": torch.zeros(4, C, 2, device=device)}, "found must be int64"),
        ((candidate, history, now), {"found": clock.search(candidate, history, now)[:, :2]}, "found must have"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            clock.search_loss(*call, **options)
    outside = torch.full((4, C, 1), 40, device=device)  # the second history has three behaviours
    if device == "cpu":
        with pytest.raises(IndexError, match="outside its query's history"):
            clock.search_loss(candidate, history, now, found=outside)
    else:
        assert clock.search_loss(candidate, history, now, found=outside).isfinite()
    for wrong, message in (
        (1, "own_search must be a bool, got 1"),
        (True, "own_search must be False for k=None"),
    ):
        with pytest.raises(ValueError, match=message):
            lc.LongTermInterestClock(4, 4, k=None, own_search=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'samples'; sample is near it"):
        clock.search_loss(candidate, history, now, samples=5)
    for kind in (SIMHard, SIMSoft, ETA):
        with pytest.raises(ValueError, match=f"{kind.__name__}: own_search must be left out"):
            kind(4, 4, own_search=True)
