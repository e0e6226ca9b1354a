# SPDX-License-Identifier: Apache-2.0
"""What PyTorch is doing while an op is called, and the short way past its dispatcher.

PyTorch has no public names for some of this. Each private name that is used is tried at import; where one is gone, or no
longer does what it did, a public and slower way takes its place, with the same results.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.optim import optimizer as _optimizer
from torch.utils import _pytree


def _private(name: str, works: Callable[[Any], bool]) -> Any:
    """``torch._C``'s function of that name; None where there is none that does what is expected."""
    found: Any = torch._C
    for part in name.split("."):
        found = getattr(found, part, None)
    with contextlib.suppress(Exception):
        if found is not None and works(found):
            return found
    return None


def _finds_gradients(any_requires_grad: Any) -> bool:
    plain, learned = torch.zeros(1), torch.zeros(1, requires_grad=True)
    return any_requires_grad(plain, None, 2) is False and any_requires_grad(plain, learned) is True


def _skips_autograd(below_autograd: Any) -> bool:
    with below_autograd():
        return not (torch.zeros(1, requires_grad=True) * 2).requires_grad


_any_requires_grad = _private("_any_requires_grad", _finds_gradients)
_below_autograd = _private("_AutoDispatchBelowAutograd", _skips_autograd)
_transforms_active = _private("_are_functorch_transforms_active", lambda f: f() is False)
_tracing_state = _private("_get_tracing_state", lambda f: f() is None)
_knows_level = isinstance(getattr(forward_ad, "_current_level", None), int)


def _fuses_adam(fused_adam: Any) -> bool:
    """The first step of Adam moves a weight by the rate, against its gradient."""
    weight, grad, *state = (torch.tensor([x]) for x in (2.0, 3.0, 0.0, 0.0, 1.0))
    fused_adam([weight], [grad], *([each] for each in state[:2]), [], state[2:], lr=0.5, beta1=0.9, beta2=0.999,
               weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False)  # fmt: skip
    return abs(float(weight) - 1.5) < 1e-4


fused_adam = _private("_VariableFunctions._fused_adam_", _fuses_adam)


def has_step_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether somebody asks to be called around an optimizer's step; True where that cannot be told."""
    try:
        own = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
        all_hooks = *own, _optimizer._global_optimizer_pre_hooks, _optimizer._global_optimizer_post_hooks  # fmt: skip
        return any(len(hooks) > 0 for hooks in all_hooks)
    except (AttributeError, TypeError):
        return True


def is_traced() -> bool:
    """Whether calls are recorded, by ``torch.compile``, ``torch.export`` or ``torch.jit.trace``."""
    if torch.compiler.is_compiling():
        return True
    tracing = _tracing_state() is not None if _tracing_state else torch.jit.is_tracing()
    return bool(tracing)


class _Probe(torch.autograd.Function):
    """A function of the old kind, with no setup_context, which transforms of ``torch.func`` refuse."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` is at work."""
    if _transforms_active:
        return bool(_transforms_active())
    try:
        _Probe.apply(torch.empty(()))
    except RuntimeError:
        return True
    return False


def may_have_tangents() -> bool:
    """Whether arguments may carry a tangent of forward mode; True where that cannot be told."""
    return not _knows_level or forward_ad._current_level >= 0


def any_requires_grad(*arguments: Any) -> bool:
    """Whether a gradient of one of the tensors is asked for."""
    if _any_requires_grad:
        return bool(_any_requires_grad(*arguments))
    return any(isinstance(value, Tensor) and value.requires_grad for value in arguments)


def below_autograd() -> AbstractContextManager[Any]:
    """Within, ops are called without autograd, which has nothing to do there."""
    if _below_autograd:
        manager: AbstractContextManager[Any] = _below_autograd()
        return manager
    return torch.no_grad()


def in_graph() -> bool:
    """Whether PyTorch traces, compiles or transforms what is called, in place of computing it."""
    return is_traced() or is_transformed()


def reads_values(tensor: Tensor) -> bool:
    """Whether values may be looked at: on the CPU, where that waits for nothing, and outside graphs."""
    return type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu" and not in_graph()


def has_values(tensor: Tensor) -> bool:
    """Whether there are values at all, for those who wait for them: a graph and the meta device have none."""
    return type(tensor) in (Tensor, nn.Parameter) and not (tensor.is_meta or in_graph())


def register_for_saving(kind: type) -> None:
    """Has ``torch.save`` and ``torch.export.save`` take a NamedTuple; the second has a private name for it."""
    torch.serialization.add_safe_globals([kind])
    register = getattr(_pytree, "_register_namedtuple", None)
    with contextlib.suppress(Exception):
        if register is not None:
            register(kind, serialized_type_name=f"longclock.{kind.__name__}")
