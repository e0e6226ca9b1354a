# SPDX-License-Identifier: Apache-2.0
"""Which learning rate a study takes, what it warns of, and what its table shows."""

from __future__ import annotations

import html
import math

import pytest

from longclock.study import report, summary
from longclock.study.plan import TUNING_SEEDS, Study
from longclock.train import report as train_report

RATES = (0.005, 0.01, 0.02)
STUDY = Study(("lic",), ("daily",), 3, RATES)
HEALTHY = {"silent_units": 0.89, "s_fall": 0.0, "diverged": None}


def tried(**scores):
    """Tuning lines, by rate: ``r01=[.6, .7, .8]`` is 0.01, a seed each."""
    rates = dict(zip(("r005", "r01", "r02"), RATES, strict=True))
    return [
        {"protocol": "daily", "model": "lic", "seed": seed, "learning_rate": rates[name], "share": 0.4, "seen_auc": value}
        for name, values in scores.items()
        for seed, value in zip(TUNING_SEEDS, values, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        # The best is 0.72 with a standard error of 0.0115: what reaches 0.7085 will do.
        (([0.7] * 3, [0.709] * 3, [0.70, 0.72, 0.74]), 0.01),
        (([0.709] * 3, [0.6] * 3, [0.70, 0.72, 0.74]), 0.005),
        (([0.708] * 3, [0.708] * 3, [0.70, 0.72, 0.74]), 0.02),
        # The error is the best one's, not that of the rate that is taken.
        (([0.4, 0.7, 0.99], [0.1] * 3, [0.72] * 3), 0.02),
        (([0.5] * 3, [0.8] * 3, [0.7] * 3), 0.01),
        (([0.7] * 3, [0.7] * 3, [0.7] * 3), 0.005),
        # A rate at which a run diverged is out, unless all are.
        (([0.9, 0.9, None], [0.6] * 3, [0.5] * 3), 0.01),
        (([None] * 3, [None, 0.9, 0.9], [0.5] * 3), 0.02),
        (([None, 0.9, 0.9], [0.9, None, 0.9], [0.9, 0.9, None]), 0.005),
        (([0.6] * 3, [0.6] * 3, [0.9, None, 0.9]), 0.005),
    ],
)  # fmt: skip
def test_the_smallest_rate_within_one_standard_error_of_the_best(scores, expected):
    lines = tried(**dict(zip(("r005", "r01", "r02"), scores, strict=True)))
    assert STUDY.best_rate("daily", "lic", lines) == expected
    assert STUDY.best_rate("daily", "lic", lines[::-1]) == expected
    others = [{**line, "model": "hour", "seen_auc": 0.99} for line in lines]
    others += [{**line, "seed": 0, "seen_auc": 0.99} for line in lines]
    others += [{**line, "share": 1.0, "seen_auc": 0.99} for line in lines]
    assert STUDY.best_rate("daily", "lic", others + lines) == expected


def test_the_threshold_is_one_standard_error():
    best = [0.70, 0.72, 0.74]
    error = 0.02 / math.sqrt(3)
    for distance, expected in ((0.999, 0.005), (1.001, 0.02)):
        lines = tried(r005=[0.72 - distance * error] * 3, r01=[0.1] * 3, r02=best)
        assert STUDY.best_rate("daily", "lic", lines) == expected


def test_no_rate_before_all_seeds_of_all_rates_are_there():
    lines = tried(r005=[0.7] * 3, r01=[0.6] * 3, r02=[0.5] * 3)
    for missing in range(len(lines)):
        some = lines[:missing] + lines[missing + 1 :]
        assert STUDY.best_rate("daily", "lic", some) is None
        (task,) = STUDY.open_tasks(some)
        assert (task.seed, task.learning_rate, task.share) == tuple(
            lines[missing][name] for name in ("seed", "learning_rate", "share")
        )
        assert STUDY.chosen(some) == []
    assert STUDY.best_rate("daily", "lic", []) is None
    assert STUDY.best_rate("daily", "lic", lines + lines) == 0.005


def runs(*scores, model="lic", **more):
    return [
        {"protocol": "daily", "model": model, "title": model.upper(), "seed": seed, "learning_rate": 0.01, "share": 1.0,
         "seen_auc": score, **HEALTHY, **more}
        for seed, score in enumerate(scores)
    ]  # fmt: skip


def test_healthy_runs_get_no_warning():
    lines = [*runs(0.70, 0.7199, 0.71), *runs(0.6, model="hour", s_fall=None)]
    assert report.warnings(lines, "daily") == []
    for line in lines:  # what a line need not have
        del line["silent_units"], line["s_fall"], line["diverged"]
    assert report.warnings(lines, "daily") == []
    assert report.warnings([], "daily") == []


