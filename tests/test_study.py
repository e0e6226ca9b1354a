# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from streams import stream

from longclock.study import report, summary
from longclock.study.cli import main
from longclock.study.plan import TUNING_SEEDS, Results, Study, Task, read_lines
from longclock.study.run import bias_by_hour, jumps, run_task
from longclock.train.batches import TrainingData
from longclock.train.config import MODELS, Config
from longclock.train.loop import Run

SMALL = Config(batch=16, k=3, heads=2, head_dim=4, recent=5)


def line(task, auc=0.5):
    return {**dataclasses.asdict(task), "seen_auc": auc, "title": MODELS[task.model].title}


def test_a_study_tunes_first_and_then_runs_every_seed_once():
    study = Study(("lic", "hour"), ("daily", "streaming"), 3, (1e-3, 1e-2))
    lines, order = [], []
    while task := next(study.open_tasks(lines), None):
        order.append(task)
        best = {"lic": 1e-2, "hour": 1e-3}[task.model]
        lines.append(line(task, 0.7 if task.learning_rate == best else 0.6))
    assert len(order) == len(set(order)) == len(study) == 2 * 2 * (2 * 3 + 3)
    for protocol, model in study.pairs():
        own = [task for task in order if (task.protocol, task.model) == (protocol, model)]
        tuning, runs = own[:6], own[6:]
        assert all(task.share == 0.4 for task in tuning)
        assert {(task.learning_rate, task.seed) for task in tuning} == set(
            itertools.product((1e-3, 1e-2), TUNING_SEEDS)
        )
        assert [task.seed for task in runs] == [0, 1, 2]
        assert {task.learning_rate for task in runs} == {{"lic": 1e-2, "hour": 1e-3}[model]}
    more = [{**lines[-1], "seed": 3}, {**lines[-1], "learning_rate": 1.0}]
    runs = [found for found in lines if found["share"] == 1.0]
    chosen = study.chosen(lines + more)
    assert [found for found in lines if found in chosen] == runs
    assert len(chosen) == len(runs)
    assert study.done(lines + more) == len(study)
    assert study.done(lines[:7]) == 7
    once = Study(("lic",), ("daily",), 2, (5e-3,))
    assert [task.share for task in once.open_tasks([])] == [1.0, 1.0]
    equal = [line(task) for task in study.tuning("daily", "lic")]
    assert study.best_rate("daily", "lic", equal) == 1e-3


