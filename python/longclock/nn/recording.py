# SPDX-License-Identifier: Apache-2.0
"""Modules as what records models sees them: a leaf of ``torch.fx``, and nothing that TorchScript could compile."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

from torch.fx import Proxy


def leaf(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A module's forward that ``torch.fx`` does not look into: a call is one node, as those of PyTorch's own modules are."""

    @functools.wraps(forward)
    def recorded(self: Any, *args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(first, Proxy) and hasattr(first.tracer, "path_of_module"):
            path = first.tracer.path_of_module(self)
            return first.tracer.create_proxy("call_module", path, args, kwargs)
        return forward(self, *args, **kwargs)

    return recorded


def not_scriptable(module: object) -> NoReturn:
    """What ``torch.jit.script`` asks a module for is refused, in a sentence."""
    raise NotImplementedError(
        f"{type(module).__name__}: torch.jit.script cannot compile it, for its checks are Python; record the model by "
        "torch.export.export, or torch.jit.trace it"
    )
