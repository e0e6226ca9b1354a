# SPDX-License-Identifier: Apache-2.0
"""What all pictures share: axes, names as they are, and one colour a model everywhere."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#c1272d", "#8a8a8a", "#e69f00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#8c6d31", "#5e4fa2", "#000000")  # fmt: skip
# Of models that pictures are mostly of; others take what these leave.
OF_MODEL = dict(
    zip(
        ("lic", "no-time", "hour", "twin", "lic-shuffled", "sim-soft", "interest-clock", "din", "hstu", "eta"),
        COLOURS,
        strict=True,
    )
)  # fmt: skip
ZERO_WIDTH = "\u200b"


def colours_of(models: Sequence[str]) -> list[str]:
    """A colour for each model of a picture: its own wherever it is shown, where it has one, and else one that is not taken.

    Example::

        >>> from longclock.plot import colours_of
        >>> colours_of(["twin", "lic"]) == [colours_of(["twin"])[0], colours_of(["lic"])[0]]
        True
    """
    own = [OF_MODEL.get(model) for model in models]
    free = [colour for colour in COLOURS if colour not in own] or list(COLOURS)
    others = itertools.cycle(free)
    return [next(others) if colour is None else colour for colour in own]


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


def numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
