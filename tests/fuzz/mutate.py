# SPDX-License-Identifier: Apache-2.0
"""What is done to a valid call, mostly to make it one that must be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from .call import Call
from .draw import Draw
from .rules import SCALARS, of_kind
from .spec import DEFAULTS, MLP

DTYPES = (
    torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.int8,
    torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool, torch.float8_e4m3fn, torch.uint16,
)  # fmt: skip
FLOAT_VALUES = (torch.nan, torch.inf, -torch.inf, 1e38, -3e38, 1e-40, -0.0, 65504.0, 1e-7)
INT_VALUES = (-1, 0, 1, 2**31 - 1, -(2**31), 10**11, 10**11 + 1, -(10**11) - 1, 1_700_000_000_000,
              2**53, 2**62, 2**63 - 1, -(2**63), -(2**63) + 1)  # fmt: skip


class Subclass(Tensor):
    """One of PyTorch's subclasses that do nothing."""


def rank(draw: Draw, x: Tensor) -> Tensor:
    if x.dim() and draw.chance(0.3):
        return x.flatten()
    if x.dim() and x.shape[0] and draw.chance(0.4):
        return x[0]
    return x.unsqueeze(draw.below(x.dim() + 1))


def shape(draw: Draw, x: Tensor) -> Tensor:
    if not x.dim():
        return x.expand(draw.pick(1, 2))
    d = draw.below(x.dim())
    if draw.chance(0.5) and x.shape[d]:
        return x.narrow(d, 0, draw.pick(0, x.shape[d] - 1))
    return torch.cat([x, x.new_zeros((*x.shape[:d], draw.pick(1, 2), *x.shape[d + 1 :]))], d)


def expanded(draw: Draw, x: Tensor) -> Tensor:
    """Every row the first one, in one row's memory."""
    return x[:1].expand(x.shape) if x.dim() and x.shape[0] > 1 else x


def values(draw: Draw, x: Tensor) -> Tensor:
    if x.numel() == 0 or x.is_complex() or x.dtype == torch.bool:
        return x
    x = x.clone()
    many = draw.pick(1, 1, 2, x.numel())
    at = torch.from_numpy(draw.random.integers(0, x.numel(), many))
    if x.is_floating_point():
        x.view(-1)[at] = torch.tensor(draw.pick(*FLOAT_VALUES), dtype=torch.float64).to(x.dtype)
    else:
        info = torch.iinfo(x.dtype)
        x.view(-1)[at] = min(max(draw.pick(*INT_VALUES), info.min), info.max)
    return x


def nested(draw: Draw, x: Tensor) -> Tensor:
    layout = torch.jagged if draw.chance(0.7) and x.dim() > 1 else torch.strided
    return torch.nested.nested_tensor(list(x.unbind()), layout=layout)


def negative(draw: Draw, x: Tensor) -> Tensor:
    none = (torch.bool, torch.float8_e4m3fn, torch.uint16, torch.uint32, torch.uint64)
    return x if x.dtype in none else torch._neg_view(x)  # PyTorch resolves no other


def inference(draw: Draw, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.clone()


def no_tensor(draw: Draw, x: Tensor) -> Any:
    other = draw.below(7)
    if other == 0:
        return x.detach().float().tolist()
    if other == 1:
        return x.detach().float().numpy()
    return (None, 3, 0.5, "3", (x, x))[other - 2]


# Of a tensor, by how often.
TENSOR: list[tuple[int, str, Callable[[Draw, Tensor], Any]]] = [
    (3, "dtype", lambda draw, x: x.to(draw.pick(*DTYPES))), (2, "rank", rank), (3, "shape", shape),
    (5, "values", values), (1, "expanded", expanded), (2, "meta", lambda _, x: x.to("meta")),
    (1, "sparse", lambda _, x: x.to_sparse()), (1, "csr", lambda _, x: x.to_sparse_csr()),
    (1, "nested", nested), (1, "negative", negative), (1, "inference", inference),
    (1, "quantized", lambda _, x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.quint8)),
    (1, "conjugate", lambda _, x: x.to(torch.complex64).conj()),
    # A view with the neg bit over strided memory.
    (1, "imaginary", lambda _, x: torch.complex(x.float(), x.float()).conj().imag),
    (1, "zero", lambda _, x: torch._efficientzerotensor(x.shape, dtype=x.dtype)),
    (1, "subclass", lambda _, x: x.as_subclass(Subclass)),
    (1, "parameter", lambda _, x: torch.nn.Parameter(x, x.is_floating_point() or x.is_complex())),
    (3, "no tensor", no_tensor),
]  # fmt: skip
CHANGES = [(name, change) for often, name, change in TENSOR for _ in range(often)]

