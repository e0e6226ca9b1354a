# SPDX-License-Identifier: Apache-2.0
"""What every op does around its call: its derivatives, or a named refusal, whatever asks for them; no fp64."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from longclock._library import raw

SetupContext = Callable[[Any, tuple[Any, ...], Any], None]
Backward = Callable[..., Any]

# How ops are called eagerly where a gradient is asked for; None: as where none is. Others by themselves.
_with_gradient: dict[Any, Callable[..., Any] | None] = {}
# Of each op that has a formula: what torch.func is to know of it.
_formulas: dict[Any, tuple[SetupContext, Backward]] = {}


def in_graph() -> bool:
    """Whether PyTorch traces, compiles or transforms what is called, in place of computing it."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
    )


def reads_values(tensor: Tensor) -> bool:
    """Whether values may be looked at: on the CPU, where that waits for nothing, and outside graphs."""
    return type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu" and not in_graph()


def call(op: Any, *arguments: Any) -> Any:
    """The raw op, with its derivatives.

    Graphs and traces go through what PyTorch made of the registered formula. It takes longer than many a kernel on a
    GPU, so that eager calls do without. ``torch.func`` takes neither, and gets a function of its own.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return op(*arguments)
    if forward_ad._current_level >= 0:
        _refuse_tangents(op, arguments)
    if torch._C._are_functorch_transforms_active():
        return _transformed(op).apply(*arguments)
    if torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
        with_gradient = _with_gradient.get(op, op)
        if with_gradient is not None:
            return with_gradient(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return op(*arguments)


def name_of(op: Any) -> str:
    return str(op._schema.name).removeprefix("longclock::")


def _refuse_tangents(op: Any, arguments: tuple[Any, ...]) -> None:
    """Forward mode: PyTorch would drop the tangents of an op without a word."""
    for schema, value in zip(op._schema.arguments, arguments, strict=True):
        if isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None:
            _refuse_tangent(op, schema.name)


def _refuse_tangent(op: Any, argument: str) -> None:
    name = name_of(op)
    if name == "pack_signs":  # its integers have no derivative
        return
    public = name.removesuffix("_backward").removesuffix("_table_grad")
    raise NotImplementedError(
        f"{name}: forward-mode derivatives are not implemented, got a tangent of {argument}; "
        f"use reverse mode (torch.func.vjp, jacrev), or longclock.reference.{public}"
    )


@functools.cache
def _transformed(op: Any) -> Any:
    """The op as torch.func takes it: its formula apart from its forward, and a batch as a loop."""
    name = name_of(op)

    def forward(*inputs: Any) -> Any:
        return call(op, *inputs)

    def set_up(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        ctx.mark_non_differentiable(*(o for o in outputs if not o.is_floating_point()))

    def no_gradient(ctx: Any, *grads: Any) -> NoReturn:
        raise RuntimeError(
            f"{name}: its result has no derivative, and one was asked for; longclock.gsu_score scores what was found"
        )

    def jvp(ctx: Any, *tangents: Any) -> None:
        for schema, tangent in zip(op._schema.arguments, tangents, strict=True):
            if tangent is not None:
                _refuse_tangent(op, schema.name)

    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        if info.batch_size == 0:
            raise ValueError(f"{name}: vmap must be over at least one element, got 0")
        found = [
            call(op, *(value if dim is None else value.select(dim, i)
                       for value, dim in zip(inputs, in_dims, strict=True)))
            for i in range(info.batch_size)
        ]  # fmt: skip
        if isinstance(found[0], tuple):
            return tuple(map(torch.stack, zip(*found, strict=True))), (0,) * len(found[0])
        return torch.stack(found), 0

    set_up, backward = _formulas.get(op, (set_up, no_gradient))
    methods = {
        "forward": forward,
        "setup_context": set_up,
        "backward": backward,
        "jvp": jvp,
        "vmap": vmap,
    }
    return type(f"{name}_transformed", (torch.autograd.Function,),
                {key: staticmethod(method) for key, method in methods.items()})  # fmt: skip


def require_one_device(op: str, arguments: Mapping[str, Any]) -> None:
    """All tensors among the arguments, by name, on the device of the first."""
    first: Any = None
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            continue
        first = first or (name, value.device)
        if value.device != first[1]:
            raise ValueError(
                f"{op}: {name} must be on the device of {first[0]}, {first[1]}, got {value.device}; "
                "move it there with .to()"
            )


def fake(op: str) -> Callable[[Callable[..., Any]], None]:
    """Registers what an op gives without computing it, for tensors on one device."""
    schema = getattr(raw, op).default._schema.arguments
    names = [argument.name for argument in schema]
    required = {argument.name for argument in schema if str(argument.type) == "Tensor"}

    def register(function: Callable[..., Any]) -> None:
        def checked(*arguments: Any) -> Any:
            for name, value in zip(names, arguments, strict=True):
                if value is None and name in required:
                    raise ValueError(f"{op}: {name} must be a tensor, got None")
            require_one_device(op, dict(zip(names, arguments, strict=True)))
            return function(*arguments)

        torch.library.register_fake(f"longclock::{op}")(checked)

    return register


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


def differentiable(op: str, backward: Backward, setup_context: SetupContext) -> None:
    """Gives the op the autograd formula of its first output: ``torch.library.register_autograd``, the
    short way of eager calls, and torch.func's."""
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
    _formulas[raw_op] = (set_up, gradients)


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

    def set_up(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    def backward(ctx: Any, *grads: Tensor) -> NoReturn:
        raise RuntimeError(
            f"{backward_op}: a double backward is not implemented; "
            f"differentiate longclock.reference.{op} twice in its place"
        )

    torch.library.register_autograd(f"longclock::{backward_op}", backward)
    _formulas[getattr(raw, backward_op).default] = (set_up, backward)
