# SPDX-License-Identifier: Apache-2.0
"""What the emulated library (LONGCLOCK_LIBRARY) tells of its launches; see tests/cuda_emulator."""

from __future__ import annotations

import ctypes
import functools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(os.environ["LONGCLOCK_LIBRARY"])
    for name in ("take_reports", "take_counters", "take_checked", "get"):
        getattr(library, f"longclock_emulator_{name}").restype = ctypes.c_char_p
    return library


def take_reports() -> list[dict[str, Any]]:
    """The faults since the last call: kind, message, kernel, file, line, block, thread, text, ..."""
    return list(json.loads(_library().longclock_emulator_take_reports()))


def take_counters() -> list[dict[str, Any]]:
    """One object a launch since the last call, where the option ``counters`` is on."""
    return list(json.loads(_library().longclock_emulator_take_counters()))


def take_checked() -> list[list[str]]:
    """One list a call of an op since the last time: its name, and whose device it compared."""
    return list(json.loads(_library().longclock_emulator_take_checked()))


@contextmanager
def options(**values: object) -> Iterator[None]:
    """Sets options (sm, checks, counters, seed, threads, ...) and puts the old ones back."""
    library = _library()
    before = {key: library.longclock_emulator_get(key.encode()) for key in values}
    for key, value in values.items():
        if library.longclock_emulator_set(key.encode(), str(value).encode()):
            raise ValueError(f"the emulator has no option {key}={value}")
    try:
        yield
    finally:
        for key, old in before.items():
            library.longclock_emulator_set(key.encode(), old)
