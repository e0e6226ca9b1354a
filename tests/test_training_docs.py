# SPDX-License-Identifier: Apache-2.0
"""The figures in docs/training.md are those of the committed results."""

from __future__ import annotations

import json
import statistics
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


@pytest.mark.parametrize("page", ["README.md", "docs/training.md"])
def test_pages_show_the_spread_over_seeds(page):
    text = (ROOT / page).read_text()
    models = json.loads((ROOT / "examples" / "results" / "demo_nyc_seeds.json").read_text())[
        "models"
    ]
    shown = {"README.md": ("lic", "hour"), "docs/training.md": tuple(models)}[page]
    for name in shown:
        auc = models[name]["auc"]
        assert models[name]["auc_mean"] == pytest.approx(statistics.mean(auc), abs=1e-6)
        assert f"{statistics.mean(auc):.3f} ± {statistics.stdev(auc):.3f}" in text
    for rival in ("no-time", "hour", "twin", "lic-shuffled"):  # at every seed
        pairs = zip(models["lic"]["auc"], models[rival]["auc"], strict=True)
        assert all(lic - other >= 0.02 for lic, other in pairs)
