# SPDX-License-Identifier: Apache-2.0
"""What all pictures share: axes, and names as they are."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

ZERO_WIDTH = "\u200b"


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
