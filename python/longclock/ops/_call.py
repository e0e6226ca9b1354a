# SPDX-License-Identifier: Apache-2.0
"""What every op does around its call: its derivatives, or a named refusal, whatever asks for them; no fp64."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

from longclock._library import raw
from longclock._torch_state import (
    any_requires_grad,
    below_autograd,
    is_traced,
    is_transformed,
    may_have_tangents,
)
from longclock.ops._lists import (
    Apart,
    list_arguments,
    sizes_of,
    together,
    with_tensors,
    without_tensors,
)

SetupContext = Callable[[Any, tuple[Any, ...], Any], None]
Backward = Callable[..., Any]
ByName = Mapping[str, Any]
MAX_K = 2048  # that a selection keeps
JOIN_PARTS = f"take the best of parts of {MAX_K} and join them with merge_topk"
SCORE = "score and sort"

# How ops are called eagerly where a gradient is asked for; None: as where none is. Others by themselves.
_with_gradient: dict[Any, Callable[..., Any] | None] = {}
# Of each op that has a formula: what torch.func is to know of it.
_formulas: dict[Any, tuple[SetupContext, Backward]] = {}


@functools.cache
def argument_names(op: Any) -> tuple[str, ...]:
    return tuple(argument.name for argument in op._schema.arguments)


@functools.cache
def output_names(op: Any) -> tuple[str, ...]:
    return tuple(output.name for output in op._schema.returns)


def call(op: Any, **given: Any) -> Any:
    """The raw op, with its derivatives, on all of its arguments, by the names of its schema.

    Graphs and traces go through what PyTorch made of the registered formula. It takes longer than many a kernel on a
    GPU, so that eager calls do without. ``torch.func`` takes neither, and gets a function of its own.
    """
    try:
        if is_traced():
            return op(**given)
        arguments = tuple([given[name] for name in argument_names(op)])
        sizes, flat = None, arguments
        if any(arguments[i] for i in list_arguments(op)):
            sizes = sizes_of(op, arguments)
            flat = Apart.of(arguments, sizes).flat
        if may_have_tangents():
            _refuse_tangents(op, arguments)
        if is_transformed():
            return _transformed(op).apply(sizes, *flat)
        if torch.is_grad_enabled() and any_requires_grad(*flat):
            if op not in _with_gradient:
                return op(*arguments)
            with_gradient = _with_gradient[op]
            if with_gradient is not None:
                return with_gradient(sizes, *flat)
        with below_autograd():
            return op(*arguments)
    except RuntimeError as error:
        refusal = _refusal(op, error)
        if refusal is None:
            raise
        raise refusal from None


def _refusal(op: Any, error: RuntimeError) -> ValueError | None:
    """What the op said of a wrong argument; None where the error is another.

    It throws a std::invalid_argument. Up to PyTorch 2.14 that is a ValueError; from 2.15 on, a RuntimeError of its text.
    """
    speakers = (f"{name_of(op)}: ", f"{public_name_of(op)}: ")
    own = type(error) is RuntimeError and str(error).startswith(speakers)
    return ValueError(str(error)) if own else None


def name_of(op: Any) -> str:
    return str(op._schema.name).removeprefix("longclock::")


def public_name_of(op: Any) -> str:
    """Of the function whose part the op is."""
    name = name_of(op)
    for part in ("_backward", "_table_grad", "_positions"):
        name = name.removesuffix(part)
    return name


def _refuse_tangents(op: Any, arguments: tuple[Any, ...]) -> None:
    """Forward mode: PyTorch would drop the tangents of an op without a word."""
    for name, value in zip(argument_names(op), arguments, strict=True):
        for each in value if isinstance(value, list) else (value,):
            if isinstance(each, Tensor) and forward_ad.unpack_dual(each).tangent is not None:
                _refuse_tangent(op, name)


def _refuse_tangent(op: Any, argument: str) -> None:
    name = name_of(op)
    if name == "pack_signs":  # its integers have no derivative
        return
    raise NotImplementedError(
        f"{name}: forward-mode derivatives are not implemented, got a tangent of {argument}; "
        f"use reverse mode (torch.func.vjp, jacrev), or longclock.reference.{public_name_of(op)}"
    )


@functools.cache
def _transformed(op: Any) -> Any:
    """The op as torch.func takes it: its formula apart from its forward, and a batch as a loop."""
    name = name_of(op)

    def forward(sizes: Any, *inputs: Any) -> Any:  # where no transform is left
        with below_autograd():
            return op(*together(sizes, inputs))

    def set_up(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        ctx.mark_non_differentiable(*(o for o in outputs if not o.is_floating_point()))

    def no_gradient(ctx: Any, *grads: Any) -> NoReturn:
        raise RuntimeError(
            f"{name}: its result has no derivative, and one was asked for; longclock.gsu_score scores what was found"
        )

    def jvp(ctx: Any, *tangents: Any) -> None:
        names = argument_names(op)
        several = (
            len(tangents) != len(names) + 1
        )  # a list was taken apart: which argument it was is not told
        for i, tangent in enumerate(tangents[1:]):
            if tangent is not None:
                _refuse_tangent(op, "an argument" if several else names[i])

    def vmap(info: Any, in_dims: tuple[Any, ...], sizes: Any, *inputs: Any) -> Any:
        if info.batch_size == 0:
            raise ValueError(f"{name}: vmap must be over at least one element, got 0")

        def element(i: int) -> Any:
            values = tuple(x.select(dim, i) if isinstance(dim, int) else x for x, dim in zip(inputs, in_dims[1:], strict=True))  # fmt: skip
            return call(op, **dict(zip(argument_names(op), together(sizes, values), strict=True)))

        found = [element(i) for i in range(info.batch_size)]
        if isinstance(found[0], tuple):
            return tuple(map(torch.stack, zip(*found, strict=True))), (0,) * len(found[0])
        return torch.stack(found), 0

    formula = _formulas.get(op, (set_up, no_gradient))

    def set_up_together(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        sizes, *flat = inputs
        ctx.sizes = sizes
        formula[0](ctx, together(sizes, flat), output)

    methods = {
        "forward": forward,
        "setup_context": set_up_together,
        "backward": formula[1],
        "jvp": jvp,
        "vmap": vmap,
    }
    return type(f"{name}_transformed", (torch.autograd.Function,),
                {key: staticmethod(method) for key, method in methods.items()})  # fmt: skip


def require_one_device(op: str, arguments: Mapping[str, Any]) -> None:
    """All tensors among the arguments, by name, on the device of the first."""
    first: Any = None
    for name, value in arguments.items():
        if isinstance(value, (list, tuple)):
            tensors = {f"{name}[{i}]": each for i, each in enumerate(value)}
            require_one_device(op, {first[0]: arguments[first[0]], **tensors} if first else tensors)
        if not isinstance(value, Tensor):
            continue
        first = first or (name, value.device)
        if value.device != first[1]:
            raise ValueError(
                f"{op}: {name} must be on the device of {first[0]}, {first[1]}, got {value.device}; "
                "move it there with .to()"
            )


def fake(op: str) -> Callable[[Callable[..., Any]], None]:
    """Registers what an op gives without computing it, for tensors on one device: a function of arguments by name."""
    schema = getattr(raw, op).default._schema.arguments
    names = [argument.name for argument in schema]
    required = {argument.name for argument in schema if str(argument.type) == "Tensor"}

    def register(function: Callable[..., Any]) -> None:
        def checked(*arguments: Any) -> Any:
            given = dict(zip(names, arguments, strict=True))
            for name in required:
                if given[name] is None:
                    raise ValueError(f"{op}: {name} must be a tensor, got None")
            require_one_device(op, given)
            return function(**given)

        torch.library.register_fake(f"longclock::{op}")(checked)

    return register


def mlp_gradients(given: ByName, need: bool) -> list[Tensor]:
    """For fakes: tensors for the gradients of w1, b1, w2 and b2."""
    weights = [given[name] for name in ("w1", "b1", "w2", "b2")]
    return [weight.new_empty(weight.shape if need else (0,)) for weight in weights]


def check_int_k(op: str, k: int) -> int:
    if isinstance(k, bool) or not isinstance(k, (int, torch.SymInt)):
        raise ValueError(f"{op}: k must be an int, got {type(k).__name__}")
    return k


def check_k(op: str, k: int, remedy: str = JOIN_PARTS) -> int:
    """Of a public function; of a raw op, in the words of the compiled ones, the remedy is ``SCORE``."""
    check_int_k(op, k)
    if not 0 <= k <= MAX_K:
        raise ValueError(f"{op}: k must be from 0 to {MAX_K}, got {k}; for more, {remedy}")
    return k


def gradients_of(
    backward_op: Any, kept: ByName, grad: Tensor, needs: Mapping[str, bool]
) -> dict[str, Tensor | None]:
    """The gradients that the op of a backward gives, by the names of its outputs.

    It takes what the forward took, ``grad``, and flags such as ``need_keys``; ``need_mlp`` stands for all four parameters
    of s.
    """
    names = output_names(backward_op)
    mlp = any(needs.get(weight, False) for weight in ("w1", "b1", "w2", "b2"))
    flags = {
        name: mlp if name == "need_mlp" else needs[name.removeprefix("need_")]
        for name in argument_names(backward_op)
        if name.startswith("need_")
    }
    given = {**kept, "grad": grad, **flags}
    found = call(backward_op, **{name: given[name] for name in argument_names(backward_op)})
    return {
        name: value if needs.get(name) else None for name, value in zip(names, found, strict=True)
    }


def differentiable(
    op: str,
    keep: Callable[[ByName, ByName], ByName] | None = None,
    gradients: Callable[[ByName, Tensor, Mapping[str, bool]], ByName] | None = None,
) -> None:
    """Gives the op the autograd formula of its first output, the others having none:
    ``torch.library.register_autograd``, the short way of eager calls, and torch.func's.

    Args:
        op: its name; ``op_backward`` is the op of its backward.
        keep: what the backward takes of the arguments and of the outputs, both by name; None: all arguments.
        gradients: of what was kept, the output's gradient, and whether an argument needs one, those gradients, all by
            name; None: those of ``op_backward``.
    """
    raw_op = getattr(raw, op).default
    names, outputs = argument_names(raw_op), output_names(raw_op)
    if gradients is None:
        gradients = functools.partial(gradients_of, getattr(raw, f"{op}_backward").default)

    def set_up(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)  # else zeros are made for the other outputs
        found = output if isinstance(output, tuple) else (output,)
        ctx.mark_non_differentiable(*found[1:])
        given = dict(zip(names, inputs, strict=True))
        kept = keep(given, dict(zip(outputs, found, strict=True))) if keep else given
        ctx.kept, tensors = without_tensors(kept)
        ctx.save_for_backward(*tensors)
        ctx.lists = sizes_of(raw_op, inputs)

    def forward(ctx: Any, sizes: Any, *flat: Any) -> Any:
        arguments = together(sizes, flat)
        with below_autograd():
            output = raw_op(*arguments)
        ctx.sizes = sizes
        set_up(ctx, arguments, output)
        return output

    def backward(ctx: Any, grad: Tensor | None, *_: None) -> Any:
        # Of all arguments; or, where lists were taken apart, of their elements, and before them of the sizes.
        apart = hasattr(ctx, "sizes")
        if grad is None and apart:
            return (None,) * len(ctx.needs_input_grad)
        if grad is None:
            return tuple(None if size is None else [None] * size for size in ctx.lists)
        needed = together(ctx.sizes, ctx.needs_input_grad[1:]) if apart else ctx.needs_input_grad
        kept = with_tensors(ctx.kept, ctx.saved_tensors)
        by_name = gradients(kept, grad, dict(zip(names, needed, strict=True)))
        sizes = ctx.sizes if apart else ctx.lists
        if sizes is None:
            return None, *map(by_name.get, names)
        found = [
            by_name.get(name) if size is None else by_name.get(name, [None] * size)
            for name, size in zip(names, sizes, strict=True)
        ]
        return (None, *Apart.of(found, sizes).flat) if apart else tuple(found)

    torch.library.register_autograd(f"longclock::{op}", backward, setup_context=set_up)
    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    formula: Any = type(f"{op}_formula", (torch.autograd.Function,), methods)
    _with_gradient[raw_op] = formula.apply
    _formulas[raw_op] = (set_up, backward)


def not_differentiable(op: str) -> None:
    """Marks what an op returns as without a gradient, whatever its inputs ask for."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.mark_non_differentiable(*(output if isinstance(output, tuple) else (output,)))
        sizes = sizes_of(getattr(raw, op).default, inputs)
        ctx.arguments = [None if size is None else [None] * size for size in sizes]

    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return tuple(ctx.arguments)

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
