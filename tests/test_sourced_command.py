# SPDX-License-Identifier: Apache-2.0
"""``python -m longclock.train --source``: from an address to a report, and what it says of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet as pq
from sourced import events, table_of
from stores import NO_REDIS, REDIS_SERVER, RedisProcess

from longclock.data.sources import FolderSource, KafkaSource, open_source
from longclock.train.cli import main

SMALL = ["--quiet", "--k", "3", "--protocol", "stream"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = events(events=300)
    place = tmp_path / "days"
    place.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(300), 4)):
        pq.write_table(table_of(made).take(rows), place / f"{number}.parquet")
    return place


def test_from_an_address_to_a_report(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["--source", f"folder:{folder}", "--categories", "category", "--out", str(out), *SMALL]
    assert main(words) == 0
    assert "TWIN-like" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert list(results["models"]) == ["lic", "no-time", "hour", "twin"]
    data = results["data"]
    assert (data["events"], data["name"], data["counted_from_event"]) == (
        300,
        f"folder:{folder}",
        120,
    )
    assert results["config"]["history"] == 10_000
    assert results["config"]["popular"] == 1 << 20
    for model in results["models"].values():
        assert all(0 <= model[name] <= 1 for name in ("seen_auc", "own_auc", "auc"))
        assert model["seen_uauc"] is None
        assert len(model["seen_auc_over_stream"]) == data["days"] == 6
    page = (out / "report.html").read_text()
    assert "300 events of 6 users over 6 days" in page
    first = results["models"]["lic"]["seen_auc"]
    assert main([*words, "--resume", "--model", "lic"]) == 0
    assert json.loads((out / "results.json").read_text())["models"]["lic"]["seen_auc"] == first


def test_a_run_that_diverges(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--source",
        str(folder),
        "--out",
        str(tmp_path),
        "--lr",
        "1e30",
        "--model",
        "lic",
        *SMALL,
    ]
    assert main(words) == 0
    event = json.loads((tmp_path / "results.json").read_text())["models"]["lic"]["diverged"]
    assert 0 < event < 300
    assert f"lic diverged at event {event:,}: try a smaller --lr" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    again = json.loads((tmp_path / "results.json").read_text())["models"]["lic"]
    assert again["diverged"] == event
    assert again["seen_auc"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", "plays", "--data", "nyc"], "--data is of events that are all in memory: leave it out, or --source"),
        (["--source", "plays", "--max-events", "5"], "--max-events is of events that are all in memory"),
        (["--source", "absent"], "absent"),
        (["--source", "http://plays"], "address must be folder:path, a plain path, kafka://"),
        (["--source", "kafka://host"], "address must be folder:path, a plain path, kafka://"),
        (["--source", "redis://host"], "address must be folder:path, a plain path, kafka://"),
        (["--source", "plays", "--message-columns", "label"], "columns is of Kafka and Redis, got the path 'plays'"),
        (["--source", "plays", "--models", "interest-clock"], "--models interest-clock: it reads more of the past"),
        (["--source", "kafka://host/plays", "--follow"], "--follow: the first model never ends, got 4 models"),
        (["--source", "plays", "--popular", "0"], "--popular must be at least 1, got 0"),
        (["--source", "plays", "--device", "cuda"], "--device cuda is for events that are all in memory"),
        (["--popular", "5"], "--popular is of a source: give --source"),
        (["--follow"], "--follow is of a source: give --source"),
    ],
)  # fmt: skip
def test_mistakes_get_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_settings_that_do_not_fit(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--source", str(folder), "--out", str(tmp_path), "--model", "lic", *SMALL]
    with pytest.raises(SystemExit):
        main([*words, "--forget-days", "3", "--history-days", "4"])
    assert "--history-days must be from 1 to --forget-days = 3, got 4" in capsys.readouterr().err
    assert main([*words, "--forget-days", "3"]) == 0
    config = json.loads((tmp_path / "results.json").read_text())["config"]
    assert (config["forget_days"], config["history_days"]) == (3, 3)


def test_no_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(table_of(events())[:0], tmp_path / "none.parquet")
    with pytest.raises(SystemExit) as stop:
        main(["--source", str(tmp_path / "none.parquet"), "--out", str(tmp_path), *SMALL])
    assert stop.value.code == 2
    assert "event" in capsys.readouterr().err


def test_addresses(folder: Path) -> None:
    for address in (f"folder:{folder}", str(folder)):
        source = open_source(address, categories=["category"])
        assert isinstance(source, FolderSource)
        assert (source.path, source.categories) == (folder, ["category"])
    pytest.importorskip(
        "confluent_kafka", reason="confluent-kafka is missing: pip install confluent-kafka"
    )
    kafka = open_source("kafka://one:9092,two:9092/plays", columns=["label"], follow=True)
    assert isinstance(kafka, KafkaSource)
    assert (kafka.topic, kafka.follow) == ("plays", True)
    assert kafka._settings["bootstrap.servers"] == "one:9092,two:9092"
    assert "label" in kafka.messages.columns


@pytest.mark.skipif(REDIS_SERVER is None, reason=NO_REDIS)
def test_a_stream_of_redis(tmp_path: Path) -> None:
    """A second run goes on with entries that came after the first."""
    server, made = RedisProcess(), events(events=200)
    try:
        client = server.client()
        words = [
            "--source",
            f"{server.url}?stream=plays",
            "--model",
            "lic",
            "--out",
            str(tmp_path),
            *SMALL,
        ]
        for first, last in ((0, 120), (120, 200)):
            for number in range(first, last):
                client.xadd(
                    "plays",
                    {
                        "user": int(made.user[number]),
                        "item": int(made.item[number]),
                        "time": int(made.time[number]),
                    },
                )
            assert main([*words, "--resume"]) == 0
            found = json.loads((tmp_path / "results.json").read_text())["data"]
            assert found["events"] == last
            assert found["users"] == len(np.unique(made.user[:last]))
    finally:
        server.stop()
