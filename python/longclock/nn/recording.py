# SPDX-License-Identifier: Apache-2.0
"""Modules as what records models sees them: a leaf of ``torch.fx``, and nothing that TorchScript could compile."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NoReturn

from torch.fx import Proxy


def leaf(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A module's forward that ``torch.fx`` does not look into: a call is one node, as those of PyTorch's own modules are."""

    def recorded(self: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(args, Proxy):  # torch.fx calls what is behind the root's name by its code
            raise _as_root(self)
        first = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(first, Proxy) and hasattr(first.tracer, "path_of_module"):
            if getattr(first.tracer, "root", None) is self:
                raise _as_root(self)
            path = first.tracer.path_of_module(self)
            return first.tracer.create_proxy("call_module", path, args, kwargs)
        return forward(self, *args, **kwargs)

    functools.update_wrapper(recorded, forward)
    # torch.fx would take the parameters of what is wrapped for those of the code that it calls.
    recorded.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    del recorded.__wrapped__  # type: ignore[attr-defined]
    return recorded


def _as_root(module: object) -> NotImplementedError:
    name = type(module).__name__
    return NotImplementedError(
        f"{name}: torch.fx.symbolic_trace has nothing to record of it alone, for it is a leaf of torch.fx; trace a module that holds it"
    )


def not_scriptable(module: object) -> NoReturn:
    """What ``torch.jit.script`` asks a module for is refused, in a sentence."""
    raise NotImplementedError(
        f"{type(module).__name__}: torch.jit.script cannot compile it, for its checks are Python; record the model by "
        "torch.export.export, or torch.jit.trace it"
    )
