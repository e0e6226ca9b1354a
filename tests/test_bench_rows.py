# SPDX-License-Identifier: Apache-2.0
"""The bench of searches where the rows live runs, checks what it times, and docs/scaling.md shows the committed figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.rows import main  # noqa: E402


def test_a_look(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    assert main(["--quick", "--json", str(path)]) == 0
    rivals = json.loads(path.read_text())["rivals"]
    assert list(rivals) == ["where the rows live", "rows come", "rows come, each once"]
    assert all(0 < one["min_ms"] <= one["median_ms"] for one in rivals.values())
    assert 0 < rivals["where the rows live"]["bytes"] < rivals["rows come"]["bytes"]


def test_the_page_shows_what_was_measured() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    committed = json.loads((ROOT / "bench" / "results" / "rows.json").read_text())
    rivals = committed["rivals"]
    ours = rivals["where the rows live"]
    for name, one in rivals.items():
        assert f"| {name} | {one['min_ms']:.0f} | {one['bytes'] / 1e6:.1f} |" in page
    assert rivals["rows come"]["min_ms"] >= 2 * ours["min_ms"]
    assert ours["bytes"] <= 0.1 * rivals["rows come"]["bytes"]
