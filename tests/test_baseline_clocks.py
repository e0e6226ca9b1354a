# SPDX-License-Identifier: Apache-2.0
"""The clock with half the time, with two clocks, over everything."""

from __future__ import annotations

import pytest
import torch
from rivals import LENGTHS, H, K, L, M, S, inputs

from longclock import History, LongTermInterestClock, Lookup, ops
from longclock.baselines import (
    ETA,
    TWIN,
    ClockAttention,
    ClockSearch,
    DayAndWeek,
    FullClock,
    SIMSoft,
)


def test_full_clock_is_the_clock_that_keeps_every_behaviour():
    table, ids, time, now, candidate = inputs()
    full, clock = FullClock(L, H, k=2), LongTermInterestClock(L, H, k=M)
    clock.load_state_dict(full.state_dict())
    found = [m(candidate, History.dense(table[ids], time, LENGTHS), now) for m in (full, clock)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("model", [ClockSearch, ClockAttention])
def test_clocks_with_half_the_time(model, monkeypatch):
    """Search and attention of one see the time, of the other none."""
    table, ids, time, now, candidate = inputs()
    half, whole, none = model(L, H, k=K), LongTermInterestClock(L, H, k=K), TWIN(L, H, k=K)
    for other in (whole, none):
        other.load_state_dict(half.state_dict())
    searched, attended = (whole, none) if model is ClockSearch else (none, whole)
    seen = []
    monkeypatch.setattr(LongTermInterestClock, "ops", Recorder(seen))
    call = (candidate, History.dense(Lookup(table, ids), time, LENGTHS), now)
    v = half(*call)
    searched(*call)
    assert torch.equal(*seen)
    torch.testing.assert_close(v, attended(*call, found=seen[0]))


@pytest.mark.parametrize("backend", ["compiled", "reference"])
@pytest.mark.parametrize("model", [TWIN, ETA, SIMSoft, ClockSearch, ClockAttention, FullClock])
def test_the_future_is_left_out_without_a_clock_as_with_one(model, backend):
    """A clock of one second tells no two times apart; the times themselves still do."""
    table, ids, time, now, candidate = inputs()
    model = model(L, H, k=K, exclude_future=True, backend=backend)
    _, context = model(
        candidate, History.dense(Lookup(table, ids), time, LENGTHS), now, return_context=True
    )
    past = time < now[:, None]
    assert 0 < past[0].sum() < M
    model.exclude_future = False
    history = History.dense(Lookup(table, ids), time, LENGTHS, past)
    assert torch.equal(model(candidate, history, now, return_context=True)[1], context)
    history = history._replace(mask=None)
    assert not torch.equal(model(candidate, history, now, return_context=True)[1], context)


class Recorder:
    """The ops, and what every search found."""

    def __init__(self, seen):
        self.seen = seen

    def clock_gsu(self, *args, **options):
        found = ops.clock_gsu(*args, **options)
        self.seen.append(found.indices)
        return found

    def __getattr__(self, name):
        return getattr(ops, name)


def test_day_and_week_are_two_clocks():
    table, ids, time, now, candidate = inputs()
    both = DayAndWeek(L, H, k=K, out_dim=7, unit=1800.0)
    assert (both.day.clocks, both.day.time.units) == ((86400,), (1800,))
    assert (both.week.clocks, both.week.time.units) == ((604800,), (12600,))
    call = (candidate, History.dense(Lookup(table, ids), time), now)
    v, context = both(*call, return_context=True)
    assert context.shape == (S, 8, L + 4)
    torch.testing.assert_close(v, both.day(*call) + both.week(*call))
    a_day_later = both(*call[:2], now + 86400)
    torch.testing.assert_close(a_day_later - both.week(*call[:2], now + 86400), both.day(*call))
    assert not torch.allclose(a_day_later, v)
