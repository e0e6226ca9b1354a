# SPDX-License-Identifier: Apache-2.0
"""How the arguments ``mlp``, ``unit`` and ``period`` of one circle are read, in one place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from longclock._constants import DEFAULT_UNIT, MAX_PERIOD
from longclock.types import Lookup, TopK

if TYPE_CHECKING:
    from longclock.types import Mlp


def resolve_unit(op: str, unit: float | None, default: float = DEFAULT_UNIT) -> float:
    """``unit``, else the default: an hour."""
    chosen = default if unit is None else float(require_number(op, "unit", unit))
    if not 0.0 < chosen < float("inf"):
        raise ValueError(
            f"{op}: unit must be a positive number of seconds, got {chosen}; an hour is 3600"
        )
    return chosen


def require_number(op: str, name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, torch.SymInt, torch.SymFloat)):
        raise ValueError(f"{op}: {name} must be a number, got {value!r}")
    if not -math.inf < value < math.inf:  # isfinite() cannot be traced
        raise ValueError(f"{op}: {name} must be finite, got {value}")
    return value


def resolve_period(op: str, period: int) -> int:
    """An integer number of seconds from 1 to 2^31 - 1."""
    if isinstance(period, bool) or not isinstance(period, (int, torch.SymInt)):
        raise ValueError(f"{op}: period must be an int, got {type(period).__name__}")
    if not 1 <= period <= MAX_PERIOD:
        raise ValueError(
            f"{op}: period must be from 1 to {MAX_PERIOD} seconds, got {period}; a day is 86400"
        )
    return period


def resolve_offset(op: str, utc_offset: int | Tensor) -> int | Tensor:
    """Whole seconds: an int, or an integer tensor."""
    if isinstance(utc_offset, Tensor):
        require_integers(op, utc_offset=utc_offset)
    elif isinstance(utc_offset, bool) or not isinstance(utc_offset, (int, torch.SymInt)):
        raise ValueError(
            f"{op}: utc_offset must be whole seconds, an int or an integer tensor, got "
            f"{utc_offset!r}; 5.5 hours are 19800"
        )
    return utc_offset


def resolve_mlp(op: str, mlp: Mlp) -> dict[str, Tensor]:
    """w1, b1, w2 and b2 by name; ``mlp`` is a tuple of them or a TimeSimilarity module."""
    weights: Any = mlp
    if isinstance(mlp, torch.nn.Module) and hasattr(mlp, "mlp"):
        weights = mlp.mlp()
    if (
        not isinstance(weights, (tuple, list))
        or len(weights) != 4
        or not all(isinstance(weight, Tensor) for weight in weights)
    ):
        raise ValueError(
            f"{op}: mlp must be (w1, b1, w2, b2) or a TimeSimilarity module, "
            f"got {type(mlp).__name__}"
        )
    return dict(zip(("w1", "b1", "w2", "b2"), weights, strict=True))


def require_tensor(op: str, name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(
            f"{op}: {name} must be a tensor, got {type(value).__name__}{remedy(value, name)}"
        )


def remedy(value: Any, name: str) -> str:
    """How a tensor is made of it, for the argument of that name."""
    if isinstance(value, Proxy):
        return (
            ": torch.fx cannot look into an op; make the function that calls it a leaf by torch.fx.wrap(name), or take a module, such as "
            "LongTermInterestClock, which is one"
        )
    if isinstance(value, nn.Embedding):
        return "; give its weight"
    if isinstance(value, Lookup):
        return "; give its table here and its ids as ids"
    if is_found(value):
        return _part_of_found(value, name)
    if type(value).__module__.split(".")[0] == "numpy":
        return "; make one with torch.from_numpy"
    if isinstance(value, (list, tuple, int, float)):
        return "; make one with torch.tensor"
    if hasattr(value, "values") and hasattr(value, "offsets"):
        return "; give its values() here and its offsets() as offsets, a ragged layout"
    return ""


def is_found(value: Any) -> bool:
    """What a search gives whole, as torch.topk does: scores and indices."""
    return isinstance(value, tuple) and hasattr(value, "indices")


def _part_of_found(value: Any, name: str) -> str:
    if "scores" in name:
        return f"; give its .{'scores' if isinstance(value, TopK) else 'values'}"
    if any(word in name for word in ("found", "indices", "ids")):
        return "; give its .indices"
    return ""


def require_integers(op: str, **arguments: Tensor | None) -> None:
    """Times, ids and lengths are integers: a floating timestamp loses seconds."""
    for name, value in arguments.items():
        if value is None:
            continue
        require_tensor(op, name, value)
        if value.dtype not in (torch.int32, torch.int64):
            kind = str(value.dtype).removeprefix("torch.")
            raise ValueError(
                f"{op}: {name} must be int32 or int64, got {kind}; "
                f"convert with {name}.to(torch.int64)"
            )
