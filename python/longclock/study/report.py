# SPDX-License-Identifier: Apache-2.0
"""A study's tables, in Markdown, and its figures."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from longclock.study.plan import Line
from longclock.study.summary import by_model, difference, mean_by_hour, mean_of
from longclock.train.figures import COLOURS, figure_of, new_axes, numbers, plain
from longclock.train.folder import write_whole
from longclock.train.report import png

BASE = "lic"  # what the others are compared with
LINES_IN_FIGURE = 8  # by hour; more cannot be told apart
PROTOCOLS = {
    "daily": "Daily: a day is scored, then learned from in random order",
    "streaming": "Streaming: an hour is scored, then learned from",
    "batches": "Batches: a batch is scored, then learned from at once",
}
HEAD = ["model", "AUC", "LIC's lead", "UAUC", "log loss", "bias swing", "jump at the hour",
        "mid-hour", "ms / 1,000", "learning rate"]  # fmt: skip


def table(lines: Sequence[Line], protocol: str) -> list[list[str]]:
    """One row a model, the best AUC first, header first; figures are means over seeds."""
    models = by_model(lines, protocol)
    rows = [HEAD]
    for model, runs in models.items():
        lead = difference(models[BASE], runs, "auc") if BASE in models and model != BASE else None
        cells = [escaped(title_of(runs[0]))]
        for mean, digits in (
            (mean_of(runs, "auc"), 4), (lead, 4), (mean_of(runs, "uauc"), 4), (mean_of(runs, "logloss"), 4),
            (mean_of(runs, "bias_swing"), 3), (mean_of(runs, "jump"), 4),
            (mean_of(runs, "mid_hour_change"), 4),
        ):  # fmt: skip
            cells.append("" if mean is None else mean.text(digits))
        cost = mean_of(runs, "ms_per_1000")
        cells.append("" if cost is None else f"{cost.value:.1f}")
        rows.append([*cells, f"{runs[0]['learning_rate']:g}"])
    return rows


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
            "learned from, in the counted part of the stream; learning rates were chosen on what came before it.\n"]  # fmt: skip
    if note:
        page.append(f"{escaped(note[0].upper() + note[1:])}.\n")
    for protocol, title in PROTOCOLS.items():
        rows = table(lines, protocol)
        if len(rows) == 1:
            continue
        page += [f"## {title}\n", markdown(rows)]
        page += [f"{divergence(line)}\n" for line in diverged(lines, protocol)]
        for figure_name, figure in figures(lines, protocol).items():
            file = f"{protocol}_{figure_name}.png"
            write_whole(out / file, png(figure))
            page.append(f"![{figure_name}]({file})\n")
    path = out / "report.md"
    write_whole(path, "\n".join(page).encode(errors="backslashreplace"))
    return path


def diverged(lines: Sequence[Line], protocol: str) -> list[Line]:
    """The protocol's runs that no mean counts."""
    return [x for x in lines if x["protocol"] == protocol and x.get("diverged") is not None]


def divergence(line: Line) -> str:
    return (
        f"{escaped(title_of(line))} diverged at event {line['diverged']:,} with seed {line['seed']} and learning rate "
        f"{line['learning_rate']:g}: its means leave this run out."
    )


def title_of(line: Line) -> str:
    return str(line.get("title", line["model"]))


def figures(lines: Sequence[Line], protocol: str) -> dict[str, Figure]:
    """By file stem."""
    return {
        "auc": auc(lines, protocol),
        "auc_by_hour": by_hour(lines, protocol, "auc_by_hour", "AUC by hour of day", "AUC"),
        "bias_by_hour": by_hour(
            lines, protocol, "bias_by_hour", "Bias of the prediction over the day", "mean prediction - label"
        ),
        "cost": quality_and_cost(lines, protocol),
    }  # fmt: skip


def auc(lines: Sequence[Line], protocol: str) -> Figure:
    """AUC of every model with its confidence interval."""
    models = by_model(lines, protocol)
    axes = new_axes(
        "AUC and its 95% confidence interval", "AUC", "", height=1.2 + 0.28 * len(models)
    )
    for place, (runs, colour) in enumerate(zip(models.values(), itertools.cycle(COLOURS))):
        mean = mean_of(runs, "auc")
        if mean is not None:
            axes.errorbar(mean.value, -place, xerr=mean.half_width or 0, fmt="o", color=colour)
    axes.set_yticks(
        [-place for place in range(len(models))],
        [plain(title_of(runs[0])) for runs in models.values()],
    )
    return figure_of(axes)


def by_hour(lines: Sequence[Line], protocol: str, figure: str, title: str, label: str) -> Figure:
    """A figure by hour of the day; of the best models, and of the clock."""
    models = by_model(lines, protocol)
    shown = list(models)[:LINES_IN_FIGURE]
    if BASE in models and BASE not in shown:
        shown[-1] = BASE
    axes = new_axes(title, "hour of the event", label)
    for model, colour in zip(shown, COLOURS, strict=False):
        values = numbers(mean_by_hour(models[model], figure))
        axes.plot(
            range(24), values, color=colour, marker=".", label=plain(title_of(models[model][0]))
        )
    axes.set_xticks(range(0, 24, 3))
    axes.legend(fontsize=8, frameon=False, ncols=2)
    return figure_of(axes)


def quality_and_cost(lines: Sequence[Line], protocol: str) -> Figure:
    """AUC over the time that 1,000 candidates take."""
    axes = new_axes(
        "Quality and cost", "ms to score 1,000 candidates, one thread", "AUC", height=4.2
    )
    models = by_model(lines, protocol)
    for runs, colour in zip(models.values(), itertools.cycle(COLOURS)):
        auc_mean, cost = mean_of(runs, "auc"), mean_of(runs, "ms_per_1000")
        if auc_mean is not None and cost is not None:
            axes.plot(cost.value, auc_mean.value, "o", color=colour)
            axes.annotate(plain(title_of(runs[0])), (cost.value, auc_mean.value), (4, 3),
                          textcoords="offset points", fontsize=8)  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.2)
    return figure_of(axes)
