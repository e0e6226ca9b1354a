# SPDX-License-Identifier: Apache-2.0
"""Models beside each other: figures with their intervals, cost against quality, what a search finds of the attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from longclock._colours import colours_of
from longclock.plot.style import figure_of, new_axes, plain

Interval = tuple[float, float]  # a mean, and half the width of its confidence interval


def points(values: Mapping[str, Interval], titles: Mapping[str, str], title: str, x: str) -> Figure:
    """A row a model, in the order given: its mean and its confidence interval.

    Args:
        values: by model; titles: what the picture calls it.

    Example::

        >>> from longclock import plot
        >>> values = {"lic": (0.867, 0.002), "twin": (0.831, 0.003)}
        >>> plot.points(values, {"lic": "LIC", "twin": "TWIN"}, "Seen AUC", "seen AUC").savefig("auc.png")
    """
    axes = new_axes(title, x, "", height=1.2 + 0.28 * len(values))
    for place, ((value, half), colour) in enumerate(zip(values.values(), colours_of(list(values)), strict=True)):  # fmt: skip
        axes.errorbar(value, -place, xerr=half, fmt="o", color=colour)
    axes.set_yticks([-place for place in range(len(values))], [plain(titles[model]) for model in values])  # fmt: skip
    return figure_of(axes)


def quality_and_cost(
    quality: Mapping[str, Interval], cost: Mapping[str, float], titles: Mapping[str, str], x: str, y: str
) -> Figure:  # fmt: skip
    """Each model at its cost and its quality, with the latter's confidence interval; names do not lie one over another.

    Example::

        >>> from longclock import plot
        >>> quality, cost = {"lic": (0.867, 0.002), "twin": (0.831, 0.003)}, {"lic": 9.1, "twin": 8.0}
        >>> figure = plot.quality_and_cost(quality, cost, {"lic": "LIC", "twin": "TWIN"}, "ms", "AUC")
    """
    axes = new_axes("Quality and cost", x, y, height=4.2)
    models = [model for model in quality if model in cost]
    axes.set_xscale("log")
    names = []
    for model, colour in zip(models, colours_of(models), strict=True):
        value, half = quality[model]
        axes.errorbar(cost[model], value, yerr=half, fmt="o", color=colour)
        names.append(
            axes.annotate(plain(titles[model]), (cost[model], value), (6, 4), textcoords="offset points", fontsize=8)
        )  # fmt: skip
    axes.margins(x=0.25, y=0.1)
    _apart(axes, names)
    return figure_of(axes)


def shares_found(
    found: Mapping[str, float], best: Mapping[str, float], titles: Mapping[str, str]
) -> Figure:
    """The share of the attention that each model's search finds (filled), and the best there is (hollow).

    Example::

        >>> from longclock import plot
        >>> figure = plot.shares_found({"lic": 0.92}, {"lic": 0.93}, {"lic": "LIC, K = 20"})
    """
    axes = new_axes(
        "What the search finds of the attention", "recall of attention at K (filled) and the best there is (hollow)", "",
        height=1.2 + 0.35 * len(found),
    )  # fmt: skip
    for place, (model, colour) in enumerate(zip(found, colours_of(list(found)), strict=True)):
        axes.plot(best[model], -place, "o", markersize=9, color=colour, markerfacecolor="white")
        axes.plot(found[model], -place, "o", markersize=9, color=colour)
        axes.annotate(f"{found[model]:.3f}", (found[model], -place), (0, 9), textcoords="offset points", ha="center", fontsize=9)  # fmt: skip
    axes.set_yticks([-place for place in range(len(found))], [plain(titles[model]) for model in found])  # fmt: skip
    axes.margins(x=0.12, y=0.22)
    return figure_of(axes)


def _apart(axes: Axes, names: Sequence[Annotation]) -> None:
    """Moves names up, from the lowest on, until none covers another."""
    if len(names) < 2:
        return
    figure = figure_of(axes)
    figure.canvas.draw()
    placed: list[Annotation] = []
    for name in sorted(names, key=lambda each: each.get_window_extent().y0):
        for _ in range(4 * len(names)):
            own = name.get_window_extent()
            covered = [other for other in placed if own.overlaps(other.get_window_extent())]
            if not covered:
                break
            over = max(other.get_window_extent().y1 for other in covered) - own.y0 + 1
            x, y = name.xyann
            name.xyann = (x, y + over * 72 / figure.dpi)
        placed.append(name)
