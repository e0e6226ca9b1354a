# SPDX-License-Identifier: Apache-2.0
"""Stores of histories: what is appended is there once, in order, and nothing else is."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import longclock as lc

COUNTER = itertools.count()


def pairs(behaviours):
    return list(zip(behaviours.time.tolist(), behaviours.item.tolist(), strict=True))


INTS = st.one_of(
    st.integers(-9, 9), st.sampled_from([-(2**63), 2**63 - 1, -(2**32), 2**32 + 1, 255, 256])
)
USERS = st.sampled_from([0, -1, 2**63 - 1, "0", "", "ä}{*:\n", "\0"])
BEHAVIOURS = st.lists(st.tuples(USERS, INTS, INTS), max_size=40)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(calls=st.lists(BEHAVIOURS, max_size=5), before=INTS)
def test_a_history_is_the_sorted_set_of_what_was_appended(stores, calls, before):
    store = stores(f"example-{next(COUNTER)}")
    wanted: dict[int | str, set[tuple[int, int]]] = {}
    for call in calls:
        new = {(user, time, item) for user, time, item in call} - {
            (user, time, item) for user, there in wanted.items() for time, item in there
        }
        users, times, items = zip(*call, strict=True) if call else ((), (), ())
        assert store.append_many(users, items, times) == len(new)
        for user, time, item in new:
            wanted.setdefault(user, set()).add((time, item))
    assert sorted(store.users(), key=repr) == sorted(wanted, key=repr)
    for user, behaviours in wanted.items():
        assert pairs(store.get(user)) == sorted(behaviours)
        assert pairs(store.get(user, before)) == [x for x in sorted(behaviours) if x[0] < before]
    item, time, offsets = store.read_many(list(wanted), before)
    ends = offsets.tolist()
    for user, begin, end in zip(wanted, ends, ends[1:], strict=False):
        found = list(zip(time[begin:end].tolist(), item[begin:end].tolist(), strict=True))
        assert found == pairs(store.get(user, before))
    store.close()


def test_late_behaviours_are_put_in_order(stores):
    store = stores(capacity=3000)
    wanted = set()
    for turn in range(4):  # 2,800 in an order of their own, by ones and by many
        times = [(7919 * number + turn) % 100_003 for number in range(700 * turn, 700 * turn + 700)]
        for time in times[:50]:
            assert store.append("ada", time % 5, time)
        assert store.append_many(["ada"] * 700, [time % 5 for time in times], times) == 650
        wanted |= {(time, time % 5) for time in times}
        assert pairs(store.get("ada")) == sorted(wanted)
    assert store.append_many(["ada"] * 3, [0, 0, 1], [50_000, 50_000, 50_000]) == 2


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.tuples(st.integers(1, 700), st.sampled_from([0, 1, 40, 900]), st.integers(0, 99)),
        max_size=8,
    ),
    capacity=st.sampled_from([1, 2, 600, 1500]),
)
def test_the_newest_are_kept(stores, steps, capacity):
    """Runs in order, some of them late; of what has ever gone nothing is expected back."""
    store = stores(f"example-{next(COUNTER)}", capacity=capacity)
    ever, clock = set(), 0
    for length, late, item in steps:
        times = range(clock - late, clock - late + length)
        store.append_many([3] * length, [item] * length, times)
        ever |= {(time, item) for time in times}
        clock += length
        assert pairs(store.get(3)) == sorted(ever)[-capacity:]
    store.close()


def test_of_equal_behaviours_the_first_stays(stores):
    store = stores(columns={"action": "int8", "share": "float64", "seconds": "int32"})
    nan = float("nan")
    assert store.append_many([1, 1, 1], [5, 5, 6], [9, 9, 8], action=[-1, 2, 3], share=[0.1, 0.2, nan], seconds=[7, 8, 9]) == 2  # fmt: skip
    assert not store.append(1, 5, 9, action=4, share=0.4, seconds=1)
    found = store.get(1)
    assert pairs(found) == [(8, 6), (9, 5)]
    assert [x.dtype for x in found.columns.values()] == [torch.int8, torch.float64, torch.int32]
    assert found.columns["action"].tolist() == [3, -1]
    assert found.columns["seconds"].tolist() == [9, 7]
    assert found.columns["share"][1] == 0.1
    assert found.columns["share"][0].isnan()


def test_settings_are_the_store_s(stores):
    made = {"capacity": 77, "columns": {"b": "int8", "a": "float32"}}
    stores(**made).append(1, 2, 3, a=0.5, b=1)
    again = stores()
    assert (again.capacity, again.columns) == (77, made["columns"])
    assert list(again.columns) == ["b", "a"]
    assert again.get(1).columns["a"].tolist() == [0.5]
    stores(capacity=77, columns={"a": "float32", "b": "int8"})
    with pytest.raises(
        ValueError, match="capacity must be what this store was made with, 77, got 78; leave it out"
    ):
        stores(capacity=78)
    with pytest.raises(ValueError, match="columns must be what this store was made with"):
        stores(columns={})


def test_trim(stores):
    store = stores()
    store.append_many([1] * 1200, range(1200), range(1200))
    assert store.trim(1) == 0
    assert store.trim(1, keep=1100) == 100
    assert store.trim(1, before=300) == 200
    assert store.trim(1, keep=2000, before=0) == 0
    assert store.get(1).time.tolist() == list(range(300, 1200))
    assert store.trim(1, keep=700, before=1000) == 700
    assert store.append(1, 5, 100)
    assert store.get(1).time.tolist() == [100, *range(1000, 1200)]
    assert store.trim(1, keep=0) == 201
    assert (list(store.users()), store.trim("nobody", keep=0)) == ([], 0)
    assert store.append(1, 5, 100)


def test_delete(stores):
    store = stores()
    store.append_many([1, "1"] * 700, range(1400), range(1400))
    assert store.delete(1)
    assert not store.delete(1)
    assert list(store.users()) == ["1"]
    assert (len(store.get(1).item), len(store.get("1").item)) == (0, 700)
    assert store.append(1, 0, 0)


def test_many_users(stores):
    store = stores()
    assert list(store.users()) == []
    store.append_many(torch.arange(2500), torch.zeros(2500, dtype=torch.int64), range(2500))
    assert sorted(store.users()) == list(range(2500))


def test_get_many_is_a_history(stores):
    store = stores()
    store.append_many([5, 6, 5], [2, 0, 1], [100, 50, 90])
    table = torch.randn(3, 4)
    history = store.get_many([5, 7, 6], table, before=[100, 100, 100])
    assert history.offsets.tolist() == [0, 1, 1, 2]
    assert history.time.tolist() == [90, 50]
    assert torch.equal(history.rows.table[history.rows.ids], table[[1, 0]])
    lic = lc.LongTermInterestClock(4, 4, k=2)
    assert lic(torch.randn(3, 4), history, torch.tensor([100, 100, 100])).shape == (3, 64)
    features = store.get_many([5], (table, torch.randn(5, 2)), before=torch.tensor([100]))
    assert features.time.tolist() == [90]
    assert store.get_many([], table).offsets.tolist() == [0]
    with pytest.raises(
        ValueError, match="tables must have a row for every item, got 2 rows and item 2"
    ):
        store.get_many([5], table[:2])
