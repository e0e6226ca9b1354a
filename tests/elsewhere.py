# SPDX-License-Identifier: Apache-2.0
"""A device that is not the CPU, on a machine without one: its tensors lie here, and mixing them with the CPU's is an error.

PyTorch takes it for "meta", whose backward pass runs on the calling thread; inside of ``with Machine()`` what is made there, or brought there, has
values all the same, and what a GPU refuses is refused: a tensor of the CPU in an operation beside one of the device. Scalars may be of either,
as on a GPU, and ``copy_`` goes from one to the other.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
BETWEEN = (torch.ops.aten.copy_.default,)


class Elsewhere(torch.Tensor):
    """A tensor of the device."""

    there: Tensor

    @staticmethod
    def __new__(cls, there: Tensor) -> Elsewhere:
        found: Elsewhere = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, there.shape, strides=there.stride(), storage_offset=there.storage_offset(),
            dtype=there.dtype, device=DEVICE,
        )  # fmt: skip
        found.there = there
        return found

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> Any:
        """Which PyTorch has for its own tensors alone."""
        return self.there.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Machine(TorchDispatchMode):
    """One that has the device."""

    def __enter__(self) -> Machine:
        made = torch.tensor

        def brought(data: Any, device: Any = None, **options: Any) -> Tensor:
            return made(data, **options).to(device or "cpu")

        # PyTorch's own makes nothing of what it is given for "meta".
        self.patch = mock.patch.object(torch, "tensor", brought)
        self.patch.start()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.patch.stop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation where its tensors lie, or where it is told to put what it makes."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    ours = [x for x in tensors if isinstance(x, Elsewhere)]
    if ours and func not in BETWEEN:
        here = [list(x.shape) for x in tensors if not isinstance(x, Elsewhere) and x.dim()]
        assert not here, f"{func}: tensors {here} are on the CPU, the others are not"
    told = kwargs.get("device")
    goes = bool(ours) if told is None else torch.device(told).type == DEVICE.type
    if told is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}

    def inside(x: Any) -> Any:
        return x.there if isinstance(x, Elsewhere) else x

    found = func(*tree_map(inside, args), **tree_map(inside, kwargs))
    known = {id(x.there): x for x in ours}  # what is changed in its place stays what it is

    def outside(x: Any) -> Any:
        return known.get(id(x)) if id(x) in known else Elsewhere(x) if isinstance(x, Tensor) else x

    return tree_map(outside, found) if goes else found
