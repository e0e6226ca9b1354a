# SPDX-License-Identifier: Apache-2.0
"""Finds and loads the compiled library, which registers the ops with PyTorch."""

from __future__ import annotations

import os
from pathlib import Path

import torch

VARIABLE = "LONGCLOCK_LIBRARY"
PACKAGED = Path(__file__).parent / "liblongclock.so"


def library_path() -> Path:
    """The library in use: what LONGCLOCK_LIBRARY names, else the one inside the package."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else PACKAGED


def load() -> Path:
    path = library_path()
    if not path.is_file():
        remedy = (
            f"{VARIABLE} names it: correct or unset that variable"
            if os.environ.get(VARIABLE)
            else "build and install the package with `make build` or `pip install .`"
        )
        raise ImportError(f"longclock: the compiled library {path} does not exist; {remedy}")
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        raise ImportError(
            f"longclock: the compiled library {path} does not load under PyTorch "
            f"{torch.__version__} (2.10 or later is needed): {error}"
        ) from error
    return path


LOADED = load()
raw = torch.ops.longclock
