# SPDX-License-Identifier: Apache-2.0
"""Histories that come late: what an event does not see yet."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from streams import stream
from test_train import SMALL, scores_of

from longclock.data import Histories
from longclock.train.batches import TrainingData


def minutes(**options):
    """Times to the minute, many of them equal or exactly a delay apart."""
    events = stream(**options)
    time = events.order_time // 60 * 60
    return dataclasses.replace(events, time=time, order_time=time)


@pytest.mark.parametrize("delay", [1, 60, 3600, 86400, 10**9])
@pytest.mark.parametrize("longest", [None, 5])
def test_what_is_hidden_is_what_is_not_old_enough(delay, longest):
    events = minutes(events=300, users=3, days=2)
    found = Histories.of(events, longest, delay)
    whole = Histories.of(events)
    for event in range(len(events)):
        old = events.order_time < events.order_time[event] - delay
        own = np.flatnonzero(old & (events.user == events.user[event]))
        own = own if longest is None else own[-longest:]
        window = slice(found.starts[event], found.ends[event])
        np.testing.assert_array_equal(found.item[window], events.item[own])
        np.testing.assert_array_equal(found.time[window], events.time[own])
    # Within a second there is nothing but the moment itself.
    assert (found.ends < whole.ends).any() == (delay > 1)
    for column in ("item", "time", "label"):  # the behaviours themselves are the same
        np.testing.assert_array_equal(getattr(found, column), getattr(whole, column))


def test_a_behaviour_at_the_edge_is_hidden():
    """An event sees what lies more than the delay before it; at 0 that is what lies before it."""
    events = stream(events=5, users=1)
    time = 1_400_000_000 + np.array([0, 0, 10, 11, 20])
    events = dataclasses.replace(events, time=time, order_time=time)
    for delay, expected in ((0, [0, 0, 2, 3, 4]), (1, [0, 0, 2, 2, 4]), (9, [0, 0, 2, 2, 3]),
                            (10, [0, 0, 0, 2, 2]), (20, [0] * 5), (19, [0, 0, 0, 0, 2])):  # fmt: skip
        assert Histories.of(events, delay=delay).lengths.tolist() == expected


def test_no_delay_is_what_there_was():
    events = minutes()
    for longest in (None, 3):
        one, two = Histories.of(events, longest), Histories.of(events, longest, 0)
        for field in dataclasses.fields(Histories):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(two, field.name))
    np.testing.assert_array_equal(Histories.of(events, delay=np.int64(60)).ends, Histories.of(events, delay=60).ends)  # fmt: skip


def test_an_empty_stream_has_no_delay():
    assert len(Histories.of(stream().head(max_events=0), delay=60).lengths) == 0


@pytest.mark.parametrize("name", ["lic", "no-time", "clock-counts"])
def test_what_is_not_seen_yet_changes_no_score(name):
    """The trainer's windows are late as well: an item within the delay makes no difference."""
    config = dataclasses.replace(SMALL, history_delay=6 * 3600)
    events = stream(events=200)
    event = len(events) - 1
    assert TrainingData.of(events, config).histories.lengths[event] > 0
    own = np.flatnonzero(events.user == events.user[event])[:-1]
    late = events.order_time[own] >= events.order_time[event] - config.history_delay
    assert late.any()
    before, data = scores_of(events, config, name)
    rows = data.candidates.rows(np.array([event]))
    base = data.candidates.item[rows]
    # The day's events are scored before anything of it is learned from: only the window tells.
    assert events.day()[own[late][-1]] == events.day()[event]
    item = events.item.copy()
    item[own[late][-1]] = (item[own[late][-1]] + 1) % events.items
    after, other = scores_of(dataclasses.replace(events, item=item), config, name)
    again = other.candidates.item[other.candidates.rows(np.array([event]))]
    same = base == again  # a changed item is another negative
    assert same.sum() > 1
    assert torch.equal(before[rows][same], after[other.candidates.rows(np.array([event]))][same])
    config = dataclasses.replace(config, history_delay=0)
    seen, _ = scores_of(events, config, name)
    assert not torch.equal(seen, before)


@pytest.mark.parametrize("longest", [None, 7])
@pytest.mark.parametrize("delay", [0, 3600, 3 * 86400])
def test_behaviours_are_forgotten_after_days(longest, delay):
    events = stream(events=300)
    past = Histories.of(events, longest, delay, days=2)
    order, _ = events.by_user()
    for event, (start, end) in enumerate(zip(past.starts, past.ends, strict=True)):
        own = np.flatnonzero(events.user[order] == events.user[event])
        age = events.order_time[event] - events.order_time[order[own]]
        seen = own[(age > delay if delay else own < end) & (age <= 2 * 86400)]
        seen = seen[seen < end]
        if longest is not None:
            seen = seen[-longest:]
        assert list(range(start, end)) == seen.tolist()
    with pytest.raises(ValueError, match=r"Histories\.of: days must"):
        Histories.of(events, days=-1)
