# SPDX-License-Identifier: Apache-2.0
"""A study's tables and figures, in Markdown and as one HTML page."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from longclock import _pages, plot
from longclock._colours import colours_of
from longclock.plot.models import Interval
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
LEGEND = {
    "seen AUC": "AUC over the events whose item occurred before; 0.5 is chance",
    "LIC's lead": "LIC's seen AUC less the model's, seed by seed",
    "seeds needed": "how many seeds tell that lead from 0",
    "long histories": "seen AUC where the history has 10,000 behaviours and more",
    "own AUC": "AUC within single events, over the items that the user took before",
    "seen UAUC": "each user's own seen AUC, as a mean weighted by how many candidates each was shown",
    "AUC": "over all counted events",
    "log loss": "over all counted events",
    "recall@K": "the share of the attention, were it over the whole history, that falls on the K behaviours that the search found, "
    "of histories longer than K",
    "best recall@K": "the share of those K behaviours that have most of it, more than which no search can find",
    "bias swing": "mean prediction less mean label by hour of the day, the largest less the smallest",
    "jump at the hour": "how far a prediction moves from one minute before an hour to one minute after, for the same user and candidate, as a mean",
    "mid-hour": "how far it moves over two minutes in mid-hour",
    "ms / 1,000": "milliseconds that 1,000 candidates take on one thread while other runs are under way, good to a factor of two",
    "learning rate": "of embeddings; other weights learn at a tenth of it",
}  # by the head of the column
CAPTIONS = {
    "auc": "Means over seeds, and their 95% confidence intervals.",
    "auc_by_hour": "Means over seeds by the local hour of the event, of the best models and of LIC; bands are 95% confidence intervals.",
    "bias_by_hour": "How far the mean prediction of an hour is from the mean label; bands are 95% confidence intervals over seeds.",
    "cost": "Towards the upper left is better. Bars are 95% confidence intervals over seeds, of both.",
}
STYLE = "td + td { white-space: nowrap } td:first-child { min-width: 8rem }"  # of the page, whose tables are wide
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
        cells = [title_of(runs[0])]
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
    head, *body = [[escaped(cell) for cell in row] for row in rows]
    ruler = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", ruler,
                      *("| " + " | ".join(row) + " |" for row in body)]) + "\n"  # fmt: skip


def write(lines: Sequence[Line], out: Path, note: str = "", rates: Sequence[float] = ()) -> Path:
    """``report.html``, which holds all, and ``report.md`` with the figures beside it; returns the former's path.

    Args:
        note: of the data, a sentence.
        rates: the learning rates that were offered.
    """
    title = f"Study on {lines[0]['data']}"
    sentences = [about(lines, rates)] + ([f"{note[0].upper()}{note[1:]}."] if note else [])
    page = [f"# {escaped(title)}\n", *(f"{escaped(sentence)}\n" for sentence in sentences)]
    html_page = [f"<h1>{html.escape(title)}</h1>\n", _pages.paragraphs(sentences)]
    for protocol, words in PROTOCOLS.items():
        rows = table(lines, protocol)
        if len(rows) == 1:
            continue
        troubles = warnings(lines, protocol)
        page += [f"## {words}\n", markdown(rows), *(f"{escaped(each)}\n" for each in troubles)]
        html_page += [f"<h2>{words}</h2>\n", _pages.table(rows), _pages.paragraphs(troubles)]
        for name, figure in figures(lines, protocol).items():
            file, picture = f"{protocol}_{name}.png", png(figure)
            write_whole(out / file, picture)
            page.append(f"![{name}]({file})\n")
            html_page.append(_pages.figure(name, picture, CAPTIONS[name]))
    page += ["## What the columns are\n", *(f"{escaped(each)}\n" for each in legend(lines))]
    html_page += ["<h2>What the columns are</h2>\n", _pages.paragraphs(legend(lines))]
    whole = _pages.page(title, "\n".join(html_page), STYLE)
    for file, text in (("report.md", "\n".join(page)), ("report.html", whole)):
        write_whole(out / file, text.encode(errors="backslashreplace"))
    return out / "report.html"


def about(lines: Sequence[Line], rates: Sequence[float] = ()) -> str:
    """How the figures were made. ``rates``: the learning rates that were offered; empty: not known."""
    seeds = len({line["seed"] for line in lines})
    many = f"{seeds} seeds; ± is the half width of a 95% confidence interval over them."
    counted = "Every event is scored before it is learned from; figures are of the counted part of the stream."
    learning = ""
    if len(rates) == 1:
        learning = f" No learning rate was chosen: all models learn at {rates[0]:g}."
    elif rates:
        offered = ", ".join(f"{rate:g}" for rate in rates)
        learning = (
            f" Each model's learning rate was chosen of {offered} on what came before that part."
        )
    return f"{many if seeds > 1 else 'One seed, which says nothing of others.'} {counted}{learning} What the columns are stands at the end."


def legend(lines: Sequence[Line]) -> list[str]:
    """A sentence for every column that the tables have."""
    shown = {column for protocol in PROTOCOLS for column in table(lines, protocol)[0]}
    return [f"{column}: {words}." for column, words in LEGEND.items() if column in shown]


def warnings(lines: Sequence[Line], protocol: str) -> list[str]:
    """A sentence for everything that a reader of the means should know: too few events for a figure, runs that diverged or did not
    learn, and seeds that differ by much."""
    found, models = [], by_model(lines, protocol)
    every = [line for runs in models.values() for line in runs]
    if every and all("seen_auc" in line and no_figure(line) for line in every):
        found.append(
            "Too few events: of the counted ones none, or not of both labels, has an item that occurred before; an answer takes some ten thousand events."
        )
    for runs in models.values():
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


def no_figure(line: Line) -> bool:
    """Whether a run that did not diverge has no figure."""
    return all(line.get(name) is None for name in ("seen_auc", "own_auc", "diverged"))


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


def colours(lines: Sequence[Line]) -> dict[str, str]:
    """Of all models of the study, whatever a figure shows of them."""
    models = list({line["model"]: None for line in lines})
    return dict(zip(models, colours_of(models), strict=True))


def auc(lines: Sequence[Line], protocol: str) -> Figure:
    """Seen AUC of every model with its confidence interval."""
    models = by_model(lines, protocol)
    means, title = _intervals(models, "seen_auc"), "Seen AUC and its 95% confidence interval"
    return plot.points(means, _titles(models), title, "seen AUC", colours(lines))


def _intervals(models: Models, figure: str) -> dict[str, Interval]:
    means = {model: mean_of(runs, figure) for model, runs in models.items()}
    return {model: _interval(mean) for model, mean in means.items() if mean is not None}


def _interval(mean: Mean) -> Interval:
    """Of one seed, who says nothing of others, without a width."""
    return mean.value, mean.half_width or 0.0


def _titles(models: Models) -> dict[str, str]:
    return {model: title_of(runs[0]) for model, runs in models.items()}


def by_hour(lines: Sequence[Line], protocol: str, figure: str, title: str, label: str) -> Figure:
    """A figure by hour of the day; of the best models, and of the clock."""
    models = by_model(lines, protocol)
    shown = list(models)[:LINES_IN_FIGURE]
    if BASE in models and BASE not in shown:
        shown[-1] = BASE
    values = {
        model: [mean and _interval(mean) for mean in mean_by_hour(models[model], figure)]
        for model in shown
    }
    return plot.over_hours(values, _titles(models), title, label, colours(lines))


def quality_and_cost(lines: Sequence[Line], protocol: str) -> Figure:
    """Seen AUC over the time that 1,000 candidates take."""
    models = by_model(lines, protocol)
    return plot.quality_and_cost(
        _intervals(models, "seen_auc"), _intervals(models, "ms_per_1000"), _titles(models),
        "ms to score 1,000 candidates, one thread", "seen AUC", colours(lines),
    )  # fmt: skip
