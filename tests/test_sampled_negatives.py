# SPDX-License-Identifier: Apache-2.0
"""Where sampled negatives come from, and how many an event draws twice."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from streams import stream

from longclock.data import Candidates, sampled_candidates

SOURCES = ["both", "own", "popularity"]
every_source = pytest.mark.parametrize("source", SOURCES)


def at_once(**options):
    """A stream of which several events share a moment."""
    events = stream(**options)
    return dataclasses.replace(events, order_time=events.order_time // 7200)


def number(seed, event, draw):
    """splitmix64, a number at a time."""
    begin = (((seed * 0x9E3779B1 + draw + 1) << 32) + (seed >> 32) * 0xD6E8FEB86659FD93) % 2**64
    x = (begin + event) % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ (x >> shift)) * factor % 2**64
    return ((x ^ (x >> 31)) >> 11) / 2**53


def drawn(events, event, column, seed, source):
    """The negative of an event, or None: attempt by attempt."""
    earlier = np.flatnonzero(events.order_time < events.order_time[event])
    mine = [int(events.item[row]) for row in earlier if events.user[row] == events.user[event]]
    pools = {"popularity": events.item[earlier].tolist(), "own": list(dict.fromkeys(mine))}
    half = "own" if column % 2 else "popularity"
    for attempt in range(32):
        kind = half if source == "both" else source
        if source == "both" and attempt >= 16:
            kind = "popularity"
        pool = pools[kind]
        if pool:
            item = pool[int(number(seed, event, column * 32 + attempt) * len(pool))]
            if item != events.item[event]:
                return item
    return None


@every_source
@pytest.mark.parametrize("seed", [0, 3, 2**40 + 5])
def test_negatives_are_their_definition(source, seed):
    """``both`` draws what it drew before there was a choice."""
    events = at_once(events=150, users=5, items=9)
    found = sampled_candidates(events, 3, seed, source)
    default = sampled_candidates(events, 3, seed)
    assert np.array_equal(found.item, default.item) == (source == "both")
    for event in range(len(events)):
        rows = found.rows(np.array([event]))
        expected = [drawn(events, event, column, seed, source) for column in range(3)]
        expected = [item for item in expected if item is not None]
        assert found.item[rows].tolist() == [events.item[event], *expected]
        assert found.label[rows].tolist() == [1] + [0] * len(expected)


def test_own_negatives_are_what_the_user_took_before():
    events = at_once(users=20, items=40)
    found = sampled_candidates(events, 4, 1, "own")
    negative = found.label == 0
    assert negative.sum() > 200
    for event, item in zip(found.event[negative], found.item[negative], strict=True):
        before = (events.user == events.user[event]) & (events.order_time < events.order_time[event])  # fmt: skip
        assert item in events.item[before]
        assert item != events.item[event]
    # Nothing else of the past, whose items these are not: such events have no negatives.
    for event in range(len(events)):
        before = (events.user == events.user[event]) & (events.order_time < events.order_time[event])  # fmt: skip
        others = set(events.item[before]) - {events.item[event]}
        assert (len(found.rows(np.array([event]))) > 1) == bool(others)


@every_source
def test_popularity_knows_no_users(source):
    events = at_once()
    other = dataclasses.replace(events, user=np.random.default_rng(1).permutation(events.user))
    one, two = (sampled_candidates(e, 4, 2, source) for e in (events, other))
    assert np.array_equal(one.item, two.item) == (source == "popularity")


@every_source
def test_later_events_change_no_earlier_negative(source):
    events, cut = stream(), 150
    rng = np.random.default_rng(9)
    item, user = events.item.copy(), events.user.copy()
    item[cut:], user[cut:] = rng.permutation(item[cut:]), rng.permutation(user[cut:])
    before = sampled_candidates(events, 4, 3, source)
    after = sampled_candidates(dataclasses.replace(events, item=item, user=user), 4, 3, source)
    rows = before.first_row[cut]
    assert after.first_row[cut] == rows
    np.testing.assert_array_equal(before.item[:rows], after.item[:rows])


def by_hand(*slates):
    """Candidates of events whose rows are (item, label)."""
    rows = [(event, *row) for event, slate in enumerate(slates) for row in slate]
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    ends = np.cumsum([0, *(len(slate) for slate in slates)])
    return Candidates(columns[0].copy(), columns[1].copy(), columns[2].copy(), ends)


@pytest.mark.parametrize(
    ("slates", "expected"),
    [
        ([], 0.0),
        ([[(3, 1)], [(4, 1)]], 0.0),
        ([[(3, 1), (4, 0), (5, 0)], [(4, 1), (5, 0)]], 0.0),  # of another event it is no repetition
        ([[(3, 1), (4, 0), (4, 0)], [(5, 1), (4, 0)]], 1 / 3),
        ([[(3, 1), (4, 0), (4, 0), (4, 0), (5, 0)]], 2 / 4),
        ([[(4, 1), (4, 0), (5, 0)]], 0.0),  # the positive does not count
        ([[(4, 0), (4, 0)], [(4, 0), (4, 0)]], 2 / 4),
    ],
)
def test_repeated_negatives_are_counted(slates, expected):
    assert by_hand(*slates).repeated() == pytest.approx(expected)


def test_repeated_of_a_sample():
    found = sampled_candidates(stream(items=4), 4, 0, "own")
    seen, again, negatives = set(), 0, 0
    for event, item, label in zip(found.event, found.item, found.label, strict=True):
        if label == 0:
            again += (event, item) in seen
            negatives += 1
            seen.add((event, item))
    assert again > 0
    assert found.repeated() == pytest.approx(again / negatives)
