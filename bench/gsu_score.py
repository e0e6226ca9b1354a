# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import longclock as lc
from bench.checks import close
from bench.cuda_report.cubins import ARCHITECTURES
from bench.cuda_report.entries import Call, D, Gate, HotLoop, M, Workload, backward, gates_of
from bench.cuda_report.sass import Work
from bench.harness import Case, Step
from bench.inputs import DTYPES, Search, check_step, make_mlp, make_search, times, trained


def forward_case(name: str, case: Search, sizes: dict[str, Any]) -> Case:
    rivals: dict[str, Callable[[], Any]] = {
        "longclock": lambda: case.run(lc.gsu_score),
        "reference": lambda: case.run(lc.reference.gsu_score),
        "torch": case.plain_scores,
    }
    many = case.query.dim() == 3
    if many:
        rivals["matmul alone"] = lambda: torch.bmm(case.query, case.keys.transpose(1, 2))
    d = case.query.shape[-1]
    return Case(
        name,
        sizes,
        rivals,
        lambda: close(case.run(lc.gsu_score), case.exact(), case.run(lc.reference.gsu_score), d),
        read=None if many else case.gathered().keys,
        flops=2 * case.query[..., 0].numel() * case.key_time.shape[1] * d if many else 0,
        compiled="torch",
    )


