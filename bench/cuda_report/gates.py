# SPDX-License-Identifier: Apache-2.0
"""What is asked of all CUDA kernels and of those that ops share, and whether a report gives it and what ops ask.

Lower is better everywhere.
"""

from __future__ import annotations

import re
from typing import Any

from bench.cuda_report.cubins import ARCHITECTURES
from bench.cuda_report.entries import Gate, HotLoop, of_ops

Report = dict[str, Any]
HOT_LOOPS: tuple[HotLoop, ...] = of_ops("CUDA_LOOPS")
OF_OPS: tuple[Gate, ...] = of_ops("CUDA_GATES")

NEWER = ARCHITECTURES[1:]
SMALL = (86, 89, 120)  # 100 KB of shared memory
LARGE = tuple(sm for sm in NEWER if sm not in SMALL)
SWEEP, FP16_SWEEP = r"sweep_(panels_)?kernel<.*>", r"sweep_kernel<Float16, 256, .*>"
# All but those whose op says something of their spills.
OTHERS = rf"(?!({'|'.join(dict.fromkeys(x.subject for x in OF_OPS if x.figure == 'spills'))})$).*"

GATES = (
    Gate(OTHERS, "spills", 0, ARCHITECTURES),
    Gate(OTHERS, "stack", 0, ARCHITECTURES),
    Gate(SWEEP, "registers", 255, NEWER),
    Gate(SWEEP, "global_reductions", 0, NEWER),
    # Four tiles, of which three are on their way, where two such blocks fit a multiprocessor.
    Gate(FP16_SWEEP, "shared_bytes", 72 * 1024, LARGE),
    Gate(FP16_SWEEP, "share_of_a_tile_in_flight", 1 / 3, LARGE),
    Gate(FP16_SWEEP, "shared_bytes", 50 * 1024, SMALL),
    Gate(FP16_SWEEP, "matrix_loads_a_product", 1 / 8, NEWER),
    Gate(FP16_SWEEP, "barriers_in_hot_loop", 1, NEWER),
    *OF_OPS,
    Gate(r".*", "local_bytes", 0),
)


def values(report: Report, gate: Gate) -> list[tuple[float, str]]:
    """All values of a gate's figure with the place of each."""
    found = []
    if gate.architectures:
        for kernel, of_kernel in report["kernels"].items():
            for sm in map(str, gate.architectures):
                value = of_kernel.get(sm, {}).get(gate.figure)
                if value is not None and re.fullmatch(gate.subject, kernel):
                    found.append((value, f"{kernel}, sm_{sm}"))
        return found
    for name, workload in report["workloads"].items():
        value = workload.get("figures", {}).get(gate.figure)
        if value is not None and re.fullmatch(gate.subject, name):
            found.append((value, name))
    return found


def check(report: Report, gates: tuple[Gate, ...] = GATES) -> list[dict[str, Any]]:
    """Each gate with the worst value and its place; ``met`` is None where nothing has the figure."""
    checked = []
    for gate in gates:
        worst, where = max(values(report, gate), default=(None, ""))
        checked.append(
            {
                "subject": gate.subject,
                "architectures": list(gate.architectures),
                "figure": gate.figure,
                "bound": gate.bound,
                "worst": worst,
                "where": where,
                "met": None if worst is None else worst <= gate.bound + 1e-9,
                "reason": gate.reason,
            }
        )
    return checked


def failures(report: Report) -> list[str]:
    """Gates that are neither met nor explained, and ops without kernels."""
    found = []
    for gate in report["gates"]:
        name = f"{gate['subject']}: {gate['figure']}"
        if gate["met"] is None:
            found.append(f"{name}: nothing has this figure")
        elif not gate["met"] and not gate["reason"]:
            found.append(
                f"{name} is {gate['worst']:.4g}, at most {gate['bound']:.4g} ({gate['where']})"
            )
        elif gate["met"] and gate["reason"]:
            found.append(f"{name} is met now: its reason is out of date")
    for name, workload in report["workloads"].items():
        if "missing" in workload:
            found.append(f"{name}: {workload['missing']}")
    for hot in report["hot_loops_not_found"]:
        found.append(f"{hot}: no loop does the work that CUDA_LOOPS says")
    return found


# How much worse a figure may be than the committed one: relative, and absolute.
RELATIVE = 0.02
ABSOLUTE = {"registers": 2.0, "data_dependence": 0.005}
EXACT = ("launches", "spills", "stack", "local_bytes", "global_atomics", "barriers_in_hot_loop")
# CUB's sort of many looks back until blocks before it are done: how often it reads and asks is a matter of time.
UNSTEADY, STEADY = r".* to a popular row", ("launches", "instructions_of_busiest_warps")
COMPARED = ("registers", "stack", "spills", "static_shared", "shared_bytes", "instructions_a_unit",
            "barriers_in_hot_loop", "global_reductions")  # fmt: skip


def worse(figure: str, now: float, before: float) -> bool:
    if figure in EXACT:
        return now > before
    return now > before * (1 + RELATIVE) + ABSOLUTE.get(figure, 0.0)


def regressions(report: Report, committed: Report) -> list[str]:
    """Figures that got worse. Machine code is compared where one release of nvcc made both."""
    found = []

    def compare(place: str, now: dict[str, Any], before: dict[str, Any]) -> None:
        for figure, value in now.items():
            if figure in before and worse(figure, value, before[figure]):
                found.append(f"{place}: {figure} was {before[figure]:.4g}, is {value:.4g}")

    if report["nvcc"] == committed["nvcc"]:
        for kernel, of_kernel in report["kernels"].items():
            for sm, now in of_kernel.items():
                chosen = {figure: now[figure] for figure in COMPARED if figure in now}
                compare(
                    f"{kernel}, sm_{sm}", chosen, committed["kernels"].get(kernel, {}).get(sm, {})
                )
    for name, workload in report["workloads"].items():
        before = committed["workloads"].get(name, {})
        now = workload.get("figures", {})
        if re.fullmatch(UNSTEADY, name):
            now = {figure: value for figure, value in now.items() if figure in STEADY}
        compare(name, now, before.get("figures", {}))
    return found
