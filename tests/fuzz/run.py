# SPDX-License-Identifier: Apache-2.0
"""Makes a call, and says what came of it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import emulator
import torch
from ops import OPS
from torch import Tensor
from torch.utils._pytree import tree_leaves

import longclock as lc
from longclock import _native

from .call import Call
from .clocks import module
from .compare import Wrong, needed, same_bits
from .draw import Draw
from .mutate import all_meta, mutate
from .oracle import read
from .rules import Verdict, judge, of_kind
from .spec import DEFAULTS, MLP, Given

BAD = ("wrong", "unnamed", "accepted")


def generate(op: str, draw: Draw) -> Call:
    """A valid call. What only another op can give it lacks: see Spec.complete."""
    spec = OPS[op]
    way = draw.pick(*spec.ways)
    arguments = spec.draw(draw, way)
    call = Call(spec, way, arguments, draw.exact)
    if way != "raw":
        for name in DEFAULTS:
            if name in arguments and not draw.exact and draw.chance(0.2):
                arguments[name] = None
        call.module = way == "public" and "periods" in arguments and draw.chance(0.2)
    if not draw.tiny and draw.chance(0.4):
        call.level = draw.pick(*_native.simd_levels())
    return call


def make(seed: int, index: int, emulated: bool, op: str | None = None) -> Call:
    draw = Draw(seed, index, tiny=emulated)
    call = generate(op or draw.pick(*sorted(OPS)), draw)
    call.spec.complete(call)
    if draw.chance(0.03):
        all_meta(call)
        return call
    for _ in range(draw.pick(0, 0, 1, 1, 2, 3)):
        mutate(draw, call)
    plain = all(
        of_kind(value) in ("tensor", "zero", "subclass") for value in call.tensors().values()
    )
    if plain and not any("saved" in text for text in call.mutations):
        # A call that the forward refuses keeps what it saved before: the backward refuses it too.
        with contextlib.suppress(RuntimeError, ValueError):
            call.spec.complete(call)
    return call


# The call.


def public(call: Call, a: Given, package: Any = lc) -> Any:
    """The function of ``longclock``, as it is written by hand."""
    mlp: Any = tuple(a[name] for name in MLP if name in a)
    if call.module and mlp and all(of_kind(weight) == "tensor" for weight in mlp):
        mlp = module(mlp, a)
    if call.mlp != "the weights":
        mlp = call.mlp
    return call.form.call(getattr(package, call.form.name), a, mlp, call.extra)


def gradient(call: Call) -> dict[str, Tensor]:
    """Of the public forward's result by its inputs that may have one."""
    a = dict(call.arguments)
    wanted = [name for name in call.spec.leaves if of_kind(a[name]) == "tensor"
              and a[name].is_floating_point() and needed(call, name)]  # fmt: skip
    for name in wanted:
        a[name] = a[name].detach().requires_grad_()
    result = public(call, a)
    result = result.scores if isinstance(result, tuple) else result
    if not wanted:
        return {}
    grad = a["grad"]
    if (result.shape, result.device) != (grad.shape, grad.device):  # a mutation changed it
        a["grad"] = call.arguments["grad"] = torch.ones_like(result)
    grads = torch.autograd.grad(result, [a[name] for name in wanted], a["grad"], allow_unused=True)
    return {name: grad for name, grad in zip(wanted, grads, strict=True) if grad is not None}


def invoke(call: Call) -> Any:
    if call.way == "gradient":
        return gradient(call)
    if call.way == "public":
        return public(call, call.arguments)
    return getattr(torch.ops.longclock, call.op)(*call.arguments.values())


def check_result(call: Call, result: Any) -> None:
    """Raises Wrong."""
    a = {name: torch.tensor(value) if isinstance(value, (bool, int, float)) and call.kind(name) == "Tensor" else value
         for name, value in call.arguments.items()}  # fmt: skip
    call.spec.check(call, a, read(a), result)


# What came of it.


def named(call: Call, error: BaseException) -> bool:
    """Whether an error tells whose it is, and of which argument."""
    text = str(error)
    spec = call.spec
    ops = (spec.name, spec.called, *([] if spec.of is None else [spec.of.name]))
    if call.way == "raw":
        kinds = (RuntimeError, ValueError, TypeError)
        return isinstance(error, kinds) and any(op in text for op in ops)
    if not isinstance(error, (ValueError, TypeError)) or not text.startswith(ops):
        return False
    words = set(re.findall(r"\w+", text.split(":", 1)[-1]))
    known = {*call.arguments, *call.extra, "mlp", "table", "unit", "clocks", "starts", "offsets", "found"}  # fmt: skip
    return bool(words & known)


def memory_of(tensors: list[Tensor]) -> list[bytes]:
    """Every byte that they lie in."""
    found = []
    for value in tensors:
        if of_kind(value) == "tensor":
            storage = value.untyped_storage()
            found.append(torch.empty(0, dtype=torch.uint8).set_(storage).numpy().tobytes())
    return found


def outcome(call: Call, emulated: bool, invoke: Callable[[Call], Any] = invoke) -> tuple[str, str]:
    """("right" | "refused" | "open" | "wrong" | "unnamed" | "accepted", what to say about it)."""
    verdict = judge(call, emulated, read)
    tensors = list(call.tensors().values())
    before = memory_of(tensors)
    torch.set_num_threads(1)
    if not emulated:
        _native.set_simd_level(call.level or _native.simd_levels()[-1])
    try:
        result = invoke(call)
    except Exception as error:  # whatever a library may raise
        return refused(call, verdict, error)
    finally:
        reports = emulator.take_reports() if emulated else []
    if reports:
        return "wrong", f"the emulator: {reports[0]['text']}"
    if memory_of(tensors) != before:
        return "wrong", "an argument was written"
    if verdict.kind == "refused":
        return "accepted", "; ".join(verdict.why)
    if verdict.kind == "meta":
        return meta_result(result)
    torch.set_num_threads(2)
    try:
        again = invoke(call)
        if not same_bits(result, again):
            return "wrong", "another result on 2 threads"
        if verdict.kind == "open":
            return "open", ""
        check_result(call, result)
    except Wrong as error:
        return "wrong", str(error)
    finally:
        torch.set_num_threads(1)
    return "right", ""


def refused(call: Call, verdict: Verdict, error: Exception) -> tuple[str, str]:
    text = f"{type(error).__name__}: {str(error)[:300]}"
    if not named(call, error):
        return "unnamed", text
    if verdict.kind == "right":
        return "wrong", f"refused though it is right: {text}"
    return "refused", text


def meta_result(result: Any) -> tuple[str, str]:
    if all(part.device.type == "meta" for part in tree_leaves(result)):
        return "right", ""
    return "wrong", "a result that is not on meta"
