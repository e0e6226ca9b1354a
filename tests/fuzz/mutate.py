# SPDX-License-Identifier: Apache-2.0
"""What is done to a valid call, mostly to make it one that must be refused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .call import MLP, SEARCHES, Call
from .contract import FLOAT_SCALARS, INT_SCALARS, of_kind
from .generate import Draw

DTYPES = (
    torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.int8,
    torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool, torch.float8_e4m3fn, torch.uint16,
)  # fmt: skip
FLOAT_VALUES = (torch.nan, torch.inf, -torch.inf, 1e38, -3e38, 1e-40, -0.0, 65504.0, 1e-7)
INT_VALUES = (-1, 0, 1, 2**31 - 1, -(2**31), 10**11, 10**11 + 1, -(10**11) - 1, 1_700_000_000_000,
              2**53, 2**62, 2**63 - 1, -(2**63), -(2**63) + 1)  # fmt: skip


class Subclass(Tensor):
    """One of PyTorch's subclasses that do nothing."""


def dtype(draw: Draw, x: Tensor) -> Tensor:
    return x.to(draw.pick(*DTYPES))


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


def meta(draw: Draw, x: Tensor) -> Tensor:
    return x.to("meta")


def sparse(draw: Draw, x: Tensor) -> Tensor:
    return x.to_sparse()


def csr(draw: Draw, x: Tensor) -> Tensor:
    return x.to_sparse_csr()


def nested(draw: Draw, x: Tensor) -> Tensor:
    layout = torch.jagged if draw.chance(0.7) and x.dim() > 1 else torch.strided
    return torch.nested.nested_tensor(list(x.unbind()), layout=layout)


def quantized(draw: Draw, x: Tensor) -> Tensor:
    return torch.quantize_per_tensor(x.float(), 0.1, 0, torch.quint8)


def negative(draw: Draw, x: Tensor) -> Tensor:
    none = (torch.bool, torch.float8_e4m3fn, torch.uint16, torch.uint32, torch.uint64)
    return x if x.dtype in none else torch._neg_view(x)  # PyTorch resolves no other


def conjugate(draw: Draw, x: Tensor) -> Tensor:
    return x.to(torch.complex64).conj()


def imaginary(draw: Draw, x: Tensor) -> Tensor:
    """A view with the neg bit over strided memory."""
    return torch.complex(x.float(), x.float()).conj().imag


def zero(draw: Draw, x: Tensor) -> Tensor:
    return torch._efficientzerotensor(x.shape, dtype=x.dtype)


def inference(draw: Draw, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.clone()


def subclass(draw: Draw, x: Tensor) -> Tensor:
    return x.as_subclass(Subclass)


def parameter(draw: Draw, x: Tensor) -> Tensor:
    return torch.nn.Parameter(x, requires_grad=x.is_floating_point() or x.is_complex())


def no_tensor(draw: Draw, x: Tensor) -> Any:
    other = draw.below(7)
    if other == 0:
        return x.detach().float().tolist()
    if other == 1:
        return x.detach().float().numpy()
    return (None, 3, 0.5, "3", (x, x))[other - 2]


TENSOR = (
    dtype, dtype, dtype, rank, rank, shape, shape, shape, values, values, values, values, values, values,
    expanded, meta, meta, sparse, csr, nested, quantized, negative, conjugate, imaginary, zero,
    inference, subclass, parameter, no_tensor, no_tensor, no_tensor,
)  # fmt: skip

INTS = (
    -1,
    0,
    1,
    2048,
    2049,
    2**31 - 1,
    2**31,
    2**40,
    2**62,
    2**63 - 1,
    -(2**63),
    True,
    2.0,
    3.5,
    None,
    "3",
    [3],
)
REALS = (
    0.0,
    -1.0,
    -0.0,
    1e-320,
    1e-45,
    1e-30,
    1e30,
    1e300,
    float("nan"),
    float("inf"),
    -float("inf"),
    1,
    True,
    None,
    "1",
    [1.0],
)
FLAGS = (None, 0, 1, "yes", True, False, [True])


def scalar(draw: Draw, call: Call, name: str) -> Any:
    if name in FLOAT_SCALARS:
        return draw.pick(*REALS)
    if name not in INT_SCALARS:
        return draw.pick(*FLAGS)
    value = draw.pick(*INTS)
    if name in ("m", "table_rows") and isinstance(value, int) and 2**20 < value <= 2**31:
        return 2**40  # what is right or nearly so is more than a gradient should take here
    return value


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
        call.extra["lenghts" if call.form in SEARCHES else "validity"] = None
        call.mutations.append("a misspelt keyword")
        return
    if (
        call.way != "raw"
        and "period" in call.arguments
        and "w1" in call.arguments
        and draw.chance(0.05)
    ):
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
        how = draw.pick(*TENSOR)
        if call.way == "gradient" and how in (inference, subclass, zero, parameter):
            return
        if how in (inference, parameter) and any(
            x.is_inference() or x.requires_grad for x in call.tensors().values()
        ):
            return  # PyTorch itself does not save an inference tensor for a backward
        try:
            changed = how(draw, value)
        except (RuntimeError, ValueError, NotImplementedError, TypeError, IndexError):
            return  # PyTorch has no such tensor
        what = how.__name__
        if name in ("context", "softmax"):
            what += " of what the forward saved"
    elif isinstance(value, Tensor):
        return
    elif value is None and name not in FLOAT_SCALARS + INT_SCALARS:
        changed, what = absent(draw, name), "given"
    elif isinstance(value, (bool, int, float)) or value is None:
        changed, what = scalar(draw, call, name), "scalar"
    else:
        return
    call.arguments[name] = changed
    if what == "values" or name in ("period", *FLOAT_SCALARS):
        call.exact = call.exact and call.form not in ("clock_gsu", "gsu_score")
    call.mutations.append(f"{name}: {what}")


def all_meta(call: Call) -> None:
    """Every tensor where nothing is computed."""
    for name, value in call.tensors().items():
        call.arguments[name] = value.detach().to("meta")
    call.mutations.append("all on meta")


__all__ = ["all_meta", "mutate"]
