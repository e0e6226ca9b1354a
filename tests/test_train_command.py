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
        (
            ["--models", "lic,clock"],
            "unknown model 'clock'; full-clock is near it; choose from lic, no-time",
        ),
        (["--model", "lic", "--models", "lic"], "exclude each other"),
        (["--k", "0"], "--k must be at least 1, got 0"),
        (["--warmup", "1"], "--warmup must be at least 0 and below 1"),
        (["--data-dir", "absent"], "was not found in absent"),
        (["--events", "absent.csv"], "event file not found: absent.csv"),
        (
            ["--data", "nycc"],
            "event file not found: nycc; nyc is near it; the examples are nyc, nycflights",
        ),
        (["--data", "musics"], "musics; music is near it; the examples are"),
        (
            ["--data", "music", "--max-events", "9", "--negatives-from", "own"],
            "--negatives-from is of events without labels, got music",
        ),
        (
            ["--data", "music", "--max-events", "9", "--negatives", "4"],
            "--negatives is of events without labels, got music",
        ),
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


def test_what_is_read_is_told_before_training(tmp_path, capsys):
    """Events, users, items, days, columns by the file's names, and what was left out; then that PyTorch is loaded."""
    rows = [f"{n % 3},{n % 4},{n % 5},{86400 * (n // 10)},Drama" for n in range(40)]
    path = tmp_path / "ratings.csv"
    path.write_text(
        "\n".join(["userId,movieId,rating,timestamp,genre", *rows[:20], "", *rows[20:]])
    )
    words = ["--events", str(path), "--columns", "user=userId,item=movieId", "--columns", "time=timestamp", "--categories", "genre"]  # fmt: skip
    assert main([*words, "--max-events", "30", "--models", "no-time", "--out", str(tmp_path / "out")]) == 0  # fmt: skip
    said = capsys.readouterr().err.replace("\r", "\n").split("\n")
    assert [line.removeprefix("longclock.train: ") for line in said if line.startswith("longclock.train: ")] == [
        f"reading {path} ...",
        "30 events of 3 users and 4 items, from 1970-01-01 to 1970-01-03",
        "columns read: user from userId, item from movieId, time from timestamp, genre as an attribute of the item",
        "columns not used: rating (what describes the item, and not how an event ended, is given by --categories)",
        "rows left out: blank lines of the file: 1, 10 of 40 events by --max-events 30",
        "loading PyTorch and preparing no-time ...",
    ]  # fmt: skip
    with pytest.raises(SystemExit):
        main([*words, "--columns", "user=genre"])
    assert "--columns must say once which column is the user, got 'userId' and 'genre'" in capsys.readouterr().err  # fmt: skip


@pytest.mark.parametrize("source", [False, True])
def test_too_few_events_for_a_figure_are_told(tmp_path, capsys, source):
    (tmp_path / "few.csv").write_text("user,item,time\n7,1193,10\n7,661,30\n8,1193,20\n")
    where = f"{'folder:' * source}{tmp_path / 'few.csv'}"
    words = ["--source" if source else "--events", where, "--models", "lic,no-time", "--quiet", "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(words) == 0
    told = "too few events: of 3, 2 are counted (those behind --warmup), and 1 of these have an item that occurred before; "
    assert told in capsys.readouterr().err
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize("source", [False, True])
def test_a_model_that_counts_has_no_seen_auc_anywhere(tmp_path, capsys, source):
    """Only the order of one event's candidates means anything: the bar says what the table says."""
    events = stream(events=120)
    path = tmp_path / "e.csv"
    pd.DataFrame({"user": events.user, "item": events.item, "time": events.time}).to_csv(path, index=False)  # fmt: skip
    where = ["--source", f"folder:{path}"] if source else ["--events", str(path)]
    assert main([*where, "--models", "counts", "--out", str(tmp_path / "out")]) == 0
    out, bar = capsys.readouterr()
    assert "seen AUC=0" not in bar
    assert out.splitlines()[1].split()[:2] == ["counts", "n/a"]
    found = json.loads((tmp_path / "out" / "results.json").read_text())["models"]["counts"]
    assert set(found["seen_auc_over_stream"]) | set(found["seen_auc_by_hour"]) == {None}
    if not source:
        assert f"seen AUC=n/a, own AUC={found['own_auc']:.4f}" in bar


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
