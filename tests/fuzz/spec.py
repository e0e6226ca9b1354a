# SPDX-License-Identifier: Apache-2.0
"""What the tests that know every op must know of one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch

if TYPE_CHECKING:
    from .call import Call
    from .draw import Draw
    from .rules import Rules

Given = dict[str, Any]  # the arguments of a raw op by name
MLP = ("w1", "b1", "w2", "b2")
DEFAULTS = ("scale", "unit", "units")  # of the public functions, where None has a meaning


def schema_of(op: str) -> dict[str, str]:
    """The type of every argument: "Tensor", "Optional[Tensor]", "int", "Optional[int]", "float", "bool", or a "List[...]" of those."""
    schema = getattr(torch.ops.longclock, op).default._schema
    return {argument.name: str(argument.type) for argument in schema.arguments}


class Spec:
    """A raw op, and the public function of its name where there is one."""

    name: ClassVar[str]
    # The op whose gradient this computes, or of which it is a part.
    of: ClassVar[Spec | None] = None
    ways: ClassVar[tuple[str, ...]] = ("raw", "public")  # of Call
    # What this is a gradient of, in the order of its results.
    leaves: ClassVar[tuple[str, ...]] = ()
    saved: ClassVar[tuple[str, ...]] = ()  # what the forward keeps for this op
    sizes: ClassVar[tuple[str, ...]] = ()  # numbers that a result is as large as

    @cached_property
    def kinds(self) -> dict[str, str]:
        """As schema_of, or "Tensor or int", which no raw op takes."""
        return schema_of(self.name)

    @property
    def called(self) -> str:
        """What its errors call it."""
        return self.name

    # Good calls, from which wrong ones are made.

    def raw(self) -> dict[str, Given]:
        """Of the raw op, every argument in the schema's order, each by what is special in it. All
        optional arguments occur."""
        raise NotImplementedError

    def public(self) -> dict[str, Given]:
        """Of the public function; as they stand here where it takes what the raw op takes."""
        return self.raw()

    # The fuzz.

    def draw(self, draw: Draw, way: str) -> Given:
        """A valid call by chance; of the way "gradient" the arguments of the forward, and ``grad``."""
        raise NotImplementedError

    def complete(self, call: Call) -> None:
        """Sets what only another op can give, once that op's own arguments stand."""

    def contract(self, rules: Rules) -> None:
        """What dtypes and shapes must be."""

    def values(self, rules: Rules, view: Given) -> None:
        """What values must be; ``view`` has arrays."""

    def unread(self, a: Given) -> tuple[str, ...]:
        """Arguments that a call of the public function leaves out."""
        return ()

    def call(self, function: Callable[..., Any], a: Given, mlp: Any, extra: Given) -> Any:
        """The public function as it is written by hand. mlp: the weights as they are given."""
        given = {name: value for name, value in a.items() if name in self.kinds}
        return function(**given, **extra)

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        """Raises Wrong for a result that is not right to the last bit that is laid down."""
        raise NotImplementedError
