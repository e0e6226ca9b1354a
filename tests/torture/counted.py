# SPDX-License-Identifier: Apache-2.0
"""Rounds of one kind after the other, each kind in a folder of its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def counted(
    kinds: Sequence[str], count: int, seed: int, rounds: Callable[[str, int, int, Path], int]
) -> int:
    """Says of each kind how many of ``count`` rounds failed; the exit status, 1 where any did."""
    failed = 0
    for what in kinds:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            wrong = rounds(what, count, seed, Path(folder))
        print(f"{what}: {count} rounds, {wrong} failed, {time.monotonic() - started:.0f} s")
        failed += wrong
    return 1 if failed else 0
