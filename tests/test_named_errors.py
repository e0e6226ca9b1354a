# SPDX-License-Identifier: Apache-2.0
"""Whatever is given in place of an argument, the error names the function and the argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cases import make_case
from esu_cases import make_esu
from raw_error import RAW_ERROR
from torch import nn

import longclock as lc


class Jagged:
    """As a jagged tensor of another library looks."""

    def values(self) -> torch.Tensor:
        return torch.zeros(3)

    def offsets(self) -> torch.Tensor:
        return torch.zeros(2, dtype=torch.int64)


def calls() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """A good call of every op."""
    case = make_case("dense", mask=True)
    esu = make_esu()
    when = torch.zeros(2, 5, dtype=torch.int64)
    words = torch.zeros(2, 5, 1, dtype=torch.int64)
    rows = {"query": case.query, "keys": case.keys, "key_time": case.key_time,
            "query_time": case.query_time, "mlp": case.mlp} | case.layout  # fmt: skip
    w1, b1, w2, b2 = case.mlp
    return {
        "clock_gsu": (lc.clock_gsu, rows | {"k": 3, "scale": 1.0, "unit": 3600.0}),
        "gsu_score": (lc.gsu_score, rows | {"total": None}),
        "hamming_gsu": (lc.hamming_gsu, {"query": words[:, 0], "keys": words, "key_time": when,
                                         "query_time": when[:, 0], "k": 3}),
        "esu_attention": (lc.esu_attention, {"u": esu.u, "z": esu.z, "z_time": esu.z_time,
                                             "query_time": esu.query_time, "mlp": esu.mlp, "valid": esu.valid}),
        "block_topk": (lc.block_topk, {"scores": torch.randn(2, 5), "k": 2, "lengths": when[:, 0]}),
        "pack_signs": (lc.pack_signs, {"x": torch.randn(2, 5)}),
        "circular_delta": (lc.circular_delta, {"a": when, "b": when, "period": 86400}),
        "clock_time": (lc.clock_time, {"timestamps": when, "utc_offset": 0, "period": 86400}),
        "time_features": (lc.time_features, {"delta": when, "unit": 1.0}),
        "time_similarity": (lc.time_similarity, {"delta": when, "w1": w1, "b1": b1, "w2": w2, "b2": b2}),
    }  # fmt: skip


CALLS = calls()
FOUND: dict[str, Any] = {
    "u": torch.randn(4, 2, 7), "z": torch.randn(2, 5, 7), "z_time": torch.zeros(2, 5, dtype=torch.int64),
    "query_time": torch.zeros(2, dtype=torch.int64), "mlp": CALLS["esu_attention"][1]["mlp"],
    "found": torch.zeros(2, 2, 3, dtype=torch.int64), "lengths": torch.tensor([5, 3]),
    "mask": torch.ones(2, 5, dtype=torch.bool), "exclude_future": False,
}  # fmt: skip
TENSORS = [(op, name) for op, (_, given) in CALLS.items() for name, value in given.items()
           if isinstance(value, torch.Tensor)]  # fmt: skip
SCALARS = [(op, name) for op, (_, given) in CALLS.items() for name, value in given.items()
           if value is None or isinstance(value, (int, float))]  # fmt: skip
NOT_TENSORS = [
    [[1.0]], 3, 2.5, "words", np.zeros((2, 5), np.float32), nn.Embedding(4, 3), Jagged(), object(),
    torch.eye(5).to_sparse(), torch.eye(5).to_sparse_csr(), torch.zeros(2, 5, dtype=torch.complex64),
    torch.zeros(2, 5, dtype=torch.uint64), torch.zeros(2, 5, dtype=torch.float8_e4m3fn),
    torch.quantize_per_tensor(torch.zeros(2, 5), 1.0, 0, torch.qint8),
    torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
    torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
]  # fmt: skip


def test_every_op_is_here() -> None:
    assert set(CALLS) == set(lc.ops.__all__)
    for function, given in CALLS.values():
        function(**given)


def is_optional(op: str, name: str) -> bool:
    return name in ("mask", "valid", "lengths")


@pytest.mark.parametrize(("op", "name"), TENSORS)
def test_no_tensor(op: str, name: str) -> None:
    function, given = CALLS[op]
    wrong = (
        NOT_TENSORS
        + [None] * (not is_optional(op, name))
        + [lc.Lookup(torch.zeros(4, 3), torch.zeros(2, 5).long())]
    )
    for value in wrong:
        if isinstance(value, lc.Lookup) and (op, name) == ("esu_attention", "z"):
            continue
        with pytest.raises(ValueError, match=rf"^{op}: .*\b{name}\b") as caught:
            function(**given | {name: value})
        assert " got " in str(caught.value), str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", [name for name, value in FOUND.items() if isinstance(value, torch.Tensor)]
)
def test_no_tensor_where_a_search_found_something(name: str) -> None:
    lc.esu_attention(**FOUND)
    required = name not in ("lengths", "mask", "found")
    lookup = lc.Lookup(torch.zeros(4, 3), torch.zeros(2, 5).long())
    for value in [*NOT_TENSORS, *([None] if required else []), *([] if name == "z" else [lookup])]:
        with pytest.raises(ValueError, match=rf"^esu_attention: .*\b{name}\b") as caught:
            lc.esu_attention(**FOUND | {name: value})
        assert " got " in str(caught.value), str(caught.value)
        assert "\n" not in str(caught.value)
        assert "key_time" not in str(caught.value)
    with pytest.raises(
        ValueError,
        match=r"^esu_attention: \w+ must be on the device of \w+, (cpu|meta), got (cpu|meta); ",
    ):
        lc.esu_attention(**FOUND | {name: FOUND[name].to("meta")})


@pytest.mark.parametrize("flag", ["yes", [True], torch.zeros(2)])
def test_exclude_future_is_a_bool_where_a_search_found_something(flag: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^esu_attention: exclude_future must be of type bool, got"
    ):
        lc.esu_attention(**FOUND | {"exclude_future": flag})


def test_misspelt_keywords_where_a_search_found_something() -> None:
    with pytest.raises(
        TypeError,
        match=r"^esu_attention: unexpected keyword argument 'lenghts'; lengths is near it",
    ):
        lc.esu_attention(**FOUND | {"lenghts": None})
    with pytest.raises(TypeError, match=r"^esu_attention: unexpected keyword argument 'ids'; "):
        lc.esu_attention(**FOUND | {"ids": None})


@pytest.mark.parametrize(("op", "name"), SCALARS)
def test_no_number(op: str, name: str) -> None:
    function, given = CALLS[op]
    for value in ("words", [1], object(), torch.zeros(2), float("nan")):
        if name == "exclude_future":
            continue
        with pytest.raises(ValueError, match=rf"^{op}: .*\b{name}\b"):
            function(**given | {name: value})


@pytest.mark.parametrize("op", CALLS)
def test_misspelt_keywords(op: str) -> None:
    function, given = CALLS[op]
    known = [
        name for name in inspect.signature(function).parameters if name not in ("options", "layout")
    ]
    slip = known[0] + "s"
    with pytest.raises(
        TypeError, match=rf"^{op}: unexpected keyword argument '{slip}'; {known[0]} is near it"
    ):
        function(**given | {slip: None})
    with pytest.raises(
        TypeError, match=rf"^{op}: missing a required argument: '{known[0]}'; its arg"
    ):
        function(**{name: value for name, value in given.items() if name != known[0]})


def test_lookups_in_pieces() -> None:
    _, given = CALLS["esu_attention"]
    ids = torch.zeros(given["z_time"].shape, dtype=torch.int64)
    with pytest.raises(
        ValueError,
        match=r"^esu_attention: z's table must be a tensor, got Embedding; give its weight",
    ):
        lc.esu_attention(**given | {"z": lc.Lookup(nn.Embedding(4, 3), ids)})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^esu_attention: z's ids must be a tensor, got NoneType"):
        lc.esu_attention(**given | {"z": lc.Lookup(torch.zeros(4, 3), None)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("op", "name"), [pair for pair in TENSORS if pair[0] not in ("pack_signs", "time_features")]
)
def test_one_argument_on_another_device(op: str, name: str) -> None:
    """The fake function would give memory that nobody wrote."""
    function, given = CALLS[op]
    if sum(isinstance(value, torch.Tensor) for value in given.values()) < 2:
        return
    with pytest.raises(
        ValueError, match=rf"^{op}: \w+ must be on the device of \w+, (cpu|meta), got (cpu|meta); "
    ):
        function(**given | {name: given[name].to("meta")})


def test_weights_on_another_device() -> None:
    for op in ("clock_gsu", "gsu_score", "esu_attention"):
        function, given = CALLS[op]
        for place, name in enumerate(("w1", "b1", "w2", "b2")):
            mlp = [
                weight.to("meta") if i == place else weight for i, weight in enumerate(given["mlp"])
            ]
            with pytest.raises(
                ValueError, match=rf"^{op}: {name} must be on the device of \w+, cpu, got meta"
            ):
                function(**given | {"mlp": tuple(mlp)})


def test_raw_ops_name_none() -> None:
    case, esu, x = make_case("dense"), make_esu(), torch.randn(2, 5)
    raw = torch.ops.longclock
    for op, given in (
        (raw.gsu_score, case.raw(None)), (raw.clock_gsu, case.raw(3)), (raw.esu_attention, esu.raw()),
        (raw.esu_attention_positions, (case.key_time, case.query_time, *[None] * 6, False, torch.full((4, 2), -1))),
        (raw.block_topk, (x, 2, None)), (raw.block_topk_backward, (x, x.long(), 9)),
        (raw.time_similarity, (x.long(), *case.mlp, 3600.0)), (raw.time_similarity_backward, (x, x.long(), *case.mlp, 1.0)),
    ):  # fmt: skip
        schema = op.default._schema
        required = [
            i for i, argument in enumerate(schema.arguments) if str(argument.type) == "Tensor"
        ]
        for i in required if len(required) > 1 else []:
            name = schema.arguments[i].name
            wrong = [None if place == i else value for place, value in enumerate(given)]
            called = op._qualified_op_name.split("::")[1].removesuffix("_positions")  # a part of it
            with pytest.raises(RAW_ERROR, match=rf"^{called}: .*{name} must be a tensor, got None"):
                op(*wrong)


def test_graphs_refuse_what_kernels_refuse() -> None:
    scores = torch.randn(2, 5, device="meta")
    with pytest.raises(ValueError, match=r"block_topk: k must be from 0 to 2048, got -1"):
        torch.ops.longclock.block_topk(scores, -1, None)
    times = torch.zeros(3, dtype=torch.int64)
    for pair in ((times, times.to("meta")), (times.to("meta"), times)):
        with pytest.raises(
            ValueError, match=r"clock_time: utc_offset must be on the device of timestamps"
        ):
            lc.clock_time(*pair)
    case = make_case("windows").to("meta")
    with pytest.raises(ValueError, match=r"gsu_score: total must be given on meta"):
        case.run(lc.gsu_score)


def test_parts_of_lookups_and_weights() -> None:
    _, given = CALLS["esu_attention"]
    ids = torch.zeros(given["z_time"].shape, dtype=torch.int64)
    for sparse in ("yes", [True], None):
        with pytest.raises(ValueError, match=r"^esu_attention: z's sparse must be a bool"):
            lc.esu_attention(
                **given | {"z": lc.Lookup(torch.zeros(4, given["u"].shape[-1]), ids, sparse)}
            )  # type: ignore[arg-type]
    for op in ("clock_gsu", "esu_attention"):
        function, given = CALLS[op]
        w1, b1, w2, b2 = given["mlp"]
        with pytest.raises(ValueError, match=rf"^{op}: mlp w2 must be a strided tensor"):
            function(**given | {"mlp": (w1, b1, w2.to_sparse(), b2)})


def test_nested_times_are_refused() -> None:
    for layout in (torch.strided, torch.jagged):
        times = torch.nested.nested_tensor([torch.arange(2), torch.arange(3)], layout=layout)
        with pytest.raises(
            ValueError, match=r"^clock_time: timestamps must be a tensor of one shape"
        ):
            lc.clock_time(times)
