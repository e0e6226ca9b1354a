# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import longclock as lc
from bench.checks import close
from bench.cuda_report.cubins import ARCHITECTURES
from bench.cuda_report.entries import Call, Gate, K, M, Workload, backward, gates_of
from bench.harness import Case, Check, Step
from bench.inputs import DTYPES, check_step, make_mlp, times, trained, wide

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


def two_tables(q: int, k: int, width: int, rows: int) -> Case:
    """An item and a feature of half of the columns each, beside the two tables joined into one of as many columns."""
    u, table = torch.randn(q, HEADS, width) / width**0.5, torch.randn(rows, width)
    halves = tuple(half.contiguous() for half in table.split(width // 2, 1))
    ids, other = torch.randint(0, rows, (2, q, k))
    others = times(q, k), times(q), make_mlp()

    def check() -> Check:
        exact = lc.Lookup(tuple(half.double() for half in halves), (ids, other))
        wide_mlp = (*others[:2], wide(others[2]))
        ours, reference = rivals["longclock"](), rivals["reference"]()
        return close(ours, lc.reference.esu_attention(u.double(), exact, *wide_mlp), reference)

    several = lc.Lookup(halves, (ids, other))
    rivals = {
        "longclock": lambda: lc.esu_attention(u, several, *others),
        "reference": lambda: lc.reference.esu_attention(u, several, *others),
        "joined into one table": lambda: lc.esu_attention(u, lc.Lookup(table, ids), *others),
    }
    sizes = {"Q": q, "K": k, "N": rows, "L": f"{width // 2} + {width // 2}", "n": HEADS}
    return Case(f"K = {k:,}, two tables", sizes, rivals, check, read=table[ids])


def cases(quick: bool) -> Iterator[Case]:
    for q, k, width in ((5, 20, 8), (2, 300, 8)) if quick else ((1024, 100, 64), (32, 10_000, 64)):
        yield from attention_cases(q, k, width)
    yield two_tables(*(5, 20, 8, 50) if quick else (1024, 100, 64, 1_000_000))


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


def cuda_tables(with_backward: bool = False) -> Callable[[bool], Call]:
    """Rows of two tables, as wide together as those of the other calls. Before a backward they lie as the behaviours do, so
    that no table's gradient is added up."""

    def make(equal: bool) -> Call:
        q, half = 8, 64
        u = (torch.randn(q, HEADS, 2 * half) / half**0.5).half()
        tables, z_time, now = torch.randn(2, q * K, half).half(), times(q, K), times(q)
        ids = tuple(torch.randperm(q * K).view(q, K) for _ in tables)
        leaves = (u, *make_mlp(), *tables)

        def forward(u: Tensor, *more: Any) -> Tensor:
            mlp, rows = more[:4], more[4:]
            if with_backward:
                z = lc.Lookup(tuple(each.view(q, K, half) for each in rows), (None, None))
            else:
                z = lc.Lookup(rows, ids)
            return lc.esu_attention(u, z, z_time, now, mlp)

        if with_backward:
            made = backward(forward, leaves, (z_time, now), 5)
            return dataclasses.replace(made, rows=tables)
        return Call(lambda: forward(*leaves), (*leaves, *ids, z_time, now), tables)

    return make


PAIRS, POPULAR = 409_600, 4_096  # of a popular row


def cuda_popular_row(equal: bool) -> Call:
    """The gradient of a table of which one row is looked up by a hundredth of all pairs."""
    z_grad, ids = torch.randn(PAIRS // K, K, 64).half(), torch.randint(0, 100_000, (PAIRS,))
    ids[torch.randperm(PAIRS)[:POPULAR]] = 7
    places = ids.view(PAIRS // K, K)

    def run() -> Tensor:
        found: Tensor = torch.ops.longclock.esu_attention_table_grad(
            z_grad, places, None, None, 100_000
        )
        return found

    return Call(run, (z_grad, places), z_grad)


CUDA_CALLS = (
    Workload("esu_attention fp16", 8 * K, cuda_call(K)),
    Workload("esu_attention fp16 backward", 8 * K, cuda_call(K, with_backward=True)),
    Workload("esu_attention fp16 K=10000", 8 * M, cuda_call(M)),
    Workload("esu_attention fp16 K=10000 backward", 8 * M, cuda_call(M, with_backward=True)),
    Workload("esu_attention of two tables", 8 * K, cuda_tables()),
    Workload("esu_attention of two tables backward", 8 * K, cuda_tables(with_backward=True)),
    Workload("esu_attention backward to a popular row", PAIRS, cuda_popular_row),
)
# Of a popular row most is CUB's sort. The forms are those of rows of up to 128 whole columns, of one table and of several; the
# others are for what is wider or unaligned. From sm_80 on they are for fp32; rows of 16 bits are multiplied by tensor cores.
ALL, KERNEL = (
    r"esu_attention (?!backward to a).*",
    r"esu_attention(_backward)?_kernel<\w+, \(EsuForm\)0>",
)
BOTH, OF_TABLES = KERNEL.replace("0", "[03]"), KERNEL.replace("0", "3")
FORWARD_MMA, BACKWARD_MMA = (rf"esu_attention_{pass_}mma_kernel<.*>" for pass_ in ("", "backward_"))
NEWER = ARCHITECTURES[1:]
FORWARD, BACKWARD = r"esu_attention fp16( K=10000)?", r"esu_attention .* backward"
CUDA_GATES = (
    Gate(FORWARD, "ptx_instructions_a_unit", 60),
    Gate(r"esu_attention of two tables", "ptx_instructions_a_unit", 70),
    Gate(BACKWARD, "ptx_instructions_a_unit", 120),  # with that of the mlp
    Gate(FORWARD_MMA.replace(".*", r"\w+, (128|256), \w+"), "registers", 80, NEWER),
    Gate(BACKWARD_MMA.replace(".*", r"\w+, (128|256), \w+"), "registers", 128, NEWER),
    Gate(FORWARD_MMA, "shared_bytes", 37 * 1024, NEWER),  # of which 32 are 128 rows
    Gate(BACKWARD_MMA, "shared_bytes", 45 * 1024, NEWER),
    Gate(f"{FORWARD_MMA}|{BACKWARD_MMA}", "global_reductions", 0, NEWER),
    Gate(ALL, "times_rows_are_copied", 1),
    Gate(KERNEL, "registers", 64, ARCHITECTURES),
    Gate(OF_TABLES, "registers", 80, ARCHITECTURES),
    Gate(BOTH, "global_reductions", 0, ARCHITECTURES),
    Gate(KERNEL, "shared_bytes", 8 * 1024, ARCHITECTURES),
    Gate(OF_TABLES, "shared_bytes", 10 * 1024, ARCHITECTURES),  # and a row's address in each of two
    Gate(r"esu_attention (fp16( K=10000)?|of two tables)", "bytes_over_minimum", 1.05),
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
    Gate(
        r"esu_attention of two tables backward",
        "bytes_over_minimum",
        1.05,
        reason="as for one table, to the byte",
    ),
    *gates_of(ALL, rows_in_narrow_loads=0, bank_replays_stream=1.1, global_atomics=0),
    Gate(r"esu_attention (fp16|of two tables)", "launches", 1),
    Gate(
        r"esu_attention (fp16|of two tables) backward",
        "launches",
        1,
        reason="one for u and z, two for the mlp, whose gradient is a sum over the batch",
    ),
    Gate(r"esu_attention fp16 K=10000", "launches", 2),  # chunks are merged by a second
    Gate(r"esu_attention fp16 K=10000 backward", "launches", 4),
    # 4,096 pairs of one row: 210,464 where one group of lanes added them up.
    Gate(r"esu_attention backward to a popular row", "instructions_of_busiest_warps", 5_500),
)
