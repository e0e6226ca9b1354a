# SPDX-License-Identifier: Apache-2.0
"""Stores of histories: what is appended is there once, in order, and nothing else is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import longclock as lc
from longclock.store import SQLiteStore


def pairs(behaviours):
    return list(zip(behaviours.time.tolist(), behaviours.item.tolist(), strict=True))


@pytest.fixture
def store(tmp_path):
    with SQLiteStore(tmp_path / "histories.db", capacity=3000) as made:
        yield made


BEHAVIOURS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-9, 9), st.integers(0, 3)), max_size=40
)


@settings(max_examples=30, deadline=None)
@given(calls=st.lists(BEHAVIOURS, max_size=5))
def test_a_history_is_the_sorted_set_of_what_was_appended(tmp_path_factory, calls):
    with SQLiteStore(tmp_path_factory.mktemp("store") / "histories.db") as store:
        wanted = {user: set() for user in range(3)}
        for call in calls:
            new = {
                (user, time, item) for user, time, item in call if (time, item) not in wanted[user]
            }
            users, times, items = zip(*call, strict=True) if call else ((), (), ())
            assert store.append_many(users, items, times) == len(new)
            for user, time, item in new:
                wanted[user].add((time, item))
        for user, behaviours in wanted.items():
            assert pairs(store.get(user)) == sorted(behaviours)


def test_late_behaviours_split_chunks(store):
    wanted = set()
    for turn in range(4):  # 2,800 in an order of their own, by ones and by many
        times = [(7919 * number + turn) % 100_003 for number in range(700 * turn, 700 * turn + 700)]
        for time in times[:50]:
            store.append("ada", time % 5, time)
        store.append_many(["ada"] * 700, [time % 5 for time in times], times)
        wanted |= {(time, time % 5) for time in times}
    assert pairs(store.get("ada")) == sorted(wanted)


def test_the_oldest_go(store):
    for start in range(0, 6000, 100):
        times = range(start, start + 100)
        store.append_many([3] * 100, times, times)
    assert store.get(3).time.tolist() == list(range(3000, 6000))


def test_get_many_is_a_history(store):
    store.append_many([5, 6, 5], [2, 0, 1], [100, 50, 90])
    table = torch.randn(3, 4)
    history = store.get_many([5, 7, 6], table, before=[100, 100, 100])
    assert history.offsets.tolist() == [0, 1, 1, 2]
    assert history.time.tolist() == [90, 50]
    assert torch.equal(history.rows.table[history.rows.ids], table[[1, 0]])
    lic = lc.LongTermInterestClock(4, 4, k=2)
    assert lic(torch.randn(3, 4), history, torch.tensor([100, 100, 100])).shape == (3, 64)
