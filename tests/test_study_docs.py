# SPDX-License-Identifier: Apache-2.0
"""The tables in docs/study.md are those of the committed lines, and the lines show what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from longclock.study import report, summary
from longclock.study.plan import read_lines

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
TABLES = re.findall(r"<!-- (\w+) (\w+) (\w+) -->\n((?:\|.*\n)*)", PAGE)


def lines_of(data, kind="all"):
    """Runs on a data set: of the rivals, LIC among them, or of LIC and its variants."""
    lines = read_lines(ROOT / "examples" / "results" / "study" / data / "runs.jsonl")
    assert lines
    is_variant = {line["model"]: line["model"].startswith("lic-") for line in lines}
    is_variant["lic-shuffled"] = False
    wanted = {"all": (True, False), "rivals": (False,), "variants": (True,)}[kind]
    return [x for x in lines if x["model"] == "lic" or is_variant[x["model"]] in wanted]


@pytest.mark.parametrize(("data", "protocol", "kind", "table"), TABLES)
def test_tables_are_the_committed_lines(data, protocol, kind, table):
    assert table == report.markdown(report.table(lines_of(data, kind), protocol))


def test_every_table_is_there():
    found = {table[:3] for table in TABLES}
    assert found == {
        ("nyc", "daily", "rivals"), ("nyc", "streaming", "rivals"), ("nyc", "batches", "rivals"),
        ("nyc", "daily", "variants"), ("music", "daily", "rivals"),
    }  # fmt: skip


@pytest.mark.parametrize("protocol", ["daily", "streaming"])
def test_the_clock_leads(protocol):
    models = summary.by_model(lines_of("nyc"), protocol)
    lic = models["lic"]
    assert len(lic) == 3
    for rival in ("hour", "interest-clock", "twin-hour"):
        lead = summary.difference(lic, models[rival], "auc")
        assert lead.value - lead.half_width >= 0.015
    trial = {"daily": 0.8876, "streaming": 0.8763}[protocol]
    assert summary.mean_of(lic, "auc").value >= trial
    shuffled = summary.difference(models["lic-shuffled"], models["twin"], "auc")
    assert abs(shuffled.value) <= 0.01
    jumps = {name: summary.mean_of(models[name], "jump").value for name in models}
    assert jumps["lic"] < 0.003
    assert jumps["hour"] > 0.01
    assert jumps["twin-hour"] > 0.01


def test_music_shows_no_time_of_day():
    models = summary.by_model(lines_of("music"), "daily")
    aucs = {name: summary.mean_of(models[name], "auc").value for name in models}
    assert abs(aucs["lic"] - aucs["lic-shuffled"]) < 0.005


def test_the_readme_shows_its_figures():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    leads = []
    for protocol, how in (("daily", "day by day"), ("streaming", "hour by hour")):
        models = summary.by_model(lines_of("nyc"), protocol)
        lic = models["lic"]
        assert f"{summary.mean_of(lic, 'auc').text()} {how}" in text
        for rival in ("hour", "interest-clock", "twin-hour"):
            leads.append(summary.difference(lic, models[rival], "auc").value)
        graph = summary.difference(lic, models["period-graph"], "auc").value
        assert f"{graph:.4f}" in text
        ahead = [m for m in models if m not in ("lic", "full-clock") and not m.startswith("lic-")]
        assert ahead[0] == "period-graph"
    assert f"{min(leads):.3f} to {max(leads):.3f} above" in text
