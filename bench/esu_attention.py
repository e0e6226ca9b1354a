# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import longclock as lc
from bench.checks import close
from bench.harness import Case, Check
from bench.inputs import DTYPES, check_step, make_mlp, times, train_step, trained

HEADS = 4


def attention_cases(q: int, k: int, width: int, dtype: str = "fp32") -> Iterator[Case]:
    u, z = torch.randn(q, HEADS, width) / width**0.5, torch.randn(q, k, width)
    plain = (u.to(DTYPES[dtype]), z.to(DTYPES[dtype]), *make_mlp())
    z_time, query_time = times(q, k), times(q)
    sizes = {"Q": q, "K": k, "L": width, "n": HEADS, "dtype": dtype}

    def with_times(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(u: Tensor, z: Tensor, *mlp: Tensor) -> Tensor:
            return op(u, z, z_time, query_time, mlp)

        return forward

    ours, reference = with_times(lc.esu_attention), with_times(lc.reference.esu_attention)

    def check() -> Check:
        exact = reference(*(value.double() for value in plain))
        return close(ours(*plain), exact, reference(*plain))

    yield Case(
        f"K = {k:,}, forward",
        sizes,
        {"longclock": lambda: ours(*plain), "reference": lambda: reference(*plain)},
        check,
        read=plain[1],
        compiled="reference",
    )
    leaves, grad = trained(*plain), torch.randn(q, HEADS, width + 4)
    yield Case(
        f"K = {k:,}, forward and backward",
        sizes,
        {
            "longclock": train_step(ours, leaves, grad),
            "reference": train_step(reference, leaves, grad),
        },
        # The softmax's gradient sums to 0, whatever its terms: up to the largest feature, 12 h squared.
        lambda: check_step(ours, reference, leaves, grad, q * k, 144 * float(grad.abs().max())),
        read=plain[1],
        passes=3,
    )


def cases(quick: bool) -> Iterator[Case]:
    for q, k, width in ((5, 20, 8), (2, 300, 8)) if quick else ((1024, 100, 64), (32, 10_000, 64)):
        yield from attention_cases(q, k, width)
