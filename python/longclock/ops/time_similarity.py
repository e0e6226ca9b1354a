# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longclock._checks import check_int
from longclock._constants import DEFAULT_UNIT, ELAPSED_UNIT
from longclock._library import raw
from longclock._mlp import resolve_unit
from longclock.ops._call import (
    call,
    differentiable,
    fake,
    forbid_double_backward,
    mlp_gradients,
)
from longclock.ops._errors import named_errors
from longclock.ops._shapes import check_mlp


@named_errors
def time_features(delta: Tensor, unit: float | None = None, elapsed: bool = False) -> Tensor:
    """The four features of a time difference.

    ``phi(x) = [x, sqrt(x), x^2, log(x + 1)]`` of ``x = delta / unit``; of the time elapsed
    ``x = log2(1 + d / unit)``, d being the 7 highest bits of delta that count.
    Source: Long-term Interest Clock, arXiv 2501.15817.

    Args:
        delta: int32 or int64, any shape, seconds, not negative: ``circular_delta``'s output.
        unit: seconds in one x; None is 3,600, so that x counts hours, and 60 where elapsed.
        elapsed: delta is how long ago something was, of which 2^31 - 1 seconds are told apart.
    Returns:
        float32 [..., 4].
    Raises:
        ValueError: a floating delta, or a unit that is not positive.

    Example::

        >>> import torch, longclock as lc
        >>> lc.time_features(torch.tensor([4 * 3600]))  # four hours
        tensor([[ 4.0000,  2.0000, 16.0000,  1.6094]])
    """
    unit = _unit_of("time_features", unit, elapsed)
    phi: Tensor = call(raw.time_features.default, delta=delta, unit=unit, elapsed=elapsed)
    return phi


@named_errors
def time_similarity(
    delta: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    unit: float | None = None,
    elapsed: bool = False,
) -> Tensor:
    """Learned similarity of two times of day, differentiable in the weights.

    ``s(x) = w2 . relu(w1 phi(x) + b1) + b2``, ``phi(x) = [x, sqrt(x), x^2, log(x + 1)]``,
    ``x = delta / unit``. Source: Long-term Interest Clock, arXiv 2501.15817.

    Args:
        delta: int32 or int64, any shape, seconds, not negative.
        w1, b1, w2, b2: float32 [h, 4], [h], [h] and [1] or [], h from 1 to 64.
        unit, elapsed: as of ``time_features``.
    Returns:
        float32 of delta's shape. h multiply-adds of width 4 an element; no [..., h] in memory.
    Raises:
        ValueError: a floating delta, float64 weights, shapes that do not fit.

    Example::

        >>> import torch, longclock as lc
        >>> w1, b1 = torch.tensor([[-1.0, 0.0, 0.0, 0.0]]), torch.tensor([4.0])
        >>> w2, b2 = torch.ones(1), torch.zeros(1)  # s(x) = relu(4 - x)
        >>> lc.time_similarity(3600 * torch.tensor([0, 1, 6]), w1, b1, w2, b2)
        tensor([4., 3., 0.])
    """
    unit = _unit_of("time_similarity", unit, elapsed)
    s: Tensor = call(
        raw.time_similarity.default,
        delta=delta,
        w1=w1,
        b1=b1,
        w2=w2,
        b2=b2,
        unit=unit,
        elapsed=elapsed,
    )
    return s


def _unit_of(op: str, unit: float | None, elapsed: bool) -> float:
    if not isinstance(elapsed, bool):
        raise ValueError(
            f"{op}: elapsed must be of type bool, got {elapsed!r} of type {type(elapsed).__name__}"
        )
    return resolve_unit(op, unit, ELAPSED_UNIT if elapsed else DEFAULT_UNIT)


@fake("time_features")
def _(delta: Tensor, **_: Any) -> Tensor:
    check_int("time_features", "delta", delta)
    return delta.new_empty((*delta.shape, 4), dtype=torch.float32)


@fake("time_similarity")
def _(delta: Tensor, **given: Any) -> Tensor:
    check_int("time_similarity", "delta", delta)
    check_mlp("time_similarity", given)
    return delta.new_empty(delta.shape, dtype=torch.float32)


@fake("time_similarity_backward")
def _(**given: Any) -> tuple[Tensor, ...]:
    return tuple(mlp_gradients(given, True))


differentiable("time_similarity")
forbid_double_backward("time_similarity", "time_similarity_backward")
