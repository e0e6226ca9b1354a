# SPDX-License-Identifier: Apache-2.0
"""The report's figures, drawn from the results alone."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ["#c1272d", "#8a8a8a", "#e69f00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7",
           "#8c6d31", "#5e4fa2", "#000000"]  # fmt: skip
ZERO_WIDTH = "\u200b"
Results = dict[str, Any]


def plain(name: str, most: int = 40) -> str:
    """A name as matplotlib shows it as it is: no mathematics, no line break, in a legend even with ``_`` in front."""
    shown = "".join(char if char.isprintable() else " " for char in name)
    shown = " ".join(shown.split())
    if len(shown) > most:
        shown = shown[: most - 1] + "…"
    return (ZERO_WIDTH * shown.startswith("_") + shown).replace("$", r"\$") or "(no name)"


def new_axes(title: str, x: str, y: str, width: float = 7.2, height: float = 3.6) -> Axes:
    axes = Figure(figsize=(width, height), layout="constrained").add_subplot()
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return axes


def figure_of(axes: Axes) -> Figure:
    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure


def numbers(values: list[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def comparison(results: Results) -> Figure:
    """Seen AUC (filled) and seen UAUC (hollow) of every model."""
    models = list(results["models"].values())
    title = f"{plain(results['data']['name'])}: every event scored before it is learned from"
    axes = new_axes(
        title, "seen AUC (filled) and seen UAUC (hollow)", "", height=1.2 + 0.45 * len(models)
    )
    place = np.arange(len(models))[::-1]
    for metric, above in (("seen_auc", 9), ("seen_uauc", -15)):
        values = numbers([model[metric] for model in models])
        for y, value, colour in zip(place, values, itertools.cycle(COLOURS)):
            if np.isnan(value):
                continue
            fill = colour if metric == "seen_auc" else "white"
            axes.plot(value, y, "o", markersize=9, color=colour, markerfacecolor=fill, zorder=3)
            axes.annotate(f"{value:.3f}", (value, y), (0, above), textcoords="offset points",
                          ha="center", fontsize=9)  # fmt: skip
    axes.set_yticks(place, [plain(model["title"]) for model in models])
    axes.margins(x=0.12, y=0.22)
    return figure_of(axes)


def over_stream(results: Results) -> Figure:
    """Seen AUC over the stream, everything scored before it was learned from."""
    axes = new_axes("Seen AUC over the stream", "share of the stream", "seen AUC")
    for colour, model in zip(itertools.cycle(COLOURS), results["models"].values()):
        values = numbers(model["seen_auc_over_stream"])
        share = (np.arange(len(values)) + 0.5) / len(values)
        axes.plot(share, values, color=colour, label=plain(model["title"]), linewidth=1.6)
    counted = results["data"]["counted_from_event"] / results["data"]["events"]
    axes.axvline(counted, color="black", linewidth=0.8, linestyle=":")
    axes.annotate("counted from here", (counted, 0.02), (4, 0), ("data", "axes fraction"),
                  "offset points", fontsize=8)  # fmt: skip
    axes.legend(fontsize=8, frameon=False, ncols=2)
    return figure_of(axes)


def by_hour(results: Results) -> Figure:
    """Seen AUC by the hour of the event."""
    axes = new_axes("Seen AUC by hour of day", "hour of the event", "seen AUC")
    for colour, model in zip(itertools.cycle(COLOURS), results["models"].values()):
        axes.plot(
            range(24), numbers(model["seen_auc_by_hour"]), color=colour, label=plain(model["title"]), marker=".",
        )  # fmt: skip
    axes.set_xticks(range(0, 24, 3))
    axes.legend(fontsize=8, frameon=False, ncols=2)
    return figure_of(axes)


def similarity(results: Results) -> Figure | None:
    """The learned s() over the clock, less its value at difference 0."""
    axes = new_axes(
        "Learned time similarity s", "difference on the clock, hours", "s(difference) - s(0)"
    )
    found = False
    for colour, model in zip(itertools.cycle(COLOURS), results["models"].values()):
        curve = model.get("similarity")
        if curve:
            found = True
            s = np.array(curve["s"])
            axes.plot(
                curve["hours"], s - s[0], color=colour, label=plain(model["title"]), linewidth=1.8
            )
    if not found:
        return None
    axes.legend(fontsize=8, frameon=False)
    return figure_of(axes)


def recall(results: Results) -> Figure | None:
    """The share of the attention that each model's search finds."""
    models = [m for m in results["models"].values() if m.get("recall_of_attention") is not None]
    if not models:
        return None
    axes = new_axes(
        "What the search finds of the attention", "recall of attention at K (filled) and the best there is (hollow)", "", height=1.2 + 0.35 * len(models)
    )  # fmt: skip
    for place, (model, colour) in enumerate(zip(models, itertools.cycle(COLOURS))):
        value = model["recall_of_attention"]
        axes.plot(model["best_recall"], -place, "o", markersize=9, color=colour, markerfacecolor="white")  # fmt: skip
        axes.plot(value, -place, "o", markersize=9, color=colour)
        axes.annotate(f"{value:.3f}", (value, -place), (0, 9), textcoords="offset points", ha="center", fontsize=9)  # fmt: skip
    axes.set_yticks(
        [-place for place in range(len(models))],
        [f"{plain(model['title'])}, K = {model['recall_k']:,}" for model in models],
    )
    axes.margins(x=0.12, y=0.22)
    return figure_of(axes)


def interest(results: Results) -> Figure | None:
    """One user's interest in their most frequent items over 24 hours."""
    found = results["interest"]
    if found is None:
        return None
    axes = new_axes(
        f"User {found['user']}: predicted interest over the day ({plain(found['model'])})",
        "local time, hours",
        "predicted probability",
    )
    counts = axes.twinx()
    counts.set_ylabel("events by hour (bars)")
    width = 0.8 / max(len(found["items"]), 1)
    for number, (colour, item) in enumerate(zip(COLOURS[::-1], found["items"], strict=False)):
        hours = np.arange(24) + width * (number + 0.5) + 0.1
        counts.bar(hours, item["events_by_hour"], width, color=colour, alpha=0.3)
        axes.plot(found["hours"], item["probability"], color=colour, label=plain(item["name"], 30))
    axes.set_zorder(counts.get_zorder() + 1)  # lines over bars
    axes.patch.set_visible(False)
    counts.spines[["top"]].set_visible(False)
    axes.set_xticks(range(0, 25, 3))
    figure_of(axes).legend(fontsize=8, frameon=False, loc="outside lower center", ncols=4)
    return figure_of(axes)


def all_figures(results: Results) -> dict[str, Figure]:
    """Every figure that the results allow, by file stem."""
    figures = {
        "comparison": comparison(results),
        "over_stream": over_stream(results),
        "by_hour": by_hour(results),
        "recall": recall(results),
        "similarity": similarity(results),
        "interest": interest(results),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}
