# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

import longclock as lc
from bench.checks import same
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
