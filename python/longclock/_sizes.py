# SPDX-License-Identifier: Apache-2.0
"""The check of a size, in the words that the ops have for it; PyTorch is not needed."""

from __future__ import annotations

from typing import Any


def check_size(
    op: str, name: str, value: Any, least: int, most: int | None = None, hint: str = ""
) -> None:
    """A whole number of a constructor."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{op}: {name} must be an int, got {type(value).__name__}{hint}")
    if value < least or (most is not None and value > most):
        span = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{op}: {name} must be {span}, got {value}{hint}")
