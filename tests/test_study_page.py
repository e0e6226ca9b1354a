# SPDX-License-Identifier: Apache-2.0
"""A study's figures have intervals over seeds and one colour a model; its page is readable on a phone and in the dark."""

from __future__ import annotations

import html

import numpy as np
import pytest
from browser import CHROMIUM, NO_BROWSER, Visit, started
from matplotlib.colors import to_hex
from scipy.stats import t as student_t

from longclock.study import report

MODELS = ("lic", "no-time", "hour", "twin", "sdim", "sim-hard", "lic-week", "period-graph", "graph", "stca", "twin-v2")  # fmt: skip
SEEDS = 5


@pytest.fixture(scope="module")
def lines():
    """Eleven models, of which the figures by hour have room for eight."""
    rng = np.random.default_rng(0)
    return [
        {
            "data": "plays", "protocol": "daily", "model": model, "title": f"the {model}", "seed": seed, "learning_rate": 0.01, "share": 1.0,
            "seen_auc": 0.9 - 0.01 * place + 0.001 * rng.standard_normal(), "ms_per_1000": 2 + place + 0.1 * rng.random(),
            "seen_auc_by_hour": (0.8 + 0.01 * rng.random(24)).tolist(), "bias_by_hour": (0.01 * rng.random(24)).tolist(),
        }
        for place, model in enumerate(MODELS)
        for seed in range(SEEDS)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def figures(lines):
    return report.figures(lines, "daily")


def interval(lines, model, figure):
    values = np.array([line[figure] for line in lines if line["model"] == model])
    half = student_t.ppf(0.975, SEEDS - 1) * values.std(0, ddof=1) / SEEDS**0.5
    return values.mean(0) - half, values.mean(0) + half


def test_every_figure_has_intervals(lines, figures):
    best = MODELS  # as made, the best first
    for name, bars in (("auc", 1), ("cost", 2)):
        containers = figures[name].axes[0].containers
        assert len(containers) == len(best)
        for model, container in zip(best, containers, strict=True):
            drawn = [segments.get_segments()[0] for segments in container.lines[2]]
            assert len(drawn) == bars
            of_auc = drawn[0][:, 0] if name == "auc" else drawn[1][:, 1]
            np.testing.assert_allclose(of_auc, interval(lines, model, "seen_auc"))
            if name == "cost":
                np.testing.assert_allclose(drawn[0][:, 0], interval(lines, model, "ms_per_1000"))
    for name, figure in (("auc_by_hour", "seen_auc_by_hour"), ("bias_by_hour", "bias_by_hour")):
        (axes,) = figures[name].axes
        assert [line.get_label() for line in axes.lines] == [f"the {model}" for model in best[:8]]
        for model, band in zip(best, axes.collections, strict=False):
            low, high = interval(lines, model, figure)
            corners = band.get_paths()[0].vertices
            assert (corners[:, 1].min(), corners[:, 1].max()) == pytest.approx((low.min(), high.max()))  # fmt: skip


def test_a_model_has_one_colour(lines, figures):
    wanted = report.colours(lines)
    assert len(set(wanted.values())) == len(MODELS)
    shown = {}
    for name in ("auc", "cost"):
        containers = figures[name].axes[0].containers
        shown[name] = [to_hex(container.lines[0].get_color()) for container in containers]
    for name in ("auc_by_hour", "bias_by_hour"):
        shown[name] = [to_hex(line.get_color()) for line in figures[name].axes[0].lines]
    for colours in shown.values():
        assert colours == [wanted[model] for model in MODELS][: len(colours)]


def test_every_column_is_said_what_it_is(tmp_path, lines):
    figures = dict.fromkeys(report.COLUMNS, 0.5)
    full = [{**figures, **line} for line in lines]
    assert set(report.table(full, "daily")[0][1:]) == set(report.LEGEND)
    for given in (lines, full):
        report.write(given, tmp_path)
        for file in ("report.html", "report.md"):
            _, _, end = (tmp_path / file).read_text().partition("What the columns are</h2>" if file == "report.html" else "## What the columns are")  # fmt: skip
            end = html.unescape(end).replace("\\", "")
            for column, words in report.LEGEND.items():
                shown = column in report.table(given, "daily")[0]
                assert (f"{column}: {words}." in end) == shown, column


def test_a_learning_rate_is_said_to_be_chosen_where_it_was(lines):
    assert "learning rate was chosen of 0.01, 0.02 on what came before" in report.about(lines, (0.01, 0.02))  # fmt: skip
    assert "No learning rate was chosen: all models learn at 0.02." in report.about(lines, (0.02,))
    assert "chosen" not in report.about(lines)
    assert report.about(lines).startswith("5 seeds; ±")
    assert report.about(lines[:1]).startswith("One seed, which says nothing of others.")


@pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)
def test_the_page_on_a_phone_and_in_the_dark(tmp_path, lines):
    pytest.importorskip("playwright", reason="playwright is missing: pip install playwright")
    url = report.write(lines, tmp_path).as_uri()
    with started() as browser:
        for width, scheme, paper in ((375, "dark", "rgb(22, 22, 24)"), (1180, "light", "rgb(255, 255, 255)")):  # fmt: skip
            visit = Visit(browser, url, width, scheme)
            assert visit.page.evaluate("document.documentElement.scrollWidth") == width
            assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
            pictures = visit.page.eval_on_selector_all("img", "all => all.map(one => [one.naturalWidth > 0, one.alt])")  # fmt: skip
            assert pictures == [[True, name] for name in report.CAPTIONS]
            assert all(asked == url or asked.startswith("data:") for asked in visit.requests)
            visit.close()
