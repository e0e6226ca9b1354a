# SPDX-License-Identifier: Apache-2.0
"""The bench of what searches of rows in bytes find."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import int8_recall, report  # noqa: E402


def test_recall_by_hand() -> None:
    exact = torch.tensor([[4, 2, 0], [1, 5, -1], [-1, -1, -1]])
    found = torch.tensor([[0, 4, 9], [5, 1, -1], [-1, -1, -1]])
    torch.testing.assert_close(int8_recall.recall(exact, found), torch.tensor([2 / 3, 1.0, 1.0]))
    assert int8_recall.recall(exact, torch.full_like(found, -1)).tolist() == [0.0, 0.0, 1.0]


def test_figures_of_users() -> None:
    of_users = torch.tensor([[1.0, 1.0], [0.5, 1.0]])
    found = int8_recall.summary(of_users)
    assert (found["mean"], found["worst user"]) == (0.875, 0.75)
    assert 0.5 <= found["worst 1% of queries"] < 0.52


def test_a_look_at_recall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--quick", "--runs", "runs", "--json", "found.json"]
    assert int8_recall.main(given) == 0
    found = json.loads(Path("found.json").read_text())
    assert list(found["results"]) == [f"{data}, {scoring}" for data in int8_recall.DATA for scoring in int8_recall.SCORINGS]  # fmt: skip
    for figures in found["results"].values():
        assert figures["users"] > 0
        for shares in figures["ways"].values():
            assert 0.8 < shares["worst user"] <= shares["mean"] <= 1
    assert report.section(found).count("\n| ") == 2 + 4 * len(int8_recall.WAYS)
    assert int8_recall.main(given) == 0  # of the runs that are there
    assert json.loads(Path("found.json").read_text())["results"] == found["results"]


def test_what_was_asked_of_trained_models() -> None:
    """The committed figures, and where the page about serving has them."""
    path = ROOT / "bench" / "results" / "int8_recall.json"
    results = json.loads(path.read_text())["results"]
    asked = {"int8, bf16 query": 0.995, "int8, int8 query": 0.99}
    found = {way: [figures["ways"][way] for figures in results.values()] for way in asked}
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    for way, least in asked.items():
        means = [shares["mean"] for shares in found[way]]
        assert min(means) >= least
        assert min(shares["worst user"] for shares in found[way]) >= 0.985
        assert f"{100 * min(means):.2f} to {100 * max(means):.2f}%" in page
