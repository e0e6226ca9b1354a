# SPDX-License-Identifier: Apache-2.0
"""Benches of their own run with tiny sizes."""

from __future__ import annotations

import json


def test_the_bench_of_int8_rows_runs(tmp_path, capsys):
    from bench import int8_search

    assert int8_search.main(["--quick", "--json", str(tmp_path / "int8.json")]) == 0
    results = json.loads((tmp_path / "int8.json").read_text())["results"]
    assert list(results) == ["C = 1, D = 16", "C = 20, D = 16"]
    assert all(list(figures["ms"]) == list(int8_search.WAYS) for figures in results.values())
    assert capsys.readouterr().out.count("ms") >= 10


def test_the_bench_of_many_items_runs(tmp_path, capsys):
    from bench import many_items

    assert many_items.main(["--quick", "--json", str(tmp_path / "many_items.json")]) == 0
    results = json.loads((tmp_path / "many_items.json").read_text())["results"]
    assert list(results) == ["lazy-adam", "rowwise-adagrad"]
    for figures in results.values():
        assert all(ms > 0 for what in ("step", "rows") for ms in figures[what].values())
    assert capsys.readouterr().out.count("times as long") == 2


def test_the_bench_of_a_source_runs(tmp_path, capsys):
    from bench import sourced

    words = ["--quick", "--folder", str(tmp_path), "--json", str(tmp_path / "sourced.json")]
    assert sourced.main(words) == 0
    written = json.loads((tmp_path / "sourced.json").read_text())
    assert list(written["sourced"]) == list(sourced.PARTS)
    for found, events in zip(written["sourced"].values(), (3000, 1000, 1000), strict=True):
        assert found["events"] >= events
        assert found["kept"] == found["events"]
        assert found["users"] == 50
        assert 0 < found["before_mb"] <= found["peak_mb"]
        assert found["processor_seconds"] > 0
    assert written["sourced"]["trainer"]["points"][-1][0] >= 1000
    assert capsys.readouterr().out.count("of processor time") == 3
    assert [path.name for path in tmp_path.iterdir()] == [
        "sourced.json"
    ]  # files and checkpoint are gone
