# SPDX-License-Identifier: Apache-2.0
"""Figures as text: lines for the terminal, and the tables of docs/performance.md.

``python -m bench.report`` puts the tables of bench/results into README.md and docs/performance.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/performance.md")
HEADER = [
    "op", "case", "ms", "fastest", "times reference", "times torch", "times compile",
    "of read bandwidth",
]  # fmt: skip
HIGHLIGHTS = (
    ("clock_gsu", "dense, fp32"),
    ("clock_gsu", "dense, bf16"),
    ("clock_gsu", "table, fp32"),
    ("clock_gsu", "500 candidates, fp32"),
    ("gsu_score", "500 candidates"),
    ("block_topk", "random"),
    ("esu_attention", "K = 100, forward and"),
    ("esu_attention", "K = 10,000, forward and"),
)
TORCH = ("torch", "torch.topk")  # what stands for plain PyTorch


def ratio(result: dict[str, Any], *rivals: str) -> str:
    for rival in rivals:
        if rival in result["ratio"]:
            return f"{result['ratio'][rival]['median']:.2f}"
    return ""


def row(result: dict[str, Any]) -> list[str]:
    ours = result["timings"]["longclock"]
    share = result.get("of_read_bandwidth")
    return [
        f"`{result['op']}`",
        result["case"],
        f"{ours['median_ms']:.2f}",
        f"{ours['min_ms']:.2f}",
        ratio(result, "reference"),
        ratio(result, *TORCH),
        ratio(result, "torch.compile"),
        "" if share is None else f"{share:.0%}",
    ]


def table(results: dict[str, Any]) -> list[str]:
    """Markdown lines, header first."""
    rows = [HEADER, ["---"] * 2 + ["---:"] * (len(HEADER) - 2)]
    rows += [row(result) for result in results["results"]]
    return [f"| {' | '.join(cells)} |" for cells in rows]


def matmul_table(results: dict[str, Any]) -> list[str]:
    """Cases that a matrix product bounds: our time over that of the product alone."""
    head = [
        "op",
        "case",
        "ms",
        "GFLOP/s",
        "over the product alone",
        "times torch",
        "times faiss.knn",
    ]
    rows = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    for result in results["results"]:
        alone = result["ratio"].get("matmul alone")
        if alone:
            rows.append([
                f"`{result['op']}`",
                result["case"],
                f"{result['timings']['longclock']['median_ms']:.2f}",
                f"{result['gflop_per_s']:.0f}",
                f"{1 / alone['median']:.2f}",
                ratio(result, *TORCH),
                ratio(result, "faiss.knn"),
            ])  # fmt: skip
    return [f"| {' | '.join(cells)} |" for cells in rows] if len(rows) > 2 else []


def line(op: str, result: dict[str, Any]) -> str:
    ours = result["timings"]["longclock"]
    low, high = ours["quartiles_ms"]
    text = f"{op:16} {result['case']:46} {ours['median_ms']:9.3f} ms [{low:.3f}, {high:.3f}]"
    for name, found in result["ratio"].items():
        text += f"  {name} x{found['median']:.2f}"
    if "of_read_bandwidth" in result:
        text += f"  {result['gb_per_s']:.1f} GB/s = {result['of_read_bandwidth']:.0%} of reading"
    return text


def footer(results: dict[str, Any]) -> str:
    machine, versions = results["machine"], results["versions"]
    loads = results["load"]
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['simd_level']}, "
        f"{threads}; longclock {versions['longclock']} "
        f"({results['commit'] or 'no commit'}), PyTorch {versions['torch']}, "
        f"{versions['compiler']}; load {loads['before']} to {loads['after']}"
    )


def section(results: dict[str, Any]) -> str:
    """All cases; of a file of products alone, their table alone."""
    tables = [table(results), matmul_table(results)]
    if all("matmul alone" in result["ratio"] for result in results["results"]):
        tables = tables[1:]
    return "\n\n".join([footer(results) + ".", *("\n".join(each) for each in tables if each)])


def highlights(results: dict[str, Any]) -> str:
    """What the README shows."""
    lines = table(results)
    shown = lines[:2]
    for result, text in zip(results["results"], lines[2:], strict=True):
        if any(result["op"] == op and result["case"].startswith(case) for op, case in HIGHLIGHTS):
            shown.append(text)
    return "\n".join(shown) + "\n\n" + footer(results) + "."


def updated(page: str, highlights_only: bool = False) -> str:
    """The page with the figures between its marks, a JSON each, made anew."""

    def figures(match: re.Match[str]) -> str:
        results = json.loads((ROOT / match.group(1)).read_text(encoding="utf-8"))
        text = highlights(results) if highlights_only else section(results)
        return f"<!-- begin: {match.group(1)} -->\n\n{text}\n\n<!-- end -->"

    pattern = r"<!-- begin: (bench/results/\w+\.json) -->.*?<!-- end -->"
    return re.sub(pattern, figures, page, flags=re.DOTALL)


def main() -> None:
    for name in PAGES:
        page = ROOT / name
        text = updated(page.read_text(encoding="utf-8"), highlights_only=name == "README.md")
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
