# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

import longclock as lc
from bench.checks import same
from bench.cuda_report.entries import Call, Gate, M, Workload
from bench.harness import Case
from bench.inputs import DTYPES


def signs_case(name: str, x: Tensor) -> Case:
    return Case(
        f"{len(x):,} rows of {x.shape[1]}, {name}",
        {"N": len(x), "D": x.shape[1], "dtype": name},
        {
            "longclock": lambda: lc.pack_signs(x),
            "reference": lambda: lc.reference.pack_signs(x),
        },
        lambda: same(lc.pack_signs(x), lc.reference.pack_signs(x), "the reference, exactly"),
        read=x,
    )


def cases(quick: bool) -> Iterator[Case]:
    rows, columns = (700, 40) if quick else (1_000_000, 64)
    for name in ("fp32", "bf16"):
        yield signs_case(name, torch.randn(rows, columns).to(DTYPES[name]))


def cuda_call(equal: bool) -> Call:
    x = torch.randn(4 * M, 64)
    return Call(lambda: lc.pack_signs(x), (x,), x)


CUDA_CALLS = (Workload("pack_signs fp32", 4 * M, cuda_call),)
CUDA_GATES = (
    Gate(r"pack_signs fp32", "bytes_over_minimum", 1.01),
    Gate(r"pack_signs fp32", "rows_in_narrow_loads", 0),
    Gate(r"pack_signs fp32", "launches", 1),
)
