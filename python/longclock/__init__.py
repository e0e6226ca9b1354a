# SPDX-License-Identifier: Apache-2.0
"""Kernels and PyTorch ops for the Long-term Interest Clock: time-of-day-aware search and attention
over behaviour histories of 10,000 and more."""

import importlib
from typing import TYPE_CHECKING, Any

from longclock import _programs

if TYPE_CHECKING or not _programs.is_starting():
    from longclock._everything import *  # noqa: F403
    from longclock._everything import __all__, __version__  # noqa: F401

if TYPE_CHECKING:
    from longclock import baselines, data, metrics, plot, serve, store, study, train  # noqa: F401

# What is imported when it is first used.
PARTS = ("baselines", "data", "metrics", "plot", "serve", "store", "study", "train")


def __getattr__(name: str) -> Any:
    if name in PARTS:
        return importlib.import_module(f"longclock.{name}")
    if name == "__version__" or not name.startswith("_"):
        # Of a program, which has read its arguments by now.
        everything = importlib.import_module("longclock._everything")
        if hasattr(everything, name):
            return getattr(everything, name)
    raise AttributeError(f"module 'longclock' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *PARTS})
