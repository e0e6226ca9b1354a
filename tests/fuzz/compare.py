# SPDX-License-Identifier: Apache-2.0
"""Whether a result is what the oracle gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .call import Call
from .oracle import Answer
from .spec import MLP, Given

ULP = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
LARGEST = {torch.float16: 65504.0, torch.bfloat16: 3.38e38, torch.float32: 3.4e38}
LEAST = {torch.float16: 2.0**-24, torch.bfloat16: 2.0**-133, torch.float32: 2.0**-149}


class Wrong(Exception):
    """A result that is not what the oracle gives."""


def check(holds: bool, text: str) -> None:
    if not holds:
        raise Wrong(text)


def compare(what: str, got: Tensor, exact: Any, dtype: torch.dtype, off: Any = 0.0) -> None:
    """off: how far it may be from the exact value, besides the rounding to a dtype of 16 bits."""
    kind, expected = (got.dtype, tuple(got.shape)), (dtype, exact.shape)
    check(kind == expected, f"{what} is of {kind}, expected {expected}")
    value = (got.detach().double() if dtype.is_floating_point else got).numpy()
    limit, right = np.broadcast_to(np.asarray(off), exact.shape), value == exact
    if dtype.is_floating_point:
        with np.errstate(all="ignore"):
            size = np.abs(np.where(np.isfinite(exact), exact, 0.0))
            limit = limit + np.where(limit > 0, LEAST[dtype], 0.0)
            if dtype in ULP:
                limit = limit + ULP[dtype] * size + LEAST[dtype]
            limit = np.where(size + limit >= LARGEST[dtype], np.inf, limit)
            right = right | (np.isnan(value) & np.isnan(exact)) | np.isinf(limit)
            right = right | (np.abs(value - exact) <= limit)
    if not right.all():
        at = np.unravel_index(int(np.argmin(right)), right.shape)
        raise Wrong(
            f"{what}{[int(i) for i in at]} is {float(value[at])}, expected {float(exact[at])} "
            f"+- {float(limit[at]):.3g}, {int((~right).sum())} of {right.size} are off"
        )


def needed(call: Call, name: str) -> bool:
    what = "mlp" if name in MLP else name
    return bool(call.arguments.get(f"need_{what}", True))


def compare_gradients(call: Call, a: Given, result: Any, answer: Answer) -> None:
    """What is needed; of the rest the raw op gives nothing."""
    names = call.spec.leaves
    got = result if isinstance(result, dict) else dict(zip(names, result, strict=True))
    if call.way == "gradient":
        wanted = [name for name in names if needed(call, name)]
        check(set(wanted) == set(got), f"gradients of {sorted(got)}, expected {wanted}")
    for name, value in got.items():
        if not needed(call, name):
            check(value.numel() == 0, f"a gradient of {name} that was not asked for")
            continue
        exact, off = answer.values[name], answer.off[name]
        off = np.where(np.isfinite(exact) & ~np.isnan(off), off, np.inf)
        compare(f"gradient of {name}", value, exact, a[name].dtype, off)


def same_bits(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        if a.layout != torch.strided:
            a, b = a.coalesce().values(), b.coalesce().values()
        kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
        same = a.detach().contiguous().view(kind), b.detach().contiguous().view(kind)
        return a.shape == b.shape and torch.equal(*same)
    if isinstance(a, dict):
        a, b = a.values(), b.values()
    return all(same_bits(x, y) for x, y in zip(a, b, strict=True))
