# SPDX-License-Identifier: Apache-2.0
"""Which implementation of the ops a module runs: an argument, kept by its name, so that modules are copied and pickled."""

from __future__ import annotations

from types import ModuleType
from typing import Literal, TypeAlias

from longclock import ops, reference

Backend: TypeAlias = Literal["compiled", "reference"]
_OPS: dict[str, ModuleType] = {"compiled": ops, "reference": reference}


def check_backend(op: str, backend: Backend) -> Backend:
    if backend not in _OPS:
        raise ValueError(
            f"{op}: backend must be 'compiled', or 'reference' (plain PyTorch), got {backend!r}"
        )
    return backend


def backend_ops(backend: Backend) -> ModuleType:
    """``longclock.ops``, or ``longclock.reference``, which has the same functions."""
    return _OPS[backend]
