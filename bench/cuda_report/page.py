# SPDX-License-Identifier: Apache-2.0
"""Markdown tables of a report, and docs/gpu.md with them between its marks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bench.cuda_report.cubins import ROOT
from bench.cuda_report.roofline import NOTE

RESULTS = ROOT / "bench" / "results" / "cuda.json"
PAGE = ROOT / "docs" / "gpu.md"


def table(head: list[str], rows: list[list[str]], left: int = 1) -> str:
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows])


def number(value: float | None) -> str:
    if value is None:
        return "none"
    return (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:.3g}"
        if value < 100
        else f"{value:,.0f}"
    )


def words(figure: str) -> str:
    return figure.replace("_", " ")


def architectures(numbers: list[int]) -> str:
    return "" if not numbers else "all" if len(numbers) == 7 else ", ".join(map(str, numbers))


def gates(report: dict[str, Any]) -> str:
    rows = []
    for gate in report["gates"]:
        verdict = {True: "met", False: gate["reason"] or "NOT MET", None: "no kernel yet"}[
            gate["met"]
        ]
        subject = gate["subject"].replace("|", "\\|")
        rows.append([f"`{subject}`", architectures(gate["architectures"]), words(gate["figure"]),
                     number(gate["bound"]), number(gate["worst"]), verdict])  # fmt: skip
    return table(["kernels or workload", "sm", "figure", "at most", "worst", ""], rows, 3)


def kernels(report: dict[str, Any]) -> str:
    """Registers and blocks a multiprocessor, of the kernels that the workloads launch."""
    sms = sorted({int(sm) for of_kernel in report["kernels"].values() for sm in of_kernel})
    rows = []
    for kernel, of_kernel in report["kernels"].items():
        found = [of_kernel.get(str(sm), {}) for sm in sms]
        if not any("blocks" in each for each in found):
            continue
        for figure in ("registers", "blocks", "instructions_a_unit"):
            if figure in found[0]:
                cells = [number(each.get(figure)) for each in found]
                rows.append([f"`{kernel}`" if figure == "registers" else "", words(figure), *cells])
    return table(["kernel", "figure", *(f"sm_{sm}" for sm in sms)], rows, 2)


def workloads(report: dict[str, Any]) -> str:
    shown = ("launches", "bytes_over_minimum", "bank_replays_stream", "bank_replays_select",
             "ptx_instructions_a_unit", "data_dependence")  # fmt: skip
    rows = []
    for name, workload in report["workloads"].items():
        figures = workload.get("figures")
        if figures and not figures.keys().isdisjoint(shown):
            rows.append([name, *(number(figures[x]) if x in figures else "" for x in shown)])
    return table(["call", *map(words, shown)], rows)


def predictions(report: dict[str, Any]) -> str:
    gpus = list(dict.fromkeys(each["gpu"] for each in report["predictions"]))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for each in report["predictions"]:
        cells = rows.setdefault((each["workload"], each["sizes"]), {})
        cells[each["gpu"]] = f"{number(each['us'])} ({each['bound']})"
    lines = [
        [*names, *(cells.get(gpu, "other kernels") for gpu in gpus)]
        for names, cells in rows.items()
    ]
    return table([f"us: {NOTE}", "", *gpus], lines, 2)


TABLES = {"gates": gates, "kernels": kernels, "workloads": workloads, "predictions": predictions}


def updated(page: str, report: dict[str, Any]) -> str:
    def made(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- begin: cuda.json {name} -->\n\n{TABLES[name](report)}\n\n<!-- end -->"

    pattern = r"<!-- begin: cuda\.json (\w+) -->.*?<!-- end -->"
    return re.sub(pattern, made, page, flags=re.DOTALL)


def dumps(value: Any, depth: int = 0) -> str:
    """JSON with three levels of lines, so that a change is seen in one line of a diff."""
    if depth == 3 or not value or not isinstance(value, dict | list):
        return json.dumps(value, allow_nan=False)
    pad = " " * (depth + 1)
    if isinstance(value, dict):
        inside = [
            f"{pad}{json.dumps(key)}: {dumps(each, depth + 1)}" for key, each in value.items()
        ]
    else:
        inside = [f"{pad}{dumps(each, 3)}" for each in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}\n" + ",\n".join(inside) + f"\n{' ' * depth}{last}"


def read(path: Path = RESULTS) -> dict[str, Any] | None:
    found: dict[str, Any] | None = None
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    return found
