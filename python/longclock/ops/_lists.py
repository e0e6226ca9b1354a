# SPDX-License-Identifier: Apache-2.0
"""Lists of tensors among an op's arguments: PyTorch's autograd sees tensors that are arguments of their own, and no others."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

ByName = Mapping[str, Any]


@functools.cache
def list_arguments(op: Any) -> tuple[int, ...]:
    """Which arguments are lists of tensors, or None."""
    return tuple(
        i
        for i, argument in enumerate(op._schema.arguments)
        if str(argument.type) == "Optional[List[Tensor]]"
    )


def sizes_of(op: Any, arguments: Sequence[Any]) -> tuple[int | None, ...]:
    """How many tensors each list among the arguments has; None for what is no list."""
    lists = list_arguments(op)
    return tuple(
        len(value) if i in lists and value is not None else None
        for i, value in enumerate(arguments)
    )


class Apart(NamedTuple):
    """Arguments with the elements of their lists as arguments of their own: those alone have a derivative."""

    sizes: tuple[int | None, ...]  # of the lists among the arguments
    flat: tuple[Any, ...]

    @classmethod
    def of(cls, arguments: Sequence[Any], sizes: tuple[int | None, ...]) -> Apart:
        pairs = zip(arguments, sizes, strict=True)
        return cls(sizes, tuple(each for value, size in pairs for each in ((value,) if size is None else value)))  # fmt: skip

    @property
    def whole(self) -> tuple[Any, ...]:
        rest = iter(self.flat)
        return tuple(
            next(rest) if size is None else [next(rest) for _ in range(size)] for size in self.sizes
        )


def together(sizes: Any, flat: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments of an op, of which lists were taken apart where there are ``sizes``."""
    return tuple(flat) if sizes is None else Apart(sizes, tuple(flat)).whole


class Saved(NamedTuple):
    """A tensor's place among those that were saved for a backward."""

    at: int


def without_tensors(kept: ByName) -> tuple[dict[str, Any], list[Tensor]]:
    """What a backward takes, with places in its tensors' stead; and these."""
    tensors: list[Tensor] = []
    return {name: _place(value, tensors) for name, value in kept.items()}, tensors


# Not closures: one that calls itself is a cycle, which would keep the tensors until the garbage is collected.
def _place(value: Any, tensors: list[Tensor]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_place(each, tensors) for each in value]
    if not isinstance(value, Tensor):
        return value
    tensors.append(value)
    return Saved(len(tensors) - 1)


def with_tensors(kept: ByName, tensors: Sequence[Tensor]) -> dict[str, Any]:
    return {name: _placed(value, tensors) for name, value in kept.items()}


def _placed(value: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(value, Saved):
        return tensors[value.at]
    return [_placed(each, tensors) for each in value] if isinstance(value, list) else value
