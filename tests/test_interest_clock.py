# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from rivals import LENGTHS, H, L, inputs, interest_clock
from streams import stream

from longclock import History
from longclock.baselines import InterestClock
from longclock.baselines.interest_clock import hourly_interests
from longclock.data import HourlyInterests
from longclock.train.batches import TrainingData
from longclock.train.config import MODELS, Config
from longclock.train.loop import Run
from longclock.train.ranker import Inputs


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


@pytest.mark.parametrize("labelled", [False, True])
def test_interest_clock_keeps_up_what_counting_anew_finds(labelled):
    generator = torch.Generator().manual_seed(0)
    events, day = 400, 86400
    time = torch.randint(0, 70 * day, (events,), generator=generator) // 7200 * 7200  # many at once
    time = time.sort().values
    categories = torch.randint(0, 6, (2, events), generator=generator)
    liked = torch.rand(events, generator=generator) < (0.6 if labelled else 2)
    scores = 2 * liked.long() - 1 if labelled else None
    kept = HourlyInterests(fields=2)
    starts, ends = torch.zeros(1, dtype=torch.int64), torch.tensor([events])
    windows = History.windows(torch.zeros(events, 0), time, starts, ends)
    for event in range(events):
        now = int(time[event])
        anew = hourly_interests(categories, windows, time[event : event + 1], scores=scores)
        assert torch.equal(torch.from_numpy(kept.clock(7, now)), anew[0])
        kept.add(7, now, now, categories[:, event].tolist(), bool(liked[event]))
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


def test_interest_clock_prefers_by_positives_less_negatives():
    kept, nine = HourlyInterests(fields=1), 9 * 3600
    for time, (category, liked) in enumerate(
        [(1, True), (1, True), (1, False), (2, True), (2, False), (3, False), (4, True), (4, True)]
    ):
        kept.add(0, time, nine, [category], liked)
    assert kept.clock(0, 8)[9, 0].tolist() == [4, 1, 0]  # scores 2 and 1; not 0 and -1
    month = 30 * 86400
    assert kept.clock(0, month + 2)[9, 0].tolist() == [4, 0, 0]  # of 1 only the dislike is left
    assert kept.clock(0, month + 3)[9, 0].tolist() == [4, 0, 0]
    assert kept.clock(0, month + 8)[9, 0].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="HourlyInterests: liked must be a bool, got 1"):
        kept.add(0, month + 9, nine, [1], 1)


@pytest.mark.parametrize("preference", ["net", "positives"])
def test_interest_clock_counts_labels_as_it_prefers(preference):
    tables, genre = [torch.eye(4)], torch.tensor([[[1, 1, 1, 2, 3]]])
    labels = torch.tensor([[1, 0, 0, 1, 0]])
    nine = 9 * 3600 + torch.arange(5)[None]
    model = InterestClock(L, H, category_dim=4, mode="naive", preference=preference)
    history = History.dense(torch.randn(1, 5, L), nine)
    call = torch.randn(1, H), history, nine[:, 4] + 1
    reads = {"category_tables": tables, "behaviour_categories": genre}
    interests = torch.zeros(1, 24, 1, 3, dtype=torch.int64)
    interests[0, 9, 0, :2] = torch.tensor([2, 0] if preference == "net" else [1, 2])
    expected = model(*call, category_tables=tables, interests=interests)
    assert torch.equal(model(*call, **reads, behaviour_labels=labels), expected)
    interests[0, 9, 0] = torch.tensor([1, 2, 3])
    every = model(*call, category_tables=tables, interests=interests)
    for of_all in (None, torch.ones_like(labels)):
        assert torch.equal(model(*call, **reads, behaviour_labels=of_all), every)
    for wrong, text in (
        (labels + 1, "behaviour_labels must be from 0 to 1, got 2; 1 is liked, 0 is not"),
        (labels[:, 1:], r"behaviour_labels must have the shape of history.time = \[1, 5\], got \[1, 4\]"),
        (labels.bool(), "behaviour_labels must be int32 or int64, got bool"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^InterestClock: {text}"):
            model(*call, **reads, behaviour_labels=wrong)
    with pytest.raises(ValueError, match="behaviour_labels must come with behaviour_categories"):
        model(*call, category_tables=tables, interests=interests, behaviour_labels=labels)


def preferred(events, event, against):
    """The best three categories of every hour before an event, by hand."""
    scores = collections.defaultdict(collections.Counter)
    for past in range(event):
        if (
            events.user[past] == events.user[event]
            and events.order_time[past] < events.order_time[event]
        ):
            liked = events.label is None or events.label[past] == 1
            category = int(events.categories["category"][past])
            scores[int(events.time[past] % 86400 // 3600)][category] += 1 if liked else against
    found = np.zeros((24, 1, 3), np.int64)
    for hour, of_hour in scores.items():
        best = sorted((-score, category) for category, score in of_hour.items() if score > 0)[:3]
        found[hour, 0, : len(best)] = [category for _, category in best]
    return torch.from_numpy(found)


@pytest.mark.parametrize("labels", [False, True])
def test_the_trainer_tells_what_was_liked(labels):
    events, config = stream(events=150, users=2, labels=labels), Config(negatives=1)
    data = TrainingData.of(events, config)
    wanted = np.array([149, 60, 0])
    batch = data.batch(wanted)
    for name, against in (("interest-clock", -1), ("interest-clock-positives", 0)):
        ranker = Run.start(data, MODELS[name], config).ranker
        expected = torch.stack([preferred(events, event, against) for event in wanted])
        assert torch.equal(Inputs(ranker, batch, data).interests, expected.int())
    assert torch.equal(data.interests, data.positive_interests) == (not labels)


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
    with pytest.raises(ValueError, match="preference must be 'net' or 'positives', got 'likes'"):
        InterestClock(L, H, preference="likes", category_dim=2)
    table, ids, time, now, candidate = inputs()
    with pytest.raises(ValueError, match="interests must be given"):
        InterestClock(L, H, category_dim=2)(
            candidate, History.dense(table[ids], time), now, category_tables=[]
        )
