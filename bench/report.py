# SPDX-License-Identifier: Apache-2.0
"""Figures as text: lines for the terminal, and the tables of docs/measurements.md.

``python -m bench.report`` puts the tables of bench/results into the pages of docs and draws docs/scaling.svg and docs/serving.svg. Of a file that is not there, a page keeps what it has.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bench import load_figure
from bench.figure import figure
from bench.peers import PACKAGES

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("docs/performance.md", "docs/measurements.md", "docs/gpu.md", "docs/events.md")
SHORT = "docs/performance.md"
SCALING = "bench/results/scaling.json"
FIGURE = "docs/scaling.svg"
SERVING = "bench/results/serve_load.json"
SERVING_FIGURE = "docs/serving.svg"
HEADER = [
    "op", "case", "ms", "fastest", "times reference", "times torch", "times compile",
    "of read bandwidth",
]  # fmt: skip
# Of docs/performance.md: what a case is in words, and the peer beside it.
HIGHLIGHTS = {
    ("clock_gsu", "dense, fp32"): ("search, one candidate each of 32 users", ""),
    ("clock_gsu", "table, fp32"): ("the same in a table of items", ""),
    ("clock_gsu", "500 candidates, fp32"): ("search, 500 candidates of one user", "faiss.knn"),
    ("gsu_score", "500 candidates, fp32"): ("all scores of 500 candidates", ""),
    ("block_topk", "random"): ("the best 100 of given scores", ""),
    ("hamming_gsu", "500 candidates"): ("ETA's search by hashes, 500 candidates", "faiss.knn_hamming"),
    ("esu_attention", "K = 100, forward and backward"): ("attention over 100, trained", "sdpa"),
    ("esu_attention", "K = 10,000, forward and backward"): ("attention over 10,000, trained", "sdpa"),
    ("fuxictr_twin", "forward and backward"): ("the module over 64 histories of vectors, trained", "FuxiCTR TWIN"),
    ("long_term_interest_clock", "training step"): ("a training step", ""),
    ("long_term_interest_clock", "one request, 500 candidates"): ("a request of 500 candidates", ""),
}  # fmt: skip
LATENCIES = ("p50", "p90", "p99")
TORCH = ("torch", "torch.topk")  # what stands for plain PyTorch
PEERS = {
    "sdpa": "SDPA, without time",
    "FuxiCTR TWIN": "FuxiCTR TWIN, without time",
    "clock_gsu of signs": "clock_gsu of signs in bf16",
    "faiss.knn_hamming": "faiss.knn_hamming",
    "bmm and topk": "bmm and topk, without time",
    "one candidate": "one of the candidates",
}


def ratio(result: dict[str, Any], *rivals: str) -> str:
    for rival in rivals:
        if rival in result["ratio"]:
            return f"{result['ratio'][rival]['median']:.2f}"
    return ""


def share_of_reading(result: dict[str, Any]) -> str:
    share = result.get("of_read_bandwidth")
    return "" if share is None else f"{share:.0%}"


def row(result: dict[str, Any]) -> list[str]:
    ours = result["timings"]["longclock"]
    return [
        f"`{result['op']}`",
        result["case"],
        f"{ours['median_ms']:.2f}",
        f"{ours['min_ms']:.2f}",
        ratio(result, "reference"),
        ratio(result, *TORCH),
        ratio(result, "torch.compile"),
        share_of_reading(result),
    ]


def markdown(head: list[str], rows: list[list[str]], named: int = 2) -> list[str]:
    """Lines of a table, header first: ``named`` columns of text, then numbers. None without rows."""
    if not rows:
        return []
    lines = [head, ["---"] * named + ["---:"] * (len(head) - named), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def name_and_ms(result: dict[str, Any]) -> list[str]:
    median = result["timings"]["longclock"]["median_ms"]
    return [f"`{result['op']}`", result["case"], f"{median:.2f}"]


def table(results: dict[str, Any]) -> list[str]:
    return markdown(HEADER, [row(result) for result in results["results"]])


def matmul_table(results: dict[str, Any]) -> list[str]:
    """Cases that a matrix product bounds: our time over that of the product alone."""
    head = ["op", "case", "ms", "GFLOP/s", "over the product alone", "times torch",
            "times faiss.knn"]  # fmt: skip
    rows = [
        [
            *name_and_ms(result),
            f"{result['gflop_per_s']:.0f}",
            f"{1 / result['ratio']['matmul alone']['median']:.2f}",
            ratio(result, *TORCH),
            ratio(result, "faiss.knn"),
        ]
        for result in results["results"]
        if "matmul alone" in result["ratio"]
    ]
    return markdown(head, rows)


def behaviour_table(results: dict[str, Any]) -> list[str]:
    """Searches by the behaviour: what a layout or a length costs beside another."""
    head = ["op", "case", "ms", "ns per behaviour", "million behaviours per second"]
    rows = [
        [
            *name_and_ms(result),
            f"{result['ns_per_behaviour']:.2f}",
            f"{1e3 / result['ns_per_behaviour']:.0f}",
        ]
        for result in results["results"]
        if "ns_per_behaviour" in result
    ]
    return markdown(head, rows)


def peer_table(results: dict[str, Any]) -> list[str]:
    """Rivals that compute something else: what they leave out is in their names."""
    head = ["op", "case", "ms", "peer", "times peer"]
    rows = [
        [*name_and_ms(result), title, ratio(result, peer)]
        for result in results["results"]
        for peer, title in PEERS.items()
        if peer in result["ratio"]
    ]
    return markdown(head, rows)


def memory_table(results: dict[str, Any]) -> list[str]:
    """MB that a call takes beyond its inputs and outputs."""
    rivals = ("longclock", "torch", "reference")
    rows = []
    for result in results["results"]:
        if taken := result.get("memory_mb"):
            cells = [f"{taken[name]:.0f}" if name in taken else "" for name in rivals]
            rows.append([f"`{result['op']}`", result["case"], *cells])
    return markdown(["op", "case", "MB", "MB, torch", "MB, reference"], rows)


def gpu_row(result: dict[str, Any]) -> list[str]:
    return [
        f"{result['timings']['longclock']['median_ms'] * 1e3:,.0f}",
        share_of_reading(result),
        ratio(result, "reference"),
        ratio(result, *TORCH),
        ratio(result, *PEERS),
    ]


GPU_COLUMNS = ["us", "of reading", "times reference", "times torch", "times peer, without time"]


def prediction_table(results: dict[str, Any]) -> list[str]:
    """The large cases, with what was predicted for each without a GPU."""
    rows = [
        [
            f"`{result['op']}`",
            ", ".join(f"{name} = {size}" for name, size in result["sizes"].items()),
            *gpu_row(result),
            "" if result["predicted_us"] is None else f"{result['predicted_us']:.0f}",
        ]
        for result in results["predicted"]
    ]
    return markdown(["call", "sizes", *GPU_COLUMNS, "predicted us"], rows)


def gpu_table(results: dict[str, Any]) -> list[str]:
    rows = [[f"`{r['op']}`", r["case"], *gpu_row(r)] for r in results["results"]]
    return markdown(["op", "case", *GPU_COLUMNS], rows)


def scaling_table(results: dict[str, Any]) -> list[str]:
    rows = [
        [
            curve["axis"],
            f"{point['value']:,}",
            ", ".join(f"{name} = {size:,}" for name, size in curve["sizes"].items()),
            f"{point['timings']['longclock']['median_ms']:.2f}",
            f"{1e3 / point['ns_per_behaviour']:.0f}",
            ratio(point, "torch"),
            ratio(point, "reference"),
        ]
        for curve in results["curves"]
        for point in curve["points"]
    ]
    head = ["size", "value", "others", "ms", "million behaviours per second", "times torch",
            "times reference"]  # fmt: skip
    return markdown(head, rows, named=3)


def load_table(results: dict[str, Any]) -> list[str]:
    """Of each that was compared the most that it answered, and its latency at no more than half of that."""
    rows = []
    for data, found in results["results"].items():
        for name, points in found["points"].items():
            most = max(point["a_second"] for point in points)
            calm = [point for point in points if point["rate"] <= most / 2] or points[:1]
            latency = calm[-1]["latency_ms"]
            core = max(point["a_second_of_a_core"] for point in points)
            cells = [f"{1e3 / core:.1f}", f"{core:.0f}", f"{most:.0f}", f"{calm[-1]['rate']:g}"]
            cells += ["" if latency[q] is None else f"{latency[q]:.0f}" for q in LATENCIES]
            rows.append([data, name, *cells])
    head = ["histories", "what answers", "ms of CPU", "a second of a core", "at most a second", "latency in ms at", *LATENCIES]  # fmt: skip
    return markdown(head, rows)


def request_table(results: dict[str, Any]) -> list[str]:
    """A request and its parts in milliseconds of processor time, by dtype and scoring."""
    rows, parts = [], ("rank", "search", "attention", "layers", "store")
    for name, found in results["results"].items():
        if name.startswith("one request, "):
            kind = name.removeprefix("one request, ")
            figures = [found["ms"][part] for part in parts] + [found["over its two ops"], found["over its parts"]]  # fmt: skip
            rows.append([kind, *(f"{figure:.2f}" for figure in figures), f"{found['share of the store']:.1%}"])  # fmt: skip
    head = ["dtype, scoring", *parts, "rank over both ops", "over all parts", "share of the store"]  # fmt: skip
    return markdown(head, rows, named=1)


def of_int8(found: dict[str, Any]) -> str:
    """How many times as fast a request and its search are in int8."""
    fp32, bf16, ours = (found[f"one request, {dtype}, folded"]["ms"] for dtype in ("fp32", "bf16", "int8"))  # fmt: skip
    times = [f"the {part} of {dtype} {ms[part] / ours[part]:.2f}" for dtype, ms in (("fp32", fp32), ("bf16", bf16)) for part in ("rank", "search")]  # fmt: skip
    return f"Times those of int8, folded: {', '.join(times)}."


def request_section(results: dict[str, Any]) -> str:
    found = results["results"]
    rivals = found["beside rivals, fp32"]
    times = [f"{name.removeprefix('times ')} {x:.1f}" for name, x in rivals.items() if name != "ms"]
    beside = found["beside a durable writer"]
    text = (
        f"The model of a request in fp32 by rivals, times ours: {', '.join(times)}. Processor time of a request of two threads that ask, over that of "
        f"one: {found['two threads that ask']['of one']:.2f}. p99 over p50 beside a durable writer: {beside['p99 over p50']:.2f}, without it {beside['without it']:.2f}."
    )
    parts = [footer(results) + ".", "\n".join(request_table(results)), of_int8(found), text]
    return "\n\n".join(parts)


def recall_table(results: dict[str, Any]) -> list[str]:
    """What searches of fewer bits find of what one in fp32 does, by model and scoring."""
    rows = []
    for kind, found in results["results"].items():
        sizes = [str(found["users"]), f"{found['behaviours']:,.0f}"]
        for way, shares in found["ways"].items():
            rows.append([kind, way, *sizes, *(f"{share:.4f}" for share in shares.values())])
    head = ["data, scoring", "rows", "users", "behaviours", "recall", "worst user", "worst 1% of queries"]  # fmt: skip
    return markdown(head, rows)


def serving_section(results: dict[str, Any]) -> str:
    image = f"![Latency of a request against the rate of requests]({Path(SERVING_FIGURE).name})"
    return "\n\n".join([footer(results) + ".", image, "\n".join(load_table(results))])


def sources_section(results: dict[str, Any]) -> str:
    rows = []
    for name, found in results["sources"].items():
        grown = f"{found['grown_mb']:.0f}" if "grown_mb" in found else ""
        rows.append([name, f"{found['events']:,}", f"{found['events_a_second'] / 1e6:.2f}", grown])
    head = ["source", "events", "million a second", "MB more in memory"]
    return "\n\n".join([footer(results) + ".", "\n".join(markdown(head, rows, named=1))])


def sourced_section(results: dict[str, Any]) -> str:
    rows = []
    for name, found in results["sourced"].items():
        figures = ("events", "kept", "users", "items", "events_a_second", "events_a_processor_second", "before_mb", "peak_mb")  # fmt: skip
        rows.append([name, *(f"{found[figure]:,.0f}" for figure in figures)])
    head = ["", "events", "behaviours kept", "users", "items", "events a second", "a second of processor time", "MB before", "MB at most"]  # fmt: skip
    return "\n\n".join([footer(results) + ".", "\n".join(markdown(head, rows, named=1))])


def line(op: str, result: dict[str, Any]) -> str:
    ours = result["timings"]["longclock"]
    low, high = ours["quartiles_ms"]
    text = f"{op:24} {result['case']:46} {ours['median_ms']:9.3f} ms [{low:.3f}, {high:.3f}]"
    for name, found in result["ratio"].items():
        text += f"  {name} x{found['median']:.2f}"
    if "of_read_bandwidth" in result:
        text += f"  {result['gb_per_s']:.1f} GB/s = {result['of_read_bandwidth']:.0%} of reading"
    if "ns_per_behaviour" in result:
        text += f"  {result['ns_per_behaviour']:.2f} ns per behaviour"
    if taken := result.get("memory_mb"):
        text += "  MB: " + ", ".join(f"{name} {mb:.0f}" for name, mb in taken.items())
    return text


def scaling_line(axis: str, point: dict[str, Any]) -> str:
    title = f"{axis} = {point['value']:,}"
    return line("clock_gsu", {"case": title, **point})


def footer(results: dict[str, Any]) -> str:
    machine, versions = results["machine"], results["versions"]
    loads = results["load"]
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['simd_level']}, {threads}"
    if "gpu" in machine:
        gpu, read = machine["gpu"], results["bandwidth_gb_per_s"]["read"]
        where = f"{gpu['name']}, driver {gpu['driver']}, reading at {read:,.0f} GB/s; {where}"
    peers = "".join(f", {name} {versions[name]}" for name in PACKAGES if name in versions)
    return (
        f"{where}; longclock {versions['longclock']} "
        f"({results['commit'] or 'no commit'}), PyTorch {versions['torch']}{peers}, "
        f"{versions['compiler']}; load {loads['before']} to {loads['after']}"
    )


def section(results: dict[str, Any]) -> str:
    """All tables that the figures fill; of a file of products alone, their table alone."""
    if "recall of" in results:
        return f"{footer(results)}.\n\n" + "\n".join(recall_table(results))
    if "sizes" in results:
        return request_section(results)
    if "sources" in results:
        return sources_section(results)
    if "sourced" in results:
        return sourced_section(results)
    if "settings" in results:
        return serving_section(results)
    if "curves" in results:
        image = f"![Behaviours a second as one size changes]({Path(FIGURE).name})"
        return "\n\n".join([footer(results) + ".", image, "\n".join(scaling_table(results))])
    if "predicted" in results:
        tables = [prediction_table(results), gpu_table(results)]
    elif all("matmul alone" in result["ratio"] for result in results["results"]):
        tables = [matmul_table(results)]
    else:
        tables = [table(results), matmul_table(results)]
        tables += [each(results) for each in (peer_table, behaviour_table, memory_table)]
    return "\n\n".join([footer(results) + ".", *("\n".join(each) for each in tables if each)])


def highlights(results: dict[str, Any]) -> str:
    """A few cases in words, for whoever reads of them first."""
    rows = []
    for result in results["results"]:
        words, peer = HIGHLIGHTS.get((result["op"], result["case"]), ("", ""))
        if words:
            times = ratio(result, *TORCH, "reference"), ratio(result, "torch.compile")
            over = ratio(result, peer)
            beside = f"{over} ({PEERS.get(peer, peer)})" if over else ""
            rows.append([words, f"`{result['op']}`", name_and_ms(result)[2], *times, beside, share_of_reading(result)])  # fmt: skip
    head = ["what", "op", "ms", "times plain PyTorch", "times torch.compile", "times a peer", "of read bandwidth"]  # fmt: skip
    return "\n".join(markdown(head, rows)) + f"\n\n{footer(results)}."


def updated(page: str, highlights_only: bool = False) -> str:
    """The page with the figures between its marks, a JSON each, made anew."""

    def figures(match: re.Match[str]) -> str:
        path = ROOT / match.group(1)
        if not path.exists():
            return match.group(0)
        results = json.loads(path.read_text(encoding="utf-8"))
        text = highlights(results) if highlights_only else section(results)
        return f"<!-- begin: {match.group(1)} -->\n\n{text}\n\n<!-- end -->"

    pattern = r"<!-- begin: (bench/results/\w+\.json) -->.*?<!-- end -->"
    return re.sub(pattern, figures, page, flags=re.DOTALL)


def drawn() -> dict[str, str]:
    """Figures of the committed curves, by their files; without those whose curves are not there."""
    found = {}
    for figure_file, file, draw in (
        (FIGURE, SCALING, figure),
        (SERVING_FIGURE, SERVING, load_figure.figure),
    ):
        path = ROOT / file
        if path.exists():
            found[figure_file] = draw(json.loads(path.read_text(encoding="utf-8")))
    return found


def main() -> None:
    for name in PAGES:
        page = ROOT / name
        text = updated(page.read_text(encoding="utf-8"), highlights_only=name == SHORT)
        page.write_text(text, encoding="utf-8")
    for name, image in drawn().items():
        (ROOT / name).write_text(image, encoding="utf-8")


if __name__ == "__main__":
    main()
