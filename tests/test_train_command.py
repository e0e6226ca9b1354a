# SPDX-License-Identifier: Apache-2.0
"""The command line of training: from events to a report, and what it says of mistakes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from streams import stream
from test_train import SMALL

from longclock.train import checkpoint, results
from longclock.train.batches import TrainingData
from longclock.train.cli import main
from longclock.train.compare import Options, run_model
from longclock.train.config import MODELS, USUAL
from longclock.train.loop import Run


def test_command_line_from_events_to_report(tmp_path, capsys):
    events = stream(events=300)
    frame = pd.DataFrame({"user": events.user, "item": events.item, "time": events.time})
    frame["category"] = [f"<kind {c}>" for c in events.categories["category"]]
    frame.to_csv(tmp_path / "mine.csv", index=False)
    out = tmp_path / "out"
    arguments = ["--events", str(tmp_path / "mine.csv"), "--out", str(out), "--quiet", "--k", "3"]
    assert main(arguments) == 0
    assert "LIC, shuffled times" in capsys.readouterr().out

    found = json.loads((out / "results.json").read_text())
    assert list(found["models"]) == list(USUAL)
    assert found["config"]["k"] == 3
    assert found["config"]["seed"] == 0
    assert found["data"]["events"] == 300
    assert found["versions"]["torch"] == torch.__version__
    assert found["command"].startswith("python -m longclock.train --events")
    for model in found["models"].values():
        assert all(0 <= model[name] <= 1 for name in ("seen_auc", "seen_uauc", "own_auc", "auc"))
        assert model["seen_auc_long"] is None  # no history is that long
        assert len(model["seen_auc_by_hour"]) == 24
        assert 0 <= model["silent_units"] <= 1
    assert len(found["models"]["lic"]["similarity"]["s"]) == 49
    assert found["models"]["twin"]["similarity"] is None
    interest = found["interest"]
    assert interest["by"] == "category"
    assert sorted(interest["names"]) == [f"<kind {kind}>" for kind in (1, 2, 3)]
    for item in interest["items"]:
        assert item["name"].startswith(interest["names"][item["group"]])
        assert len(item["probability"]) == 96

    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 7
    assert 'src="http' not in page
    assert "at the end of the stream, the mean over those of each category. Bars" in page
    assert sorted(path.stem for path in out.glob("*.png")) == [
        "by_hour", "clock", "comparison", "interest", "over_stream", "recall", "similarity",
    ]  # fmt: skip
    first = found["models"]["lic"]["seen_auc"]
    assert main([*arguments, "--resume", "--model", "lic"]) == 0
    assert json.loads((out / "results.json").read_text())["models"]["lic"]["seen_auc"] == first


@pytest.mark.parametrize("categories", ["none", "unknown", "two fields"])
def test_a_users_day_is_by_the_coarsest_category_or_by_item(categories):
    events = stream()
    two = {"category": 1 + events.item % 3, "artist": 1 + events.item % 6}
    given = {"none": {}, "unknown": {"category": 0 * events.item}, "two fields": two}[categories]
    events = dataclasses.replace(events, categories=given, category_sizes={})
    data = TrainingData.of(events, SMALL)
    interest = results.interest_over_a_day(Run.start(data, MODELS["no-time"], SMALL), data)
    own = events.item[events.user == interest["user"]]
    taken = [sum(item["events_by_hour"]) for item in interest["items"]]
    if categories == "two fields":
        assert interest["by"] == "category"
        assert sorted(interest["names"]) == ["category 1", "category 2", "category 3"]
        assert sum(taken) == len(own)  # few items: all are asked for
    else:
        assert interest["by"] == "item"
        assert interest["names"] == [item["name"] for item in interest["items"]]
        assert taken == sorted(np.bincount(own).tolist(), reverse=True)[:4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "lic,clock"], "unknown model 'clock'; choose from lic, no-time"),
        (["--model", "lic", "--models", "lic"], "exclude each other"),
        (["--k", "0"], "--k must be at least 1, got 0"),
        (["--warmup", "1"], "--warmup must be at least 0 and below 1"),
        (["--data-dir", "absent"], "was not found in absent"),
        (["--events", "absent.csv"], "event file not found: absent.csv"),
        (["--max-events", "0"], "no events are left"),
        (["--max-events", "-5"], "--max-events must not be negative"),
        (["--days", "-1"], "--days must not be negative"),
        (["--k", "2049"], "--k must be at most 2048, got 2049"),
        (["--categories", "genre"], "--categories is of a FILE"),
        (["--negatives-from", "others"], "argument --negatives-from: invalid choice: 'others'"),
        (["--history-delay", "-1"], "--history-delay must not be negative, got -1"),
        (["--data", "nyc", "--events", "mine.csv"], "--data and --events exclude each other"),
    ],
)
def test_mistakes_get_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_broken_checkpoint_gets_one_line(tmp_path, capsys):
    arguments = ["--max-events", "60", "--models", "lic, hour", "--quiet", "--out", str(tmp_path)]
    assert main(arguments) == 0
    path = tmp_path / "checkpoints" / "lic.safetensors"
    whole = path.read_bytes()
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    without_scores = {key: value for key, value in tensors.items() if key != "scores"}
    other_shape = {**tensors, "model.item.weight": torch.zeros(3, 2)}
    identity = metadata["identity"]
    broken = [
        b"not a checkpoint",
        b"",
        whole[: len(whole) // 2],
        save(tensors),
        checkpoint.packed(tensors, "{"),
        checkpoint.packed(without_scores, identity),
        checkpoint.packed(other_shape, identity),
        checkpoint.packed({**tensors, "scores": torch.zeros(7)}, identity),
    ]
    for content in broken:
        path.write_bytes(content)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--resume"])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert "lic.safetensors is not a checkpoint of longclock.train" in error
        assert error.count("\n") == 1


def test_more_items_than_the_checkpoint_knows_is_another_run(tmp_path):
    data = TrainingData.of(stream(events=60), SMALL)
    options = Options(tmp_path, resume=True, quiet=True)
    run_model("no-time", data, SMALL, options, 0)
    more = TrainingData.of(dataclasses.replace(data.stream, items=20), SMALL)
    with pytest.raises(ValueError, match="by a run with another numbers of ids: resume"):
        run_model("no-time", more, SMALL, options, 0)


def test_music_and_nyc_start(tmp_path):
    for data in ("nyc", "music"):
        arguments = ["--data", data, "--max-events", "200", "--model", "lic", "--quiet"]
        assert main([*arguments, "--out", str(tmp_path / data)]) == 0
