# SPDX-License-Identifier: Apache-2.0
"""The figures in docs/training.md are those of the committed results."""

from __future__ import annotations

import json
from pathlib import Path

from longclock.train import report

ROOT = Path(__file__).parents[1]


def test_docs_show_the_committed_results():
    results = json.loads((ROOT / "examples" / "results" / "demo_nyc.json").read_text())
    page = (ROOT / "docs" / "training.md").read_text()
    for row in report.table(results):
        assert f"| {' | '.join(row)} |" in page
    assert report.warnings(results) == []


def test_demo_shows_the_clocks_gain():
    models = json.loads((ROOT / "examples" / "results" / "demo_nyc.json").read_text())["models"]
    auc = {name: model["seen_auc"] for name, model in models.items()}
    for rival in ("no-time", "hour", "twin", "lic-shuffled"):
        assert auc["lic"] - auc[rival] >= 0.02
