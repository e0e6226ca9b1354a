# SPDX-License-Identifier: Apache-2.0
"""``python -m bench.fleet``: how many machines a service of many users takes, from its sizes and the committed figures.

Prints the tables of docs/scaling.md. Every number is one of SIZES, a committed figure of bench/results, or computed from these.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from typing import Any

from bench.harness import ROOT

RESULTS = ROOT / "bench" / "results"
DAY = 86400

# What is asked for, and what machines are like: not measured.
SIZES: dict[str, tuple[float, str]] = {
    "users": (600e6, "users"),
    "behaviours": (10_000, "behaviours a user"),
    "requests": (100_000, "requests a second"),
    "candidates": (500, "candidates a request"),
    "found": (100, "behaviours that the search keeps, K"),
    "items": (1e9, "items"),
    "width": (64, "numbers of 16 bits a row"),
    "events": (100, "events a user and day"),
    "copies": (2, "copies of a history"),
    "memory": (1e12, "bytes of memory a machine"),
    "cores": (64, "cores a machine"),
    "busy": (0.5, "share of the time that a core or a GPU is busy"),
}


def committed(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def median_of(name: str, op: str, case: str) -> float:
    """Milliseconds of a case."""
    (found,) = (x for x in committed(name)["results"] if (x["op"], x["case"]) == (op, case))
    return float(found["timings"]["longclock"]["median_ms"])


def table(head: tuple[str, str], rows: Iterator[tuple[str, str]]) -> list[str]:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return lines + [f"| {what} | {how} |" for what, how in rows]


def amount(value: float, unit: str = "B") -> str:
    """Three digits of a count of bytes or bits."""
    power = min(int(math.log10(value)) // 3, 5)
    return f"{value / 1000**power:.3g} {' kMGTP'[power].strip()}{unit}"


def sizes() -> Iterator[tuple[str, str]]:
    for value, what in SIZES.values():
        yield what, f"{value:,.0f}" if value >= 1 else f"{value:g}"


def memory() -> Iterator[tuple[str, str]]:
    s = {name: value for name, (value, _) in SIZES.items()}
    behaviours, row = s["users"] * s["behaviours"], 2 * s["width"]
    yield "behaviours", f"{behaviours:.2g}"
    for what, size in (
        ("an int32 id and an int32 time", 8),
        ("records of `longclock.store`, 16 bytes", 16),
    ):
        total = behaviours * size
        machines = math.ceil(s["copies"] * total / s["memory"])
        yield f"histories as {what}", f"{amount(total)}; {machines} machines for both copies"
    yield "a row for every behaviour, in place of an id", amount(behaviours * row)
    yield (
        "a row for every item",
        f"{amount(s['items'] * row)}; as int8 rows {amount(s['items'] * (s['width'] + 4))}",
    )
    yield "a projection for every item, which precomputed scoring adds", amount(s["items"] * row)
    yield "new behaviours a second", f"{s['users'] * s['events'] / DAY:,.0f}"


def network() -> Iterator[tuple[str, str]]:
    s = {name: value for name, (value, _) in SIZES.items()}
    ids, rows = 8 * s["behaviours"], 2 * s["width"] * s["behaviours"]
    results = 8 * s["found"] * s["candidates"]
    for what, size in (
        ("ids and times of one history", ids),
        ("its rows in their place", rows),
        (
            "what a search where the rows live sends back from one rank, K results a candidate",
            results,
        ),
    ):
        yield what, f"{amount(size)} a request; {amount(8 * size * s['requests'], 'bit')}/s in all"
    rivals = committed("rows")["rivals"]
    share = rivals["where the rows live"]["bytes"] / rivals["rows come"]["bytes"]
    yield (
        "measured: bytes of a search where the rows live, of one candidate, over those of rows that come",
        f"{100 * share:.1f}%",
    )


def work() -> Iterator[tuple[str, str]]:
    s = {name: value for name, (value, _) in SIZES.items()}
    request = committed("serve")["results"]["one request, fp32, folded"]["ms"]["rank"]
    module = median_of("cpu", "long_term_interest_clock", "one request, 500 candidates")
    on_gpu = median_of(
        "gpu_h100_80gb_hbm3", "long_term_interest_clock", "one request, 500 candidates"
    )
    for what, ms in (
        ("a whole request, with its history from a store", request),
        ("the module alone", module),
    ):
        cores = s["requests"] * ms / 1000 / s["busy"]
        yield (
            f"{what}, {ms:.1f} ms of a core",
            f"{cores:,.0f} cores; {math.ceil(cores / s['cores'])} machines",
        )
    yield (
        f"the module alone, {on_gpu * 1000:.0f} us of an H100",
        f"{math.ceil(s['requests'] * on_gpu / 1000 / s['busy'])} GPUs",
    )
    new = s["users"] * s["events"] / DAY
    appends = committed("store")["Redis"]["appends_a_second"]["64 callers, one a call"]["median"]
    yield (
        f"appends, {appends:,.0f} a second and server, each on a disk before it is acknowledged",
        f"{math.ceil(new / appends)} servers",
    )
    step = median_of("cpu", "long_term_interest_clock", "training step")
    rate = 64 / step * 1000
    yield (
        f"training the module on every event, 64 events of full histories in {step:.1f} ms of a core",
        f"{math.ceil(new / rate / s['busy'])} cores",
    )


def page() -> list[str]:
    """The lines of docs/scaling.md."""
    lines = table(("given", ""), sizes())
    for head, rows in (("memory", memory()), ("network", network()), ("work", work())):
        lines += ["", *table((head, ""), rows)]
    return lines


if __name__ == "__main__":
    print("\n".join(page()))
    sys.exit(0)
