# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import longclock as lc
from bench.checks import close
from bench.cuda_report.entries import RELU, Call, HotLoop, M, Workload, backward
from bench.cuda_report.sass import Work
from bench.harness import Case, Check, Step
from bench.inputs import check_step, make_mlp, plain_similarity, trained, wide


def cases(quick: bool) -> Iterator[Case]:
    s, m = (4, 300) if quick else (32, 10_000)
    delta = torch.randint(0, 43_201, (s, m))
    sizes = {"S": s, "M": m, "hidden": 8}
    mlp = make_mlp()

    def check_features() -> Check:
        exact = lc.reference.time_features(delta, dtype=torch.float64)
        return close(lc.time_features(delta), exact, lc.reference.time_features(delta))

    yield Case(
        "time_features",
        sizes,
        {
            "longclock": lambda: lc.time_features(delta),
            "reference": lambda: lc.reference.time_features(delta),
        },
        check_features,
        read=delta,
        passes=3,
        compiled="reference",
    )

    def check() -> Check:
        exact, eager = (lc.reference.time_similarity(delta, *w) for w in (wide(mlp), mlp))
        return close(lc.time_similarity(delta, *mlp), exact, eager)

    yield Case(
        "forward",
        sizes,
        {
            "longclock": lambda: lc.time_similarity(delta, *mlp),
            "reference": lambda: lc.reference.time_similarity(delta, *mlp),
            "torch": lambda: plain_similarity(delta, mlp),
        },
        check,
        compiled="torch",
    )

    leaves, grad = trained(*mlp), torch.randn(s, m)

    def step(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return functools.partial(op, delta)

    yield Case(
        "forward and backward",
        sizes,
        {
            "longclock": Step(step(lc.time_similarity), leaves, grad),
            "reference": Step(step(lc.reference.time_similarity), leaves, grad),
        },
        lambda: check_step(
            step(lc.time_similarity), step(lc.reference.time_similarity), leaves, grad, s * m
        ),
        compiled="reference",
    )


def cuda_call(with_backward: bool) -> Callable[[bool], Call]:
    def make(equal: bool) -> Call:
        delta, mlp = torch.randint(0, 43_201, (4, M)), make_mlp()
        if with_backward:
            return backward(lambda *w: lc.time_similarity(delta, *w), mlp, (delta,), 0)
        return Call(lambda: lc.time_similarity(delta, *mlp), (delta, *mlp))

    return make


CUDA_CALLS = (
    Workload("time_similarity", 4 * M, cuda_call(False)),
    Workload("time_similarity backward", 4 * M, cuda_call(True)),
)
CUDA_LOOPS = (HotLoop("time_similarity_kernel<long>", "time_similarity", Work(32, {RELU: 8})),)
