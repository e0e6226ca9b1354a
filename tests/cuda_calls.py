# SPDX-License-Identifier: Apache-2.0
"""Every op with a CUDA kernel, forward and backward, by each way that its launcher can take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from cases import Case, make_case
from esu_cases import EsuCase, make_esu
from test_hamming_gsu import hashed
from torch import Tensor

import longclock as lc


@dataclass
class Call:
    """``run`` reads ``inputs``, which may be overwritten between two runs."""

    inputs: list[Tensor]
    run: Callable[[], list[Tensor]]

    @torch.no_grad()
    def overwrite(self, other: Call) -> None:
        for mine, new in zip(self.inputs, other.inputs, strict=True):
            mine.copy_(new)


def tensors(case: Case | EsuCase) -> list[Tensor]:
    found: list[Tensor] = []

    def visit(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    case.map(visit)
    return found


def topk_call(device: str, rows: int, m: int, k: int, lengths: bool = False) -> Call:
    scores = torch.randn(rows, m, device=device, requires_grad=True)
    grad = torch.randn(rows, k, device=device)
    given = torch.randint(0, m + 1, (rows,), device=device) if lengths else None

    def run() -> list[Tensor]:
        found = lc.block_topk(scores, k, given)
        return [*found, *torch.autograd.grad(found.scores, scores, grad)]

    return Call([scores, grad, *([] if given is None else [given])], run)


def search_call(device: str, k: int, case: Case) -> Call:
    case = case.to(device)
    return Call(tensors(case), lambda: list(case.run(lc.clock_gsu, k)))


def hamming_call(device: str, k: int, case: Case) -> Call:
    case = hashed(case, words=2).to(device)

    def run() -> list[Tensor]:
        return list(lc.hamming_gsu(
            case.query, case.keys, case.key_time, case.query_time, k, **case.layout
        ))  # fmt: skip

    return Call([each for each in tensors(case) if not each.is_floating_point()], run)


def score_call(device: str, case: Case) -> Call:
    case, total = case.to(device).trained(), case.total()
    grad = torch.randn_like(case.run(lc.gsu_score, total=total).detach())

    def run() -> list[Tensor]:
        scores = case.run(lc.gsu_score, total=total)
        return [scores, *torch.autograd.grad(scores, list(case.leaves().values()), grad)]

    return Call([*tensors(case), grad], run)


def esu_call(device: str, case: EsuCase) -> Call:
    case = case.to(device).trained()
    grad = torch.randn_like(case.run(lc.esu_attention).detach())

    def run() -> list[Tensor]:
        context = case.run(lc.esu_attention)
        return [context, *torch.autograd.grad(context, list(case.leaves().values()), grad)]

    return Call([*tensors(case), grad], run)


def time_call(device: str, count: int = 700) -> Call:
    a = torch.randint(-(2**33), 2**33, (count,), device=device)
    b = torch.randint(-(2**33), 2**33, (count,), device=device)
    delta = torch.randint(0, 43_200, (count,), device=device)
    term = lc.TimeSimilarity().to(device)
    weights = list(term.parameters())
    grad = torch.randn(count, device=device)

    def run() -> list[Tensor]:
        s = term(delta)
        return [
            lc.circular_delta(a, b), lc.time_features(delta), s,
            *torch.autograd.grad(s, weights, grad),
        ]  # fmt: skip

    return Call([a, b, delta, grad, *weights], run)


def pack_call(device: str, width: int, rows: int = 50) -> Call:
    x = torch.randn(rows, width, device=device)
    return Call([x], lambda: [lc.pack_signs(x)])


LONG: dict[str, Any] = {"counts": (3_000, 900), "width": 16}
MANY: dict[str, Any] = {"counts": (300, 70), "width": 16, "candidates": 20}
FEW: dict[str, Any] = {"counts": (40, 9), "poison": False}

CALLS: dict[str, Callable[[str], Call]] = {
    "block_topk": lambda d: topk_call(d, 700, 90, 7, lengths=True),
    "block_topk, parts": lambda d: topk_call(d, 3, 9_000, 100),
    "block_topk, two merges": lambda d: topk_call(d, 2, 100_000, 100),
    "clock_gsu": lambda d: search_call(d, 7, make_case("dense", **FEW)),
    "clock_gsu, parts": lambda d: search_call(d, 50, make_case("dense", **LONG)),
    "clock_gsu, table": lambda d: search_call(d, 7, make_case("dense", table=True, **FEW)),
    "clock_gsu, windows": lambda d: search_call(d, 7, make_case("windows", **FEW)),
    "clock_gsu, few": lambda d: search_call(d, 7, make_case("candidates", **FEW)),
    "clock_gsu, few, parts": lambda d: search_call(d, 50, make_case("candidates", **LONG)),
    "clock_gsu, many": lambda d: search_call(d, 7, make_case("candidates", **MANY)),
    "clock_gsu, ragged": lambda d: search_call(d, 7, make_case("ragged_many", **MANY)),
    "hamming_gsu": lambda d: hamming_call(d, 7, make_case("dense", **FEW)),
    "hamming_gsu, parts": lambda d: hamming_call(d, 50, make_case("dense", **LONG)),
    "gsu_score": lambda d: score_call(d, make_case("dense", **FEW)),
    "gsu_score, parts": lambda d: score_call(d, make_case("dense", torch.float16, **LONG)),
    "gsu_score, many": lambda d: score_call(d, make_case("candidates", **MANY)),
    "gsu_score, table": lambda d: score_call(d, make_case("dense", table=True, **FEW)),
    "gsu_score, ragged": lambda d: score_call(d, make_case("ragged_many", **FEW)),
    "gsu_score, windows": lambda d: score_call(d, make_case("windows", **FEW)),
    "esu_attention": lambda d: esu_call(d, make_esu(torch.float16, width=16, poison=False)),
    "esu_attention, chunks": lambda d: esu_call(d, make_esu(k=1_500, width=16, poison=False)),
    "esu_attention, heads": lambda d: esu_call(d, make_esu(heads=6, width=140, poison=False)),
    "esu_attention, table": lambda d: esu_call(d, make_esu(table=True, width=16, poison=False)),
    "times": time_call,
    "pack_signs": lambda d: pack_call(d, 64),
    "pack_signs, columns": lambda d: pack_call(d, 70),
}  # fmt: skip
