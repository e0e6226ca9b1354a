# SPDX-License-Identifier: Apache-2.0
"""What a baseline checks of its sizes and of what a call hands over."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from longclock._mlp import require_integers
from longclock._sizes import check_size
from longclock.data.stream import DAY
from longclock.history.checks import check_candidate
from longclock.history.history import History, require_history
from longclock.history.windows import check_call
from longclock.ops._errors import remedy, wrong_tensor
from longclock.types import Lookup


def check_sizes(op: str, **sizes: Any) -> None:
    """Each an int of at least 1."""
    for name, size in sizes.items():
        check_size(op, name, size, 1)


def check_whole_days(op: str, period: int) -> None:
    """What reads the time of day from a time on the clock needs whole days of it."""
    if period % DAY:
        raise ValueError(
            f"{op}: period must be whole days, a multiple of {DAY}, got {period}: times tell the time of day"
        )


def dtype_of(module: nn.Module) -> torch.dtype:
    """Of a network's weights, which its inputs are brought to."""
    return next(module.parameters()).dtype


def kind_of(value: Any) -> str:
    """A value as an error tells it: a tensor by dtype and shape."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return type(value).__name__


def require_dense(op: str, **arguments: Any) -> None:
    """Tensors that hold a number at every place."""
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{op}: {name} must be a tensor, got {type(value).__name__}{remedy(value, name)}"
            )
        for wrong in wrong_tensor(name, value):
            raise ValueError(f"{op}: {wrong}")


def check_floats(op: str, name: str, value: Any, width: int, argument: str) -> None:
    """Rows of ``width`` floating columns, in one dimension or more."""
    require_dense(op, **{name: value})
    if not value.is_floating_point():
        raise ValueError(
            f"{op}: {name} must be floating, got {kind_of(value)}; convert it with .float()"
        )
    if value.dim() < 2 or value.shape[-1] != width:
        raise ValueError(
            f"{op}: {name} must be rows with {argument} = {width} in the last dimension, got "
            f"{list(value.shape)}; build the module with the {argument} of your data"
        )


def check_integers(
    op: str, name: str, ids: Any, shape: tuple[int, ...], letters: str, like: Tensor
) -> None:
    """int32 or int64 of that shape, on the device of ``like``.

    Args:
        letters: the shape as the documentation writes it, and what it follows from; {} is its numbers.
    """
    require_dense(op, **{name: ids})
    require_integers(op, **{name: ids})
    if ids.shape != shape:
        raise ValueError(
            f"{op}: {name} must have {letters.format(list(shape))}, got {list(ids.shape)}"
        )
    check_device(op, like, **{name: ids})


def check_model_call(
    op: str,
    candidate: Tensor,
    candidate_dim: int,
    behaviour_dim: int,
    history: History,
    query_time: Tensor,
) -> None:
    """Types, shapes and devices of a call; nothing is read of what the tensors hold.

    Values are checked where they are read: bounds by :func:`longclock.history.windows.bounds_of`, ids by :func:`check_ids`.
    """
    check_floats(op, "candidate", candidate, candidate_dim, "candidate_dim")
    require_history(op, history)
    check_candidate(op, history, candidate, candidate_dim)
    require_dense(op, query_time=query_time)
    require_dense(op, **{"history.time": history.time})
    of_layout = {name: value for name, value in history.layout().items() if value is not None}
    require_dense(op, **of_layout)
    if isinstance(history.rows, Lookup):
        one = not history.rows.has_several
        for _, ids in history.rows.parts():
            if one or ids is not None:
                require_dense(op, **{"history.rows.ids": ids})
    if len(history.tables) == 1:
        check_floats(op, "history.rows", history.table, behaviour_dim, "behaviour_dim")
    elif history.width != behaviour_dim:
        raise ValueError(
            f"{op}: history.rows must have behaviour_dim = {behaviour_dim} columns in all, got {history.width}; build the "
            "module with the behaviour_dim of your data"
        )
    check_call(op, history, candidate.shape[:-1], query_time, candidate.shape)
    check_device(
        op, history.time, candidate=candidate, query_time=query_time, **{"history.rows": history.table}, **history.layout(),
    )  # fmt: skip


def check_device(op: str, like: Tensor, **others: Tensor | None) -> None:
    for name, value in others.items():
        if value is not None and value.device != like.device:
            raise ValueError(
                f"{op}: {name} must be on {like.device} as the other arguments, got {value.device}"
            )


def check_no_own_search(op: str, options: dict[str, Any], why: str) -> None:
    if "own_search" in options:
        raise ValueError(f"{op}: own_search must be left out: {why}")
