# SPDX-License-Identifier: Apache-2.0
"""InterestClock and HourlyInterests: any category, and what does not fit is refused before anything is kept."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from rival_calls import LAYOUTS
from rivals import H, L

from longclock import History
from longclock.baselines import InterestClock
from longclock.baselines.interest_clock import hourly_interests
from longclock.data import HourlyInterests

LARGEST = 2**63 - 1


def clock(**options):
    return InterestClock(L, H, **{"category_dim": 2, "fields": 2, "k": 4} | options)


def by_hand(categories, time, mask):
    """The most frequent of every hour, among equals the smaller."""
    found = torch.zeros(24, 3, dtype=torch.int64)
    for hour in range(24):
        counts = collections.Counter(
            int(c)
            for c, t, m in zip(categories, time, mask, strict=True)
            if m and c and t // 3600 == hour
        )
        best = sorted(counts, key=lambda c: (-counts[c], c))[:3]
        found[hour, : len(best)] = torch.tensor(best, dtype=torch.int64)
    return found


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_counting_anew_takes_any_category(dtype):
    most = torch.iinfo(dtype).max
    ids = torch.tensor([0, 1, 7, most // 3, most - 1, most], dtype=dtype)
    time = torch.randint(0, 86400, (400,)).to(dtype)
    time[:200] = time[:200] % 7200
    categories, mask = ids[torch.randint(0, 6, (1, 400))], torch.rand(400) < 0.7
    now, starts, ends = (
        torch.tensor([86400, 86400]),
        torch.tensor([0, 100]),
        torch.tensor([400, 300]),
    )
    windows = History.windows(torch.zeros(400, 0), time, starts, ends, mask=mask)
    found = hourly_interests(categories, windows, now)
    for q, (start, end) in enumerate(zip(starts, ends, strict=True)):
        part = slice(start, end)
        assert torch.equal(found[q, :, 0], by_hand(categories[0, part], time[part], mask[part]))


@pytest.mark.parametrize("mode", ["gaussian", "naive", "adaptive"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wrong", [-1, 4, 2**31 - 1])
def test_categories_outside_the_tables(layout, mode, wrong):
    model = clock(mode=mode)
    call = LAYOUTS[layout](model)
    categories = call["behaviour_categories"]
    categories[1].view(-1)[3] = wrong
    text = f"InterestClock: behaviour_categories must be from 0 to 3, got {wrong}; in field 1"
    with pytest.raises(ValueError, match=text):
        model(**call)
    mask = torch.ones(call["history"].time.shape, dtype=torch.bool)
    mask.view(-1)[3] = False  # what does not count is not read
    categories_of_none = categories.clone()
    categories_of_none[1].view(-1)[3] = 0
    call["history"] = call["history"]._replace(mask=mask)
    expected = model(**(call | {"behaviour_categories": categories_of_none}))
    assert torch.equal(model(**call), expected)


@pytest.mark.parametrize("wrong", [-1, 4, 2**31 - 1])
@pytest.mark.parametrize("mode", ["gaussian", "naive", "adaptive"])
def test_interests_outside_the_tables(mode, wrong):
    model = clock(mode=mode)
    call = LAYOUTS["dense"](model)
    del call["behaviour_categories"]
    interests = torch.zeros(3, 24, 2, 3, dtype=torch.int32)
    model(**call, interests=interests)
    interests[1, 5, 0, 2] = wrong
    with pytest.raises(ValueError, match=f"interests must be from 0 to 3, got {wrong}; field 0"):
        model(**call, interests=interests)
    for bad, text in (
        (interests.float(), "interests must be int32 or int64"),
        (interests[:2], r"interests must have shape \[3, 24, 2, 3\]"),
        (interests[:, :23], r"interests must have shape \[3, 24, 2, 3\]"),
        (interests[:, :, :1], r"interests must have shape \[3, 24, 2, 3\]"),
        (interests.numpy(), "interests must be a tensor, got ndarray"),
    ):
        with pytest.raises(ValueError, match=f"InterestClock: {text}"):
            model(**call, interests=bad)


def test_the_row_of_unknown_is_never_read():
    model = clock()
    call = LAYOUTS["dense"](model)
    expected = model(**call)
    for table in call["category_tables"]:
        table[0] = torch.nan
    assert torch.equal(model(**call), expected)


def test_tables_and_categories_that_do_not_fit():
    model = clock()
    call = LAYOUTS["dense"](model)
    table, categories = call["category_tables"][0], call["behaviour_categories"]
    for name, wrong, text in (
        ("category_tables", [table], "category_tables must be 2 tensors, one a field, got 1"),
        ("category_tables", table, "category_tables must be 2 tensors, one a field, got float32"),
        ("category_tables", None, "category_tables must be 2 tensors, one a field, got NoneType"),
        ("category_tables", [table, table[:, :1]], r"category_tables\[1\] must be rows with category_dim = 2"),
        ("category_tables", [table[:0], table], r"category_tables\[0\] must have shape \[ids, 2\]"),
        ("category_tables", [table, None], r"category_tables\[1\] must be a tensor, got NoneType"),
        ("behaviour_categories", categories[:1], r"behaviour_categories must have shape \[2, 3, 9\]"),
        ("behaviour_categories", categories.float(), "behaviour_categories must be int32 or int64"),
        ("behaviour_categories", categories.tolist(), "behaviour_categories must be a tensor, got list"),
        ("interests", torch.zeros(3, 24, 2, 3).long(), "interests must be given, .* got both"),
        ("behaviour_categories", None, "interests must be given, .* got none"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"InterestClock: {text}"):
            model(**(call | {name: wrong}))


WRONG = {
    "negative category": ((7, 50, 50, [1, -1]), "categories must be from 0 .* got -1"),
    "huge category": ((7, 50, 50, [1, 2**63]), "categories must be from 0 .* got 9223372036854775808"),
    "too few categories": ((7, 50, 50, [1]), "categories must be 2, one a field, got 1"),
    "too many categories": ((7, 50, 50, [1, 2, 3]), "categories must be 2, one a field, got 3"),
    "float category": ((7, 50, 50, [1, 2.0]), "categories must be an int, got float"),
    "missing category": ((7, 50, 50, [1, None]), "categories must be an int, got NoneType"),
    "float time": ((7, 50.5, 50, [1, 1]), "time must be an int, got float"),
    "no local time": ((7, 50, None, [1, 1]), "local_time must be an int, got NoneType"),
    "float user": ((7.0, 50, 50, [1, 1]), "user must be an int, got float"),
    "time that goes back": ((7, 39, 39, [1, 1]), "time must not be before the user's last one = 40, got 39"),
}  # fmt: skip


@pytest.mark.parametrize(("event", "text"), WRONG.values(), ids=WRONG)
def test_events_that_do_not_fit_change_nothing(event, text):
    kept = HourlyInterests(fields=2)
    kept.add(7, 40, 40, [3, LARGEST])
    with pytest.raises(ValueError, match=f"HourlyInterests: {text}"):
        kept.add(*event)
    with pytest.raises(ValueError, match=f"HourlyInterests: {text}"):
        kept.add(*event)
    expected = [[3, 0, 0], [LARGEST, 0, 0]]
    assert kept.clock(7, 60)[0].tolist() == expected
    assert not kept.clock(8, 60).any()


def test_what_was_counted_is_not_asked_for_again():
    kept = HourlyInterests(fields=1)
    kept.add(0, 100, 100, [1])
    assert kept.clock(0, 101)[0, 0, 0] == 1
    with pytest.raises(
        ValueError, match="time must not be before that of the user's last call = 101, got 100"
    ):
        kept.clock(0, 100)
    assert kept.clock(0, 101)[0, 0, 0] == 1
    with pytest.raises(ValueError, match="HourlyInterests: time must be an int, got float"):
        kept.clock(0, 200.0)


def test_integers_of_numpy_are_integers():
    kept = HourlyInterests(fields=1)
    kept.add(np.int32(0), np.int64(100), np.int64(7300), np.array([5], np.int32))
    assert kept.clock(0, np.int64(101))[2, 0].tolist() == [5, 0, 0]
