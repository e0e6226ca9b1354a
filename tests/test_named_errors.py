# SPDX-License-Identifier: Apache-2.0
"""Whatever is given in place of an argument, the error names the function and the argument."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from cases import make_case
from ops import OPS, raw_calls, run_raw
from raw_error import RAW_ERROR
from torch import nn
from torch.utils._pytree import tree_map_only

import longclock as lc
from longclock import baselines, jagged, metrics, plot


class Jagged:
    """As a jagged tensor of another library looks."""

    def values(self) -> torch.Tensor:
        return torch.zeros(3)

    def offsets(self) -> torch.Tensor:
        return torch.zeros(2, dtype=torch.int64)


RAW = raw_calls()
CALLS = {f"{op} {kind}".strip(): (getattr(lc, op), given)
         for op in lc.ops.__all__ for kind, given in OPS[op].public().items()}  # fmt: skip
ARGUMENTS = [(call, name) for call, (_, given) in CALLS.items() for name in given]
TENSORS = [pair for pair in ARGUMENTS if isinstance(CALLS[pair[0]][1][pair[1]], torch.Tensor)]
SCALARS = [pair for pair in ARGUMENTS if isinstance(CALLS[pair[0]][1][pair[1]], int | float | None)]
NOT_TENSORS = [
    [[1.0]], 3, 2.5, "words", np.zeros((2, 5), np.float32), nn.Embedding(4, 3), Jagged(), object(),
    torch.eye(5).to_sparse(), torch.eye(5).to_sparse_csr(), torch.zeros(2, 5, dtype=torch.complex64),
    torch.zeros(2, 5, dtype=torch.uint64), torch.zeros(2, 5, dtype=torch.float8_e4m3fn),
    torch.quantize_per_tensor(torch.zeros(2, 5), 1.0, 0, torch.qint8),
    torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
    torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
]  # fmt: skip


@pytest.mark.parametrize(("call", "name"), TENSORS)
def test_no_tensor(call: str, name: str) -> None:
    function, given = CALLS[call]
    wrong = list(NOT_TENSORS)
    parameter = inspect.signature(function).parameters.get(name)
    if parameter is not None and parameter.default is parameter.empty:
        wrong.append(None)
    if name != "z":
        wrong.append(lc.Lookup(torch.zeros(4, 3), torch.zeros(2, 5).long()))
    for value in wrong:
        with pytest.raises(ValueError, match=rf"^{function.__name__}: .*\b{name}\b") as caught:
            function(**given | {name: value})
        assert " got " in str(caught.value), str(caught.value)
        assert "\n" not in str(caught.value)
        assert "key_time" in given or "key_time" not in str(caught.value)


def test_misspelt_keywords_where_a_search_found_something() -> None:
    with pytest.raises(
        TypeError,
        match=r"^esu_attention: unexpected keyword argument 'lenghts'; lengths is near it",
    ):
        lc.esu_attention(**CALLS["esu_attention found"][1] | {"lenghts": None})
    with pytest.raises(TypeError, match=r"^esu_attention: unexpected keyword argument 'ids'; "):
        lc.esu_attention(**CALLS["esu_attention found"][1] | {"ids": None})


@pytest.mark.parametrize(("call", "name"), SCALARS)
def test_no_number(call: str, name: str) -> None:
    function, given = CALLS[call]
    flag = isinstance(given[name], bool)
    text = f"{name} must be of type bool, got" if flag else rf".*\b{name}\b"
    for value in ("words", [1], object(), torch.zeros(2), *([] if flag else [float("nan")])):
        with pytest.raises(ValueError, match=f"^{function.__name__}: {text}"):
            function(**given | {name: value})


@pytest.mark.parametrize("call", CALLS)
def test_misspelt_keywords(call: str) -> None:
    function, given = CALLS[call]
    op, first = function.__name__, next(iter(inspect.signature(function).parameters))
    slip = rf"^{op}: unexpected keyword argument '{first}s'; {first} is near it"
    with pytest.raises(TypeError, match=slip):
        function(**given | {f"{first}s": None})
    with pytest.raises(TypeError, match=rf"^{op}: missing a required argument: '{first}'; its arg"):
        function(**{name: value for name, value in given.items() if name != first})


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


@pytest.mark.parametrize(("call", "name"), TENSORS)
def test_one_argument_on_another_device(call: str, name: str) -> None:
    """The fake function would give memory that nobody wrote."""
    function, given = CALLS[call]
    if sum(isinstance(value, torch.Tensor) for value in given.values()) < 2:
        return
    text = r"\w+ must be on the device of \w+, (cpu|meta), got (cpu|meta); "
    with pytest.raises(ValueError, match=f"^{function.__name__}: {text}"):
        function(**given | {name: given[name].to("meta")})


@pytest.mark.parametrize("call", [call for call, (_, given) in CALLS.items() if "mlp" in given])
@pytest.mark.parametrize("place", range(4))
def test_weights_on_another_device(call: str, place: int) -> None:
    function, given = CALLS[call]
    mlp = [weight.to("meta") if i == place else weight for i, weight in enumerate(given["mlp"])]
    text = rf"{('w1', 'b1', 'w2', 'b2')[place]} must be on the device of \w+, cpu, got meta"
    with pytest.raises(ValueError, match=f"^{function.__name__}: {text}"):
        function(**given | {"mlp": tuple(mlp)})


@pytest.mark.parametrize("call", RAW)
def test_raw_ops_name_none(call: str, device: str) -> None:
    op, given = RAW[call]
    given = tree_map_only(torch.Tensor, lambda x: x.to(device), given)
    required = [name for name, kind in OPS[op].kinds.items() if kind == "Tensor"]
    for name in required if len(required) > 1 else []:
        text = rf"^{OPS[op].called}: .*{name} must be a tensor, got None"
        with pytest.raises(RAW_ERROR, match=text):
            run_raw(op, given | {name: None})


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


S, M, D, K = 2, 6, 4, 3
FOUND = lc.TopK(torch.zeros(S, K), torch.zeros(S, K, dtype=torch.int64))
ROWS, TIME, NOW = torch.zeros(S, M, D), torch.zeros(S, M, dtype=torch.int64), torch.zeros(S).long()
CLOCK = lc.LongTermInterestClock(D, D, k=K)
HISTORY = lc.History.dense(ROWS, TIME)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("found", lambda found: lc.esu_attention(torch.zeros(S, 1, D), ROWS, TIME, NOW, lc.TimeSimilarity(), found=found)),
        ("found", lambda found: CLOCK(torch.zeros(S, D), HISTORY, NOW, found=found)),
        ("found", lambda found: CLOCK.search_loss(torch.zeros(S, D), HISTORY, NOW, found=found)),
        ("found", lambda found: baselines.TWIN(D, D, k=K)(torch.zeros(S, D), HISTORY, NOW, found=found)),
        ("found", lambda found: jagged.select(found, torch.tensor([0, M, 2 * M]), torch.zeros(2 * M))),
        ("found", lambda found: metrics.recall_of_attention(np.ones((S, M)), found)),
        (r"found\[8\]", lambda found: plot.kept(np.arange(M), {8: found})),
        ("indices", lambda found: lc.merge_topk(torch.zeros(S, K), found, K)),
        ("scores", lambda found: lc.merge_topk(found, torch.zeros(S, K).long(), K)),
        ("scores", lambda found: lc.block_topk(found, K)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("found", [FOUND, torch.zeros(S, M).topk(K)])
def test_a_part_of_what_a_search_found_is_asked_for(name, call, found) -> None:
    kind = type(found).__name__
    part = "indices" if name != "scores" else "scores" if kind == "TopK" else "values"
    with pytest.raises(ValueError, match=rf": {name} must be .*, got {kind}; give its \.{part}$"):
        call(found)
