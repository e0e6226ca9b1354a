# SPDX-License-Identifier: Apache-2.0
"""What ``import longclock`` gives: the ops are registered with PyTorch, and every name is there."""

from longclock import distributed, interop, jagged, ops, optim, reference
from longclock._constants import ELAPSED
from longclock._native import build_info
from longclock.history import History
from longclock.nn import (
    ClockAttentionStack,
    LongTermInterestClock,
    TimeSimilarity,
    parameter_groups,
)
from longclock.ops import *  # noqa: F403 - every op, as ops/__init__.py lists them
from longclock.quantize import quantize_rows
from longclock.types import Lookup, QuantizedRows, TopK

__version__ = build_info()["version"]  # what pyproject.toml said when the library was built

__all__ = [
    "ELAPSED",
    "ClockAttentionStack",
    "History",
    "LongTermInterestClock",
    "Lookup",
    "QuantizedRows",
    "TimeSimilarity",
    "TopK",
    "distributed",
    "interop",
    "jagged",
    "ops",
    "optim",
    "parameter_groups",
    "quantize_rows",
    "reference",
]
__all__ += ops.__all__
