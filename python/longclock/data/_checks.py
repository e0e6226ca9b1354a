# SPDX-License-Identifier: Apache-2.0
"""What arrays of events must be: one text for a fault, wherever it is met."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from longclock._constants import FARTHEST


def check_column(owner: str, name: str, column: Any, shape: tuple[int, ...] | None = None) -> None:
    """An int64 array of one dimension, of that shape where it is given."""
    shape = (
        shape if shape and len(shape) == 1 else None
    )  # of another column, which has no such shape
    expected = f"{owner}: column {name!r} must be int64 of shape {shape or '(rows,)'}"
    if not isinstance(column, np.ndarray) or isinstance(column, np.ma.MaskedArray):
        raise ValueError(
            f"{expected}, got {type(column).__name__}; make it a NumPy array: "
            "numpy.asarray(values, numpy.int64)"
        )
    if column.dtype != np.int64 or column.ndim != 1 or shape not in (None, column.shape):
        raise ValueError(f"{expected}, got {column.dtype} of shape {column.shape}")


def check_values(owner: str, name: str, column: np.ndarray, bad: np.ndarray, rule: str) -> None:
    """Names the first row, counted from 0, where ``bad`` is true."""
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"{owner}: column {name!r} {rule}, got {column[row]} in row {row}")


def check_ids(owner: str, name: str, ids: np.ndarray) -> None:
    rule = "must be ids from 0 on (-1 is how pandas codes a missing value: leave these rows out)"
    check_values(owner, name, ids, ids < 0, rule)


def check_label(owner: str, name: str, label: np.ndarray) -> None:
    check_values(owner, name, label, (label != 0) & (label != 1), "must be 0 or 1")


def check_seconds(owner: str, name: str, time: np.ndarray) -> None:
    rule = "must be seconds, below 10^11 (divide milliseconds by 1000)"
    far = (time >= FARTHEST) | (time <= -FARTHEST)
    check_values(owner, name, time, far, rule)


def check_count(owner: str, argument: str, value: Any, least: int = 0) -> int:
    """A whole number of at least ``least``; Python's and NumPy's integers are."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, (bool, np.bool_)) or number < least:
        raise ValueError(
            f"{owner}: {argument} must be an integer of at least {least}, got {value!r}"
        )
    return number
