# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run, verify what they time, and the pages show the committed figures. No timings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import harness, report  # noqa: E402
from bench.__main__ import OPS, main  # noqa: E402

COMMITTED = sorted((ROOT / "bench" / "results").glob("cpu*.json"))


def assert_complete(results: dict) -> None:
    assert results["machine"].keys() == {"cpu", "cores", "simd_level", "threads"}
    assert results["versions"]["torch"]
    assert {result["op"] for result in results["results"]} == set(OPS)
    for result in results["results"]:
        assert result["check"]["error"] <= result["check"]["allowed"]
        assert "reference" in result["ratio"]
        for timing in result["timings"].values():
            assert 0 < timing["min_ms"] <= timing["median_ms"]
            assert timing["repetitions"] >= 2
        if "read" in result["timings"]:
            assert result["of_read_bandwidth"] > 0
    cases = [(result["op"], result["case"]) for result in results["results"]]
    assert len(set(cases)) == len(cases)


def test_every_op_has_a_bench():
    ops = {path.name for path in (ROOT / "kernels").iterdir() if path.name != "common"}
    assert set(OPS) == ops


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "quick.json"
    assert main(["--quick", "--threads", "1", "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_quick_run_writes_complete_json(quick):
    assert_complete(quick)
    assert quick["machine"]["threads"] == 1
    assert quick["quick"] is True


def test_ops_can_be_chosen(tmp_path, capsys):
    path = tmp_path / "some.json"
    assert main(["circular_delta", "--quick", "--threads", "1", "--json", str(path)]) == 0
    assert {result["op"] for result in json.loads(path.read_text())["results"]} == {
        "circular_delta"
    }
    assert "clock_gsu" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clock"], "unknown op 'clock'; choose from block_topk, circular_delta"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
    ],
)
def test_mistakes_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_a_wrong_result_is_not_measured():
    def never():
        raise AssertionError("timed")

    for error in (1.0, float("inf"), float("nan")):
        wrong = harness.Check("the fp64 reference", error, 0.5)
        case = harness.Case("wrong", {}, {"longclock": never}, lambda wrong=wrong: wrong)
        with pytest.raises(harness.WrongResult, match="against the fp64 reference, allowed"):
            harness.measure(case, harness.QUICK)


def test_checks_see_wrong_results():
    from bench.checks import close, selection

    exact = torch.randn(3, 50, dtype=torch.float64)
    right = exact.float().topk(5)
    assert selection(right, exact, exact.float()).error < 1e-6
    second_best = exact.float().topk(6)
    dropped = type(right)((second_best.values[:, 1:], second_best.indices[:, 1:]))
    found = selection(dropped, exact, exact.float())
    assert found.error > found.allowed
    found = close(exact.float() + 1e-3, exact, exact.float())
    assert found.error > found.allowed
    found = close((exact.float(), exact.float() * torch.nan), (exact, exact), (exact, exact))
    assert found.error > found.allowed


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_figures_are_complete(path):
    results = json.loads(path.read_text())
    assert_complete(results)
    assert results["quick"] is False


@pytest.mark.parametrize("page", report.PAGES)
def test_pages_show_the_committed_figures(page):
    text = (ROOT / page).read_text()
    assert "<!-- begin: bench/results/cpu.json -->" in text
    assert report.updated(text, highlights_only=page == "README.md") == text
