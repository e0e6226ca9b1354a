# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import longclock as lc
from bench import peers
from bench.checks import same_selection
from bench.cuda_report.cubins import ARCHITECTURES
from bench.cuda_report.entries import Call, Gate, K, M, Workload, gates_of
from bench.harness import Case
from bench.inputs import Search, make_search, times

BITS = 64


def signs_of(hashes: Tensor) -> Tensor:
    """-1 or 1 a bit, in bf16, where a sum of 64 of them is exact."""
    bits = hashes >> torch.arange(BITS, device=hashes.device) & 1
    return (2 * bits - 1).to(torch.bfloat16)


def nearest_by_faiss(case: Search, k: int) -> dict[str, Callable[[], Any]]:
    """Exact search by Hamming distance, for one request; among equals it keeps any."""
    module = peers.faiss_of(case.query, "faiss.knn_hamming")
    if module is None:
        return {}
    query, keys = (x[0].view(-1, 1).view(torch.uint8).numpy() for x in (case.query, case.keys))
    return {"faiss.knn_hamming": lambda: module.knn_hamming(query, keys, k)}


def search_case(name: str, case: Search, k: int, sizes: dict[str, Any]) -> Case:
    """The same search of vectors of signs, whose product is ``BITS - 2 distance``: by ``clock_gsu``, and as one
    writes it in PyTorch."""
    many = case.query.dim() == 3
    w1, b1, w2, b2 = (torch.zeros_like(weight) for weight in case.mlp)
    signs = Search(
        signs_of(case.query), signs_of(case.keys), case.key_time, case.query_time, (w1, b1, w2, b2), case.layout
    )  # fmt: skip

    def found(op: Callable[..., Any]) -> lc.TopK:
        top: lc.TopK = op(case.query, case.keys, case.key_time, case.query_time, k, **case.layout)
        return top

    def of_products() -> lc.TopK:
        query = signs.query if many else signs.query[:, None]
        products = torch.bmm(query, signs.gathered().keys.transpose(1, 2))
        scores, indices = (products if many else products[:, 0]).topk(k)
        return lc.TopK((scores.float() - BITS) / 2, indices)

    evaluations = case.query[..., 0].numel() * case.key_time.shape[-1]
    return Case(
        name,
        sizes | {"K": k, "bits": BITS},
        {
            "longclock": lambda: found(lc.hamming_gsu),
            "reference": lambda: found(lc.reference.hamming_gsu),
            "clock_gsu of signs": lambda: signs.run(lc.clock_gsu, k),
            "torch": of_products,
            **nearest_by_faiss(case, k),
        },
        lambda: same_selection(found(lc.hamming_gsu), found(lc.reference.hamming_gsu)),
        read=None if many else case.gathered().keys,
        behaviours=evaluations,
    )


def make_hashes(case: Search) -> Search:
    """The case with random hashes in place of its vectors."""

    def hashes(rows: Tensor) -> Tensor:
        return torch.randint(-(2**63), 2**63 - 1, (*rows.shape[:-1], 1))

    return dataclasses.replace(case, query=hashes(case.query), keys=hashes(case.keys))


def cases(quick: bool) -> Iterator[Case]:
    s, m, rows, k = (3, 300, 500, 10) if quick else (32, 10_000, 1_000_000, 100)
    candidates, long = (7, 3_000) if quick else (500, 1_000_000)
    for name, sizes, options in (
        ("dense", {"S": s, "M": m}, {}),
        ("table", {"S": s, "M": m, "N": rows}, {"table": rows}),
        (f"{candidates} candidates", {"S": 1, "C": candidates, "M": m}, {"candidates": candidates}),
        (f"one history of {long:,}", {"S": 1, "M": long}, {}),
    ):
        case = make_search(sizes["S"], sizes["M"], 1, torch.float32, **options)
        yield search_case(name, make_hashes(case), k, sizes)


def cuda_call(s: int, m: int) -> Callable[[bool], Call]:
    def make(equal: bool) -> Call:
        query, keys = torch.randint(-(2**63), 2**63 - 1, (s, 1)), torch.zeros(s, m, 1).long()
        if not equal:
            keys.random_(-(2**63), 2**63 - 1)
        key_time, query_time = times(s, m), times(s)  # not read: nothing is excluded by its time
        return Call(lambda: lc.hamming_gsu(query, keys, key_time, query_time, K), (query, keys))

    return make


CUDA_CALLS = (
    Workload("hamming_gsu 64 bits", 4 * M, cuda_call(4, M), True),
    Workload("hamming_gsu 64 bits S=512 M=1000", 512_000, cuda_call(512, 1000), True),
)
CUDA_GATES = (
    Gate(r"hamming_gsu_kernel<\d>", "registers", 64, ARCHITECTURES),
    Gate(r"hamming_gsu_by_team_kernel<\d>", "registers", 128, ARCHITECTURES),
    Gate(r"hamming_gsu .*", "bytes_over_minimum", 1.05),
    Gate(r"hamming_gsu 64 bits", "ptx_instructions_a_unit", 2),
    *gates_of(r"hamming_gsu .*", barriers_a_warp=4, bank_replays_select=1.25, launches=1),
)
