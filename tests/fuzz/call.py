# SPDX-License-Identifier: Apache-2.0
"""One generated call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .spec import Spec


@dataclass
class Call:
    """way: "raw" (torch.ops.longclock), "public" (longclock), or "gradient": the public function of
    the forward and torch.autograd.grad through it. ``arguments`` are those of the raw op by name; of
    a gradient those of the forward, and ``grad``."""

    spec: Spec
    way: str
    arguments: dict[str, Any]
    exact: bool = False  # every sum is exact in fp32: no tolerance at all
    level: str | None = None  # of SIMD; None: that of the machine
    module: bool = False  # a TimeSimilarity in place of the four weights
    mlp: Any = "the weights"  # something else in their place
    extra: dict[str, Any] = field(default_factory=dict)  # keywords that the public function lacks
    mutations: list[str] = field(default_factory=list)

    @property
    def op(self) -> str:
        return self.spec.name

    @property
    def form(self) -> Spec:
        """The op whose arguments these are."""
        forward = self.spec.of if self.way == "gradient" else None
        return self.spec if forward is None else forward

    def kind(self, name: str) -> str:
        """Of an argument, as schemas have it; of one that is not of this form, "Tensor" or "bool"."""
        return self.form.kinds.get(name, "bool" if name.startswith("need_") else "Tensor")

    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.arguments.items() if isinstance(value, Tensor)}

    def __str__(self) -> str:
        how = [self.way, *(["exact"] if self.exact else []), *([self.level] if self.level else [])]
        lines = [f"{self.op} ({', '.join(how)}{', module' if self.module else ''})"]
        lines += [f"  mutated: {text}" for text in self.mutations]
        lines += [f"  {name} = {shown(value)}" for name, value in self.arguments.items()
                  if value is not None]  # fmt: skip
        lines += [
            f"  {name} = {shown(value)} (no such keyword)" for name, value in self.extra.items()
        ]
        return "\n".join(lines)


def shown(value: Any) -> str:
    """Compactly: of a tensor its dtype, shape, strides and first values."""
    if not isinstance(value, Tensor):
        return repr(value)[:200]
    if value.is_nested:
        return f"nested {str(value.dtype)[6:]} {value.layout}"
    text = f"{str(value.dtype)[6:]}{list(value.shape)}"
    if type(value) is not Tensor:
        text += f" {type(value).__name__}"
    if value.device.type != "cpu" or value.layout != torch.strided or value.is_quantized:
        return f"{text} {value.device.type} {value.layout}"
    try:
        if not value.is_contiguous() or value.storage_offset():
            text += f" strides {list(value.stride())} offset {value.storage_offset()}"
        first = value.detach().resolve_neg().resolve_conj().flatten()[:12].tolist()
    except (RuntimeError, NotImplementedError) as error:
        return f"{text} ({type(error).__name__})"
    numbers = [f"{x:.9g}" if isinstance(x, float) else str(x) for x in first]
    return f"{text} [{', '.join(numbers)}{', ..' if value.numel() > 12 else ''}]"
