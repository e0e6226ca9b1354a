# SPDX-License-Identifier: Apache-2.0
"""``torch.compile`` and ``torch.export`` refuse what eager calls refuse, in the same words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import longclock as lc

S, C, M, T, D, N, H = 3, 2, 8, 11, 5, 9, 4
GENERATOR = torch.Generator().manual_seed(0)


def floats(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR)


def ints(*shape: int, most: int = 5) -> Tensor:
    return torch.randint(0, most, shape, generator=GENERATOR)


MLP = {"w1": floats(H, 4), "b1": floats(H), "w2": floats(H), "b2": floats(1)}
NO_LAYOUT = dict.fromkeys(("ids", "lengths", "offsets", "query_offsets", "starts", "ends", "mask"))
CLOCK = {"scale": 0.5, "period": 86400, "unit": 3600.0}

DENSE = {"query": floats(S, D), "keys": floats(S, M, D), "key_time": ints(S, M), "query_time": ints(S), **MLP,
         **NO_LAYOUT, "lengths": ints(S), "mask": ints(S, M) > 0, "exclude_future": False, **CLOCK}  # fmt: skip
CANDIDATES = {**DENSE, "query": floats(S, C, D), "lengths": None}
TABLE = {**DENSE, "keys": floats(N, D), "ids": ints(S, M)}
RAGGED = {"query": floats(S, D), "keys": floats(T, D), "key_time": ints(T), "query_time": ints(S), **MLP, **NO_LAYOUT,
          "offsets": torch.tensor([0, 4, 4, T]), "exclude_future": True, **CLOCK}  # fmt: skip
RAGGED_MANY = {**RAGGED, "query": floats(4, D), "query_offsets": torch.tensor([0, 1, 3, 4])}
WINDOWS = {**RAGGED, "offsets": None, "starts": torch.tensor([0, 2, 5]), "ends": torch.tensor([4, 2, T])}  # fmt: skip
WINDOWS_MANY = {**WINDOWS, "query": floats(4, D), "query_offsets": torch.tensor([0, 1, 3, 4])}
RAGGED_TABLE = {**RAGGED, "keys": floats(N, D), "ids": ints(T)}
LAYOUTS = {"dense": DENSE, "candidates": CANDIDATES, "table": TABLE, "ragged": RAGGED, "ragged_many": RAGGED_MANY,
           "windows": WINDOWS, "windows_many": WINDOWS_MANY, "ragged_table": RAGGED_TABLE}  # fmt: skip
ESU = {"u": floats(S, C, D), "z": floats(S, M, D), "ids": None, "z_time": ints(S, M), "query_time": ints(S), "positions": None, **MLP,
       "valid": ints(S, M) > 0, "period": 86400, "unit": 3600.0, "sparse_grad": False}  # fmt: skip
ESU_TABLE = {**ESU, "z": floats(N, D), "ids": ints(S, M)}
ESU_FOUND = {
    **ESU,
    "z": floats(T, D),
    "z_time": ints(T),
    "valid": None,
    "positions": ints(S, 3, most=T) - 1,
}
ESU_FOUND_TABLE = {**ESU_FOUND, "z": floats(N, D), "ids": ints(T)}


def hashes(given: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in given.items() if name not in (*MLP, *CLOCK)}
    return {**kept, "query": given["query"].long(), "keys": given["keys"].long(), "k": 3}


def found_in(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of esu_attention_positions: what a search of the same history found."""
    names = ("key_time", "query_time", *list(NO_LAYOUT)[1:], "exclude_future")
    kept = {name: given[name] for name in names}
    return {**kept, "found": torch.full((*given["query"].shape[:-1], 3), -1)}


CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"clock_gsu {name}": ("clock_gsu", {**given, "k": 3}) for name, given in LAYOUTS.items()},
    **{f"gsu_score {name}": ("gsu_score", {**given, "total": None}) for name, given in LAYOUTS.items()},
    **{f"hamming_gsu {name}": ("hamming_gsu", hashes(given)) for name, given in LAYOUTS.items()},
    "esu_attention": ("esu_attention", ESU),
    "esu_attention table": ("esu_attention", ESU_TABLE),
    "esu_attention found": ("esu_attention", ESU_FOUND),
    "esu_attention found table": ("esu_attention", ESU_FOUND_TABLE),
    **{f"esu_attention_positions {name}": ("esu_attention_positions", found_in(given)) for name, given in LAYOUTS.items()
       if "table" not in name},
    "block_topk": ("block_topk", {"scores": floats(S, M), "k": 3, "lengths": ints(S)}),
    "pack_signs": ("pack_signs", {"x": floats(S, D)}),
    "time_features": ("time_features", {"delta": ints(S, M), "unit": 3600.0}),
    "time_similarity": ("time_similarity", {"delta": ints(S, M), **MLP, "unit": 3600.0}),
    "circular_delta": ("circular_delta", {"a": ints(S, M), "b": ints(S, M), "period": 86400}),
}  # fmt: skip


