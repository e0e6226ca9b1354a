# SPDX-License-Identifier: Apache-2.0
"""Models that count what a user took, and learn nothing."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from streams import stream
from test_train import SMALL, scores_of

from longclock.data import EventStream
from longclock.study.cli import main as study
from longclock.study.plan import Study, Task, read_lines
from longclock.study.run import run_task
from longclock.train import counting, results
from longclock.train.batches import TrainingData
from longclock.train.cli import main
from longclock.train.config import MODELS
from longclock.train.counting import CountingRanker
from longclock.train.loop import Run, chunks, score

COUNTING = [name for name in MODELS if MODELS[name].counts is not None]
DAY = 86400


def counted(events, candidates, config, width):
    """Behaviour by behaviour, in windows that are looked for event by event."""
    found = []
    for event, item in zip(candidates.event, candidates.item, strict=True):
        total = counting.LEAST
        old = events.order_time < events.order_time[event] - config.history_delay
        own = np.flatnonzero(old & (events.user == events.user[event]))
        for row in own if config.history is None else own[-config.history :]:
            if events.item[row] == item:
                apart = abs(int(events.time[row]) - int(events.time[event])) % config.period
                apart = min(apart, config.period - apart)
                total += math.exp(-((apart / width) ** 2) / 2) + counting.FAR
        found.append(math.log(total))
    return torch.tensor(found)


def test_the_models_are_one_with_and_one_without_a_clock():
    assert COUNTING == ["counts", "clock-counts"]
    assert MODELS["counts"].counts == math.inf
    assert 0 < MODELS["clock-counts"].counts < DAY / 2


@pytest.mark.parametrize("width", [math.inf, 1200.0, 20_000.0])
@pytest.mark.parametrize(
    "changes",
    [{}, {"history_delay": 4 * 3600}, {"history": 5}, {"history": 5, "history_delay": 4 * 3600}, {"period": 7 * DAY},
     {"history_delay": 10**9}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("labels", [False, True])
def test_scores_are_counts_behaviour_by_behaviour(width, changes, labels):
    config = dataclasses.replace(SMALL, **changes)
    events = stream(events=160, labels=labels)
    events = dataclasses.replace(
        events, order_time=events.order_time // 7200 * 7200
    )  # several at once
    data = TrainingData.of(events, config)
    found = score(CountingRanker(width, config.period), data, np.arange(len(events)))
    expected = counted(events, data.candidates, config, width)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert len(found.unique()) > 2 or config.history_delay == 10**9


@pytest.mark.parametrize("name", COUNTING)
@pytest.mark.parametrize("protocol", ["daily", "hourly", "stream"])
def test_a_run_scores_with_it_and_learns_nothing(name, protocol):
    config = dataclasses.replace(SMALL, protocol=protocol)
    found, data = scores_of(stream(), config, name)
    expected = counted(data.stream, data.candidates, config, MODELS[name].counts)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert len(chunks(data.stream, config)) > 1


def test_the_clock_counts_what_was_taken_at_this_time():
    """Item 0 three times at 8 o'clock, item 1 four times at 20 o'clock; then an event at each hour."""
    hours = [(0, 8), (1, 20)] * 3 + [(1, 20), (2, 8), (2, 20)]
    item = np.array([item for item, _ in hours])
    day = np.arange(len(hours))
    time = (day * DAY) + np.array([hour for _, hour in hours]) * 3600
    events = EventStream("small", np.zeros_like(item), item, time, time)
    data = TrainingData.of(events, SMALL)
    asked = data.batch(np.array([7, 7, 8, 8]))
    batch = asked._replace(event=torch.arange(4), item=torch.tensor([0, 1, 0, 1]))
    morning = slice(0, 2), slice(2, 4)
    plain = CountingRanker(math.inf, DAY)(batch, data)
    clock = CountingRanker(1200.0, DAY)(batch, data)
    for hour, wanted in zip(morning, (0, 1), strict=True):
        assert int(clock[hour].argmax()) == wanted
        assert int(plain[hour].argmax()) == 1
    torch.testing.assert_close(plain[:2].exp(), torch.tensor([3.0, 4.0]), rtol=0.01, atol=0)
    torch.testing.assert_close(clock[:2].exp(), torch.tensor([3.0, 0.0]), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("name", COUNTING)
def test_only_the_order_within_an_event_is_measured(name):
    scores, data = scores_of(stream(), SMALL, name)
    run = Run.start(data, MODELS[name], MODELS[name].settings(SMALL))
    run.scores[:] = scores
    found = results.measure(run, data, 60)
    assert (0.5 if name == "clock-counts" else 0) < found["own_auc"] < 1
    assert [found[metric] for metric in results.METRICS if metric != "own_auc"] == [None] * 5
    assert found["diverged"] is found["silent_units"] is found["s_fall"] is None
    moved = run.scores + torch.from_numpy(data.candidates.event) * 100.0  # by event
    run.scores[:] = moved
    assert results.measure(run, data, 60)["own_auc"] == pytest.approx(found["own_auc"], abs=2e-3)


@pytest.mark.parametrize("name", COUNTING)
def test_a_studys_line_has_its_own_auc_alone(name):
    line = run_task(Task("daily", name, 0, 1e-2), stream(), SMALL, 0.4)
    assert 0 < line["own_auc"] < 1
    assert [line[metric] for metric in results.METRICS if metric != "own_auc"] == [None] * 5
    assert line["diverged"] is None
    json.dumps(line, allow_nan=False)
    wanted = Study((name, "hour"), ("daily",), 2, (1e-3, 1e-2))
    assert wanted.tuning("daily", name) == []
    assert wanted.best_rate("daily", name, []) == 1e-3
    assert list(wanted.open_tasks([]))[:2] == [Task("daily", name, seed, 1e-3) for seed in (0, 1)]
    assert len(wanted) == 2 + (2 * 3 + 2)


@pytest.fixture
def plays(tmp_path):
    events = stream(events=160, days=3)
    columns = {"user": events.user, "item": events.item, "time": events.time}
    pd.DataFrame(columns).to_csv(tmp_path / "plays.csv")
    return str(tmp_path / "plays.csv")


def test_a_study_does_not_tune_what_counts(plays, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--data", plays, "--models", "counts,clock_counts", "--seeds", "2", "--learning-rates", "5e-3,2e-2", "--jobs", "1",
             "--protocol", "daily", "--k", "3", "--quiet", "--out", str(out)]  # fmt: skip
    assert study(words) == 0
    assert read_lines(out / "tuning.jsonl") == []
    lines = read_lines(out / "runs.jsonl")
    assert sorted((line["model"], line["seed"]) for line in lines) == [
        (model, seed) for model in ("clock-counts", "counts") for seed in (0, 1)
    ]
    printed = capsys.readouterr().out
    assert "| own AUC |" in printed
    assert "seen AUC" not in printed
    assert "diverged" not in printed


def test_training_reports_it_beside_others(plays, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--events", plays, "--models", "clock-counts,hour,counts", "--k", "3", "--quiet", "--out", str(out)]  # fmt: skip
    assert main([*words, "--history-delay", "3600", "--negatives-from", "own"]) == 0
    assert "diverged" not in capsys.readouterr().err
    found = json.loads((out / "results.json").read_text())
    assert (found["config"]["history_delay"], found["config"]["negatives_from"]) == (3600, "own")
    models = found["models"]
    assert models["counts"]["seen_auc"] is None
    assert models["hour"]["seen_auc"] > 0
    assert all(model["own_auc"] > 0 for model in models.values())
    first = {name: model["own_auc"] for name, model in models.items()}
    assert main([*words, "--history-delay", "3600", "--negatives-from", "own", "--resume"]) == 0
    again = json.loads((out / "results.json").read_text())["models"]
    assert {name: model["own_auc"] for name, model in again.items()} == first
