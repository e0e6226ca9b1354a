# SPDX-License-Identifier: Apache-2.0
"""The report's figures, drawn from the results alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from longclock import plot
from longclock._colours import colours_of
from longclock.plot.style import figure_of, new_axes, numbers, plain

Results = dict[str, Any]


def coloured(results: Results) -> list[tuple[str, dict[str, Any]]]:
    """Every model's colour, and what was found of it."""
    models = results["models"]
    return list(zip(colours_of(list(models)), models.values(), strict=True))


def comparison(results: Results) -> Figure:
    """Seen AUC (filled) and seen UAUC (hollow) of every model."""
    models = coloured(results)
    title = f"{plain(results['data']['name'])}: every event scored before it is learned from"
    axes = new_axes(
        title, "seen AUC (filled) and seen UAUC (hollow)", "", height=1.2 + 0.45 * len(models)
    )
    place = np.arange(len(models))[::-1]
    for metric, above in (("seen_auc", 9), ("seen_uauc", -15)):
        values = numbers([model[metric] for _, model in models])
        for y, value, (colour, _) in zip(place, values, models, strict=True):
            if np.isnan(value):
                continue
            fill = colour if metric == "seen_auc" else "white"
            axes.plot(value, y, "o", markersize=9, color=colour, markerfacecolor=fill, zorder=3)
            axes.annotate(f"{value:.3f}", (value, y), (0, above), textcoords="offset points",
                          ha="center", fontsize=9)  # fmt: skip
    axes.set_yticks(place, [plain(model["title"]) for _, model in models])
    axes.margins(x=0.12, y=0.22)
    return figure_of(axes)


def over_stream(results: Results) -> Figure:
    """Seen AUC over the stream, everything scored before it was learned from."""
    axes = new_axes("Seen AUC over the stream", "share of the stream", "seen AUC")
    for colour, model in coloured(results):
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
    for colour, model in coloured(results):
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
    for colour, model in coloured(results):
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
    models = {
        name: model
        for name, model in results["models"].items()
        if model.get("recall_of_attention") is not None
    }
    if not models:
        return None
    return plot.shares_found(
        {name: model["recall_of_attention"] for name, model in models.items()},
        {name: model["best_recall"] for name, model in models.items()},
        {name: f"{model['title']}, K = {model['recall_k']:,}" for name, model in models.items()},
    )


def clock(results: Results) -> Figure | None:
    """What the clock looks at: s as hands, and what its search keeps of one history at two hours."""
    found = results.get("clock")
    if found is None:
        return None
    curve, hours = (
        found["similarity"],
        {hour: np.array(own) for hour, own in zip(found["hours"], found["kept"], strict=True)},
    )
    return plot.clock_face(
        (curve["hours"], curve["s"]),
        np.array(found["times"]),
        hours,
        groups=np.array(found["groups"]),
        names=found["names"],
    )


def interest(results: Results) -> Figure | None:
    """One user's interest over 24 hours, by category where items have one."""
    found = results["interest"]
    if found is None:
        return None
    items = found["items"]
    return plot.interest_over_day(
        found["hours"],
        np.array([item["probability"] for item in items]).T,
        found["names"],
        groups=[item["group"] for item in items],
        events=np.array([item["events_by_hour"] for item in items]),
        title=f"User {found['user']}: predicted interest over the day ({plain(found['model'])})",
    )


def all_figures(results: Results) -> dict[str, Figure]:
    """Every figure that the results allow, by file stem."""
    figures = {
        "clock": clock(results),
        "comparison": comparison(results),
        "over_stream": over_stream(results),
        "by_hour": by_hour(results),
        "recall": recall(results),
        "similarity": similarity(results),
        "interest": interest(results),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}
