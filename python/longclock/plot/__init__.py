# SPDX-License-Identifier: Apache-2.0
"""Pictures, by matplotlib: what a clock looks at, and how models compare. They read plain numbers and return figures.

Example::

    >>> import torch
    >>> from longclock import TimeSimilarity, plot
    >>> figure = plot.hands(TimeSimilarity(), hours=(8, 22))
    >>> figure.savefig("hands.png")
"""

from longclock._extras import TRAIN_EXTRA

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"longclock.plot needs {error.name}: {TRAIN_EXTRA}", name=error.name
    ) from error

from longclock.plot.clock_face import clock_face, hands, kept
from longclock.plot.models import points, quality_and_cost, shares_found
from longclock.plot.style import colours_of

__all__ = [
    "clock_face", "colours_of", "hands", "kept", "points", "quality_and_cost", "shares_found",
]  # fmt: skip
