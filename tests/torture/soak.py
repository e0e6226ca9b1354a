# SPDX-License-Identifier: Apache-2.0
"""Forward and backward of every kind, at changing sizes and numbers of threads, for an hour.

Every result has to have the bits of the first pass, and memory has to be flat: the straight line
that fits the resident size after each call best, from the first fifth of the time on, may not rise
by more than 16 MB from its beginning to its end, three standard errors allowed for. Every half
minute a line says how things are.

    PYTHONPATH=tests python -m tests.torture.soak --seconds 3600
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from collections.abc import Callable

import torch
from cases import FLOATS, LAYOUTS, make_case
from esu_cases import make_esu
from torch import Tensor

import longclock as lc

REPORT = 30.0  # seconds
RISE = 16.0  # MB
SETTLED = 0.2  # of the time


def resident() -> float:
    """MB of memory that this process has."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096 / 2**20


def digest(tensors: list[Tensor]) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def search(
    layout: str, dtype: torch.dtype, table: bool, longest: int
) -> Callable[[], list[Tensor]]:
    """A search, its scores, and the gradients of all that it read."""
    counts = (longest, longest // 3, 0, longest // 2)
    case = make_case(layout, dtype, counts=counts, width=24, table=table, poison=False)

    def run() -> list[Tensor]:
        trained = case.trained()
        scores = trained.run(lc.gsu_score)
        leaves = list(trained.leaves().values())
        seen = scores.masked_fill(scores.isinf(), 0).float()
        return [
            scores,
            *case.run(lc.clock_gsu, 100),
            *torch.autograd.grad(seen.sin().sum(), leaves),
        ]

    return run


def attention(k: int, table: bool) -> Callable[[], list[Tensor]]:
    case = make_esu(queries=12, k=k, width=24, table=table)

    def run() -> list[Tensor]:
        trained = case.trained()
        context = trained.run(lc.esu_attention)
        leaves = list(trained.leaves().values())
        return [context, *torch.autograd.grad(context.sin().sum(), leaves)]

    return run


def elements(rows: int, columns: int) -> Callable[[], list[Tensor]]:
    """A selection, signs, and the time term by itself, with gradients."""
    x, times = torch.randn(rows, columns), torch.randint(0, 2**31, (rows, columns))
    mlp = make_case(counts=(1,)).mlp

    def run() -> list[Tensor]:
        trained = x.clone().requires_grad_()
        top = lc.block_topk(trained, 64)
        weights = [weight.clone().requires_grad_() for weight in mlp]
        delta = lc.circular_delta(times, times[:, :1])
        s = lc.time_similarity(delta, *weights)
        return [
            *top, lc.pack_signs(x), delta, s, *torch.autograd.grad(top.scores.sin().sum(), trained),
            *torch.autograd.grad(s.sin().sum(), weights),
        ]  # fmt: skip

    return run


def make_cases() -> dict[str, Callable[[], list[Tensor]]]:
    cases: dict[str, Callable[[], list[Tensor]]] = {}
    for layout in LAYOUTS:
        for longest in (300, 20_000):
            for table in (False, True):
                dtype = FLOATS[len(cases) % 3]
                cases[f"{layout} {longest} {dtype} table={table}"] = search(
                    layout, dtype, table, longest
                )
    for k in (50, 3000, 9000):
        cases |= {f"attention {k} table={table}": attention(k, table) for table in (False, True)}
    # Gradients of 8 MB and more, whose pages are kept.
    cases["dense 120000"] = search("dense", torch.float32, False, 120_000)
    cases |= {f"elements {n}": elements(16, n) for n in (100, 5000, 140_000)}
    return cases


def rise(samples: list[tuple[float, float]]) -> tuple[float, float]:
    """By how much the line that fits (x, y) best rises from the first x to the last, and its error."""
    x, y = torch.tensor(samples, dtype=torch.float64).unbind(1)
    if len(x) < 3:
        return 0.0, 0.0
    apart = x - x.mean()
    square = apart.square().sum()
    slope = (apart * y).sum() / square
    rest = y - y.mean() - slope * apart
    error = (rest.square().sum() / (len(x) - 2) / square).sqrt()
    return float(slope * (x[-1] - x[0])), float(error * (x[-1] - x[0]))


def run(seconds: float, seed: int) -> list[str]:
    """What went wrong."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    cases = make_cases()
    first = {name: digest(case()) for name, case in cases.items()}
    whole = hashlib.sha256("".join(first.values()).encode()).hexdigest()[:16]
    begin = time.monotonic()
    samples = [(0.0, resident())]
    next_report = 0.0
    while samples[-1][0] < seconds:
        if samples[-1][0] >= next_report:
            next_report += REPORT
            print(
                f"{samples[-1][0]:6.0f} s  {len(samples) - 1:7} calls  "
                f"{samples[-1][1]:7.1f} MB  results {whole}", flush=True,
            )  # fmt: skip
        name = draw.choice(list(cases))
        threads = draw.choice((1, 2, 3, 4))
        torch.set_num_threads(threads)
        if digest(cases[name]()) != first[name]:
            return [f"{name} on {threads} threads: other bits than in the first pass"]
        samples.append((time.monotonic() - begin, resident()))
    rises, error = rise([sample for sample in samples if sample[0] >= SETTLED * seconds])
    print(
        f"{len(samples) - 1} calls of {len(cases)} cases in {seconds:.0f} s, all with the bits of "
        f"the first pass; memory rises by {rises:.1f} MB (error {error:.1f})"
    )
    if rises > RISE + 3 * error:
        return [f"memory rises by {rises:.1f} MB, more than {RISE:.0f}"]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    wrong = run(arguments.seconds, arguments.seed)
    for line in wrong:
        print("WRONG:", line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
