# SPDX-License-Identifier: Apache-2.0
"""What the stores are given: checked, and in the form that they use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from longclock._sizes import check_size
from longclock.store.records import DTYPES, Array, User

TAKEN = ("user", "item", "time")  # names that no column may have


def check_settings(op: str, capacity: int | None, columns: Any, on_damage: Any) -> None:
    """What every backend is made with; None: as the store has it."""
    if capacity is not None:
        check_size(op, "capacity", capacity, 1)
    if on_damage not in ("raise", "skip"):
        raise ValueError(f"{op}: on_damage must be 'raise' or 'skip', got {on_damage!r}")
    if columns is None:
        return
    if not isinstance(columns, Mapping):
        raise ValueError(f"{op}: columns must be a dict from names to dtypes, got {columns!r}")
    for name, dtype in columns.items():
        if not isinstance(name, str) or not name.isidentifier() or name in TAKEN:
            raise ValueError(
                f"{op}: columns must have names that are identifiers other than user, item and time, got {name!r}"
            )
        if dtype not in DTYPES:
            raise ValueError(
                f"{op}: column {name!r} must be one of {', '.join(DTYPES)}, got {dtype!r}"
            )


def settled(op: str, name: str, given: Any, found: Any) -> Any:
    """A setting of a store that exists already.

    Raises:
        ValueError: it is asked to be another.
    """
    if given is not None and given != found:
        raise ValueError(
            f"{op}: {name} must be what this store was made with, {found!r}, got {given!r}; leave it out"
        )
    return found


def fits(number: Any) -> bool:
    return type(number) is int and -(2**63) <= number < 2**63


def user_of(op: str, user: Any) -> User:
    if isinstance(user, str):
        try:
            user.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{op}: user must be a text of Unicode, got {user!r} ({error})"
            ) from None
        return user
    if isinstance(user, int | np.integer) and not isinstance(user, bool) and fits(int(user)):
        return int(user)
    raise ValueError(
        f"{op}: user must be an int of 64 bits or a text, got {user!r} of type {type(user).__name__}"
    )


def users_of(op: str, users: Any) -> list[User]:
    if isinstance(users, Tensor | np.ndarray):
        users = users.tolist()
    if isinstance(users, str | bytes) or not isinstance(users, Iterable):
        raise ValueError(f"{op}: users must be a list of users, got {users!r}")
    return [user_of(op, user) for user in users]


def times_before(op: str, before: Any, count: int) -> list[int | None]:
    """One for each of so many users."""
    if before is None:
        return [None] * count
    if isinstance(before, Tensor | np.ndarray):
        before = before.tolist()
    one = not isinstance(before, list | tuple)
    times = [before] * count if one else list(before)
    if len(times) != count:
        raise ValueError(
            f"{op}: before must be one time, or one for each of {count} users, got {len(times)}"
        )
    for time in [before] if one else times:
        if not isinstance(time, int | np.integer) or isinstance(time, bool):
            raise ValueError(
                f"{op}: before must be a time in whole seconds, got {time!r} of type {type(time).__name__}"
            )
    return [int(time) for time in times]


def check_trim(op: str, keep: Any, before: Any) -> None:
    if keep is not None:
        check_size(op, "keep", keep, 0)
    if before is not None and (not isinstance(before, int) or isinstance(before, bool)):
        raise ValueError(
            f"{op}: before must be a time in whole seconds, got {before!r} of type {type(before).__name__}"
        )


def integers(op: str, name: str, values: Any, count: int) -> Array:
    try:
        array = np.asarray(values)
        if array.size and array.dtype.kind not in "iu":
            raise ValueError
        if array.dtype.kind == "u" and array.size and int(array.max()) >= 2**63:
            raise ValueError
    except (ValueError, OverflowError, TypeError, RuntimeError):
        raise ValueError(f"{op}: {name} must be integers of 64 bits, got {values!r}") from None
    return _of_all(op, name, array, count).astype(np.int64)


def numbers(op: str, name: str, values: Any, count: int, dtype: str) -> Array:
    try:
        array = _of_all(op, name, np.asarray(values), count)
        with np.errstate(invalid="ignore", over="ignore"):
            kept = array.astype(dtype)
    except (OverflowError, TypeError, RuntimeError):
        kept = None
    except ValueError as error:
        if str(error).startswith(op):
            raise
        kept = None
    if kept is None or array.dtype.kind not in "iufb":
        raise ValueError(f"{op}: column {name!r} must be {dtype}, got {values!r}")
    if np.dtype(dtype).kind == "i" and not np.array_equal(kept, array):
        bad = array[kept != array][0]
        raise ValueError(
            f"{op}: column {name!r} must be {dtype}, got {bad.item()!r}, which that does not hold"
        )
    return np.asarray(kept)


def _of_all(op: str, name: str, array: Array, count: int) -> Array:
    if array.shape != (count,):
        raise ValueError(
            f"{op}: {name} must have one value for each of {count} behaviours, got shape {list(array.shape)}"
        )
    return array
