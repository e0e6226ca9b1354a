# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from streams import stream

from longclock import data
from longclock.data import (
    EventStream,
    Histories,
    labelled_candidates,
    past_outcomes,
    sampled_candidates,
)
from longclock.data.builtin import find_data
from longclock.data.outcomes import outcome_columns

ROOT = Path(__file__).parents[1]


def test_histories_are_what_the_user_did_before():
    events = stream()
    histories = Histories.of(events)
    for e in range(len(events)):
        before = np.flatnonzero(events.user[:e] == events.user[e])
        window = slice(histories.starts[e], histories.ends[e])
        np.testing.assert_array_equal(histories.item[window], events.item[before])
        np.testing.assert_array_equal(histories.time[window], events.time[before])


def test_longest_keeps_the_last_behaviours():
    events = stream()
    whole, capped = Histories.of(events), Histories.of(events, longest=5)
    np.testing.assert_array_equal(capped.lengths, np.minimum(whole.lengths, 5))
    np.testing.assert_array_equal(capped.ends, whole.ends)


def test_shuffled_times_come_from_earlier_behaviours_of_the_same_user():
    events = stream()
    histories = Histories.of(events)
    shuffled = histories.with_shuffled_times(events, seed=1)
    np.testing.assert_array_equal(shuffled.item, histories.item)
    for e in np.flatnonzero(histories.lengths > 0):
        own = histories.ends[e]  # the row of the event itself
        assert shuffled.time[own] in histories.time[histories.starts[e] : own]
    again = histories.with_shuffled_times(events, seed=1)
    np.testing.assert_array_equal(shuffled.time, again.time)


def test_negatives_come_from_the_past_only_and_are_never_the_positive():
    events = stream()
    candidates = sampled_candidates(events, negatives=4, seed=3)
    own = 0
    for e in range(len(events)):
        rows = candidates.rows(np.array([e]))
        assert (candidates.event[rows] == e).all()
        assert candidates.item[rows[0]] == events.item[e]
        assert candidates.label[rows].tolist() == [1] + [0] * (len(rows) - 1)
        negatives = candidates.item[rows[1:]]
        assert len(negatives) <= 4
        assert set(negatives) <= set(events.item[:e]) - {events.item[e]}
        own += sum(item in events.item[:e][events.user[:e] == events.user[e]] for item in negatives)
    assert own >= len(candidates.item[candidates.label == 0]) / 2
    assert len(candidates.rows(np.array([0]))) == 1  # no past, no negatives


def test_later_events_change_no_earlier_negative():
    events = stream()
    cut = 150
    rng = np.random.default_rng(9)
    item, user = events.item.copy(), events.user.copy()
    item[cut:], user[cut:] = rng.permutation(item[cut:]), rng.permutation(user[cut:])
    before = sampled_candidates(events, seed=3)
    after = sampled_candidates(dataclasses.replace(events, item=item, user=user), seed=3)
    rows = before.first_row[cut]
    assert after.first_row[cut] == rows
    np.testing.assert_array_equal(before.item[:rows], after.item[:rows])


def test_candidates_follow_the_seed():
    events = stream()
    first, same, other = (sampled_candidates(events, seed=seed).item for seed in (0, 0, 1))
    assert first.tolist() == same.tolist()
    assert first.tolist() != other.tolist()


def test_candidate_rows_keep_the_order_of_events():
    candidates = sampled_candidates(stream())
    events = np.array([7, 3, 0, 200])
    np.testing.assert_array_equal(
        candidates.rows(events),
        np.concatenate([candidates.rows(events[i : i + 1]) for i in range(4)]),
    )
    assert len(candidates.rows(np.array([], np.int64))) == 0


def test_labelled_candidates_are_the_events():
    events = stream(labels=True)
    candidates = labelled_candidates(events)
    np.testing.assert_array_equal(candidates.item, events.item)
    np.testing.assert_array_equal(candidates.label, events.label)
    with pytest.raises(ValueError, match="has no labels; sample negatives"):
        labelled_candidates(stream())


def test_head_keeps_days_and_numbers_of_ids():
    events = stream()
    first = events.head(days=2)
    assert set(first.day()) == {0, 1}
    assert (first.users, first.items) == (events.users, events.items)
    assert len(events.head(max_events=10)) == 10


def test_stream_refuses_disorder_and_wrong_columns():
    events = stream()
    with pytest.raises(ValueError, match="order_time must not decrease"):
        dataclasses.replace(events, order_time=events.order_time[::-1])
    with pytest.raises(ValueError, match="column 'item' must be int64 of shape"):
        dataclasses.replace(events, item=events.item[:-1])


