# SPDX-License-Identifier: Apache-2.0
"""A study's lines: each run counts once, odd lines are left out with a word, none is lost on a full disk."""

from __future__ import annotations

import json

import pytest
from scipy.stats import norm

from longclock.study import plan, report, summary
from longclock.study.plan import Results, Study, Task

FIGURES = ("seen_uauc", "seen_auc_long", "own_auc", "auc", "logloss", "silent_units", "s_fall")
STUDY = Study(("lic",), ("daily",), 3, (0.01,))


def line(seed=0, auc=0.5, **more):
    return {"protocol": "daily", "model": "lic", "seed": seed, "learning_rate": 0.01, "share": 1.0, "seen_auc": auc, **more}  # fmt: skip


def test_a_run_that_is_there_twice_counts_once(tmp_path):
    said = []
    one, two = (Results(tmp_path, {"data": "x"}, said.append) for _ in range(2))
    for seed, auc in enumerate((0.58, 0.55, 0.54)):
        one.append(line(seed, auc))
        two.append(line(seed, auc))
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 6
    assert [found["seed"] for found in one.lines()] == [0, 1, 2]
    doubled = plan.read_lines(tmp_path / "runs.jsonl")
    chosen = STUDY.chosen(doubled)
    assert len(chosen) == 3 == STUDY.done(doubled)
    assert summary.mean_of(chosen, "seen_auc") == summary.Mean.of([0.58, 0.55, 0.54])
    assert said == []


def test_of_runs_that_differ_the_first_counts_and_it_is_said(tmp_path):
    said = []
    results = Results(tmp_path, {"data": "x"}, said.append)
    for auc in (0.5, 0.6, None):
        results.append(line(auc=auc))
    assert [found["seen_auc"] for found in results.lines() + results.lines()] == [0.5, 0.5]
    path = tmp_path / "runs.jsonl"
    assert said == [
        f"{path}: line {n} repeats a run with another AUC: the first counts" for n in (2, 3)
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("null", "it is no object"),
        ("17", "it is no object"),
        ("[1, 2]", "it is no object"),
        ('"text"', "it is no object"),
        ("{}", "protocol is missing"),
        (json.dumps(line())[:-9], "it is cut off, or not JSON"),
        ("[" * 100_000, "it is cut off, or not JSON"),
        (json.dumps(line(auc=float("nan"))), "seen_auc is no finite number"),
        (json.dumps(line(auc=float("inf"))), "seen_auc is no finite number"),
        (json.dumps(line(auc="0.5")), "seen_auc is no finite number"),
        (json.dumps(line(seed=None)), "seed is null"),
        (json.dumps(line(seed=True)), "seed is true"),
        *((json.dumps({**line(), name: [1]}), f"{name} is no finite number") for name in FIGURES),
        (json.dumps(line(title=None)), "title is no text"),
        (
            json.dumps(line(seen_auc_by_hour=[0.5] * 23)),
            "seen_auc_by_hour is not 24 finite numbers",
        ),
        (json.dumps(line(bias_by_hour=None)), "bias_by_hour is not 24 finite numbers"),
        (b"\xff\xfe{}", "it is cut off, or not JSON"),
    ],
)
def test_odd_lines_are_left_out_with_a_word(tmp_path, text, reason):
    content = text if isinstance(text, bytes) else text.encode()
    path = tmp_path / "runs.jsonl"
    path.write_bytes(content + b"\n" + json.dumps({"data": "x", **line(1)}).encode() + b"\n")
    said = []
    results = Results(tmp_path, {"data": "x"}, said.append)
    assert [found["seed"] for found in results.lines() + results.lines()] == [1, 1]
    assert said == [f"{path}: line 1 is left out: {reason}"]


def test_a_line_without_seen_auc_counts_once_and_in_no_mean(tmp_path):
    results = Results(tmp_path, {"data": "x"})
    for seed in (0, 0, 1):
        results.append({name: value for name, value in line(seed).items() if name != "seen_auc"})
    found = STUDY.chosen(results.lines())
    assert [x["seed"] for x in found] == [0, 1]
    assert summary.mean_of(found, "seen_auc") is None
    assert report.warnings(found, "daily") == []


def test_a_report_needs_no_more_than_a_task_and_its_auc(tmp_path):
    lines = [{"data": "x", **line(seed, 0.5 + seed / 10)} for seed in range(2)]
    report.write(lines, tmp_path)
    assert "| lic | 0.5500" in (tmp_path / "report.md").read_text()


def test_a_full_disk_loses_no_run(tmp_path, monkeypatch):
    said = []
    results = Results(tmp_path, {"data": "x"}, said.append)

    def full(path, text):
        raise OSError(28, "No space left on device")

    append = plan.append_line
    monkeypatch.setattr(plan, "append_line", full)
    for seed in range(2):
        results.append(line(seed))
    assert [found["seed"] for found in results.lines()] == [0, 1]
    assert not results.save()
    path = tmp_path / "runs.jsonl"
    assert said == [
        f"{path} cannot be written: No space left on device; the study goes on and tries again"
    ]
    monkeypatch.setattr(plan, "append_line", append)
    results.append(line(2))
    assert results.save()
    assert [found["seed"] for found in plan.read_lines(path)] == [0, 1, 2]


def test_a_run_that_diverged_is_done_and_counts_in_no_mean():
    lines = [line(0, 0.6, title="LIC"), line(1, None, title="LIC", diverged=17), line(2, 0.8)]
    assert list(STUDY.open_tasks(lines)) == []
    assert summary.mean_of(lines, "seen_auc") == summary.Mean.of([0.6, 0.8])
    assert report.warnings(lines, "daily") == [
        "LIC, seed 1, learning rate 0.01: diverged at event 17; the means leave this run out.",
        "LIC: seeds differ by 0.200 in seen AUC, 0.600 to 0.800; do not trust its mean.",
    ]
    tuned = Study(("lic",), ("daily",), 1, (0.01, 1.0))
    tried = [{**line(seed, auc, share=0.4), "learning_rate": rate}
             for rate, auc in ((0.01, None), (1.0, 0.5)) for seed in plan.TUNING_SEEDS]  # fmt: skip
    assert tuned.best_rate("daily", "lic", tried) == 1.0
    assert list(tuned.open_tasks(tried)) == [Task("daily", "lic", 0, 1.0)]


@pytest.mark.parametrize(
    ("count", "quantile"), [(2, 12.7062), (10, 2.2622), (11, 2.2281), (31, 2.0423), (1001, 1.9623)]
)
def test_intervals_are_students_at_every_number_of_seeds(count, quantile):
    values = [float(i % 2) for i in range(count)]
    spread = summary.statistics.stdev(values) / count**0.5
    half = summary.Mean.of(values).half_width
    assert half == pytest.approx(quantile * spread, rel=1e-4)
    assert half > norm.ppf(0.975) * spread
