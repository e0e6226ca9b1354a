# SPDX-License-Identifier: Apache-2.0
"""A study's tables, in Markdown, and its figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from longclock import plot
from longclock._colours import colours_of
from longclock.plot.models import Interval
from longclock.plot.style import figure_of, new_axes, numbers, plain
from longclock.study.plan import Line
from longclock.study.summary import (
    MOST_SEEDS,
    Mean,
    by_model,
    difference,
    differences,
    mean_by_hour,
    mean_of,
    seeds_needed,
)
from longclock.train.config import MODELS
from longclock.train.folder import write_whole
from longclock.train.report import png, trouble

BASE = "lic"  # what the others are compared with
LINES_IN_FIGURE = 8  # by hour; more cannot be told apart
PROTOCOLS = {
    "daily": "Daily: a day is scored, then learned from in random order",
    "streaming": "Streaming: an hour is scored, then learned from",
    "batches": "Batches: a batch is scored, then learned from at once",
}
# Columns by the figures that they show, with their digits; the lead is that of the first.
COLUMNS = {
    "seen_auc": ("seen AUC", 4),
    "lead": ("LIC's lead", 4),
    "seen_auc_long": ("long histories", 4),
    "own_auc": ("own AUC", 4),
    "seen_uauc": ("seen UAUC", 4),
    "auc": ("AUC", 4),
    "logloss": ("log loss", 4),
    "recall_of_attention": ("recall@K", 4),
    "best_recall": ("best recall@K", 4),
    "bias_swing": ("bias swing", 3),
    "jump": ("jump at the hour", 4),
    "mid_hour_change": ("mid-hour", 4),
}
Models = Mapping[str, Sequence[Line]]
WIDE_SPREAD = 0.02  # of the seen AUC over seeds


def table(lines: Sequence[Line], protocol: str) -> list[list[str]]:
    """One row a model, the best seen AUC first, header first; figures are means over seeds. Columns without any figure are
    left out."""
    models = by_model(lines, protocol)
    means: dict[str, dict[str, Mean]] = {}
    for model, runs in models.items():
        found = {name: mean_of(runs, name) for name in COLUMNS}
        if BASE in models and model != BASE:
            found["lead"] = difference(models[BASE], runs, "seen_auc")
        means[model] = {name: mean for name, mean in found.items() if mean is not None}
    shown = [name for name in COLUMNS if any(name in found for found in means.values())]
    head = ["model", *(COLUMNS[name][0] for name in shown), "ms / 1,000", "learning rate"]
    rows = [head]
    for model, runs in models.items():
        cells = [escaped(title_of(runs[0]))]
        for name in shown:
            mean = means[model].get(name)
            cells.append("" if mean is None else mean.text(COLUMNS[name][1]))
        cost = mean_of(runs, "ms_per_1000")
        cells.append("" if cost is None else f"{cost.value:.1f}")
        learns = model not in MODELS or MODELS[model].counts is None
        rows.append([*cells, f"{runs[0]['learning_rate']:g}" if learns else ""])
    if "lead" in shown:
        place = head.index(COLUMNS["lead"][0]) + 1
        for row, (model, runs) in zip(rows[1:], models.items(), strict=True):
            row.insert(place, _seeds_needed(models[BASE], runs) if model != BASE else "")
        head.insert(place, "seeds needed")
    return rows


def _seeds_needed(base: Sequence[Line], runs: Sequence[Line]) -> str:
    """To tell LIC's lead from 0."""
    leads = differences(base, runs, "seen_auc")
    if len(leads) < 2:
        return ""
    needed = seeds_needed(leads)
    return f"over {MOST_SEEDS}" if needed is None else str(needed)


def escaped(name: str) -> str:
    """A name as Markdown shows it as it is, in one line and one cell of a table."""
    return re.sub(r"([\\`*_{}\[\]<>#|$~&])", r"\\\1", " ".join(name.split()))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    ruler = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", ruler,
                      *("| " + " | ".join(row) + " |" for row in body)]) + "\n"  # fmt: skip


