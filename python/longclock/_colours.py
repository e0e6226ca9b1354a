# SPDX-License-Identifier: Apache-2.0
"""The colours of pictures and pages: one a model everywhere, and those of groups, hours and the hand."""

from __future__ import annotations

import zlib
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
# Of all other models: no colour of those above.
MORE = (
    "#7f3c8d",
    "#11a579",
    "#3969ac",
    "#f2b701",
    "#e73f74",
    "#80ba5a",
    "#e68310",
    "#008695",
    "#cf1c90",
    "#4b4b8f",
)
HAND = "#c1272d"
OF_HOURS = ("#e69f00", "#0072b2", "#009e73", "#5e4fa2")
MOST_GROUPS = 8  # that have a colour of their own


def colours_of(models: Sequence[str]) -> list[str]:
    """A colour for each model: its own wherever it is shown, where it has one, and else one that is not taken.

    Which one does not depend on the models' order. Pictures that show some of the same models take the colours of all.

    Example::

        >>> from longclock.plot import colours_of
        >>> colours_of(["twin", "lic"]) == [colours_of(["twin"])[0], colours_of(["lic"])[0]]
        True
    """
    others = sorted(set(models) - set(OF_MODEL))
    found = dict(OF_MODEL)
    for model in others:  # in an order that is not the picture's
        first = zlib.crc32(model.encode(errors="surrogatepass")) % len(MORE)
        by_preference = [*MORE[first:], *MORE[:first]]
        taken = {found[other] for other in others if other in found}
        found[model] = next((colour for colour in by_preference if colour not in taken), MORE[first])  # fmt: skip
    return [found[model] for model in models]


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
