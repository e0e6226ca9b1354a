# SPDX-License-Identifier: Apache-2.0
"""Models beside each other: figures with their intervals, cost against quality, what a search finds of the attention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox, BboxBase

from longclock._colours import colours_of
from longclock._keywords import named_keywords
from longclock.plot.style import figure_of, new_axes, numbers, plain

Interval = tuple[float, float]  # a mean, and half the width of its confidence interval
MOST_BELOW = 0.9  # of a cost, that its interval reaches down
LEAST_SPAN = 10.0  # of costs, the largest over the least, that an axis has room for
MARK = 5  # pixels around a mean
ROWS = 60  # halves of a name's height that it may be moved
FAR = 1.6  # of its height: what a line leads back from


@named_keywords("points")
def points(
    values: Mapping[str, Interval],
    titles: Mapping[str, str],
    title: str,
    x: str,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """A row a model, in the order given: its mean and its confidence interval.

    Args:
        values: by model; titles: what the picture calls it; colours: those of :func:`colours_of` where None.

    Example::

        >>> from longclock import plot
        >>> values = {"lic": (0.867, 0.002), "twin": (0.831, 0.003)}
        >>> plot.points(values, {"lic": "LIC", "twin": "TWIN"}, "Seen AUC", "seen AUC").savefig("auc.png")
    """
    axes = new_axes(title, x, "", height=1.2 + 0.28 * len(values))
    colours = _all(values, colours)
    for place, (model, (value, half)) in enumerate(values.items()):
        axes.errorbar(value, -place, xerr=half, fmt="o", color=colours[model])
    axes.set_yticks([-place for place in range(len(values))], [plain(titles[model]) for model in values])  # fmt: skip
    return figure_of(axes)


@named_keywords("quality_and_cost")
def quality_and_cost(
    quality: Mapping[str, Interval],
    cost: Mapping[str, Interval],
    titles: Mapping[str, str],
    x: str,
    y: str,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Each model at its cost and its quality, with both confidence intervals; names lie neither over another nor over a mean.

    Args:
        quality, cost: by model; those that have both are shown. titles, colours: as of :func:`points`.

    Example::

        >>> from longclock import plot
        >>> quality = {"lic": (0.867, 0.002), "twin": (0.831, 0.003)}
        >>> cost = {"lic": (9.1, 0.4), "twin": (8.0, 0.3)}
        >>> figure = plot.quality_and_cost(quality, cost, {"lic": "LIC", "twin": "TWIN"}, "ms", "AUC")
    """
    axes = new_axes("Quality and cost", x, y, height=4.8)
    colours = _all(quality, colours)
    axes.set_xscale("log")
    shown = {model: cost[model] for model in quality if model in cost}
    if shown:  # one cost alone is no span for an axis of logarithms
        least = min(at - min(wide, at * MOST_BELOW) for at, wide in shown.values())
        most = max(at + wide for at, wide in shown.values())
        room = max(most / least, LEAST_SPAN) ** 0.3
        axes.set_xlim(least / room, most * room)
    names = []
    for model, (at, wide) in shown.items():
        value, half = quality[model]
        lower = min(wide, at * MOST_BELOW)  # an axis of logarithms has no 0
        axes.errorbar(
            at,
            value,
            xerr=[[lower], [wide]],
            yerr=half,
            fmt="o",
            color=colours[model],
            elinewidth=1,
        )
        names.append(
            axes.annotate(plain(titles[model]), (at, value), (6, 4), textcoords="offset points", fontsize=8, color=colours[model])
        )  # fmt: skip
    axes.margins(y=0.15)
    _apart(axes, names)
    return figure_of(axes)


@named_keywords("over_hours")
def over_hours(
    values: Mapping[str, Sequence[Interval | None]],
    titles: Mapping[str, str],
    title: str,
    y: str,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """A line a model over the 24 hours of the day, its means; around it a band, their confidence intervals.

    Args:
        values: by model, 24 each; None where an hour has none. titles, colours: as of :func:`points`.

    Example::

        >>> from longclock import plot
        >>> values = {"lic": [(0.8 + hour / 1000, 0.01) for hour in range(24)]}
        >>> figure = plot.over_hours(values, {"lic": "LIC"}, "Seen AUC by hour", "seen AUC")
    """
    axes = new_axes(title, "hour of the event", y, height=4.2)
    colours = _all(values, colours)
    for model, of_hours in values.items():
        means, halves = (numbers([each and each[part] for each in of_hours]) for part in (0, 1))
        axes.plot(range(24), means, color=colours[model], marker=".", linewidth=1.2, label=plain(titles[model]))  # fmt: skip
        low, high = ([mean + sign * half for mean, half in zip(means, halves, strict=True)] for sign in (-1, 1))  # fmt: skip
        axes.fill_between(range(24), low, high, color=colours[model], alpha=0.15, linewidth=0)
    axes.set_xticks(range(0, 24, 3))
    figure_of(axes).legend(fontsize=8, frameon=False, loc="outside lower center", ncols=4)
    return figure_of(axes)


@named_keywords("shares_found")
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


def _all(models: Iterable[str], colours: Mapping[str, str] | None) -> Mapping[str, str]:
    names = list(models)
    return dict(zip(names, colours_of(names), strict=True)) if colours is None else colours


def _apart(axes: Axes, names: Sequence[Annotation]) -> None:
    """Gives each name the nearest place beside its point where it covers no other name, no point and no interval."""
    figure = figure_of(axes)
    figure.draw_without_rendering()
    taken = _drawn(axes)
    for name in sorted(names, key=lambda each: each.get_window_extent().y0):
        own = name.get_window_extent()
        width, height = (side * 72 / figure.dpi for side in (own.width, own.height))
        for place in _places(width, height):
            name.xyann = place
            own = name.get_window_extent()
            if _holds(axes.bbox, own) and not any(own.overlaps(other) for other in taken):
                break
        taken.append(own)
        if abs(name.xyann[1]) > FAR * height:  # too far to be seen whose it is
            edge = own.x0 if name.xyann[0] > 0 else own.x1
            end = axes.transData.inverted().transform((edge, (own.y0 + own.y1) / 2))
            ends = zip(name.xy, end, strict=True)
            axes.plot(*ends, color=name.get_color(), linewidth=0.5, alpha=0.6, scalex=False, scaley=False)  # fmt: skip


def _drawn(axes: Axes) -> list[BboxBase]:
    """Boxes around the means and intervals of a picture, in pixels."""
    found: list[BboxBase] = []
    containers: list[Any] = list(axes.containers)  # of error bars
    for container in containers:
        point, _, bars = container.lines
        corners = [np.repeat(point.get_xydata(), 2, 0)]
        corners += [segment for lines in bars for segment in lines.get_segments()]
        for number, corner in enumerate(corners):
            (x0, y0), (x1, y1) = axes.transData.transform(corner)
            wide = 1 if number else MARK
            found.append(Bbox.from_extents(x0 - wide, y0 - wide, x1 + wide, y1 + wide))
    return found


def _holds(whole: BboxBase, part: BboxBase) -> bool:
    return whole.contains(part.x0, part.y0) and whole.contains(part.x1, part.y1)


def _places(width: float, height: float) -> list[tuple[float, float]]:
    """Offsets of a name of this size from its point, in points: right and left of it, then ever farther up and down."""
    sides = (6.0, -6.0 - width)
    rows = sorted(range(-ROWS, ROWS + 1), key=lambda row: (abs(row - 1), -row))
    return [(x, row * height / 2 - height / 2) for row in rows for x in sides]
