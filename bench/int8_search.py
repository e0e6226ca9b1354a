# SPDX-License-Identifier: Apache-2.0
"""``python -m bench.int8_search``: the search of int8 rows beside those of bf16 and fp32.

One request over a table whose rows all differ, by one thread. Calls take turns in one process; figures are the least CPU time of the
thread. What each finds is checked first, against the reference with the same rows.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import longclock as lc
from bench.checks import selection
from bench.harness import surroundings
from bench.inputs import Search, make_search, wide

WAYS: dict[str, tuple[torch.dtype | None, torch.dtype, str | None]] = {  # rows, query, query_dtype
    "fp32": (torch.float32, torch.float32, None),
    "bf16": (torch.bfloat16, torch.bfloat16, None),
    "int8, fp32 query": (None, torch.float32, "float32"),
    "int8, bf16 query": (None, torch.float32, "bfloat16"),
    "int8, int8 query": (None, torch.float32, "int8"),
}


@dataclasses.dataclass
class Sizes:
    behaviours: int = 10_000
    rows: int = 30_000
    k: int = 100
    candidates: tuple[int, ...] = (1, 5, 500)
    widths: tuple[int, ...] = (64, 128)


def ways_of(sizes: Sizes, candidates: int, width: int) -> dict[str, Search]:
    """The same request with each kind of rows."""
    whole = make_search(1, sizes.behaviours, width, torch.float32, candidates=candidates, table=sizes.rows)  # fmt: skip
    whole.layout["ids"] = torch.randperm(sizes.rows)[: sizes.behaviours][None]
    quantized = lc.quantize_rows(whole.keys)
    made = {}
    for name, (rows, query, query_dtype) in WAYS.items():
        keys: Any = quantized if rows is None else whole.keys.to(rows)
        layout = whole.layout | ({} if query_dtype is None else {"query_dtype": query_dtype})
        made[name] = dataclasses.replace(whole, keys=keys, query=whole.query.to(query), layout=layout)  # fmt: skip
    return made


def check(case: Search, k: int) -> None:
    """Against the reference in fp64, of the same rows and the query as it is rounded."""
    double = dataclasses.replace(case, query=case.query.double(), mlp=wide(case.mlp))
    if isinstance(case.keys, torch.Tensor):
        double = dataclasses.replace(double, keys=case.keys.double())
    found = selection(case.run(lc.clock_gsu, k), double.run(lc.reference.gsu_score), case.run(lc.reference.gsu_score))  # fmt: skip
    if found.error > found.allowed:
        raise RuntimeError(f"off by {found.error:.3g} from {found.against}, allowed {found.allowed:.3g}")  # fmt: skip


def in_turns(calls: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, float]:
    """Least CPU milliseconds of this thread."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(repetitions + 1):
        for name, call in calls.items():
            begun = time.thread_time()
            call()
            least[name] = min(least[name], 1e3 * (time.thread_time() - begun))
    return least


def measured(sizes: Sizes, repetitions: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for candidates in sizes.candidates:
        for width in sizes.widths:
            made = ways_of(sizes, candidates, width)
            for case in made.values():
                check(case, sizes.k)
            calls: dict[str, Callable[[], Any]] = {
                name: lambda case=case: case.run(lc.clock_gsu, sizes.k)  # type: ignore[misc]
                for name, case in made.items()
            }
            least = in_turns(calls, repetitions if candidates > 15 else 5 * repetitions)
            faster = {f"over {name}": least[name] / least["int8, int8 query"] for name in ("fp32", "bf16")}  # fmt: skip
            of_bf16 = least["bf16"] / least["int8, bf16 query"]
            yield f"C = {candidates}, D = {width}", {"ms": least, "int8 query": faster, "bf16 query over bf16": of_bf16}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.int8_search", description=__doc__.splitlines()[0])  # fmt: skip
    p.add_argument("--repetitions", type=int, default=100, metavar="N", help="(100)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    p.add_argument("--quick", action="store_true", help="tiny sizes, two repetitions: does it run?")
    args = p.parse_args(argv)
    sizes = Sizes(300, 400, 10, (1, 20), (16,)) if args.quick else Sizes()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = {}
    for name, figures in measured(sizes, 2 if args.quick else args.repetitions):
        found[name] = figures
        print(f"{name}: " + ", ".join(f"{way} {ms:.3f} ms" for way, ms in figures["ms"].items()), flush=True)  # fmt: skip
    if args.json:
        about = {"sizes": dataclasses.asdict(sizes), **surroundings()}
        args.json.write_text(json.dumps({**about, "results": found}, indent=1) + "\n", encoding="utf-8")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
