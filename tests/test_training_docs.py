# SPDX-License-Identifier: Apache-2.0
"""The figures in docs/training.md are those of the committed results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longclock.train import report

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["demo_nyc", "music"])
def test_docs_show_the_committed_results(name):
    results = json.loads((ROOT / "examples" / "results" / f"{name}.json").read_text())
    page = (ROOT / "docs" / "training.md").read_text()
    for row in report.table(results):
        assert f"| {' | '.join(row)} |" in page


def test_demo_shows_the_clocks_gain():
    models = json.loads((ROOT / "examples" / "results" / "demo_nyc.json").read_text())["models"]
    auc = {name: model["auc"] for name, model in models.items()}
    for rival in ("no-time", "hour", "twin", "lic-shuffled"):
        assert auc["lic"] - auc[rival] >= 0.02
