# SPDX-License-Identifier: Apache-2.0
"""What is measured over events whose item occurred before: no model gains there by telling new items from old ones."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from streams import stream
from test_metrics import direct_uauc
from test_train import SMALL

from longclock.train import results
from longclock.train.batches import TrainingData
from longclock.train.config import MODELS
from longclock.train.loop import Run, train

FROM = 60


def moments(**options):
    """Many items, and several events at once."""
    events = stream(**{"items": 60, **options})
    return dataclasses.replace(events, order_time=events.order_time // 3600)


@pytest.fixture(scope="module", params=["both", "own", "popularity", "labels"])
def data(request):
    labels = request.param == "labels"
    source = "both" if labels else request.param
    return TrainingData.of(
        moments(labels=labels), dataclasses.replace(SMALL, negatives_from=source)
    )


@pytest.fixture
def run(data):
    made = Run.start(data, MODELS["no-time"], SMALL)
    scores = np.random.default_rng(3).integers(0, 9, len(made.scores)) / 4.0  # many are equal
    made.scores[:] = torch.from_numpy(scores).float()
    return made


def test_seen_is_at_an_earlier_moment():
    events = moments()
    for e in range(len(events)):
        before = events.order_time < events.order_time[e]
        item = events.item == events.item[e]
        assert events.item_seen()[e] == (before & item).any()
        own = before & item & (events.user == events.user[e])
        assert events.pair_seen()[e] == own.any()
    seen, pairs = events.item_seen(), events.pair_seen()
    assert seen.any()
    assert pairs.any()
    assert not seen[events.order_time == events.order_time[0]].any()
    assert (pairs <= seen).all()
    assert (pairs < seen).any()


def test_at_one_moment_nothing_was_seen():
    events = stream(events=30, items=3)
    events = dataclasses.replace(events, order_time=np.zeros_like(events.order_time))
    assert not events.item_seen().any()
    assert not events.pair_seen().any()
    assert len(events.head(max_events=0).item_seen()) == 0


def auc(rows, data, run):
    """Pair by pair, ties half; None of one class."""
    label, score = data.candidates.label[rows], run.scores.numpy()[rows]
    value = direct_uauc(np.zeros(len(rows)), label, score) if len(rows) else float("nan")
    return None if np.isnan(value) else pytest.approx(value)


def test_figures_are_their_definitions(data, run, monkeypatch):
    monkeypatch.setattr(results, "LONG", 20)
    found = results.measure(run, data, FROM)
    stream, event = data.stream, data.candidates.event
    rows = np.arange(len(event))
    counted = event >= FROM
    seen = np.array([stream.item[e] in stream.item[stream.order_time < stream.order_time[e]] for e in event])  # fmt: skip
    np.testing.assert_array_equal(data.seen, seen)
    own = np.array([stream.item[e] in stream.item[(stream.order_time < stream.order_time[e]) & (stream.user == stream.user[e])]
                    for e in event])  # fmt: skip
    long = np.array([((stream.user == stream.user[e]) & (stream.order_time < stream.order_time[e])).sum() >= 20 for e in event])  # fmt: skip
    score = run.scores.numpy()
    assert found["seen_auc"] == auc(rows[counted & seen], data, run)
    assert found["auc"] == auc(rows[counted], data, run)
    assert found["seen_auc_long"] == auc(rows[counted & seen & long], data, run)
    label, user = data.candidates.label, stream.user[event]
    some = counted & seen
    expected = direct_uauc(user[some], label[some], score[some])
    assert found["seen_uauc"] == pytest.approx(expected)
    some = counted & own
    expected = direct_uauc(event[some], label[some], score[some])
    assert found["own_auc"] == (None if np.isnan(expected) else pytest.approx(expected))
    assert (found["own_auc"] is None) == (stream.label is not None)  # an event of one candidate
    p = 1 / (1 + np.exp(-score[counted].astype(float)))
    entropy = -np.log(np.where(label[counted] == 1, p, 1 - p)).mean()
    assert found["logloss"] == pytest.approx(entropy)
    hour = (stream.time % 86400 // 3600)[event]
    assert found["seen_auc_by_hour"] == [auc(rows[counted & seen & (hour == h)], data, run) for h in range(24)]  # fmt: skip
    part = event * results.PARTS // len(stream)
    assert found["seen_auc_over_stream"] == [auc(rows[seen & (part == p)], data, run) for p in range(results.PARTS)]  # fmt: skip
    assert len({found[name] for name in results.METRICS} - {None}) >= 5  # no two are the same


def test_a_long_history_has_ten_thousand_behaviours(data, run):
    assert results.LONG == 10_000
    assert results.measure(run, data, FROM)["seen_auc_long"] is None


def test_telling_new_items_from_old_ones_gains_auc_but_no_seen_auc():
    data = TrainingData.of(moments(), SMALL)
    run = Run.start(data, MODELS["no-time"], SMALL)
    run.scores[:] = 0.0
    nothing = results.measure(run, data, FROM)
    assert (nothing["auc"], nothing["seen_auc"], nothing["own_auc"]) == (0.5, 0.5, 0.5)
    stream, candidates = data.stream, data.candidates
    for row, (event, item) in enumerate(zip(candidates.event, candidates.item, strict=True)):
        old = stream.order_time < stream.order_time[event]
        run.scores[row] = float(item not in stream.item[old])
    gamed = results.measure(run, data, FROM)
    assert gamed["auc"] > 0.52
    assert (gamed["seen_auc"], gamed["seen_uauc"], gamed["own_auc"]) == (0.5, 0.5, 0.5)
    assert set(gamed["seen_auc_by_hour"]) | set(gamed["seen_auc_over_stream"]) <= {0.5, None}


def test_telling_new_pairs_from_old_ones_gains_no_own_auc():
    data = TrainingData.of(moments(), dataclasses.replace(SMALL, negatives_from="own"))
    run = Run.start(data, MODELS["no-time"], SMALL)
    stream, candidates = data.stream, data.candidates
    for row, (event, item) in enumerate(zip(candidates.event, candidates.item, strict=True)):
        old = (stream.order_time < stream.order_time[event]) & (stream.user == stream.user[event])
        run.scores[row] = float(item not in stream.item[old])
    gamed = results.measure(run, data, FROM)
    assert gamed["seen_auc"] > 0.6
    assert gamed["own_auc"] == 0.5


def test_the_data_say_how_many_are_new_and_repeated():
    data = TrainingData.of(moments(items=30), SMALL)
    found = results.describe(data, FROM)
    new = np.mean([data.stream.item[e] not in data.stream.item[data.stream.order_time < data.stream.order_time[e]]
                   for e in range(FROM, len(data.stream))])  # fmt: skip
    assert found["counted_new_items"] == pytest.approx(new, abs=1e-4)
    assert 0 < found["negatives_repeated"] == round(data.candidates.repeated(), 4)
    labelled = TrainingData.of(moments(labels=True), SMALL)
    assert results.describe(labelled, FROM)["negatives_repeated"] is None


def test_silent_units_and_the_fall_of_s():
    data = TrainingData.of(stream(), SMALL)
    run = Run.start(data, MODELS["lic"], SMALL)
    assert results.s_fall(run) == pytest.approx(8, abs=1e-4)
    assert results.silent_units(run, data) < 0.5
    with torch.no_grad():
        run.ranker.tower[0].bias[:48] = -1e6  # 48 of 64 answer to nothing
        run.ranker.tower[0].weight[48:], run.ranker.tower[0].bias[48:] = 0.0, 1.0
    assert results.silent_units(run, data) == 0.75
    assert not run.ranker.tower[1]._forward_hooks
    run.ranker.interest.time.w2.data.neg_()  # an s that falls does so whatever the signs
    assert results.s_fall(run) == pytest.approx(8, abs=1e-4)
    free = Run.start(data, MODELS["lic-s-free"], SMALL)
    free.ranker.interest.time.w2.data.neg_()
    assert results.s_fall(free) == pytest.approx(-8, abs=1e-4)
    for name in ("no-time", "twin", "hour", "counts"):
        assert results.s_fall(Run.start(data, MODELS[name], SMALL)) is None
    assert results.silent_units(Run.start(data, MODELS["counts"], SMALL), data) is None


def test_a_run_says_what_its_weights_do():
    data = TrainingData.of(stream(), SMALL)
    run = Run.start(data, MODELS["lic"], SMALL)
    train(run, data, SMALL, lambda run, events: None)
    found = results.measure(run, data, FROM)
    assert found["silent_units"] == results.silent_units(run, data)
    assert found["s_fall"] == results.s_fall(run) > 0
    json.dumps(found, allow_nan=False)
