# SPDX-License-Identifier: Apache-2.0
"""The face of a clock of 24 hours: s as its hands, and the behaviours that a search keeps at an hour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.projections.polar import PolarAxes

from longclock._colours import GREY, HAND, OF_HOURS, colours_of_groups
from longclock._constants import ELAPSED
from longclock._keywords import named_keywords
from longclock._mlp import is_found, remedy
from longclock.nn import TimeSimilarity
from longclock.plot.style import plain

DAY = 86400
STEPS = 288  # of a face: every 5 minutes
FACE = 4.0  # inches
BESIDE = 1.3  # for titles and legends
Similarity = TimeSimilarity | tuple[Any, Any]


@named_keywords("hands")
def hands(similarity: Similarity, hours: Sequence[float] = (8, 22)) -> Figure:
    """How much a behaviour counts by when it was done, were the rest equal: ``exp(s)`` over its largest value, as a hand an hour.

    Args:
        similarity: of a clock of one day; or its curve, as two sequences: differences in hours from 0 to 12, ascending, and s there.
        hours: of the day, at which it is asked.
    Raises:
        ValueError: another clock; differences that do not go from 0 to 12 hours; no hours.

    Example::

        >>> from longclock import TimeSimilarity, plot
        >>> len(plot.hands(TimeSimilarity(), hours=(8, 14, 22)).axes)
        1
    """
    figure, (axes,) = _faces(1)
    _draw_hands(axes, *_curve("hands", similarity), _hours("hands", hours))
    return figure


@named_keywords("kept")
def kept(
    times: Any,
    found: Mapping[float, Any],
    *,
    groups: Any = None,
    names: Sequence[str] = (),
) -> Figure:
    """The behaviours of one history, the latest outermost, and those that a search keeps, on a face an hour.

    Args:
        times: integer seconds [M], ascending, of the clock that the search reads.
        found: by the hour at which was asked, the indices of what was kept, [K]; -1 is nothing.
        groups: int [M], such as an item's category, which colours show; None: one colour.
        names: of the groups, by number; the most frequent stand in a legend.
    Raises:
        ValueError: shapes that do not fit, an index that is not of the history, no hours.

    Example::

        >>> import torch
        >>> from longclock import plot
        >>> times = 7200 * torch.arange(100)
        >>> figure = plot.kept(times, {8: torch.tensor([4, 16, 28]), 22: torch.tensor([11, 23, -1])})
        >>> [axes.get_title() for axes in figure.axes]
        ['at 8:00: 3 of 100 kept', 'at 22:00: 2 of 100 kept']
    """
    history = _History("kept", times, found, groups, names)
    figure, faces = _faces(len(history.found))
    history.draw(faces)
    return figure


@named_keywords("clock_face")
def clock_face(
    similarity: Similarity,
    times: Any,
    found: Mapping[float, Any],
    *,
    groups: Any = None,
    names: Sequence[str] = (),
) -> Figure:
    """:func:`hands` at the hours of ``found``, and beside them what is :func:`kept` at each; arguments are theirs.

    Example::

        >>> import torch
        >>> import longclock as lc
        >>> from longclock import plot
        >>> s, times, now = lc.TimeSimilarity(), 3601 * torch.arange(500), 86400 * 30 + 3600 * torch.tensor([8, 22])
        >>> query, keys = torch.randn(2, 16), torch.randn(500, 16).expand(2, -1, -1)
        >>> found = lc.clock_gsu(query, keys, times.expand(2, -1), now, s, k=20).indices  # a query at each hour
        >>> plot.clock_face(s, times, {8: found[0], 22: found[1]}).savefig("face.png")
    """
    history = _History("clock_face", times, found, groups, names)
    figure, (first, *faces) = _faces(1 + len(history.found))
    _draw_hands(first, *_curve("clock_face", similarity), list(history.found))
    history.draw(faces)
    return figure


def _faces(count: int) -> tuple[Figure, list[PolarAxes]]:
    figure = Figure(figsize=(FACE * count, FACE + BESIDE), layout="constrained")
    faces = [cast(PolarAxes, figure.add_subplot(1, count, place + 1, projection="polar")) for place in range(count)]  # fmt: skip
    for axes in faces:
        axes.set_theta_zero_location("N")
        axes.set_theta_direction(-1)
        axes.set_xticks(np.arange(8) * math.pi / 4, [f"{hour}:00" for hour in range(0, 24, 3)])
        axes.grid(alpha=0.25)
    return figure, faces


def _draw_hands(axes: PolarAxes, differences: Any, s: Any, hours: Sequence[float]) -> None:
    day = np.linspace(0, 24, STEPS + 1)
    for hour, colour in zip(hours, OF_HOURS * -(-len(hours) // len(OF_HOURS)), strict=False):
        apart = np.abs(day - hour) % 24
        weight = np.exp(np.interp(np.minimum(apart, 24 - apart), differences, s) - s.max())
        axes.plot(_angle(day), weight, color=colour, linewidth=2.5, label=f"asked at {_text(hour)}")
        axes.fill(_angle(day), weight, color=colour, alpha=0.18)
    axes.set_ylim(0, 1.05)
    axes.set_yticks([0.5, 1], ["½", "1"])
    axes.set_title("How much a behaviour counts, exp(s)", fontsize=11, pad=14)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), frameon=False, ncols=2, fontsize=9)


class _History:
    """A history, checked, and what was found of it by hour."""

    def __init__(
        self, op: str, times: Any, found: Mapping[float, Any], groups: Any, names: Sequence[str]
    ) -> None:
        self.times = _integers(op, "times", times)
        count = len(self.times)
        if (np.diff(self.times) < 0).any():
            raise ValueError(f"{op}: times must ascend, from the oldest behaviour to the latest")
        self.groups = np.zeros(count, np.int64) if groups is None else _integers(op, "groups", groups)  # fmt: skip
        if len(self.groups) != count:
            raise ValueError(f"{op}: groups must have shape [{count}] to match times, got [{len(self.groups)}]")  # fmt: skip
        self.names, self.found = names, {}
        for hour in _hours(op, list(found)):
            indices = _integers(op, f"found[{hour:g}]", found[hour])
            if (indices >= count).any():
                raise ValueError(f"{op}: found[{hour:g}] must be below {count}, got {indices.max()}")  # fmt: skip
            self.found[hour] = indices[indices >= 0]

    def draw(self, faces: Sequence[PolarAxes]) -> None:
        count = len(self.times)
        angle, radius = _angle(self.times % DAY / 3600), np.linspace(0.25, 1, count)
        shown, colour_of = self._colours()
        for axes, (hour, own) in zip(faces, self.found.items(), strict=True):
            axes.scatter(angle, radius, c=colour_of, s=12, alpha=0.22, linewidths=0)
            axes.scatter(angle[own], radius[own], c=colour_of[own], s=70, edgecolors="black", zorder=3)  # fmt: skip
            axes.plot([_angle(hour)] * 2, [0, 1.06], color=HAND, linewidth=3)
            axes.set_ylim(0, 1.08)
            axes.set_yticks([])
            axes.set_title(f"at {_text(hour)}: {len(own):,} of {count:,} kept", fontsize=11, pad=14)
        if shown and faces:
            marks = [
                Line2D([], [], linestyle="", marker="o", color=colour, label=plain(name, 24))
                for name, colour in shown
            ]
            faces[0].figure.legend(
                handles=marks, loc="outside lower center", ncols=4, frameon=False, fontsize=9
            )

    def _colours(self) -> tuple[list[tuple[str, str]], npt.NDArray[Any]]:
        """Names with their colours, for the legend; the colour of every behaviour. Rarer groups share grey."""
        of_group = colours_of_groups(self.groups)
        colours = np.array([of_group.get(group, GREY) for group in self.groups.tolist()])
        shown = [(self.names[group], colour) for group, colour in of_group.items() if group < len(self.names)]  # fmt: skip
        return shown, colours


def _curve(op: str, similarity: Similarity) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Differences in hours, from 0 to 12, and s there."""
    if isinstance(similarity, TimeSimilarity):
        if similarity.clocks != (DAY,):
            clocks = ", ".join("ELAPSED" if clock == ELAPSED else str(clock) for clock in similarity.clocks)  # fmt: skip
            raise ValueError(
                f"{op}: similarity must be of a clock of one day, 86400, got {clocks}; give its curve over a day"
            )
        delta = torch.linspace(0, DAY // 2, STEPS // 2 + 1).long()
        with torch.no_grad():
            s = similarity(delta.to(similarity.w1.device)).double().cpu().numpy()
        return delta.numpy() / 3600, s
    differences, s = (np.asarray(torch.as_tensor(values).detach().cpu(), np.float64) for values in similarity)  # fmt: skip
    if differences.ndim != 1 or differences.shape != s.shape or len(s) < 2:
        raise ValueError(f"{op}: similarity must be two sequences of one length, got {list(differences.shape)} and {list(s.shape)}")  # fmt: skip
    if differences[0] != 0 or abs(differences[-1] - 12) > 0.5 or (np.diff(differences) <= 0).any():
        raise ValueError(f"{op}: similarity must be over differences that ascend from 0 to 12 hours, got {differences[0]:g} to {differences[-1]:g}")  # fmt: skip
    return differences, s


def _hours(op: str, hours: Sequence[float]) -> list[float]:
    if not len(hours):
        raise ValueError(f"{op}: give at least one hour")
    for hour in hours:
        if not 0 <= hour < 24:
            raise ValueError(f"{op}: hours must be from 0 to below 24, got {hour}")
    return list(hours)


def _integers(op: str, name: str, values: Any) -> npt.NDArray[np.int64]:
    if is_found(values):
        raise ValueError(f"{op}: {name} must be integers in one dimension, got {type(values).__name__}{remedy(values, name)}")  # fmt: skip
    array = np.asarray(torch.as_tensor(values).detach().cpu())
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{op}: {name} must be integers in one dimension, got {array.dtype} {list(array.shape)}")  # fmt: skip
    return array.astype(np.int64)


def _angle(hours: Any) -> Any:
    return np.asarray(hours) / 24 * 2 * math.pi


def _text(hour: float) -> str:
    whole, minutes = divmod(round(hour * 60), 60)
    return f"{whole}:{minutes:02}"