def training_case(name: str, case: Search, sizes: dict[str, Any]) -> Case:
    """Forward and backward into query, keys or table, and mlp."""
    leaves = trained(case.query, case.keys, *case.mlp)
    many = (case.query.shape[1],) if case.query.dim() == 3 else ()
    grad = torch.randn(case.key_time.shape[0], *many, case.key_time.shape[1])

    def step(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(query: Tensor, keys: Tensor, *mlp: Tensor) -> Tensor:
            return op(query, keys, case.key_time, case.query_time, mlp, **case.layout)

        return forward

    ours, reference = step(lc.gsu_score), step(lc.reference.gsu_score)
    return Case(
        name,
        sizes,
        {
            "longclock": Step(ours, leaves, grad),
            "reference": Step(reference, leaves, grad),
        },
        lambda: check_step(ours, reference, leaves, grad, grad.numel()),
        compiled="reference",
    )


def cases(quick: bool) -> Iterator[Case]:
    s, m, d, rows, few = (3, 300, 16, 500, 2) if quick else (32, 10_000, 128, 1_000_000, 8)
    candidates = 7 if quick else 500
    for name, dtype in DTYPES.items():
        sizes = {"S": s, "M": m, "D": d, "dtype": name}
        yield forward_case(f"dense, {name}", make_search(s, m, d, dtype), sizes)
    for name in ("fp32", "bf16"):
        case = make_search(1, m, d, DTYPES[name], candidates=candidates)
        sizes = {"S": 1, "C": candidates, "M": m, "D": d, "dtype": name}
        yield forward_case(f"{candidates} candidates, {name}", case, sizes)
    half = max(s // 2, 1)
    yield training_case(
        "dense, fp32, forward and backward",
        make_search(half, m, d, torch.float32),
        {"S": half, "M": m, "D": d, "dtype": "fp32"},
    )
    yield training_case(
        f"{candidates} candidates, fp32, forward and backward",
        make_search(1, m, d, torch.float32, candidates=candidates),
        {"S": 1, "C": candidates, "M": m, "D": d, "dtype": "fp32"},
    )
    yield training_case(
        "table, fp32, forward and backward",
        make_search(few, m, d // 2, torch.float32, table=rows),
        {"S": few, "M": m, "N": rows, "D": d // 2, "dtype": "fp32"},
    )


def cuda_call(
    with_backward: bool = False,
    s: int = 4,
    candidates: int | None = None,
    dtype: torch.dtype = torch.float16,
    d: int = D,
) -> Callable[[bool], Call]:
    def make(equal: bool) -> Call:
        case = make_search(s, M, d, dtype, candidates=candidates)
        others = (case.key_time, case.query_time)
        leaves = (case.query, case.keys, *case.mlp)
        if not with_backward:
            return Call(lambda: case.run(lc.gsu_score), (*leaves, *others), case.keys)

        def forward(query: Tensor, keys: Tensor, *mlp: Any) -> Tensor:
            return lc.gsu_score(query, keys, *others, mlp)

        return backward(forward, leaves, others, 1)

    return make


def cuda_popular_row(equal: bool) -> Call:
    """The gradient of a table of which one row is looked up by a hundredth of all behaviours."""
    case = make_search(8, M, 64, torch.float16, table=100_000)
    ids = case.layout["ids"]
    ids.view(-1)[torch.randperm(ids.numel())[: ids.numel() // 100]] = 7
    others = (case.query, case.key_time, case.query_time, *case.mlp, ids)

    def forward(keys: Tensor) -> Tensor:
        return lc.gsu_score(case.query, keys, case.key_time, case.query_time, case.mlp, ids=ids)

    return backward(forward, (case.keys,), others, 0)


WINDOWS, LENGTH = 20_000, 20


def cuda_windows(equal: bool) -> Call:
    """The gradient of keys that many windows see, a window an event, as in training."""
    keys, query = torch.randn(WINDOWS, 64).half(), torch.randn(WINDOWS, 64).half()
    ends = torch.arange(WINDOWS)
    starts = (ends - LENGTH).clamp(min=0)
    key_time, mlp = times(WINDOWS), make_mlp()
    total = int((ends - starts).sum())

    def forward(keys: Tensor) -> Tensor:
        return lc.gsu_score(query, keys, key_time, key_time, mlp, total, starts=starts, ends=ends)

    return backward(forward, (keys,), (query, key_time, starts, ends), 0)


def cuda_candidates(dtype: torch.dtype) -> Callable[[bool], Call]:
    """The gradients of queries and keys of one request."""

    def make(equal: bool) -> Call:
        case = make_search(1, M, D, dtype, candidates=CANDIDATES)
        others = (case.key_time, case.query_time)

        def forward(query: Tensor, keys: Tensor) -> Tensor:
            return lc.gsu_score(query, keys, *others, case.mlp)

        return backward(forward, (case.query, case.keys), others, 1)

    return make


CANDIDATES = 200
CUDA_CALLS = (
    Workload("gsu_score fp16", 4 * M, cuda_call()),
    Workload("gsu_score fp16 1000 candidates", 1000 * M, cuda_call(s=1, candidates=1000)),
    Workload("gsu_score fp16 128 candidates D=512", 128 * M, cuda_call(s=1, candidates=128, d=512)),
    *(
        Workload(
            f"gsu_score {each} S=16 C=5",
            16 * M,
            cuda_call(s=16, candidates=5, dtype=DTYPES[each]),
        )
        for each in ("fp32", "fp16")
    ),
    Workload("gsu_score fp16 backward", 4 * M, cuda_call(with_backward=True)),
    Workload(
        "gsu_score fp16 200 candidates backward", CANDIDATES * M, cuda_candidates(torch.float16)
    ),
    Workload(
        "gsu_score fp32 200 candidates backward", CANDIDATES * M, cuda_candidates(torch.float32)
    ),
    Workload("gsu_score backward to a popular row", 8 * M, cuda_popular_row),
    Workload("gsu_score backward to keys of windows", WINDOWS * LENGTH, cuda_windows),
)
MANY, FEW = r"gsu_score .* candidates", r"gsu_score \w+ S=16 C=5"
WIDE = r"gsu_score fp16 128 candidates D=512"
OF_WIDE = {
    "launches": 1, "times_rows_are_copied": 3.02, "distinct_bytes_over_minimum": 1.01, "rows_in_narrow_loads": 0,
    "sectors_of_copies": 1.0, "bank_replays_stream": 1.0, "ptx_instructions_a_unit": 1.65,
}  # fmt: skip
OF_FEW = r"gsu_score_few_kernel<\w+, \(RowForm\)[012]>"
# The sweep that stores each product: a tile of 64 keys of 128 elements, by one of the four warps: 32 keys, 64
# candidates.
CUDA_LOOPS = (
    HotLoop(
        "sweep_kernel<Float16, 256, (Sweep)2>",
        "gsu_score fp16 1000 candidates",
        Work(64, {"HMMA": 128}),
    ),
)
CUDA_GATES = (
    Gate(
        r"sweep_kernel<Float16, 256, \(Sweep\)2>",
        "instructions_a_product",
        1 / 0.22,
        ARCHITECTURES[1:],
    ),
    # Five candidates of a request, whose keys are read once: a block reads queries and weights besides.
    *gates_of(
        FEW,
        launches=1,
        distinct_bytes_over_minimum=1.01,
        bytes_over_minimum=1.06,
        rows_in_narrow_loads=0,
        sectors_of_wide_accesses=1.0,
        bank_replays_stream=1.02,
    ),
    Gate(r"gsu_score fp16 S=16 C=5", "ptx_instructions_a_unit", 41),
    Gate(r"gsu_score fp32 S=16 C=5", "ptx_instructions_a_unit", 95),
    Gate(OF_FEW, "registers", 128, ARCHITECTURES),
    *gates_of(
        MANY, rows_in_narrow_loads=0, sectors_of_copies=1.0, bank_replays_stream=1.0, launches=1
    ),
    # In panels: the keys, and twice as much of the candidates.
    *gates_of(WIDE, **OF_WIDE),
    # Both products by tensor cores; on CUDA cores they took 40 and 37 instructions, and read 22 and 30 times as much.
    Gate(r"gsu_score fp16 200 candidates backward", "ptx_instructions_a_unit", 5),
    Gate(r"gsu_score fp32 200 candidates backward", "ptx_instructions_a_unit", 7),
    *gates_of(
        r"gsu_score \w+ 200 candidates backward",
        bytes_over_minimum=5,
        bank_replays_stream=1.0,
        launches=3,
    ),
    # 800 positions of one row: 86,449 where one warp added them up.
    Gate(r"gsu_score backward to a popular row", "instructions_of_busiest_warps", 8_000),
    # 221, and 30,403, where every position asked every window, and one block scanned all lengths.
    Gate(r"gsu_score backward to keys of windows", "ptx_instructions_a_unit", 90),
    Gate(r"gsu_score backward to keys of windows", "instructions_of_busiest_warps", 9_000),
)
