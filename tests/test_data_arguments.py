# SPDX-License-Identifier: Apache-2.0
"""Histories, candidates and outcomes name the argument that does not fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from streams import stream

from longclock.data import (
    Histories,
    labelled_candidates,
    past_outcomes,
    sampled_candidates,
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"negatives": -1}, "negatives must be an integer of at least 0, got -1"),
        ({"negatives": 1.5}, "negatives must be an integer of at least 0, got 1.5"),
        ({"negatives": True}, "negatives must be an integer of at least 0, got True"),
        ({"negatives": 10**13}, r"negatives = 10000000000000 for each of 240 events do not fit"),
        ({"negatives": 2**70}, r"negatives = \d+ for each of 240 events do not fit"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": None}, "seed must be an integer of at least 0, got None"),
        ({"seed": 2**64}, r"seed must be below 2\^64, got 18446744073709551616"),
        (
            {"negatives_from": "others"},
            "negatives_from must be one of both, own, popularity, got 'others'",
        ),
        ({"negatives_from": None}, "negatives_from must be one of both, own, popularity, got None"),
        ({"negatives_from": ""}, "negatives_from must be one of both, own, popularity, got ''"),
    ],
)
def test_arguments_of_sampled_candidates(arguments, message):
    with pytest.raises(ValueError, match=f"^sampled_candidates: {message}"):
        sampled_candidates(stream(), **arguments)


def test_every_seed_has_its_own_negatives():
    seeds = (0, 1, 2**32, 2**32 + 1, 2**33, 2**63, 2**64 - 1, np.int64(7))
    drawn = {sampled_candidates(stream(), seed=seed).item.tobytes() for seed in seeds}
    assert len(drawn) == len(seeds)
    same = sampled_candidates(stream(), seed=7).item
    np.testing.assert_array_equal(sampled_candidates(stream(), seed=np.int32(7)).item, same)


def test_no_negatives_are_the_positives():
    events = stream()
    np.testing.assert_array_equal(sampled_candidates(events, negatives=0).item, events.item)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([0, 1], r"events must be a NumPy array of integers, one dimension, got list of shape"),
        (np.array([0.0]), "got float64"),
        (np.array([True]), "got bool"),
        (np.array([[0]]), r"got int64 of shape \(1, 1\)"),
        (np.array(3), r"of shape \(\)"),
        (np.array([0, -1]), "events must be from 0 to 239, got -1"),
        (np.array([5, 240]), "events must be from 0 to 239, got 240"),
        (np.array([2**64 - 1], np.uint64), "got 18446744073709551615"),
    ],
)
def test_events_of_rows(events, message):
    with pytest.raises(ValueError, match=r"^Candidates.rows: .*" + message):
        sampled_candidates(stream()).rows(events)


def test_rows_take_any_integers():
    candidates = sampled_candidates(stream())
    for dtype in (np.int32, np.uint8, np.uint64):
        rows = candidates.rows(np.array([3, 1], dtype))
        np.testing.assert_array_equal(rows, candidates.rows(np.array([3, 1])))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("item", lambda item: -1 - item, "column 'item' must be ids from 0 on"),
        ("item", lambda item: item[1:], "column 'item' must be int64 of shape"),
        ("label", lambda label: label * 2, "column 'label' must be 0 or 1, got 2"),
        ("event", lambda event: event[::-1], "column 'first_row' must lead from 0 to"),
        ("first_row", lambda row: row + 1, "column 'first_row' must lead from 0 to"),
        ("first_row", lambda row: row[::-1], "column 'first_row' must lead from 0 to"),
        ("first_row", lambda row: row[:0], "column 'first_row' must lead from 0 to"),
        ("first_row", lambda row: row.tolist(), "column 'first_row' must be int64 .*got list"),
    ],
)
def test_columns_of_candidates(name, change, message):
    candidates = sampled_candidates(stream())
    with pytest.raises(ValueError, match=f"^Candidates: {message}"):
        dataclasses.replace(candidates, **{name: change(getattr(candidates, name))})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("item", lambda item: item - 50, "column 'item' must be ids from 0 on"),
        ("time", lambda time: time * 1000, "column 'time' must be seconds"),
        ("time", lambda time: time.astype(float), "column 'time' must be int64 .*got float64"),
        ("label", lambda label: label + 1, "column 'label' must be 0 or 1, got 2"),
        ("starts", lambda starts: starts - 1, "columns 'starts' and 'ends' must be windows"),
        ("starts", lambda starts: starts + 500, ".*must be windows into 240 behaviours"),
        ("ends", lambda ends: ends + 240, ".*must be windows into 240 behaviours"),
        ("ends", lambda ends: ends[1:], "column 'ends' must be int64 of shape"),
    ],
)
def test_columns_of_histories(name, change, message):
    histories = Histories.of(stream())
    with pytest.raises(ValueError, match=f"^Histories: {message}"):
        dataclasses.replace(histories, **{name: change(getattr(histories, name))})


def test_arguments_of_histories():
    events = stream()
    with pytest.raises(ValueError, match=r"^Histories.of: longest must be .*, got -1"):
        Histories.of(events, longest=-1)
    assert Histories.of(events, longest=0).lengths.max() == 0
    for delay in (-1, 0.5, True, None):
        with pytest.raises(ValueError, match=rf"^Histories.of: delay must be .*, got {delay}"):
            Histories.of(events, delay=delay)
    with pytest.raises(ValueError, match=r"^Histories.with_shuffled_times: seed must be .* -2"):
        Histories.of(events).with_shuffled_times(events, seed=-2)
    for other in (stream(seed=1), events.head(max_events=9)):
        with pytest.raises(ValueError, match=r"with_shuffled_times: stream must be the one that"):
            Histories.of(events).with_shuffled_times(other, seed=0)


@pytest.mark.parametrize(
    "function", [Histories.of, labelled_candidates, sampled_candidates, past_outcomes]
)
def test_other_things_than_streams(function):
    with pytest.raises(ValueError, match="stream must be an EventStream, got dict"):
        function(stream().columns())
