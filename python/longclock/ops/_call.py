# SPDX-License-Identifier: Apache-2.0
"""What every op does around its call: errors as ValueError, no fp64, no double backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from longclock._library import raw

# How ops are called eagerly where a gradient is asked for; None: as where none is. Others by themselves.
_with_gradient: dict[Any, Callable[..., Any] | None] = {}


def in_graph() -> bool:
    """Whether PyTorch traces, compiles or transforms what is called, in place of computing it."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
    )


def call(op: Any, *arguments: Any) -> Any:
    """The raw op; its complaint about an argument becomes a ValueError (left alone in a graph).

    Graphs, traces and transforms of functions go through what PyTorch made of the registered formula. It takes longer
    than many a kernel on a GPU, so that eager calls do without.
    """
    if in_graph():
        return op(*arguments)
    try:
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
            with_gradient = _with_gradient.get(op, op)
            if with_gradient is not None:
                return with_gradient(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return op(*arguments)
    except RuntimeError as error:
        name = op._schema.name.removeprefix("longclock::")
        start = str(error).find(f"{name}: ")
        if type(error) is not RuntimeError or start < 0:
            raise
        raise ValueError(str(error)[start:].splitlines()[0]) from None


def refuse_float64(op: str, **arguments: Tensor | None) -> None:
    for name, value in arguments.items():
        if value is not None and value.dtype == torch.float64:
            raise ValueError(
                f"{op}: {name} must be float32, float16 or bfloat16, got float64; "
                f"longclock.reference.{op} takes float64"
            )


def check_k(op: str, k: int) -> int:
    if isinstance(k, bool) or not isinstance(k, (int, torch.SymInt)):
        raise ValueError(f"{op}: k must be an int, got {type(k).__name__}")
    if not 0 <= k <= 2048:
        raise ValueError(
            f"{op}: k must be from 0 to 2048, got {k}; for more, score and sort in PyTorch"
        )
    return k


def differentiable(
    op: str, backward: Callable[..., Any], setup_context: Callable[..., None]
) -> None:
    """Gives the op the autograd formula of its first output: ``torch.library.register_autograd``, and
    the short way of eager calls."""
    raw_op = getattr(raw, op).default
    no_gradients = (None,) * len(raw_op._schema.arguments)

    def set_up(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)  # else zeros are made for the other outputs
        setup_context(ctx, inputs, output)

    def forward(ctx: Any, *arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            output = raw_op(*arguments)
        set_up(ctx, arguments, output)
        return output

    def gradients(ctx: Any, grad: Tensor | None, *_: None) -> Any:
        return no_gradients if grad is None else backward(ctx, grad)

    torch.library.register_autograd(f"longclock::{op}", gradients, setup_context=set_up)
    methods = {"forward": staticmethod(forward), "backward": staticmethod(gradients)}
    formula: Any = type(f"{op}_formula", (torch.autograd.Function,), methods)
    _with_gradient[raw_op] = formula.apply


def not_differentiable(op: str) -> None:
    """Marks what an op returns as without a gradient, whatever its inputs ask for."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.mark_non_differentiable(*(output if isinstance(output, tuple) else (output,)))
        ctx.arguments = len(inputs)

    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        return (None,) * int(ctx.arguments)

    torch.library.register_autograd(f"longclock::{op}", backward, setup_context=setup_context)
    _with_gradient[getattr(raw, op).default] = None


def forbid_double_backward(op: str, backward_op: str) -> None:
    """Gives an op of the backward of ``op`` an autograd formula that only explains itself."""

    def backward(ctx: Any, *grads: Tensor) -> NoReturn:
        raise RuntimeError(
            f"{backward_op}: a double backward is not implemented; "
            f"differentiate longclock.reference.{op} twice in its place"
        )

    torch.library.register_autograd(f"longclock::{backward_op}", backward)
