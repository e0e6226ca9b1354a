# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

import longclock as lc
from bench.checks import same
from bench.cuda_report.entries import Call, M, Workload
from bench.harness import Case
from bench.inputs import plain_delta, times


def delta_case(name: str, a: Tensor, b: Tensor) -> Case:
    return Case(
        f"{name}, one time against {a.shape[1]:,}",
        {"S": a.shape[0], "M": a.shape[1], "dtype": name},
        {
            "longclock": lambda: lc.circular_delta(a, b),
            "reference": lambda: lc.reference.circular_delta(a, b),
            "torch": lambda: plain_delta(a, b),
        },
        lambda: same(
            lc.circular_delta(a, b), lc.reference.circular_delta(a, b), "the reference, exactly"
        ),
        read=a,
        passes=2,
        compiled="torch",
    )


def cases(quick: bool) -> Iterator[Case]:
    s, m = (4, 300) if quick else (32, 10_000)
    for name, dtype in (("int64", torch.int64), ("int32", torch.int32)):
        yield delta_case(name, times(s, m).to(dtype), times(s, 1).to(dtype))


def cuda_call(equal: bool) -> Call:
    a, b = times(4, M), times(4, 1)
    return Call(lambda: lc.circular_delta(a, b), (a, b))


CUDA_CALLS = (Workload("circular_delta int64", 4 * M, cuda_call),)