INTS = (-1, 0, 1, 2048, 2049, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63), True, 2.0, 3.5, None, "3", [3])  # fmt: skip
REALS = (0.0, -1.0, -0.0, 1e-320, 1e-45, 1e-30, 1e30, 1e300, float("nan"), float("inf"), -float("inf"), 1, True, None, "1", [1.0])  # fmt: skip
TEXTS = (None, "int8", "bfloat16", "float32", "float16", "", "INT8", 3, 1.0, torch.int8)
FLAGS = (None, 0, 1, "yes", True, False, [True])
NO_LIST = ("3", {3: 4}, None, 7)  # the public functions take the last two


def scalar(draw: Draw, call: Call, name: str) -> Any:
    kind = call.kind(name)
    if kind == "float":
        return draw.pick(*REALS)
    if kind == "bool":
        return draw.pick(*FLAGS)
    if kind == "Optional[str]":
        return draw.pick(*TEXTS)
    value = draw.pick(*INTS)
    if name in call.form.sizes and isinstance(value, int) and 2**20 < value <= 2**31:
        return 2**40  # what is right or nearly so is more than a gradient should take here
    return value


def numbers(draw: Draw, call: Call, name: str) -> Any:
    """For a list of them: another of them, more, fewer, or no list."""
    whole = call.kind(name) == "List[int]"
    value = [*(call.arguments[name] or [3600])]
    other = draw.pick(*(INTS if whole else REALS))
    others = draw.below(len(value))
    return draw.pick(
        [], value[1:], [*value, value[0]], [*value, other], value * 5, value[::-1],
        *([[*value[:others], other, *value[others + 1 :]]] * 5),
        *(NO_LIST if call.way == "raw" else NO_LIST[:2]),
    )  # fmt: skip


def absent(draw: Draw, name: str) -> Tensor:
    """Something for an optional argument that a call of its layout does without."""
    length = draw.size(6)
    if name in ("mask", "valid"):
        return draw.bools((length,), 0.5)
    if name == "positions":
        return draw.ints((length, draw.size(6)), -1, 4, torch.int64)
    return draw.ints((length,), 0, 4, draw.pick(torch.int32, torch.int64))


def mutate(draw: Draw, call: Call) -> None:
    """Once, in place."""
    if call.way != "raw" and draw.chance(0.05):
        call.extra["lenghts"] = None
        call.mutations.append("a misspelt keyword")
        return
    takes_mlp = call.way != "raw" and {"periods", "w1"} <= set(call.arguments)
    if takes_mlp and draw.chance(0.05):
        weights = [call.arguments[name] for name in MLP]
        call.mlp = draw.pick(None, 3, "mlp", weights[:3], [*weights, None], [None] * 4, weights[0])
        call.mutations.append("mlp")
        return
    names = [name for name, value in call.arguments.items()
             if not (value is None and draw.chance(0.8))]  # fmt: skip
    if call.way == "gradient":  # the rest is PyTorch's to check
        names = [name for name in names if name != "grad" and not name.startswith("need_")]
    if not names:
        return
    name = draw.pick(*names)
    if name in MLP and draw.chance(0.5):  # four of so many
        name = draw.pick(*names)
    value = call.arguments[name]
    plain = of_kind(value) == "tensor"
    if plain and type(value) is Tensor and not value.is_neg() and not value.is_inference():
        what, change = draw.pick(*CHANGES)
        if call.way == "gradient" and what in ("inference", "subclass", "zero", "parameter"):
            return
        others = call.tensors().values()
        if what in ("inference", "parameter") and any(
            x.is_inference() or x.requires_grad for x in others
        ):
            return  # PyTorch itself does not save an inference tensor for a backward
        try:
            changed = change(draw, value)
        except (RuntimeError, ValueError, NotImplementedError, TypeError, IndexError):
            return  # PyTorch has no such tensor
        if name in call.spec.saved:
            what += " of what the forward saved"
    elif isinstance(value, Tensor):
        return
    elif call.kind(name) in ("List[int]", "List[float]"):
        if not isinstance(value, list | None):
            return  # of a number one might be made that public functions take
        changed, what = numbers(draw, call, name), "numbers"
    elif value is None and call.kind(name) not in SCALARS:
        changed, what = absent(draw, name), "given"
    elif isinstance(value, (bool, int, float, str)) or value is None:
        changed, what = scalar(draw, call, name), "scalar"
    else:
        return
    call.arguments[name] = changed
    if what == "values" or name in ("period", "periods", *DEFAULTS):
        call.exact = False
    call.mutations.append(f"{name}: {what}")


def all_meta(call: Call) -> None:
    """Every tensor where nothing is computed."""
    call.arguments = tree_map_only(Tensor, lambda x: x.detach().to("meta"), call.arguments)
    call.mutations.append("all on meta")