def last(x: Tensor) -> Tensor:
    return x.narrow(x.dim() - 1, 0, x.shape[-1] - 1)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "fewer": lambda x: x[:-1],
    "narrower": last,
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


def mistakes(given: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Calls that differ from a good one in one argument."""
    for name, value in given.items():
        if isinstance(value, Tensor):
            for change, changed in CHANGES.items():
                if value.dim() or change not in ("fewer", "narrower", "one dimension less"):
                    yield f"{name}: {change}", {**given, name: changed(value)}
            if name in (*NO_LAYOUT, "positions", "valid"):
                yield f"{name}: left out", {**given, name: None}
        elif name in NO_LAYOUT and "key_time" in given:
            yield f"{name}: added", {**given, name: ints(S)}
        elif name in ("positions", "valid") and "u" in given:
            yield f"{name}: added", {**given, name: ints(S, 3)}
            yield f"{name}: added for every z", {**given, name: ints(S, M) > 0}
        elif name in ("k", "period"):
            for wrong in (-1, 0, 2**31, 4000):
                yield f"{name}: {wrong}", {**given, name: wrong}


def refusal(op: str, given: dict[str, Any]) -> str | None:
    try:
        getattr(torch.ops.longclock, op).default(**given)
    except (ValueError, RuntimeError) as error:
        return str(error).splitlines()[0]
    return None


@pytest.mark.parametrize("call", CALLS)
def test_what_an_eager_call_refuses_is_refused_without_values(call: str) -> None:
    op, given = CALLS[call]
    assert refusal(op, given) is None
    found = []
    for what, wrong in mistakes(given):
        said = refusal(op, wrong)
        with FakeTensorMode(shape_env=ShapeEnv()) as mode:  # some results have a size of their own
            fake = {name: mode.from_tensor(value, static_shapes=True) if isinstance(value, Tensor) else value
                    for name, value in wrong.items()}  # fmt: skip
            traced = refusal(op, fake)
        # Values, which a graph does not have, are the one thing that an eager call refuses alone.
        values = (" at ", "end at", "must start", "must be below T")
        if said is not None and any(word in said for word in values):
            assert traced is None, f"{what}: {traced}"
            continue
        assert traced == said, what
        found.append(said)
    assert len({said for said in found if said}) >= 2


def test_a_compiled_call_says_the_same() -> None:
    def search(query: Tensor, keys: Tensor) -> Tensor:
        mlp = tuple(MLP.values())
        return lc.clock_gsu(query, keys, DENSE["key_time"], DENSE["query_time"], mlp, 3).indices

    compiled = torch.compile(search, backend="eager", fullgraph=True, dynamic=False)
    assert torch.equal(compiled(DENSE["query"], DENSE["keys"]), search(DENSE["query"], DENSE["keys"]))  # fmt: skip
    wrong = DENSE["keys"][:, :-1]
    with pytest.raises(ValueError) as eager:
        search(DENSE["query"], wrong)
    with pytest.raises(Exception) as traced:  # which one, PyTorch decides
        compiled(DENSE["query"], wrong)
    said, error = "", traced.value
    while error is not None:
        said, error = f"{said}{error}\n", error.__cause__ or error.__context__
    assert str(eager.value) in said


def test_a_compiled_attention_says_the_same_of_what_was_found() -> None:
    u, z, z_time, now = floats(S, C, D), floats(S, M, D), ints(S, M), ints(S)

    def attend(found: Tensor, lengths: Tensor) -> Tensor:
        mlp = tuple(MLP.values())
        return lc.esu_attention(u, z, z_time, now, mlp, found=found, lengths=lengths)

    compiled = torch.compile(attend, backend="eager", fullgraph=True, dynamic=False)
    found, lengths = ints(S, 3) - 1, torch.full((S,), M)
    assert torch.equal(compiled(found, lengths), attend(found, lengths))
    for wrong in ((found.int(), lengths), (found[0], lengths), (found[:2], lengths), (found[:, None].expand(S, 2, 3), lengths),
                  (found, lengths.float()), (found, lengths[:2])):  # fmt: skip
        with pytest.raises(ValueError) as eager:
            attend(*wrong)
        with pytest.raises(Exception) as traced:  # which one, PyTorch decides
            compiled(*wrong)
        said, error = "", traced.value
        while error is not None:
            said, error = f"{said}{error}\n", error.__cause__ or error.__context__
        assert str(eager.value) in said


def test_sizes_that_are_not_known_yet_are_taken() -> None:
    def score(query: Tensor, keys: Tensor) -> Tensor:
        return lc.gsu_score(query, keys, DENSE["key_time"][: len(query)], DENSE["query_time"][: len(query)], tuple(MLP.values()))  # fmt: skip

    compiled = torch.compile(score, backend="eager", fullgraph=True, dynamic=True)
    for sequences in (3, 2):
        query, keys = DENSE["query"][:sequences], DENSE["keys"][:sequences]
        assert torch.equal(compiled(query, keys), score(query, keys))