def test_too_few_events_for_a_figure_are_told():
    (sentence,) = report.warnings([*runs(None, None), *runs(None, model="hour")], "daily")
    assert sentence.startswith("Too few events: ")
    assert report.warnings(runs(None, own_auc=0.6), "daily") == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"diverged": 1234, "seen_auc": None},
            "LIC, seed 1, learning rate 0.01: diverged at event 1,234; the means leave this run out.",
        ),
        (
            {"diverged": 0, "seen_auc": None},
            "LIC, seed 1, learning rate 0.01: diverged at event 0; the means leave this run out.",
        ),
        (
            {"silent_units": 0.9},
            "LIC, seed 1, learning rate 0.01: 90% of the tower's units answer to nothing any more; try a smaller --lr.",
        ),
        (
            {"s_fall": -0.5},
            "LIC, seed 1, learning rate 0.01: s rises with the distance in time of day, by 0.50 over half the clock.",
        ),
        (
            {"seen_auc": 0.7301},
            "LIC: seeds differ by 0.030 in seen AUC, 0.700 to 0.730; do not trust its mean.",
        ),
    ],
)
def test_every_kind_of_warning(change, sentence):
    lines = [*runs(0.70, 0.705, 0.71), *runs(0.6, 0.6, model="hour")]
    lines[1].update(change)
    assert report.warnings(lines, "daily") == [sentence]
    assert report.warnings(lines, "streaming") == []


def test_a_page_holds_its_warnings(tmp_path):
    lines = [{"data": "x", **line} for line in runs(0.7, 0.8, silent_units=1.0)]
    page = report.write(lines, tmp_path)
    assert page == tmp_path / "report.html"
    text, whole = (tmp_path / "report.md").read_text(), page.read_text()
    found = report.warnings(lines, "daily")
    assert len(found) == 3
    for sentence in found:
        assert report.escaped(sentence) in text
        assert html.escape(sentence) in whole


def model(title="LIC", **more):
    return {"title": title, "logloss": 0.4, **HEALTHY, **more}


def test_warnings_of_training():
    def warned(*models):
        return train_report.warnings({"models": dict(enumerate(models))})

    assert warned(model(), model(silent_units=None, s_fall=None)) == []
    assert warned(model(), model("hour", silent_units=0.9, s_fall=None)) == [
        "hour: 90% of the tower's units answer to nothing any more; try a smaller --lr."
    ]
    assert warned(model(silent_units=1.0, s_fall=-1.25)) == [
        "LIC: 100% of the tower's units answer to nothing any more; try a smaller --lr.",
        "LIC: s rises with the distance in time of day, by 1.25 over half the clock.",
    ]


def test_the_table_leaves_out_columns_without_figures():
    lines = [*runs(0.7, 0.71), *runs(0.6, 0.61, model="hour")]
    assert report.table(lines, "daily") == [
        ["model", "seen AUC", "LIC's lead", "seeds needed", "ms / 1,000", "learning rate"],
        ["LIC", "0.7050 ± 0.0635", "", "", "", "0.01"],
        ["HOUR", "0.6050 ± 0.0635", "0.1000 ± 0.0000", "2", "", "0.01"],
    ]
    counts = runs(None, None, model="counts", own_auc=0.9, ms_per_1000=1.26)
    head, *rows = report.table([*counts, *lines], "daily")
    assert head == ["model", "seen AUC", "LIC's lead", "seeds needed", "own AUC", "ms / 1,000", "learning rate"]  # fmt: skip
    assert rows[2] == ["COUNTS", "", "", "", "0.9000 ± 0.0000", "1.3", ""]
    assert [row[0] for row in rows] == ["LIC", "HOUR", "COUNTS"]  # by seen AUC, none last
    everything = {"seen_auc_long": 0.1, "own_auc": 0.2, "seen_uauc": 0.3, "auc": 0.4, "logloss": 0.5, "bias_swing": 0.6,
                  "jump": 0.7, "mid_hour_change": 0.8, "ms_per_1000": 0.9}  # fmt: skip
    head, row = report.table(runs(0.7, **everything), "daily")
    assert head == ["model", "seen AUC", "long histories", "own AUC", "seen UAUC", "AUC", "log loss", "bias swing",
                    "jump at the hour", "mid-hour", "ms / 1,000", "learning rate"]  # fmt: skip
    assert row == ["LIC", "0.7000", "0.1000", "0.2000", "0.3000", "0.4000", "0.5000", "0.600", "0.7000", "0.8000", "0.9", "0.01"]  # fmt: skip


@pytest.mark.parametrize(
    ("leads", "needed"),
    [
        # Their mean is 2 and their deviation 1.414: 4 seeds give 2 ± 2.25, 5 seeds 2 ± 1.76.
        ([1.0, 3.0], 5),
        ([-1.0, -3.0], 5),
        ([2.0, 2.0, 2.0], 2),
        ([-1.0, 1.01], None),
        ([0.0, 0.0], None),
        ([2.0], None),
        ([], None),
    ],
)
def test_seeds_that_tell_a_lead_from_nothing(leads, needed):
    assert summary.seeds_needed(leads) == needed


def test_a_lead_is_over_the_seeds_that_both_have():
    ours = runs(0.8, 0.9, None, 0.7)
    others = [*runs(0.7, 0.7, 0.7, None, model="hour")][::-1]
    assert summary.differences(ours, others, "seen_auc") == [pytest.approx(0.1), pytest.approx(0.2)]
    rows = report.table([*ours, *runs(0.79, 0.91, model="hour")], "daily")
    assert rows[1][3] == "over 100"  # HOUR: .01 behind, .01 ahead
    rows = report.table([*ours, *runs(0.7, model="hour")], "daily")
    assert rows[2][2:4] == ["0.1000", ""]


def test_models_are_in_order_of_seen_auc():
    lines = [*runs(0.6, auc=0.9), *runs(0.7, model="hour", auc=0.1)]
    assert [row[0] for row in report.table(lines, "daily")] == ["model", "HOUR", "LIC"]
