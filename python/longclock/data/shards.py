# SPDX-License-Identifier: Apache-2.0
"""Which of some groups an id belongs to."""

from __future__ import annotations

from typing import Any

HASH = 2654435769  # 2^32 over the golden ratio: Knuth's multiplicative hash


def hashed(ids: Any, count: int) -> Any:
    """One of ``count`` numbers for every id of an int64 tensor or array, from the id alone."""
    return ids * HASH % 2**32 * count // 2**32
