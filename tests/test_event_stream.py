# SPDX-License-Identifier: Apache-2.0
"""What an EventStream made of arrays refuses, and says of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from streams import stream

from longclock.data import EventStream, Histories, past_outcomes, sampled_candidates

WRONG = "column 'user' must be int64 of shape"


def array(*values):
    return np.array(values, np.int64)


def columns(**changes):
    good = {
        "name": "plays",
        "user": array(0, 1, 0),
        "item": array(0, 1, 1),
        "time": array(1, 2, 3),
        "order_time": array(1, 2, 3),
        "label": array(0, 1, 1),
        "categories": {"genre": array(1, 0, 2)},
    }
    return {**good, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": array(-1, 1, 0)}, "column 'user' must be ids from 0 on .*, got -1 in row 0"),
        ({"item": array(0, 1, -2)}, "column 'item' must be ids from 0 on .*, got -2 in row 2"),
        ({"categories": {"genre": array(0, -1, 0)}}, "column 'genre' must be ids from 0 on"),
        ({"label": array(1, 2, 1)}, "column 'label' must be 0 or 1, got 2 in row 1"),
        ({"label": array(1, 1, -1)}, "column 'label' must be 0 or 1, got -1 in row 2"),
        ({"user": [0, 1, 0]}, rf"{WRONG} .*got list; make it a NumPy array"),
        ({"user": None}, rf"{WRONG} .*got NoneType"),
        ({"user": np.ma.masked_array(array(0, 1, 0))}, rf"{WRONG} .*got MaskedArray"),
        ({"user": array(0, 1, 0).astype(object)}, rf"{WRONG} .*got object of shape \(3,\)"),
        ({"user": array([0], [1], [0])}, rf"{WRONG} \(rows,\), got int64 of shape \(3, 1\)"),
        ({"user": np.array(3)}, rf"{WRONG} \(rows,\), got int64 of shape \(\)"),
        ({"item": array(0, 1)}, r"column 'item' must be int64 of shape \(3,\), got .*\(2,\)"),
        ({"time": np.array([1.0, 2.0, 3.0])}, "column 'time' must be int64 .*got float64"),
        ({"time": array(1, 2, 3).astype("datetime64[s]")}, "column 'time' must be int64"),
        ({"label": np.array([True, False, True])}, "column 'label' must be int64 .*got bool"),
        ({"categories": {"genre": array(1, 2)}}, r"column 'genre' must be .*of shape \(2,\)"),
        ({"order_time": array(1, 3, 2)}, "order_time must not decrease; .*row 2 is earlier"),
        ({"time": array(1, 10**12, 3)}, r"column 'time' must be seconds, .*\(divide millis.*row 1"),
        ({"time": array(1, 2, -(10**11))}, "column 'time' must be seconds"),
        ({"order_time": array(1, 2, 10**11)}, "column 'order_time' must be seconds"),
        ({"order_time": array(-(2**63), 1, 2)}, "column 'order_time' must be seconds"),
        ({"categories": {"user": array(1, 2, 3)}}, "categories must have names other .*'user'"),
        ({"categories": {"order_time": array(1, 2, 3)}}, "names other .*'order_time'"),
        ({"categories": {"label": array(1, 2, 3)}, "label": None}, "names other .*'label'"),
        ({"categories": {3: array(1, 2, 3)}}, "names other than the columns .*got 3"),
        ({"categories": [array(1, 2, 3)]}, "categories must be a dict by name, got list"),
        ({"category_names": {"genre": ["unknown", "a"]}}, "category_names of 'genre' .*3 ids, got 2"),
        ({"category_names": {"artist": []}}, "category_names names 'artist', which categories"),
        ({"category_sizes": {"artist": 2}}, "category_sizes names 'artist'"),
        ({"category_sizes": {"genre": -1}}, "category_sizes of 'genre' must be an integer"),
        ({"users": -3}, "users of 'user' must be an integer of at least 0, got -3"),
        ({"items": 2.5}, "items of 'item' must be an integer of at least 0, got 2.5"),
        ({"name": 7}, "name must be a text, got 7"),
        ({"unused_columns": "rating"}, "unused_columns must be a tuple"),
    ],
)  # fmt: skip
def test_wrong_values_are_named_at_once(changes, message):
    EventStream(**columns())
    with pytest.raises(ValueError, match=f"^EventStream: .*{message}"):
        EventStream(**columns(**changes))


def test_numbers_of_ids_are_at_least_those_of_the_columns():
    events = EventStream(**columns(users=1, items=9, category_sizes={"genre": 2}))
    assert (events.users, events.items, events.category_sizes) == (2, 9, {"genre": 3})
    assert events.unused_columns == ()


def test_head_refuses_negative_numbers():
    with pytest.raises(ValueError, match=r"EventStream.head: max_events must be .* got -1"):
        stream().head(max_events=-1)
    with pytest.raises(ValueError, match=r"EventStream.head: days must be .* got -2"):
        stream().head(days=-2)
    assert len(stream().head(max_events=0)) == 0


def far_ids(events, factor):
    """The same events; ids so far apart that user * items + item does not fit into int64."""
    return dataclasses.replace(
        events,
        user=events.user * factor,
        item=events.item * factor,
        categories={name: ids * factor for name, ids in events.categories.items()},
        category_sizes={},
    )


@pytest.mark.parametrize("factor", [2**30, 2**32, 2**40, 3 * 2**57])
def test_far_ids_change_nothing(factor):
    events = stream(labels=True)
    far = far_ids(events, factor)
    assert far.items == int(events.item.max()) * factor + 1
    np.testing.assert_array_equal(past_outcomes(far), past_outcomes(events))
    near, other = Histories.of(events, 5), Histories.of(far, 5)
    for name in ("time", "label", "starts", "ends"):
        np.testing.assert_array_equal(getattr(near, name), getattr(other, name))
    np.testing.assert_array_equal(near.item * factor, other.item)
    shuffled = near.with_shuffled_times(events, 1).time
    np.testing.assert_array_equal(shuffled, other.with_shuffled_times(far, 1).time)
    near, other = sampled_candidates(events, seed=3), sampled_candidates(far, seed=3)
    np.testing.assert_array_equal(near.item * factor, other.item)
    np.testing.assert_array_equal(near.first_row, other.first_row)


def test_ids_too_far_for_tables_are_named():
    with pytest.raises(ValueError, match=r"column 'item' needs tables of \d+ rows, .*number the"):
        far_ids(stream(), 2**57).item_categories()


def test_no_events_at_all():
    empty = stream(labels=True).head(max_events=0)
    assert Histories.of(empty).lengths.tolist() == []
    assert sampled_candidates(empty).rows(array()).tolist() == []
    assert past_outcomes(empty).shape == (0, 13)
    made = EventStream("none", array(), array(), array(), array())
    assert (made.users, made.items, made.day().tolist()) == (0, 0, [])
    assert sampled_candidates(made).first_row.tolist() == [0]
