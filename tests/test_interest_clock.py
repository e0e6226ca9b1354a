# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from rivals import LENGTHS, H, L, inputs, interest_clock

from longclock import History
from longclock.baselines import InterestClock
from longclock.baselines.interest_clock import hourly_interests
from longclock.data import HourlyInterests


@pytest.mark.parametrize("mode", ["gaussian", "naive", "adaptive"])
def test_interest_clock_trains_its_weights_and_the_categories(mode):
    table, ids, time, now, candidate = inputs()
    model = interest_clock(L, H, mode=mode)
    ten = 10 * 3600
    history = History.dense(table[ids], time % 3600 + ten, LENGTHS)
    model(candidate, history, now * 0 + ten + 86400).square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
    assert all(weight.grad.any() for weight in model.tables)


def test_interest_clock_keeps_up_what_counting_anew_finds():
    generator = torch.Generator().manual_seed(0)
    events, day = 400, 86400
    time = torch.randint(0, 70 * day, (events,), generator=generator) // 7200 * 7200  # many at once
    time = time.sort().values
    categories = torch.randint(0, 6, (2, events), generator=generator)
    kept = HourlyInterests(fields=2)
    starts, ends = torch.zeros(1, dtype=torch.int64), torch.tensor([events])
    windows = History.windows(torch.zeros(events, 0), time, starts, ends)
    for event in range(events):
        now = int(time[event])
        anew = hourly_interests(categories, windows, time[event : event + 1])
        assert torch.equal(torch.from_numpy(kept.clock(7, now)), anew[0])
        kept.add(7, now, now, categories[:, event].tolist())
    assert anew.any()
    assert not kept.clock(8, now).any()
    assert not kept.clock(7, now + 31 * day).any()
    with pytest.raises(ValueError, match="time must not be before the user's last one"):
        kept.add(7, 0, 0, [1, 1])


def test_interest_clock_prefers_the_frequent_then_the_smaller_and_skips_the_unknown():
    kept = HourlyInterests(fields=1, top=2)
    for category in (5, 4, 3, 3, 0, 0, 0):
        kept.add(0, 100, 7205, [category])
    clock = kept.clock(0, 101)
    assert clock[2, 0].tolist() == [3, 4]
    assert clock.sum() == 7


def test_interest_clock_weighs_hours_around_now():
    tables = [torch.eye(4)[:, :2] * 3, torch.randn(3, 2)]
    interests = torch.zeros(1, 24, 2, 3, dtype=torch.int32)
    interests[0, 23, 0] = torch.tensor([1, 2, 0])
    interests[0, 1, 1] = torch.tensor([2, 0, 0])
    interests[0, 8, 1] = torch.tensor([1, 0, 0])
    near = {0: 0.398942, 1: 0.241971, 2: 0.053991, 3: 0.004432}
    for mode in ("gaussian", "naive"):
        model = InterestClock(L, H, category_dim=2, fields=2, mode=mode)
        for hour in range(24):
            now = torch.tensor([hour * 3600 + 1800])
            (found,) = model.beside(now, interests, tables)
            expected = torch.zeros(4)
            vectors = (
                (23, 0, tables[0][1] + tables[0][2]), (1, 2, tables[1][2]), (8, 2, tables[1][1])
            )  # fmt: skip
            for at, column, vector in vectors:
                apart = min((hour - at) % 24, (at - hour) % 24)
                weight = near.get(apart, 0.0) if mode == "gaussian" else float(apart == 0)
                expected[column : column + 2] += weight * vector
            torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-6)


def test_interest_clock_names_what_does_not_fit():
    with pytest.raises(ValueError, match="mode must be 'gaussian', 'naive' or 'adaptive', got 'x'"):
        InterestClock(L, H, mode="x", category_dim=2)
    table, ids, time, now, candidate = inputs()
    with pytest.raises(ValueError, match="interests must be given"):
        InterestClock(L, H, category_dim=2)(
            candidate, History.dense(table[ids], time), now, category_tables=[]
        )
