# SPDX-License-Identifier: Apache-2.0
"""What docs/serving.md shows of stores works."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from longclock.store import DamagedHistoryError, open_store

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.store import TOGETHER, main, table  # noqa: E402

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## Histories in a store") :]


def blocks(kind):
    found = re.findall(rf"```{kind}\n(.*?)```", SECTION, re.DOTALL)
    assert len(found) == 1
    return found[0]


def test_the_store_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(blocks("python"), names)
    assert names["behaviours"].time.tolist() == [1_700_000_000]
    assert names["behaviours"].columns["seconds"].tolist() == [215]
    assert names["history"].offsets.tolist() == [0, 2, 3]
    names["store"].close()


def test_the_store_in_redis(redis_server):
    names: dict[str, object] = {"open_store": open_store}
    client = redis_server.client()
    client.config_set("requirepass", "secret")
    try:
        exec(blocks("py").replace("redis://localhost:6379", redis_server.url), names)
    finally:
        client.config_set("requirepass", "")
    assert names["store"].durable is True
    names["store"].close()


def test_the_message():
    error = DamagedHistoryError("SQLiteStore", "ada", 1_700_000_000, "its checksum is wrong")
    assert blocks("text").replace("\n", " ").strip() == f"DamagedHistoryError: {error}"


def test_the_figures_are_the_committed_ones():
    results = json.loads((ROOT / "bench" / "results" / "store.json").read_text(encoding="utf-8"))
    for row in table(results):
        assert row in SECTION
    for name in ("SQLite", "Redis"):
        found = results[name]
        assert found["appends_a_second"][f"1 caller, {TOGETHER} a call"]["median"] >= 2_000
        assert found["bytes_an_append"]["in order"] <= 16_384


def test_the_bench_runs(redis_server, tmp_path, monkeypatch, capsys):
    path = tmp_path / "store.json"
    words = ["bench.store", "--quick", "--redis", redis_server.url, "--folder", str(tmp_path), "--json", str(path)]  # fmt: skip
    monkeypatch.setattr(sys, "argv", words)
    assert main() == 0
    assert len(table(json.loads(path.read_text(encoding="utf-8")))) == 10
    assert "callers together over one" in capsys.readouterr().out
