# SPDX-License-Identifier: Apache-2.0
"""How clock_gsu scales: one size at a time changes, from small to large, beside torch and the reference.

Every point is a case of ``bench.clock_gsu``: checked against the fp64 reference, then timed in turns,
with few repetitions. fp32, dense.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch

from bench.harness import OURS, QUICK, Case, Effort, load, measure, surroundings
from bench.inputs import make_search
from bench.search_cases import search_case

RIVALS = (OURS, "torch", "reference")
EFFORT = Effort(seconds=1.0, rounds=(3, 15), warm_up=1)
THREADS = "threads"


@dataclasses.dataclass
class Curve:
    """``axis`` is the size that takes the ``values``, or the number of threads."""

    axis: str
    values: tuple[int, ...]
    sizes: dict[str, int]  # S, C, M, D, K; the axis's own is not used


def curves(quick: bool, threads: int) -> list[Curve]:
    base = {"S": 32, "C": 1, "M": 10_000, "D": 64, "K": 100}
    one = base | {"S": 1}
    powers = [1 << power for power in range(threads.bit_length()) if 1 << power < threads]
    found = [
        Curve("M", (1_000, 10_000, 100_000, 1_000_000), one),
        Curve("S", (1, 4, 16, 64, 256), base),
        Curve("C", (1, 10, 100, 1_000), one),
        Curve("D", (16, 32, 64, 128, 256), base),
        Curve("K", (1, 10, 100, 500, 2_048), base),
        Curve(THREADS, (*powers, threads), base),
    ]
    if not quick:
        return found
    tiny = {"S": 2, "C": 1, "M": 200, "D": 16, "K": 10}
    return [Curve(curve.axis, tuple(curve.values[:2]), tiny) for curve in found]


def point(sizes: dict[str, int]) -> Case:
    s, c, m, d = (sizes[name] for name in "SCMD")
    search = make_search(s, m, d, torch.float32, candidates=None if c == 1 else c)
    case = search_case("", search, sizes["K"], {})
    rivals = {name: call for name, call in case.rivals.items() if name in RIVALS}
    return dataclasses.replace(case, rivals=rivals, read=None)


@contextlib.contextmanager
def threads_set(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(
    quick: bool, report: Callable[[str, dict[str, Any]], None] = lambda axis, found: None
) -> dict[str, Any]:
    """Plain numbers and text, for JSON: a list of points a curve."""
    found: dict[str, Any] = {**surroundings(), "quick": quick, "load": {"before": load()}}
    found["curves"] = []
    threads = torch.get_num_threads()
    for curve in curves(quick, threads):
        torch.manual_seed(0)
        sizes = {name: size for name, size in curve.sizes.items() if name != curve.axis}
        points: list[dict[str, Any]] = []
        found["curves"].append({"axis": curve.axis, "sizes": sizes, "points": points})
        for value in curve.values:
            case = point(curve.sizes | {curve.axis: value})
            with threads_set(value if curve.axis == THREADS else threads):
                result = measure(case, QUICK if quick else EFFORT)
            kept = ("check", "timings", "ratio", "ns_per_behaviour")
            points.append({"value": value, **{name: result[name] for name in kept}})
            report(curve.axis, points[-1])
    found["load"]["after"] = load()
    return found
