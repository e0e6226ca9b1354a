# SPDX-License-Identifier: Apache-2.0
"""What a user is interested in over the 24 hours of a day."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from longclock._colours import COLOURS, GREY
from longclock._keywords import named_keywords
from longclock.plot.style import figure_of, new_axes, plain

HOURS = 24
BARS = 0.8  # of an hour, that its bars share
PALETTE = tuple(colour for colour in COLOURS if colour != GREY)


@named_keywords("interest_over_day")
def interest_over_day(
    hours: Any,
    interest: Any,
    names: Sequence[str],
    *,
    groups: Any = None,
    events: Any = None,
    title: str = "Interest over the day",
) -> Figure:
    """A line over the 24 hours for each category, the mean of a model's predictions for its candidates; without categories a line for
    each candidate.

    Args:
        hours: of the day [P], ascending, from 0 to below 24, at which was asked.
        interest: [P, C], the predicted probability of each candidate at each of them.
        names: of the groups, by number; without groups of the C candidates.
        groups: int [C], such as each candidate's category; None: each candidate is one of its own. Lines are in the order in which
            groups first occur.
        events: [C, 24], how often the user took each candidate in each hour; bars show them, added up within a group. None: no bars.
        title: of the picture.
    Raises:
        ValueError: shapes that do not fit, hours that do not ascend, a group without a name.

    Example::

        >>> import torch
        >>> from longclock import plot
        >>> hours = torch.arange(96) / 4
        >>> coffee = 0.5 + 0.4 * torch.cos((hours - 8) / 24 * 2 * torch.pi)
        >>> interest = torch.stack([coffee, coffee / 2, 1 - coffee], 1)  # of two cafés and a bar
        >>> figure = plot.interest_over_day(hours, interest, ["Café", "Bar"], groups=[0, 0, 1])
        >>> [(line.get_label(), round(float(max(line.get_ydata())), 2)) for line in figure.axes[0].lines]
        [('Café', 0.67), ('Bar', 0.9)]
    """
    asked, predicted = _array("hours", hours, 1), _array("interest", interest, 2)
    candidates = predicted.shape[1]
    if len(asked) != len(predicted):
        raise ValueError(f"interest_over_day: interest must have a row for each of the {len(asked)} hours, got {len(predicted)}")  # fmt: skip
    if len(asked) and (asked[0] < 0 or asked[-1] >= HOURS or (np.diff(asked) <= 0).any()):
        raise ValueError("interest_over_day: hours must ascend from 0 to below 24")
    group = np.arange(candidates) if groups is None else _array("groups", groups, 1)
    if len(group) != candidates:
        raise ValueError(f"interest_over_day: groups must have shape [{candidates}], one for each candidate, got [{len(group)}]")  # fmt: skip
    if ((group < 0) | (group >= len(names)) | (group != group.astype(np.int64))).any():
        raise ValueError(f"interest_over_day: groups must be from 0 to {len(names) - 1}, as there are names, got {group.tolist()}")  # fmt: skip
    taken = None if events is None else _array("events", events, 2)
    if taken is not None and taken.shape != (candidates, HOURS):
        raise ValueError(f"interest_over_day: events must have shape [{candidates}, {HOURS}], got {list(taken.shape)}")  # fmt: skip
    return _drawn(asked, predicted, group.astype(np.int64), names, taken, title)


def _drawn(
    hours: npt.NDArray[Any],
    interest: npt.NDArray[Any],
    group: npt.NDArray[np.int64],
    names: Sequence[str],
    events: npt.NDArray[Any] | None,
    title: str,
) -> Figure:
    axes = new_axes(title, "local time, hours", "predicted probability")
    lines = list(dict.fromkeys(group.tolist()))
    if events is not None:
        counts = axes.twinx()
        counts.set_ylabel("events by hour (bars)")
        counts.spines[["top"]].set_visible(False)
        axes.set_zorder(counts.get_zorder() + 1)  # lines over bars
        axes.patch.set_visible(False)
    width = BARS / max(len(lines), 1)
    for number, (one, colour) in enumerate(zip(lines, itertools.cycle(PALETTE), strict=False)):
        own = group == one
        axes.plot(hours, interest[:, own].mean(1), color=colour, label=plain(names[one], 30))
        if events is not None:
            places = np.arange(HOURS) + width * (number + 0.5) + (1 - BARS) / 2
            counts.bar(places, events[own].sum(0), width, color=colour, alpha=0.3)
    axes.set_xticks(range(0, HOURS + 1, 3))
    if lines:
        figure_of(axes).legend(fontsize=8, frameon=False, loc="outside lower center", ncols=4)
    return figure_of(axes)


def _array(name: str, values: Any, dimensions: int) -> npt.NDArray[Any]:
    try:
        array = np.asarray(torch.as_tensor(values).detach().cpu())
    except (TypeError, ValueError) as error:
        raise ValueError(f"interest_over_day: {name} must be numbers: {error}") from error
    if array.ndim != dimensions or (array.size and array.dtype.kind not in "iuf"):
        raise ValueError(f"interest_over_day: {name} must be numbers in {dimensions} dimensions, got {array.dtype} {list(array.shape)}")  # fmt: skip
    return array
