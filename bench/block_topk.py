# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

import longclock as lc
from bench.checks import same_selection
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
