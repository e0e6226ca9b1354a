# SPDX-License-Identifier: Apache-2.0
"""The pages' tables are those of the committed lines, and the lines show what the pages say."""

from __future__ import annotations

import importlib.util
import re
import statistics
from pathlib import Path

import pytest

from longclock.study import summary
from longclock.study.plan import read_lines

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = ROOT / "examples" / "results" / "study"
LONG = ("nycflights", "bikeshare14-home", "bikeshare14")
SINCE_2024 = ("stca", "twin-v2", "hstu", "transact-v2")

spec = importlib.util.spec_from_file_location("build_study", ROOT / "docs" / "build_study.py")
assert spec is not None
assert spec.loader is not None
build_study = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build_study)


def models_of(data, protocol="daily"):
    return summary.by_model(build_study.lines_of(data, "rivals"), protocol)


def leads(data, rival, figure="seen_auc", protocol="daily"):
    models = models_of(data, protocol)
    return summary.differences(models["lic"], models[rival], figure)


def test_tables_are_the_committed_lines():
    assert build_study.page() == PAGE, "run docs/build_study.py"


def test_every_table_is_there():
    found = [match[2] or match.group(3, 4, 5) for match in build_study.TABLE.finditer(PAGE)]
    rivals = {(data, "daily", "rivals") for data in ("nyc-60-days", "nyc", *LONG)}
    more = {("nyc-60-days", "daily", "variants"), ("nyc", "streaming", "rivals"),
            ("music", "batches", "rivals"), ("nycflights-all", "daily", "short"),
            ("bikeshare14-home-all", "daily", "short"), ("music-12k", "batches", "cost")}  # fmt: skip
    more |= {(f"{data}-12k", "daily", "cost") for data in LONG}
    wanted = ["rates", "own", "taught", "optimizers", *more, *rivals]
    assert sorted(map(str, found)) == sorted(map(str, wanted))  # each once


@pytest.mark.parametrize("data", ["nyc-60-days", "nyc", *LONG])
def test_lic_is_stable_over_seeds_and_ahead_in_each(data):
    lic = models_of(data)["lic"]
    assert len(lic) >= 5
    assert statistics.stdev(line["seen_auc"] for line in lic) <= 0.003
    for rival in ("twin", "no-time", "hour", "lic-shuffled"):
        values = leads(data, rival)
        assert len(values) >= 5
        assert min(values) > 0


@pytest.mark.parametrize("data", ["nyc-60-days", *LONG])
def test_lic_is_stable_from_half_to_twice_the_rate(data):
    found = {}
    for line in [*models_of(data)["lic"], *read_lines(LINES / data / "rates.jsonl")]:
        found.setdefault(line["learning_rate"], []).append(line["seen_auc"])
    assert set(found) == {0.01, 0.02, 0.04}
    means = [statistics.mean(values) for values in found.values()]
    assert max(means) - min(means) <= 0.010
    assert all(len(values) >= 3 and statistics.stdev(values) <= 0.003 for values in found.values())


@pytest.mark.parametrize(("data", "least"), [("nycflights", 0.05), ("bikeshare14-home", 0.02)])
@pytest.mark.parametrize("rival", ["hour", "interest-clock", "twin-hour"])
def test_the_clock_leads_on_long_histories(data, least, rival):
    for figure in ("seen_auc", "seen_auc_long"):
        values = leads(data, rival, figure)
        assert len(values) >= 5
        assert statistics.mean(values) >= least


@pytest.mark.parametrize(
    ("data", "least"), [("nycflights-all", 0.05), ("bikeshare14-home-all", 0.02)]
)
def test_the_clock_leads_on_all_of_a_stream(data, least):
    assert statistics.mean(leads(data, "hour")) >= least
    assert min(leads(data, "hour", "seen_auc_long")) > 0


def test_the_check_ins():
    models = models_of("nyc-60-days")
    assert statistics.mean(line["seen_auc"] for line in models["lic"]) >= 0.855
    jumps = {name: summary.mean_of(runs, "jump").value for name, runs in models.items()}
    middle = summary.mean_of(models["lic"], "mid_hour_change").value
    assert jumps["lic"] == pytest.approx(middle, rel=0.05)  # no more than in mid-hour
    assert jumps["hour"] > 5 * jumps["lic"]
    for rival in ("hour", "interest-clock"):
        lead = summary.Mean.of(leads("nyc", rival))
        assert lead.value - lead.half_width >= 0.015


@pytest.mark.parametrize("protocol", ["daily", "streaming"])
def test_lic_leads_every_rival_on_all_check_ins(protocol):
    models = models_of("nyc", protocol)
    assert len(models) == 10
    for rival in set(models) - {"lic"}:
        values = leads("nyc", rival, protocol=protocol)
        assert len(values) == 5
        assert min(values) > 0


def test_the_clock_gains_nothing_on_the_plays():
    """What counts what was liked is ahead of all others there, but not within a listener."""
    models = models_of("music", "batches")
    means = {name: summary.mean_of(runs, "seen_auc").value for name, runs in models.items()}
    within = {name: summary.mean_of(runs, "seen_uauc").value for name, runs in models.items()}
    counting = ("interest-clock", "interest-clock-positives")
    counts = [means.pop(name) for name in counting]
    assert max(within.pop(name) for name in counting) < min(within.values()) - 0.014
    assert not re.search("nobody gains|no model gains", PAGE + README)
    assert len(means) == 5
    assert max(means.values()) - min(means.values()) <= 0.0015
    assert min(counts) > max(means.values()) + 0.02
    assert max(counts) - min(counts) <= 0.001


@pytest.mark.parametrize("data", ["nyc-60-days", *(f"{data}-12k" for data in LONG)])
def test_the_rivals_since_2024(data):
    for rival in SINCE_2024:
        values = leads(data, rival)
        assert len(values) == 5
        assert min(values) > 0
        assert statistics.mean(values) >= 0.034
    stack = leads(data, "lic-stack")
    assert len(stack) == 5
    assert 0 <= statistics.mean(stack) <= 0.0032
    models = models_of(data)
    gain = statistics.mean(summary.differences(models["lic-stack"], models["stca"], "seen_auc"))
    assert 0.039 <= gain <= 0.197


def test_the_interest_clock_leads_on_the_plays():
    models = models_of("music-12k", "batches")
    assert set(SINCE_2024) < set(models)
    best = max(models, key=lambda name: summary.mean_of(models[name], "seen_auc").value)
    assert best == "interest-clock"
    assert all(len(runs) == 5 for runs in models.values())


def test_lic_is_not_behind_what_counts_on_the_clock():
    rows = build_study.own()[1:]
    assert len(rows) >= 2
    for row in rows:
        assert float(row[-1]) >= -0.010


@pytest.mark.parametrize("data", ["bikeshare14-home", "nyc"])
def test_a_taught_search_finds_more(data):
    """Most where the search is not the attention's mean, next to nothing for LIC; and no model pays for it."""
    found = build_study.by_setting("taught", "search_loss")
    for model, least in (("lic-literal", 0.01), ("sim-soft", 0.05), ("twin", 0.0), ("lic", -0.001)):
        plain, taught = (found[data, model][weight] for weight in (0.0, 0.1))
        gains = summary.differences(taught, plain, "recall_of_attention")
        assert len(gains) == 3
        assert statistics.mean(gains) >= least
        assert model != "lic" or max(gains) <= 0.006
        assert statistics.mean(summary.differences(taught, plain, "seen_auc")) >= -0.001
