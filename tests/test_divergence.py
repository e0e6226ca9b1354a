# SPDX-License-Identifier: Apache-2.0
"""A model that diverges ends there, is named, and takes nothing from the others of its comparison."""

from __future__ import annotations

import dataclasses
import json

import pandas as pd
import pytest
import torch
from streams import stream
from test_train import SMALL

from longclock.study.plan import Task, read_lines
from longclock.study.run import run_task
from longclock.train import results
from longclock.train.batches import TrainingData
from longclock.train.cli import main
from longclock.train.compare import Options, compare, run_model
from longclock.train.config import MODELS
from longclock.train.loop import Run

HOPELESS = dataclasses.replace(SMALL, learning_rate=1e30)


@pytest.fixture
def plays(tmp_path):
    events = stream(events=240)
    columns = {"user": events.user, "item": events.item, "time": events.time}
    pd.DataFrame({**columns, "category": events.categories["category"]}).to_csv(tmp_path / "plays.csv")  # fmt: skip
    return str(tmp_path / "plays.csv")


@pytest.mark.parametrize("protocol", ["daily", "stream"])
# What counts learns nothing, so that no learning rate can make it diverge.
@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].counts is None])
def test_every_model_ends_where_it_diverges(tmp_path, name, protocol):
    config = dataclasses.replace(HOPELESS, protocol=protocol)
    settings = MODELS[name].settings(config)
    data = TrainingData.of(stream(), settings, MODELS[name].shuffled_times)
    run = run_model(name, data, settings, Options(tmp_path, quiet=True), 100)
    found = results.measure(run, data, 100)
    first = data.candidates.first_row[found["diverged"]]
    assert run.scores[:first].isfinite().all()
    assert not run.scores[first].isfinite()
    assert [found[metric] for metric in results.METRICS] == [None] * 6
    assert found["silent_units"] is found["s_fall"] is None
    assert set(found["seen_auc_over_stream"]) == set(found["seen_auc_by_hour"]) == {None}
    json.dumps({**found, "s": results.similarity_curve(run, 86400)}, allow_nan=False)
    again = run_model(name, data, settings, Options(tmp_path, resume=True, quiet=True), 100)
    assert again.chunk == run.chunk
    torch.testing.assert_close(again.scores, run.scores, rtol=0, atol=0, equal_nan=True)


def test_scores_are_measured_as_one_whatever_is_not_finite():
    data = TrainingData.of(stream(events=60), SMALL)
    run = Run.start(data, MODELS["no-time"], SMALL)
    for value in (torch.nan, torch.inf, -torch.inf):
        run.scores[:] = torch.linspace(-1, 1, len(run.scores))
        assert results.measure(run, data, 0)["diverged"] is None
        run.scores[7] = value
        found = results.measure(run, data, 0)
        assert found["diverged"] == data.candidates.event[7]
        assert [found[metric] for metric in results.METRICS] == [None] * 6


def test_the_other_models_are_kept(tmp_path, capsys, monkeypatch):
    alone = compare(stream(), ["hour"], SMALL, Options(tmp_path / "alone", quiet=True))
    broken = dataclasses.replace(MODELS["no-time"], changes={"learning_rate": 1e30})
    monkeypatch.setitem(MODELS, "no-time", broken)
    both = compare(stream(), ["no-time", "hour"], SMALL, Options(tmp_path / "both", quiet=True))
    for metric in (*results.METRICS, "seen_auc_by_hour", "silent_units"):
        assert both["models"]["hour"][metric] == alone["models"]["hour"][metric]
    assert both["models"]["no-time"]["seen_auc"] is None
    assert both["interest"] == alone["interest"]
    event = both["models"]["no-time"]["diverged"]
    assert capsys.readouterr().err == (
        f"longclock.train: no-time diverged at event {event:,}: try a smaller --lr\n"
    )


@pytest.mark.parametrize("rate", ["1e6", "1e30"])
def test_a_comparison_of_diverged_models_is_reported(plays, tmp_path, capsys, rate):
    out = tmp_path / "out"
    words = ["--events", plays, "--models", "lic,no-time,hour", "--lr", rate, "--k", "3", "--out", str(out)]  # fmt: skip
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    found = json.loads((out / "results.json").read_text())["models"]
    page = (out / "report.html").read_text()
    assert any(model["diverged"] is not None for model in found.values())
    for model in found.values():
        if model["diverged"] is not None:
            text = f"diverged at event {model['diverged']:,}"
            assert text in page
            assert text in printed.out
    assert main([*words, "--resume"]) == 0
    assert json.loads((out / "results.json").read_text())["models"].keys() == found.keys()


def test_a_study_has_a_line_of_a_run_that_diverged(plays, tmp_path, capsys):
    from longclock.study.cli import main

    out = tmp_path / "out"
    words = ["--data", plays, "--models", "no-time,hour", "--seeds", "1", "--learning-rates", "1e30", "--jobs", "1",
             "--protocol", "daily", "--quiet", "--k", "3", "--out", str(out)]  # fmt: skip
    for _ in range(2):  # the second time there is nothing left to do
        assert main(words) == 0
        assert "diverged at event" in capsys.readouterr().out
        lines = read_lines(out / "runs.jsonl")
        assert [line["model"] for line in lines] == ["no-time", "hour"]
        assert all(line["seen_auc"] is None and line["diverged"] >= 0 for line in lines)
    page = (out / "report.md").read_text()
    assert "no time, seed 0, learning rate 1e+30: diverged at event" in page


def test_a_line_holds_no_number_that_json_has_not():
    line = run_task(Task("daily", "lic", 0, 1e30), stream(), HOPELESS, 0.4)
    json.dumps(line, allow_nan=False)
    assert line["diverged"] is not None
