# SPDX-License-Identifier: Apache-2.0
"""The colours of pictures and pages: one a model everywhere, and those of groups, hours and the hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

GREY = "#8a8a8a"
COLOURS = (
    "#c1272d",
    GREY,
    "#e69f00",
    "#0072b2",
    "#56b4e9",
    "#009e73",
    "#cc79a7",
    "#8c6d31",
    "#5e4fa2",
    "#000000",
)
# Of models that pictures are mostly of; others take what these leave.
OF_MODEL = dict(
    zip(
        ("lic", "no-time", "hour", "twin", "lic-shuffled", "sim-soft", "interest-clock", "din", "hstu", "eta"),
        COLOURS,
        strict=True,
    )
)  # fmt: skip
HAND = "#c1272d"
OF_HOURS = ("#e69f00", "#0072b2", "#009e73", "#5e4fa2")
MOST_GROUPS = 8  # that have a colour of their own


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


def colours_of_groups(groups: npt.NDArray[np.int64]) -> dict[int, str]:
    """A colour for each of the most frequent groups, the most frequent first; the rarer ones share grey."""
    counts = np.bincount(groups[groups >= 0], minlength=1)
    most = np.argsort(-counts, kind="stable")[:MOST_GROUPS]
    palette = [colour for colour in COLOURS if colour != GREY]
    return {
        group: colour
        for group, colour in zip(most.tolist(), palette, strict=False)
        if counts[group]
    }
