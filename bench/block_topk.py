# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import longclock as lc
from bench.checks import same_selection
from bench.cuda_report.cubins import ARCHITECTURES
from bench.cuda_report.entries import Call, Gate, K, M, Workload, backward, gates_of
from bench.harness import Case


def topk_case(name: str, scores: Tensor, k: int) -> Case:
    return Case(
        name,
        {"rows": len(scores), "M": scores.shape[1], "K": k},
        {
            "longclock": lambda: lc.block_topk(scores, k),
            "torch.topk": lambda: torch.topk(scores, k),
            "reference": lambda: lc.reference.block_topk(scores, k),
        },
        lambda: same_selection(lc.block_topk(scores, k), lc.reference.block_topk(scores, k)),
        read=scores,
    )


def cases(quick: bool) -> Iterator[Case]:
    rows, m, long = (3, 700, 5_000) if quick else (32, 10_000, 1_000_000)
    few, many = (10, 100) if quick else (100, 2048)
    random = torch.randn(rows, m)
    yield topk_case("random", random, few)
    yield topk_case("random, bf16", random.bfloat16(), few)
    yield topk_case("all equal", torch.zeros(rows, m), few)
    yield topk_case("ascending", torch.arange(float(m)).expand(rows, -1).contiguous(), few)
    yield topk_case("heavy ties", torch.randint(0, 16, (rows, m)).float(), few)
    yield topk_case(f"random, K = {many:,}", random, many)
    yield topk_case(f"rows of {long:,}", torch.randn(4, long), few)


def cuda_call(rows: int) -> Callable[[bool], Call]:
    def make(equal: bool) -> Call:
        scores = torch.zeros(rows, M) if equal else torch.randn(rows, M)
        return Call(lambda: lc.block_topk(scores, K), (scores,))

    return make


def cuda_backward(equal: bool) -> Call:
    scores = torch.randn(4, 10 * M)
    return backward(lambda x: lc.block_topk(x, K).scores, (scores,), (), 0)


CUDA_CALLS = (
    Workload("block_topk fp32", 4 * M, cuda_call(4), True),
    Workload("block_topk fp32 700 rows", 700 * M, cuda_call(700), True),
    Workload("block_topk fp32 backward", 40 * M, cuda_backward),
)
CUDA_GATES = (
    Gate(r"block_topk_by_team_kernel<\w+>", "registers", 128, ARCHITECTURES),
    Gate(
        r"block_topk fp32 700 rows",
        "data_dependence",
        0.1,
        reason="equal scores take fewer instructions than random ones: a warp takes the first of them and is done",
    ),
    *gates_of(
        r"block_topk fp32( 700 rows)?",
        bytes_over_minimum=1.01,
        ptx_instructions_a_unit=2,
        barriers_a_warp=4,
        launches=1,
        bank_replays_select=1.25,
    ),
    Gate(r"block_topk fp32 backward", "instructions_of_busiest_warps", 150),  # 964 by a block a row
    Gate(r"block_topk fp32 backward", "sectors_of_wide_accesses", 1.0),
    Gate(r"block_topk fp32 backward", "launches", 1),
)
