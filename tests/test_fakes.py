# SPDX-License-Identifier: Apache-2.0
"""``torch.compile`` and ``torch.export`` refuse what eager calls refuse, in the same words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from cases import make_case
from ops import OPS, raw_calls, run_raw
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._pytree import tree_map_only

import longclock as lc

CALLS = raw_calls(forward=True)
CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "fewer": lambda x: x[:-1],
    "narrower": lambda x: x.narrow(x.dim() - 1, 0, x.shape[-1] - 1),
    "one dimension more": lambda x: x[None],
    "one dimension less": lambda x: x[0],
    "flat": torch.Tensor.flatten,
    "float64": torch.Tensor.double,
    "float16": torch.Tensor.half,
    "int64": torch.Tensor.long,
    "int16": torch.Tensor.short,
    "bool": torch.Tensor.bool,
    "float8": lambda x: x.to(torch.float8_e4m3fn),
}
ADDED = (torch.arange(3), torch.zeros(3, 3, dtype=torch.int64), torch.ones(3, 8, dtype=torch.bool))


def mistakes(op: str, given: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Calls that differ from a good one in one argument."""
    for name, kind in OPS[op].kinds.items():
        value = given[name]
        if isinstance(value, Tensor):
            for change, changed in CHANGES.items():
                if value.dim() or change not in ("fewer", "narrower", "one dimension less"):
                    yield f"{name}: {change}", {**given, name: changed(value)}
            if kind == "Optional[Tensor]":
                yield f"{name}: left out", {**given, name: None}
        elif kind in ("List[int]", "List[float]"):
            one = -1 if kind == "List[int]" else 0.5
            ends = (2**31,) if kind == "List[int]" else (0.0, math.nan, math.inf, 1e-320)
            last = [[*value[:-1], end] for end in (-1, *ends)]
            for wrong in ([], [one], [*value, value[0]], value[:-1], value[:1] * 5, *last):
                yield f"{name}: {wrong}", {**given, name: wrong}
        elif kind == "Optional[Tensor]":
            for added in ADDED:
                yield f"{name}: added {list(added.shape)}", {**given, name: added}
        elif kind == "int":
            for wrong in (-1, 0, 2**31, 4000):
                yield f"{name}: {wrong}", {**given, name: wrong}


def refusal(op: str, given: dict[str, Any]) -> str | None:
    try:
        run_raw(op, given)
    except (ValueError, RuntimeError) as error:
        return str(error).splitlines()[0]
    return None


@pytest.mark.parametrize("call", CALLS)
def test_what_an_eager_call_refuses_is_refused_without_values(call: str) -> None:
    op, given = CALLS[call]
    given = given | dict.fromkeys(
        name for name, kind in OPS[op].kinds.items() if kind == "Optional[int]"
    )
    assert refusal(op, given) is None
    found = []
    for what, wrong in mistakes(op, given):
        said = refusal(op, wrong)
        with FakeTensorMode(shape_env=ShapeEnv()) as mode:  # some results have a size of their own
            fake = tree_map_only(Tensor, lambda x: mode.from_tensor(x, static_shapes=True), wrong)
            traced = refusal(op, fake)
        # Values, which a graph does not have, are the one thing that an eager call refuses alone.
        values = (" at ", "end at", "must start", "must be below T")
        if said is not None and any(word in said for word in values):
            assert traced is None, f"{what}: {traced}"
            continue
        assert traced == said, what
        found.append(said)
    assert len({said for said in found if said}) >= 2


def check_says_the_same(
    function: Callable[..., Tensor], good: tuple[Any, ...], *wrong: Any
) -> None:
    """Compiled, of a good call and of wrong ones."""
    compiled = torch.compile(function, backend="eager", fullgraph=True, dynamic=False)
    assert torch.equal(compiled(*good), function(*good))
    for arguments in wrong:
        with pytest.raises(ValueError) as eager:
            function(*arguments)
        with pytest.raises(Exception) as traced:  # which one, PyTorch decides
            compiled(*arguments)
        said, error = "", traced.value
        while error is not None:
            said, error = f"{said}{error}\n", error.__cause__ or error.__context__
        assert str(eager.value) in said


def test_a_compiled_call_says_the_same() -> None:
    case = make_case("dense", poison=False)

    def search(query: Tensor, keys: Tensor) -> Tensor:
        return lc.clock_gsu(query, keys, case.key_time, case.query_time, case.mlp, 3).indices

    check_says_the_same(search, (case.query, case.keys), (case.query, case.keys[:, :-1]))


def test_a_compiled_attention_says_the_same_of_what_was_found() -> None:
    case, u = make_case("dense", counts=(8, 8, 8), poison=False), torch.randn(3, 2, 7)

    def attend(found: Tensor, lengths: Tensor) -> Tensor:
        rows = case.keys, case.key_time, case.query_time, case.mlp
        return lc.esu_attention(u, *rows, found=found, lengths=lengths)

    found, lengths = torch.randint(-1, 4, (3, 3)), torch.full((3,), 8)
    many = found[:, None].expand(3, 2, 3)
    wrong = [(each, lengths) for each in (found.int(), found[0], found[:2], many)]
    wrong += [(found, each) for each in (lengths.float(), lengths[:2])]
    check_says_the_same(attend, (found, lengths), *wrong)


def test_sizes_that_are_not_known_yet_are_taken() -> None:
    case = make_case("dense", poison=False)

    def score(query: Tensor, keys: Tensor) -> Tensor:
        times = case.key_time[: len(query)], case.query_time[: len(query)]
        return lc.gsu_score(query, keys, *times, case.mlp)

    compiled = torch.compile(score, backend="eager", fullgraph=True, dynamic=True)
    for sequences in (3, 2):
        query, keys = case.query[:sequences], case.keys[:sequences]
        assert torch.equal(compiled(query, keys), score(query, keys))
