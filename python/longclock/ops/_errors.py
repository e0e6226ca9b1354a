# SPDX-License-Identifier: Apache-2.0
"""What a call that failed is told: which argument was wrong, and what to give in its place.

Good calls pay nothing for it: arguments are looked at after a failure alone, when whatever PyTorch, or a line of Python,
said about them is replaced by a sentence that names the function and the argument.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar, get_args, get_type_hints

import torch
from torch import Tensor, nn

from longclock._checks import nested
from longclock._keywords import keywords_of, unexpected
from longclock._library import raw
from longclock._mlp import remedy
from longclock.history.history import History, not_a_history
from longclock.types import Lookup, QuantizedRows

P = ParamSpec("P")
R = TypeVar("R")

# What the checks of arguments raise by themselves, and what wrong ones make others raise.
FAILURES = (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)
INTEGERS = (torch.uint16, torch.uint32, torch.uint64)
Tables = tuple[Tensor, ...]
Ids = tuple[Tensor | None, ...]
NO_MEMORY = "longclock: PyTorch could not make a tensor of shape "


def named_errors(function: Callable[P, R]) -> Callable[P, R]:
    """The function, whose errors name it and the argument that is wrong."""
    return named_as(function.__name__, {})(function)


def named_as(name: str, words: dict[str, str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The same of a function that is not called what it is named, and calls ops.

    Args:
        words: what the ops that it calls call an argument, and what the function calls it.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def named(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except FAILURES as error:
                better: Exception | None = None
                if words:
                    better = _in_words(name, error, words, kwargs)
                if better is None:
                    better = explained(name, function, args, kwargs, error)
                if better is None:
                    raise
                raise better from None

        return named

    return decorate


def _in_words(
    name: str, error: Exception, words: dict[str, str], kwargs: dict[str, Any]
) -> ValueError | None:
    """What an op, or a module that calls itself LongTermInterestClock, said of an argument; None where it said nothing."""
    op, colon, text = str(error).partition(": ")
    own = op == "LongTermInterestClock"
    if not isinstance(error, ValueError) or not colon or not (own or hasattr(raw, op)):
        return None
    for theirs, ours in () if own else words.items():
        if kwargs.get(theirs) is None:  # else the function's own argument is meant
            text = re.sub(rf"\b{theirs}\b(?!')", ours, text)
    return ValueError(f"{name}: {text}")


def named_method(words: dict[str, str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A method whose errors name its object's class, and its own arguments.

    Args:
        words: what the ops that it calls call an argument, and what the method calls it.
    """

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(method)
        def named(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return method(*args, **kwargs)
            except FAILURES as error:
                name = type(args[0]).__name__
                better = explained(name, method, args, kwargs, error)
                if better is None:
                    better = _in_words(name, error, words, kwargs)
                if better is None:
                    raise
                raise better from None

        return named

    return decorate


def explained(
    name: str, function: Callable[..., Any], args: Any, kwargs: dict[str, Any], error: Exception
) -> Exception | None:
    """A better error; None where the error is good, or not of the arguments' making."""
    if torch.compiler.is_dynamo_compiling():  # which follows a failure to here, and no further
        return None
    good = isinstance(error, ValueError) and str(error).startswith(f"{name}: ")
    if good and not str(error).endswith(
        "must be a tensor, got None"
    ):  # what a raw op says of anything missing
        return None
    signature = inspect.signature(function)
    hints = get_type_hints(function, localns={"TimeSimilarity": nn.Module})
    options = _options(hints)
    for keyword in kwargs:
        if keyword not in signature.parameters and keyword not in options:
            return unexpected(name, keyword, [*keywords_of(function), *options])
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError as unbound:
        return TypeError(f"{name}: {unbound}; its arguments are {', '.join(signature.parameters)}")
    given.pop("self", None)
    extra = given.pop("options", None) or given.pop("layout", None) or {}
    rest = [key for key, one in signature.parameters.items() if one.kind is one.VAR_POSITIONAL]
    for key in rest:
        for number, value in enumerate(given.pop(key, ())):
            given[f"{key}[{number}]"], hints[f"{key}[{number}]"] = value, hints.get(key)
    for argument, value in [*given.items(), *extra.items()]:
        wrong = next(_wrong(argument, value, hints.get(argument, options.get(argument))), None)
        if wrong is not None:
            return ValueError(f"{name}: {wrong}")
    if isinstance(error, RuntimeError) and str(error).startswith(NO_MEMORY):
        shape = str(error).removeprefix(NO_MEMORY).split(";")[0]
        return ValueError(
            f"{name}: the arguments must be of a size that memory can hold, got ones that need a tensor of shape "
            f"{shape}; where memory is short, free some, or call with fewer sequences at a time"
        )
    return None


def _options(hints: dict[str, Any]) -> dict[str, Any]:
    """The keywords of ``**options: Unpack[SomeTypedDict]`` and their types."""
    for hint in hints.values():
        for part in get_args(hint):
            if hasattr(part, "__total__"):
                return get_type_hints(part)
    return {}


def _wrong(argument: str, value: Any, hint: Any) -> Iterator[str]:
    """What is wrong with an argument of that type, if anything."""
    kinds = set(get_args(hint)) or {hint}
    if value is None and type(None) in kinds:
        return
    if isinstance(value, History) and History in kinds:
        part_hints = get_type_hints(History)
        for name, part in zip(History._fields, value, strict=True):
            yield from _wrong(f"{argument}.{name}", part, part_hints[name])
    elif History in kinds:
        yield f"{argument} {not_a_history(value)}"
    elif isinstance(value, Lookup) and Lookup in kinds:
        name = argument if value.has_several else f"{argument}'s table"
        yield from _wrong(name, value.table, Tensor | QuantizedRows | Tables)
        yield from _wrong(f"{argument}'s ids", value.ids, Tensor | Ids)
        yield from _wrong(f"{argument}'s sparse", value.sparse, bool)
    elif isinstance(value, QuantizedRows) and QuantizedRows in kinds:
        for name, part in value._asdict().items():
            yield from _wrong(f"{argument}.{name}", part, Tensor)
    elif type(value) in (tuple, list) and any(_is_tables(kind) for kind in kinds):
        for i, part in enumerate(value):
            if part is not None or Ids not in kinds:
                yield from _wrong(f"{argument}[{i}]", part, Tensor)
    elif any(_is_mlp(kind) for kind in kinds):
        module: Any = value
        weights = module.mlp() if isinstance(value, nn.Module) else value
        for weight, name in zip(weights, ("w1", "b1", "w2", "b2"), strict=True):
            yield from _wrong(f"mlp {name}", weight, Tensor)
    elif isinstance(value, Tensor) and Tensor in kinds:
        yield from wrong_tensor(argument, value)
    elif Tensor in kinds:
        wanted = "a tensor or a Lookup" if Lookup in kinds else "a tensor"
        yield f"{argument} must be {wanted}, got {type(value).__name__}{remedy(value, argument)}"
    elif kinds & {int, float, bool} and not any(map(typing.get_origin, kinds)):
        yield from _wrong_scalar(argument, value, kinds)


def _is_mlp(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple and Tensor in get_args(kind) and not _is_tables(kind)


def _is_tables(kind: Any) -> bool:
    arguments = get_args(kind)
    return Ellipsis in arguments and (Tensor in arguments or (Tensor | None) in arguments)


def wrong_tensor(argument: str, value: Tensor) -> Iterator[str]:
    """What no function takes for a tensor, whatever the argument."""
    if value.is_nested:
        yield f"{argument} must be a tensor of one shape, {nested(value)}"
    elif value.layout is not torch.strided:
        layout = str(value.layout).removeprefix("torch.")
        yield f"{argument} must be a strided tensor, got one of layout {layout}; make it one with .to_dense()"
    elif value.is_quantized:
        yield f"{argument} must not be quantized, got {_dtype(value)}; make it float with .dequantize()"
    elif value.dtype in INTEGERS:
        yield f"{argument} must be of a signed dtype, got {_dtype(value)}; convert it with .to(torch.int64)"
    elif value.is_complex():
        yield f"{argument} must be real, got {_dtype(value)}"
    elif value.dtype.itemsize == 1 and value.is_floating_point():
        yield f"{argument} must be float32, float16 or bfloat16, got {_dtype(value)}; convert it with .float()"


def _wrong_scalar(argument: str, value: Any, kinds: set[Any]) -> Iterator[str]:
    symbols = {int: torch.SymInt, float: torch.SymFloat, bool: torch.SymBool}
    taken = tuple(kind for pair in symbols.items() if pair[0] in kinds for kind in pair)
    if float in kinds:
        taken += (int, torch.SymInt)
    if not isinstance(value, taken) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(kind.__name__ for kind in symbols if kind in kinds)
        none = " or None" if type(None) in kinds else ""
        yield f"{argument} must be of type {wanted}{none}, got {value!r} of type {type(value).__name__}"


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
