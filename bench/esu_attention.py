# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import longclock as lc
from bench.checks import close
from bench.cuda_report.cubins import ARCHITECTURES
from bench.cuda_report.entries import Call, Gate, K, M, Workload, backward
from bench.harness import Case, Check, Step
from bench.inputs import DTYPES, check_step, make_mlp, times, trained

HEADS = 4


def attend_by_content(u: Tensor, z: Tensor) -> Tensor:
    """What the attention costs without its time: no ``s`` and no time features. [Q, n, L] like u.

    Each head is a query of length 1 over the same rows, read in place through an expanded view.
    """
    rows = z[:, None].expand(-1, u.shape[1], -1, -1)
    return scaled_dot_product_attention(u[:, :, None], rows, rows, scale=1.0)[:, :, 0]


def train_by_content(u: Tensor, z: Tensor) -> Tensor:
    """The same with the heads as n queries of one head, whose backward is 2 to 6 times faster: it
    does not add up the heads' gradients of z."""
    rows = z[:, None]
    return scaled_dot_product_attention(u[:, None], rows, rows, scale=1.0)[:, 0]


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
        {
            "longclock": lambda: ours(*plain),
            "reference": lambda: reference(*plain),
            "sdpa": lambda: attend_by_content(*plain[:2]),
        },
        check,
        read=plain[1],
        compiled="reference",
    )
    leaves, grad = trained(*plain), torch.randn(q, HEADS, width + 4)
    yield Case(
        f"K = {k:,}, forward and backward",
        sizes,
        {
            "longclock": Step(ours, leaves, grad),
            "reference": Step(reference, leaves, grad),
            "sdpa": Step(train_by_content, leaves[:2], grad[..., :width].contiguous()),
        },
        # The softmax's gradient sums to 0, whatever its terms: up to the largest feature, 12 h squared.
        lambda: check_step(ours, reference, leaves, grad, q * k, 144 * float(grad.abs().max())),
        read=plain[1],
        passes=3,
        compiled="reference",
        memory=True,
    )


def cases(quick: bool) -> Iterator[Case]:
    for q, k, width in ((5, 20, 8), (2, 300, 8)) if quick else ((1024, 100, 64), (32, 10_000, 64)):
        yield from attention_cases(q, k, width)


def cuda_call(k: int, with_backward: bool = False) -> Callable[[bool], Call]:
    def make(equal: bool) -> Call:
        q, width = 8, 128
        u = (torch.randn(q, HEADS, width) / width**0.5).half()
        z, others = torch.randn(q, k, width).half(), (times(q, k), times(q))
        leaves = (u, z, *make_mlp())

        def forward(u: Tensor, z: Tensor, *mlp: Any) -> Tensor:
            return lc.esu_attention(u, z, *others, mlp)

        if with_backward:
            return backward(forward, leaves, others, 1)
        return Call(lambda: forward(*leaves), (*leaves, *others), z)

    return make


CUDA_CALLS = (
    Workload("esu_attention fp16", 8 * K, cuda_call(K)),
    Workload("esu_attention fp16 backward", 8 * K, cuda_call(K, with_backward=True)),
    Workload("esu_attention fp16 K=10000", 8 * M, cuda_call(M)),
    Workload("esu_attention fp16 K=10000 backward", 8 * M, cuda_call(M, with_backward=True)),
)
# The form of rows of up to 128 whole columns; the others are for what is wider or unaligned.
ALL, KERNEL = r"esu_attention .*", r"esu_attention(_backward)?_kernel<\w+, \(EsuForm\)0>"
CUDA_GATES = (
    Gate(KERNEL, "registers", 64, ARCHITECTURES),
    Gate(KERNEL, "global_reductions", 0, ARCHITECTURES),
    Gate(KERNEL, "shared_bytes", 8 * 1024, ARCHITECTURES),
    Gate(r"esu_attention fp16( K=10000)?", "bytes_over_minimum", 1.05),
    Gate(
        r"esu_attention fp16 backward",
        "bytes_over_minimum",
        1.05,
        reason="the gradient of s, 8 bytes a behaviour, is written and read again for that of the "
        "mlp; the kernel that reads z is at 1.03",
    ),
    Gate(
        r"esu_attention fp16 K=10000 backward",
        "bytes_over_minimum",
        1.05,
        reason="as for K = 100",
    ),
    Gate(ALL, "rows_in_narrow_loads", 0),
    Gate(ALL, "bank_replays_stream", 1.1),
    Gate(ALL, "global_atomics", 0),
    Gate(r"esu_attention fp16", "launches", 1),
    Gate(
        r"esu_attention fp16 backward",
        "launches",
        1,
        reason="one for u and z, two for the mlp, whose gradient is a sum over the batch",
    ),
    Gate(r"esu_attention fp16 K=10000", "launches", 2),  # chunks are merged by a second
    Gate(r"esu_attention fp16 K=10000 backward", "launches", 4),
)
