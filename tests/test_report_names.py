# SPDX-License-Identifier: Apache-2.0
"""Names of files, items and models come into figures and pages as they are, whatever they hold."""

from __future__ import annotations

import json
import warnings

import pytest
from matplotlib.figure import Figure
from streams import stream

from longclock.plot import style
from longclock.study import report as study_report
from longclock.train import report
from longclock.train.cli import main
from longclock.train.results import METRICS

NAMES = [
    "$", "$$", "$$$", r"costs $\x$ a piece", r"\frac{", r"a\$b$", "_private", "__none__", "", " ", "<b>&amp;</b>", "a\nb\tc",
    "{braces}", "%s %d", "x" * 100_000, "\udcff", "\x00\x1b[31m", "^{_{", "\\", "$_$",
]  # fmt: skip


def drawn(text, legend=True):
    """The name, drawn at every place that a figure has for it."""
    axes = Figure().add_subplot()
    axes.plot([1, 2], label=text)
    axes.plot([2, 1], label="other")
    axes.set_title(text)
    axes.set_xlabel(text)
    axes.set_yticks([1], [text])
    axes.annotate(text, (1, 1))
    shown = axes.legend()
    report.png(axes.figure)
    return shown.get_texts()


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_is_drawn_as_it_is(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "No artists with labels", missing glyphs
        texts = drawn(style.plain(name))
    assert len(texts) == 2  # none is left out of the legend
    assert len(style.plain(name)) <= 2 * 40


def test_what_is_shown_is_the_name():
    assert style.plain("Coffee Shop (12)") == "Coffee Shop (12)"
    assert style.plain("$5 \\$ 6$") == r"\$5 \\$ 6\$"  # each dollar escaped
    assert style.plain("_x").lstrip(style.ZERO_WIDTH) == "_x"
    assert style.plain("a\n b") == "a b"
    assert style.plain("abcdef", 4) == "abc…"


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_report_takes_any_name(tmp_path, name):
    results = {
        "command": f"train {name}", "seconds": 1.0, "threads": 1, "versions": {}, "config": {"protocol": name, "negatives_from": "both", "k": 2},
        "data": {"name": name, "events": 9, "users": 2, "days": 1, "items": 3, "candidates": 9, "labels": "real", "repeats": 0.5, "negatives_repeated": 0.25, "counted_new_items": 0.1,
                 "history_median": 1, "history_longest": 2, "counted_from_event": 3, "unused_columns": [name]},
        "models": {"m": {"title": name, **dict.fromkeys(METRICS, 0.5), "silent_units": 1.0, "s_fall": -1.0, "events_per_second": 1.0, "seconds": 1.0,
                         "seen_auc_over_stream": [0.5, None], "seen_auc_by_hour": [0.5] * 24, "diverged": None,
                         "similarity": {"hours": [0, 1], "s": [1.0, 0.5]}}},
        "interest": {"model": name, "user": 1, "hours": [0, 12], "by": name, "names": [name],
                     "items": [{"name": name, "group": 0, "probability": [0.1, 0.2], "events_by_hour": [1] * 24}]},
        "clock": {"user": 1, "item": name, "similarity": {"hours": [0, 12], "s": [1.0, 0.5]}, "hours": [8, 22], "kept": [[0], [1]],
                  "times": [0, 3600], "groups": [0, 1], "names": [name, name]},
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = report.write(results, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["models"]["m"]["title"] == name
    page = paths[-1].read_text(encoding="utf-8")
    assert "<b>" not in page
    assert page.count("data:image/png;base64,") == 6


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_study_takes_any_name(tmp_path, name):
    line = {"data": name, "protocol": "daily", "model": "lic", "title": name, "seed": 0, "learning_rate": 0.1, "share": 1.0,
            **dict.fromkeys(METRICS, 0.5), "ms_per_1000": 2.0, "silent_units": 1.0, "s_fall": -1.0, "seen_auc_by_hour": [0.5] * 24, "bias_by_hour": [0.1] * 24}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study_report.write([line, {**line, "seed": 1, "diverged": 3, "seen_auc": None}], tmp_path)
    page, whole = (
        (tmp_path / f"report.{kind}").read_text(encoding="utf-8") for kind in ("md", "html")
    )
    assert "<b>" not in page + whole
    assert whole.count("data:image/png;base64,") == 4
    assert [row.count(" | ") for row in page.splitlines() if row.startswith("| ")] == [8, 8]


def test_markdown_of_usual_names_is_plain():
    for title in ("TWIN + hour", "LIC, scores over sqrt(d)", "Interest Clock, naive", "LIC, K = 20"):  # fmt: skip
        assert study_report.escaped(title) == title


def test_a_terminal_that_lacks_a_letter_ends_no_run(tmp_path, monkeypatch):
    """A file whose name is no UTF-8 is trained on, reported and printed."""
    events = stream(events=40)
    rows = [f"{u},{i},{t}" for u, i, t in zip(events.user, events.item, events.time, strict=True)]
    file = tmp_path / "pl\udcffys$_$.csv"
    file.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    out = tmp_path / "ou\udcfft"
    assert main(["--events", str(file), "--models", "hour", "--quiet", "--out", str(out)]) == 0
    assert (out / "report.html").stat().st_size > 0