def test_what_was_cut_off_is_run_again(tmp_path):
    results = Results(tmp_path, {"data": "small"})
    task = Task("daily", "lic", 0, 1e-2)
    results.append(line(task))
    whole = (tmp_path / "runs.jsonl").read_text()
    (tmp_path / "runs.jsonl").write_text(whole + whole[: len(whole) // 2])
    assert len(results.lines()) == 1
    results.append(line(dataclasses.replace(task, seed=1)))
    assert [found["seed"] for found in results.lines()] == [0, 1]
    assert Results(tmp_path, {"data": "other"}).lines() == []
    assert read_lines(tmp_path / "none.jsonl") == []


def test_means_and_their_confidence():
    mean = summary.Mean.of([1.0, 2.0, 3.0])
    assert mean.value == 2
    assert mean.half_width == pytest.approx(4.302652730 / 3**0.5)
    assert summary.Mean.of([0.25]).text(2) == "0.25"
    assert summary.Mean.of([1.0] * 12).half_width == 0
    ours = [{"seed": s, "seen_auc": 0.8 + s / 10} for s in range(3)]
    others = [{"seed": s, "seen_auc": 0.7 + s / 10} for s in (2, 1, 0)]
    lead = summary.difference(ours, others, "seen_auc")
    assert lead.value == pytest.approx(0.1)
    assert lead.half_width == pytest.approx(0, abs=1e-9)


@pytest.fixture(scope="module")
def tuned_run():
    events = stream(events=300)
    data = TrainingData.of(events, SMALL)
    run = Run.start(data, MODELS["hour"], SMALL)
    return run, data


def test_bias_by_hour_is_prediction_less_label(tuned_run):
    run, data = tuned_run
    run.scores[:] = torch.linspace(-2, 2, len(run.scores))
    found = bias_by_hour(run, data, 100)
    sums = {}
    for row, event in enumerate(data.candidates.event):
        if event >= 100:
            hour = int(data.stream.time[event] % 86400 // 3600)
            value = float(torch.sigmoid(run.scores[row].double())) - data.candidates.label[row]
            sums.setdefault(hour, []).append(value)
    for hour in range(24):
        expected = float(np.mean(sums[hour])) if hour in sums else None
        assert found[hour] == pytest.approx(expected) if expected is not None else True
        assert (found[hour] is None) == (expected is None)


def test_jumps_are_at_the_hours_edge(tuned_run):
    run, data = tuned_run
    with torch.no_grad():
        run.ranker.interest.hour.weight.mul_(100)
    edge, middle = jumps(run, data)
    assert edge > 0
    assert middle == 0
    smooth = Run.start(data, MODELS["lic"], SMALL)
    edge, middle = jumps(smooth, data)
    assert 0 < edge < 1e-2
    assert 0 < middle < 1e-2


@pytest.mark.parametrize("protocol", ["daily", "stream"])
def test_tuning_sees_nothing_of_what_is_counted(protocol):
    """The events behind the first part of the stream change no line of a run on that part."""
    events = stream(events=300)
    cut = 120
    later = np.random.default_rng(1).permutation(events.item[cut:])
    changed = dataclasses.replace(
        events,
        item=np.append(events.item[:cut], later),
        categories={"category": np.append(events.categories["category"][:cut], 1 + later % 3)},
    )
    task = Task("daily", "lic", TUNING_SEEDS[0], 1e-2, 0.4)
    config = dataclasses.replace(SMALL, protocol=protocol)
    lines = [run_task(task, data, config, 0.4) for data in (events, changed)]
    for one in lines:
        del one["seconds"]
    assert lines[0] == lines[1]


def test_the_command(tmp_path, capsys):
    """On a file of one's own: runs, goes on where it stopped, and reports; figures are those of the lines."""
    events = stream(events=200, days=3)
    file = tmp_path / "plays.csv"
    pd.DataFrame({"user": events.user, "item": events.item, "time": events.time}).to_csv(file)
    out = tmp_path / "out"
    models = "lic,no_time"
    words = ["--data", str(file), "--models", models, "--seeds", "2", "--learning-rates", "5e-3,2e-2",
             "--protocol", "streaming", "--k", "3", "--jobs", "2", "--quiet", "--out", str(out)]  # fmt: skip
    assert main(words) == 0
    printed = capsys.readouterr().out
    runs, tuning = (read_lines(out / f"{name}.jsonl") for name in ("runs", "tuning"))
    assert len(runs) == 2 * 2
    assert len(tuning) == 2 * 2 * 3
    for found in runs:
        assert found["data"] == "plays"
        assert found["settings"]["k"] == 3
        assert len(found["seen_auc_by_hour"]) == len(found["bias_by_hour"]) == 24
        assert found["ms_per_1000"] > 0
    for model, lines in itertools.groupby(runs, key=lambda found: found["model"]):
        mine = list(lines)
        tried = [t for t in tuning if t["model"] == model]
        low, high = (
            np.array([t["seen_auc"] for t in tried if t["learning_rate"] == rate])
            for rate in (5e-3, 2e-2)
        )
        error = np.std(high, ddof=1) / 3**0.5  # the smaller rate, unless it is worse by more
        best = 5e-3 if low.mean() >= high.mean() - error else 2e-2
        assert {found["learning_rate"] for found in mine} == {best}
    page = (out / "report.md").read_text()
    for row in report.table(runs, "streaming"):
        assert f"| {' | '.join(row)} |" in page
        assert f"| {' | '.join(row)} |" in printed
    for image in ("auc", "auc_by_hour", "bias_by_hour", "cost"):
        assert (out / f"streaming_{image}.png").stat().st_size > 0
        assert f"streaming_{image}.png" in page
    whole = (out / "report.html").read_text()
    assert f"report: {out / 'report.html'}" in printed
    assert whole.count("data:image/png;base64,") == 4

    before = (out / "runs.jsonl").read_text()
    (out / "runs.jsonl").write_text("\n".join(before.splitlines()[:-1]) + "\n")
    assert main(words) == 0
    again = read_lines(out / "runs.jsonl")
    timed = ("seconds", "ms_per_1000")
    assert sorted(_without(x, timed) for x in again) == sorted(_without(x, timed) for x in runs)


def test_settings_of_the_data_are_those_of_the_lines(tmp_path):
    """``--days``, ``--history``, ``--history-delay`` and the negatives' arguments reach the runs; others have other lines."""
    events = stream(events=200, days=3)
    file, out = tmp_path / "plays.csv", tmp_path / "out"
    pd.DataFrame({"user": events.user, "item": events.item, "time": events.time}).to_csv(file)
    words = ["--data", str(file), "--models", "no-time", "--seeds", "1", "--learning-rates", "5e-3", "--protocol", "daily",
             "--jobs", "1", "--quiet", "--out", str(out), "--days", "2"]  # fmt: skip
    more = [
        "--history",
        "9",
        "--history-delay",
        "60",
        "--negatives",
        "3",
        "--negatives-from",
        "own",
    ]
    assert main(words) == main([*words, *more]) == 0
    plain, changed = read_lines(out / "runs.jsonl")
    assert plain["events"] == changed["events"] == len(events.head(days=2)) < 200
    names = ("history", "history_delay", "negatives", "negatives_from")
    assert [plain["settings"][name] for name in names] == [None, 0, 4, "both"]
    assert [changed["settings"][name] for name in names] == [9, 60, 3, "own"]
    assert plain["seen_auc"] != changed["seen_auc"]


def _without(found, names):
    return json.dumps({key: value for key, value in found.items() if key not in names})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--models", "lic,nothing"], "unknown model 'nothing'; choose from lic"),
        (["--learning-rates", "fast"], "--learning-rates must be numbers"),
        (["--learning-rates", "0,1"], "--learning-rates must be positive, got 0"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--k", "0"], "--k must be at least 1, got 0"),
        (["--data", "none.csv"], "event file not found: none.csv"),
        (["--categories", "genre"], "--categories is of a FILE"),
        (["--negatives-from", "others"], "argument --negatives-from: invalid choice: 'others'"),
        (["--history-delay", "-1"], "--history-delay must not be negative, got -1"),
        (["--max-events", "0"], "no events are left: raise --days or --max-events"),
    ],
)
def test_mistakes_get_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
