# SPDX-License-Identifier: Apache-2.0
"""Arguments of train and study: what is wrong is named in one line before anything is read or trained."""

from __future__ import annotations

import json

import pytest
from streams import stream

from longclock import info
from longclock.study import cli as study
from longclock.study.plan import TUNING_SEEDS
from longclock.train import arguments, cli

NOT_READ = ["--data", "absent.csv"]  # whose absence would be noticed first if it were read
BIG = "99999999999999999999"
BOTH = [
    (["--k", "0"], "--k must be at least 1, got 0"),
    (["--k", "2049"], "--k must be at most 2048, got 2049"),
    (["--k", "3.5"], "argument --k: invalid int value: '3.5'"),
    (["--k", "nan"], "argument --k: invalid int value: 'nan'"),
    (["--max-events", "-1"], "--max-events must not be negative, got -1"),
    (["--max-events", BIG], f"--max-events must be at most 2147483647, got {BIG}"),
    (["--models", ""], "--models must be names with commas between them, got ''"),
    (["--models", "lic,,hour"], "--models must be names with commas between them"),
    (["--models", " "], "--models must be names with commas between them, got ' '"),
    (["--models", "lic,LIC"], "--models: unknown model 'LIC'; lic is near it; choose from lic"),
    (["--categories", ""], "--categories must be names with commas between them, got ''"),
    (["--categories", "genre,,artist"], "--categories must be names with commas between them"),
    (["--events", "other.csv"], "--data and --events exclude each other"),
    (["--out", "/dev/null"], "--out must be a folder, but /dev/null is a file"),
    (["--out", "/dev/null/deeper"], "--out must be a folder, but /dev/null is a file"),
    (["--negatives", "1000000"], "--negatives must be at most 1000, got 1000000"),
    (["--negatives", "-1"], "--negatives must not be negative, got -1"),
    (
        ["--negatives-from", "others"],
        "argument --negatives-from: invalid choice: 'others' (choose from ",
    ),
    (["--history", "0"], "--history must be at least 1, got 0"),
    (["--history", BIG], f"--history must be at most 2147483647, got {BIG}"),
    (["--history-delay", "-1"], "--history-delay must not be negative, got -1"),
    (["--history-delay", BIG], f"--history-delay must be at most 2147483647, got {BIG}"),
    (["--days", BIG], f"--days must be at most 1000000, got {BIG}"),
    (["--days", "-1"], "--days must not be negative, got -1"),
    (["--device", "tpu"], "argument --device: invalid choice: 'tpu' (choose from "),
    (["--none"], "unrecognized arguments: --none"),
    (
        ["--columns", "user"],
        "--columns must be pairs such as user=userId with commas between them, got 'user'",
    ),
]
TRAIN = [
    *(([f"--lr={value}"], f"--lr must be a finite number, got {value}") for value in ("nan", "inf", "-inf")),
    (["--lr", "-1"], "--lr must be positive, got -1"),
    (["--lr", "0"], "--lr must be positive, got 0"),
    (["--lr", "1e-400"], "--lr must be positive, got 0"),
    (["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
    (["--seed", BIG], f"--seed must be at most 9223372036854775807, got {BIG}"),
    (["--seed", "-1"], "--seed must not be negative, got -1"),
    (["--period", "4000000000"], "--period must be at most 2147483647, got 4000000000"),
    (["--period", "0"], "--period must be at least 1, got 0"),
    (["--threads", "100000"], "--threads must be at most"),
    (["--threads", "0"], "--threads must be at least 1, got 0"),
    (["--batch", "0"], "--batch must be at least 1, got 0"),
    (["--batch", BIG], f"--batch must be at most 1000000, got {BIG}"),
    (["--warmup", "nan"], "--warmup must be at least 0 and below 1, got nan"),
    (["--warmup", "-0.1"], "--warmup must be at least 0 and below 1, got -0.1"),
    (["--checkpoint-seconds", "nan"], "--checkpoint-seconds must not be negative, got nan"),
    (["--checkpoint-seconds", "-1"], "--checkpoint-seconds must not be negative, got -1.0"),
    (["--model", ""], "--model must be names with commas between them, got ''"),
    (["--model", "none"], "--model: unknown model 'none'"),
    (["--model", "lic", "--models", ""], "--model and --models exclude each other"),
]  # fmt: skip
STUDY = [
    (["--learning-rates", "nan,0.01"], "--learning-rates must be a finite number, got nan"),
    (["--learning-rates", "0.01,inf"], "--learning-rates must be a finite number, got inf"),
    (["--learning-rates", "0.01,-1"], "--learning-rates must be positive, got -1"),
    (["--learning-rates", ""], "--learning-rates must be numbers with commas between them, got ''"),
    (["--learning-rates", "0.01,fast"], "--learning-rates must be numbers"),
    (["--seeds", "0"], "--seeds must be at least 1, got 0"),
    (["--seeds", "1001"], "--seeds must be at most 1000, got 1001"),  # tuning has the next ones
    (["--jobs", "0"], "--jobs must be at least 1, got 0"),
    (["--jobs", "100000"], "--jobs must be at most"),
]


@pytest.mark.parametrize(
    ("program", "words", "message"),
    [
        *(("train", *case) for case in BOTH + TRAIN),
        *(("study", *case) for case in BOTH + STUDY),
    ],
)
def test_a_mistake_gets_one_line_before_anything_is_read(program, words, message, capsys):
    main = {"train": cli.main, "study": study.main}[program]
    with pytest.raises(SystemExit) as stop:
        main([*NOT_READ, *words])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"longclock.{program}: ")
    assert said.count("\n") == 1
    assert message in said
    assert "absent.csv" not in said


def test_the_tuning_seeds_are_no_runs_seeds():
    assert len(set(TUNING_SEEDS)) == 3
    assert arguments.BOUNDS["seeds"][1] <= min(TUNING_SEEDS)


@pytest.mark.parametrize("program", [cli, study])
@pytest.mark.parametrize("words", ["no_time, lic ,no-time", "no-time,lic"])
def test_model_names_are_taken_alike(program, words):
    args = program.parser().parse_args(["--models", words])
    found = cli._names(args) if program is cli else program.study_of(args).models
    assert list(found) == ["no-time", "lic"]


@pytest.fixture
def plays(tmp_path):
    events = stream(events=80)
    rows = [f"{u},{i},{t},a{i % 3},b{i % 2},5" for u, i, t in zip(events.user, events.item, events.time, strict=True)]  # fmt: skip
    (tmp_path / "plays.csv").write_text(
        "user,item,time,genre,artist,rating\n" + "\n".join(rows) + "\n"
    )
    return tmp_path / "plays.csv"


@pytest.mark.parametrize("argument", ["--data", "--events"])
def test_columns_that_are_not_read_are_named(plays, tmp_path, argument, capsys):
    out = tmp_path / "out"
    words = [argument, str(plays), "--models", "no_time", "--quiet", "--out", str(out)]
    assert cli.main(words) == 0
    assert capsys.readouterr().err == (
        "longclock.train: columns not used: genre, artist, rating (what describes the item, and not how an event ended, is given "
        "by --categories)\n"
    )
    found = json.loads((out / "results.json").read_text())["data"]["unused_columns"]
    assert found == ["genre", "artist", "rating"]
    assert "Columns not used: genre, artist, rating" in (out / "report.html").read_text()
    assert cli.main([*words, "--categories", "genre , artist"]) == 0
    assert "columns not used: rating (" in capsys.readouterr().err


def test_a_study_takes_events_and_names_what_it_does_not_read(plays, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--events", str(plays), "--models", "no-time", "--quiet", "--out", str(out), "--seeds", "1", "--jobs", "1",
             "--protocol", "daily", "--learning-rates", "0.01", "--categories", "genre, artist"]  # fmt: skip
    assert study.main(words) == 0
    assert "columns not used: rating (what describes the item" in capsys.readouterr().err
    assert "Columns not used: rating" in (out / "report.md").read_text()


@pytest.mark.parametrize("main", [cli.main, study.main, info.main])
def test_help_is_help(main, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m longclock.")
    assert "%" not in text.replace("40% of", "")
    assert text.count("lic-attention") <= 1