def write(lines: Sequence[Line], out: Path, note: str = "") -> Path:
    """``report.md`` and the figures that it shows; returns the page's path. ``note``: of the data, a sentence."""
    name, seeds = lines[0]["data"], len({line["seed"] for line in lines})
    page = [f"# Study on {escaped(name)}\n",
            f"{seeds} seeds; ± is the half width of a 95% confidence interval. Every event is scored before it is "
            "learned from, in the counted part of the stream; learning rates were chosen on what came before it. Seen: events "
            "whose item occurred before. Seeds needed: to tell LIC's lead from 0. Long histories: 10,000 behaviours and more. Own AUC: within single events whose item "
            "the user took before. Recall@K: the share of the attention over the whole history that falls on the K behaviours that the search "
            "found, of histories longer than K; the best: that of the K behaviours that have most of it.\n"]  # fmt: skip
    if note:
        page.append(f"{escaped(note[0].upper() + note[1:])}.\n")
    for protocol, title in PROTOCOLS.items():
        rows = table(lines, protocol)
        if len(rows) == 1:
            continue
        page += [f"## {title}\n", markdown(rows)]
        page += [f"{escaped(sentence)}\n" for sentence in warnings(lines, protocol)]
        for figure_name, figure in figures(lines, protocol).items():
            file = f"{protocol}_{figure_name}.png"
            write_whole(out / file, png(figure))
            page.append(f"![{figure_name}]({file})\n")
    path = out / "report.md"
    write_whole(path, "\n".join(page).encode(errors="backslashreplace"))
    return path


def warnings(lines: Sequence[Line], protocol: str) -> list[str]:
    """A sentence for everything that a reader of the means should know: runs that diverged or did not learn, and seeds
    that differ by much."""
    found = []
    for runs in by_model(lines, protocol).values():
        title = title_of(runs[0])
        for line in runs:
            where = f"{title}, seed {line['seed']}, learning rate {line['learning_rate']:g}"
            if line.get("diverged") is not None:
                found.append(
                    f"{where}: diverged at event {line['diverged']:,}; the means leave this run out."
                )
            found += trouble(where, line.get("silent_units"), line.get("s_fall"))
        scores = [auc for line in runs if (auc := line.get("seen_auc")) is not None]
        if scores and max(scores) - min(scores) > WIDE_SPREAD:
            found.append(f"{title}: seeds differ by {max(scores) - min(scores):.3f} in seen AUC, "
                         f"{min(scores):.3f} to {max(scores):.3f}; do not trust its mean.")  # fmt: skip
    return found


def title_of(line: Line) -> str:
    return str(line.get("title", line["model"]))


def figures(lines: Sequence[Line], protocol: str) -> dict[str, Figure]:
    """By file stem."""
    return {
        "auc": auc(lines, protocol),
        "auc_by_hour": by_hour(lines, protocol, "seen_auc_by_hour", "Seen AUC by hour of day", "seen AUC"),
        "bias_by_hour": by_hour(
            lines, protocol, "bias_by_hour", "Bias of the prediction over the day", "mean prediction - label"
        ),
        "cost": quality_and_cost(lines, protocol),
    }  # fmt: skip


def auc(lines: Sequence[Line], protocol: str) -> Figure:
    """Seen AUC of every model with its confidence interval."""
    models = by_model(lines, protocol)
    return plot.points(
        _intervals(models), _titles(models), "Seen AUC and its 95% confidence interval", "seen AUC"
    )


def _intervals(models: Models) -> dict[str, Interval]:
    means = {model: mean_of(runs, "seen_auc") for model, runs in models.items()}
    return {
        model: (mean.value, mean.half_width or 0)
        for model, mean in means.items()
        if mean is not None
    }


def _titles(models: Models) -> dict[str, str]:
    return {model: title_of(runs[0]) for model, runs in models.items()}


def by_hour(lines: Sequence[Line], protocol: str, figure: str, title: str, label: str) -> Figure:
    """A figure by hour of the day; of the best models, and of the clock."""
    models = by_model(lines, protocol)
    shown = list(models)[:LINES_IN_FIGURE]
    if BASE in models and BASE not in shown:
        shown[-1] = BASE
    axes = new_axes(title, "hour of the event", label)
    for model, colour in zip(shown, colours_of(shown), strict=True):
        values = numbers(mean_by_hour(models[model], figure))
        axes.plot(
            range(24), values, color=colour, marker=".", label=plain(title_of(models[model][0]))
        )
    axes.set_xticks(range(0, 24, 3))
    axes.legend(fontsize=8, frameon=False, ncols=2)
    return figure_of(axes)


def quality_and_cost(lines: Sequence[Line], protocol: str) -> Figure:
    """Seen AUC over the time that 1,000 candidates take."""
    models = by_model(lines, protocol)
    costs = {model: mean_of(runs, "ms_per_1000") for model, runs in models.items()}
    return plot.quality_and_cost(
        _intervals(models), {model: cost.value for model, cost in costs.items() if cost is not None}, _titles(models),
        "ms to score 1,000 candidates, one thread", "seen AUC",
    )  # fmt: skip