def test_digest_tells_streams_apart():
    assert stream().digest() == stream().digest()
    assert stream().digest() != stream(seed=1).digest()


@pytest.mark.parametrize(
    ("name", "events"), [("nyc", 95_000), ("music", 233_860), ("nycflights", 336_776)]
)
def test_example_data(name, events):
    found: EventStream = data.load(name)
    assert len(found) == events
    assert (found.label is None) == (name != "music")
    for column, ids in found.categories.items():
        assert ids.min() >= 0
        assert found.category_sizes[column] == ids.max() + 1


@pytest.mark.parametrize(
    ("name", "numbers", "longest"),
    [
        ("nycflights", (336_776, 35, 105), 46_087),
        ("bikeshare14", (326_339, 70, 70), 25_144),
        ("bikeshare14-home", (192_774, 32, 70), 36_061),
    ],
)
def test_data_sets_of_long_histories(name, numbers, longest):
    found = data.load(name)
    assert found.name == name
    assert (len(found), len(np.unique(found.user)), len(np.unique(found.item))) == numbers
    assert found.label is None
    assert (np.diff(found.order_time) >= 0).all()
    np.testing.assert_array_equal(found.time, found.order_time)
    assert Histories.of(found).lengths.max() + 1 >= longest >= Histories.of(found).lengths.max()
    loader = {"nycflights": data.nycflights, "bikeshare14": data.bikeshare14}.get(name, data.bikeshare14_home)  # fmt: skip
    assert loader().digest() == found.digest()


def test_a_home_is_known_and_is_no_station():
    with np.load(ROOT / "examples" / "data" / "bikeshare14.npz") as file:
        known = file["home_area"] > 0
        home, station, time = (file[name][known] for name in ("home_area", "user", "time"))
    found = data.bikeshare14_home()
    for column, expected in ((found.user, home), (found.item, station), (found.time, time)):
        np.testing.assert_array_equal(column, expected)


def test_missing_example_data_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nyc_checkins.npz was not found .* --data-dir"):
        data.nyc(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nycflights.npz was not found .* from a clone"):
        data.nycflights(tmp_path)
    with pytest.raises(
        ValueError,
        match="must be one of nyc, music, nycflights, bikeshare14, bikeshare14-home, got 'paris'",
    ):
        data.load("paris")


@pytest.mark.parametrize("name", ["nyc", "music", "nycflights", "bikeshare14", "bikeshare14-home"])
def test_damaged_example_data_says_what_to_do(tmp_path, name):
    names = {"nyc": "nyc_checkins", "music": "music_plays", "bikeshare14-home": "bikeshare14"}
    file = find_data(f"{names.get(name, name)}.npz")
    whole = file.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:9000] + b"xxxx" + whole[9004:]):
        (tmp_path / file.name).write_bytes(content)
        with pytest.raises(
            ValueError, match=f"{file.name}: is not the example data, or is damaged"
        ):
            data.load(name, tmp_path)


def test_past_outcomes_are_counts_of_earlier_events():
    events = stream(events=120, labels=True, users=3, items=5)
    events = dataclasses.replace(events, order_time=events.order_time // 7200)  # many at once
    found = past_outcomes(events)
    assert found.shape == (120, outcome_columns(attributes=1))
    mean_of = {}
    for e in range(len(events)):
        earlier = np.flatnonzero(events.order_time < events.order_time[e])
        positives = events.label[earlier].sum()
        mean_of[e] = (positives + 1) / (len(earlier) + 2)
        expected = []
        for ids in (events.item, events.categories["category"]):
            for own in (False, True):
                rows = earlier[ids[earlier] == ids[e]]
                if own:
                    rows = rows[events.user[rows] == events.user[e]]
                rate = (events.label[rows].sum() + 4 * mean_of[e]) / (len(rows) + 4)
                expected += [np.log1p(len(rows)) / 4, np.log(rate / (1 - rate))]
        mine = earlier[events.user[earlier] == events.user[e]]
        for last in (1, 3, 10, 50):
            expected.append(events.label[mine[-last:]].mean() if len(mine) else 0.5)
        since = events.order_time[e] - events.order_time[mine[-1]] if len(mine) else 0
        expected.append(np.log1p(since) / 8)
        np.testing.assert_allclose(found[e], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="small has no labels"):
        past_outcomes(stream())
