# SPDX-License-Identifier: Apache-2.0
"""Checks of one argument, in the words that the compiled ops have for them.

They hold for tensors that have nothing but a shape and a dtype as well, as in ``torch.compile`` and ``torch.export``: what is not
known yet of a symbolic size is asserted where it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from longclock._torch_state import has_values

INTEGERS = (torch.int32, torch.int64)
OUTSIDE = "mask what is not there"  # the remedy for an id that should not be read


def check(op: str, holds: Any, text: Callable[[], str]) -> None:
    """Raises a ValueError of the text where ``holds``, a bool or one of symbolic sizes, is False."""
    if isinstance(holds, torch.SymBool):
        torch._check(holds, lambda: f"{op}: {text()}")
    elif not holds:
        raise ValueError(f"{op}: {text()}")


def nested(tensor: Tensor) -> str:
    """What was given in place of a tensor of one shape, and the remedy."""
    if tensor.layout is torch.strided:
        return (
            "got a nested one of layout torch.strided; ragged histories are taken of layout torch.jagged: make it by "
            "torch.nested.nested_tensor(..., layout=torch.jagged)"
        )
    return (
        "got a nested one; give the times as a nested one of layout torch.jagged as well, or its values() and offsets() as a "
        "ragged layout"
    )


def check_not_strided(op: str, **arguments: Any) -> None:
    """PyTorch's nested tensors have the layout torch.strided unless told otherwise, and then no shape at all."""
    for name, value in arguments.items():
        strided = isinstance(value, Tensor) and value.is_nested and value.layout is torch.strided
        check(op, not strided, lambda name=name, value=value: f"{name} must be a tensor of one shape, {nested(value)}")  # type: ignore[misc]  # fmt: skip


def shape_of(tensor: Tensor) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"


def dtype_of(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def check_shape(op: str, name: str, tensor: Tensor, dims: Mapping[str, Any], why: str) -> None:
    """``dims`` are sizes by the letters that the documentation has for them; ``why`` ends the sentence."""
    sizes = list(dims.values())

    def text() -> str:
        wanted = ", ".join(map(str, sizes))
        return (
            f"{name} must have shape [{', '.join(dims)}] = [{wanted}] {why}, got {shape_of(tensor)}"
        )

    check(op, tensor.dim() == len(sizes), text)
    for size, got in zip(sizes, tensor.shape, strict=True):
        check(op, got == size, text)


def check_same_shape(op: str, tensor: Tensor, like: Tensor, text: Callable[[], str]) -> None:
    check(op, tensor.dim() == like.dim(), text)
    for got, size in zip(tensor.shape, like.shape, strict=True):
        check(op, got == size, text)


def check_int(op: str, name: str, tensor: Tensor) -> None:
    check(op, tensor.dtype in INTEGERS, lambda: f"{name} must be int32 or int64, got {dtype_of(tensor)}; "
          f"convert with {name}.to(torch.int64)")  # fmt: skip


def check_ints(op: str, name: str, tensor: Tensor, dims: Mapping[str, Any], why: str) -> None:
    check_int(op, name, tensor)
    check_shape(op, name, tensor, dims, why)


def check_ids(op: str, name: str, ids: Tensor, end: int | None, hint: str) -> None:
    """Ids, those that are read only, are from 0 to ``end`` - 1; None: of any table."""
    if not has_values(ids) or ids.numel() == 0:
        return
    least, most = (int(bound) for bound in torch.aminmax(ids))
    if least < 0 or (end is not None and most >= end):
        span = "at least 0" if end is None else f"from 0 to {end - 1}"
        wrong = least if least < 0 else most
        raise ValueError(f"{op}: {name} must be {span}, got {wrong}; {hint}")
