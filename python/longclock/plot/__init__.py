# SPDX-License-Identifier: Apache-2.0
"""Pictures, by matplotlib: what a clock looks at, what a user is interested in over a day, and how models compare. They read plain numbers and return figures.

Example::

    >>> import torch
    >>> from longclock import TimeSimilarity, plot
    >>> figure = plot.hands(TimeSimilarity(), hours=(8, 22))
    >>> figure.savefig("hands.png")
"""

from longclock._colours import colours_of
from longclock._extras import TRAIN_EXTRA, imported_for

with imported_for("longclock.plot", TRAIN_EXTRA):
    import matplotlib  # noqa: F401

from longclock.plot.clock_face import clock_face, hands, kept
from longclock.plot.interest import interest_over_day
from longclock.plot.models import over_hours, points, quality_and_cost, shares_found

__all__ = [
    "clock_face", "colours_of", "hands", "interest_over_day", "kept", "over_hours", "points", "quality_and_cost", "shares_found",
]  # fmt: skip
