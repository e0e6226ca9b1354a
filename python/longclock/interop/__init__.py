# SPDX-License-Identifier: Apache-2.0
"""Other libraries' data as longclock takes them, and longclock as a model of theirs. A library is imported when its part is used."""

import importlib
from typing import Any

from longclock.interop import torchrec

__all__ = ["torchrec"]
PARTS = ("fuxictr", "torch_rechub")


def __getattr__(name: str) -> Any:
    if name in PARTS:
        return importlib.import_module(f"longclock.interop.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *PARTS})
