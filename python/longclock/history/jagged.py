# SPDX-License-Identifier: Apache-2.0
"""Jagged tensors of other libraries, known by what they offer: ``values()`` and ``offsets()``.

TorchRec's JaggedTensor and KeyedJaggedTensor are such, and PyTorch's nested tensors of layout ``torch.jagged``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Proxy

from longclock._checks import INTEGERS, check, check_int, shape_of
from longclock._torch_state import reads_values
from longclock.types import Lookup


class Apart(NamedTuple):
    """Rows and times of sequences one behind the other, and where these begin and end: by offsets, or by starts and ends."""

    rows: Any
    time: Any
    offsets: Any = None
    starts: Tensor | None = None
    ends: Tensor | None = None


def is_jagged(value: Any) -> bool:
    own = value.is_nested if isinstance(value, Tensor) else not isinstance(value, Proxy)
    return own and callable(getattr(value, "values", None)) and callable(getattr(value, "offsets", None))  # fmt: skip


def apart(
    op: str,
    rows: Any,
    time: Any,
    offsets: Any,
    lengths: Any,
    words: tuple[str, str] = ("rows", "time"),
) -> Apart:
    """What a ragged history is made of, where rows, ids or times may be jagged, and lengths stand for offsets.

    Args:
        words: what the caller calls rows and time.
    """
    several = rows.ids if isinstance(rows, Lookup) and isinstance(rows.ids, tuple) else ()
    given = {words[0]: rows, **{f"ids[{i}]": ids for i, ids in enumerate(several)}, words[1]: time}
    if isinstance(rows, Lookup) and not several:
        given["ids"] = rows.ids
    jagged = {name: value for name, value in given.items() if is_jagged(value)}
    for name, value in (("offsets", offsets), ("lengths", lengths)):
        other = next(iter(jagged), "lengths" if name == "offsets" else "offsets")
        double = value is not None and (
            bool(jagged) or (offsets is not None and lengths is not None)
        )
        check(op, not double, lambda name=name, other=other: f"{name} must be None where {other} "  # type: ignore[misc]
              f"{'brings its own' if jagged else 'are given'}, got both")  # fmt: skip
    if isinstance(rows, Lookup):
        rows = rows._replace(ids=tuple(map(_values, several)) if several else _values(rows.ids))
    found = Apart(_values(rows), _values(time))
    if jagged:
        return _with_bounds_of(op, found, jagged)
    if lengths is not None:
        offsets = offsets_of(op, lengths)
        if (
            reads_values(offsets)
            and isinstance(found.time, Tensor)
            and int(offsets[-1]) != found.time.numel()
        ):
            raise ValueError(
                f"{op}: lengths must add up to T = {found.time.numel()}, got {int(offsets[-1])}"
            )
        return found._replace(offsets=offsets)
    return in_places(found._replace(offsets=offsets))


def offsets_of(op: str, lengths: Any) -> Tensor:
    """int64 [S + 1]."""
    if isinstance(lengths, Proxy):  # of torch.fx, which records what is done with it
        recorded: Any = lengths.cumsum(0, dtype=torch.int64)
        return F.pad(recorded, (1, 0))
    check(
        op,
        isinstance(lengths, Tensor),
        lambda: f"lengths must be a tensor, got {type(lengths).__name__}",
    )
    check_int(op, "lengths", lengths)
    check(op, lengths.dim() == 1, lambda: f"lengths must have shape [S], got {shape_of(lengths)}")
    if reads_values(lengths) and (lengths < 0).any():
        raise ValueError(f"{op}: lengths must be at least 0, got {int(lengths.min())}")
    return F.pad(lengths.cumsum(0, dtype=torch.int64), (1, 0))


def in_places(found: Apart) -> Apart:
    """Offsets of some of more sequences, as a feature of a KeyedJaggedTensor has, as starts and ends: where they can be read."""
    offsets, time = found.offsets, found.time
    if not isinstance(offsets, Tensor) or not isinstance(time, Tensor) or offsets.dim() != 1:
        return found
    if not len(offsets) or offsets.dtype not in INTEGERS or not reads_values(offsets):
        return found
    first, last, places = int(offsets[0]), int(offsets[-1]), time.numel()
    whole = first == 0 and last == places
    if whole or first < 0 or last > places or bool((offsets[1:] < offsets[:-1]).any()):
        return found  # or wrong, as is told where they are used
    return found._replace(offsets=None, starts=offsets[:-1], ends=offsets[1:])


def _values(value: Any) -> Any:
    return value.values() if is_jagged(value) else value


def _with_bounds_of(op: str, found: Apart, jagged: dict[str, Any]) -> Apart:
    """Of the first of the jagged; the others must have the same."""
    (name, first), *others = jagged.items()
    offsets = first.offsets()
    for other, value in others:
        theirs = value.offsets()
        same = (
            theirs is offsets
            or not reads_values(offsets)
            or torch.equal(theirs.long(), offsets.long())
        )
        check(op, theirs.shape == offsets.shape and same, lambda other=other: f"{other} must have the offsets of {name}, got "  # type: ignore[misc]
              "others")  # fmt: skip
    nested = isinstance(first, Tensor)
    holes = jagged[name].lengths() if nested else None  # where it was narrowed
    if holes is not None:
        return found._replace(starts=offsets[:-1], ends=offsets[:-1] + holes)
    return in_places(found._replace(offsets=offsets))
