# SPDX-License-Identifier: Apache-2.0
"""The same mistake has the same text: what the op of that name would say."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from longclock import ops
from longclock.ops._errors import FAILURES, explained
from longclock.types import Lookup, QuantizedRows

P = ParamSpec("P")
R = TypeVar("R")


def named_as_op(function: Callable[P, R]) -> Callable[P, R]:
    """The function, whose failures are told by the compiled op: it checks more, and good calls pay nothing."""
    name = function.__name__

    @functools.wraps(function)
    def named(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except FAILURES as error:
            better = _told_by_op(name, args, kwargs, error)
            if better is None:
                raise
            raise better from None

    return named


def _told_by_op(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception
) -> Exception | None:
    op = getattr(ops, name)
    kwargs = {key: value for key, value in kwargs.items() if key != "dtype"}  # the reference's own
    better = explained(name, op, args, kwargs, error)
    if better is not None or str(error).startswith(f"{name}: "):
        return better
    try:
        with torch.no_grad():
            op(*map(_narrow, args), **{key: _narrow(value) for key, value in kwargs.items()})
    except (TypeError, ValueError) as told:
        return told
    except FAILURES:
        pass
    return None


def _narrow(value: Any) -> Any:
    """The dtypes that the op takes; the others' errors would be about the dtype alone."""
    if isinstance(value, QuantizedRows):
        return value
    if isinstance(value, Lookup):
        return value._replace(table=_narrow(value.table))  # of one table or several
    if isinstance(value, nn.Module):
        weights: Any = getattr(value, "mlp", None)
        value = value if weights is None else weights()
    if isinstance(value, (tuple, list)):
        return tuple(map(_narrow, value))
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float64 else value
