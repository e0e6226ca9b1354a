# SPDX-License-Identifier: Apache-2.0
"""``python -m bench``: how fast the ops are beside plain PyTorch, in one table and one JSON."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from bench import harness, report, scaling

OPS = tuple(
    sorted(
        path.stem
        for path in Path(__file__).parent.glob("*.py")
        if "def cases(" in path.read_text(encoding="utf-8") and path.stem != "__main__"
    )
)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    p.add_argument("ops", nargs="*", help=f"(all): {', '.join(OPS)}")
    p.add_argument("--quick", action="store_true", help="tiny sizes, two repetitions: does it run?")
    p.add_argument("--cases", default="", metavar="TEXT", help="only cases whose names contain it")
    p.add_argument("--rivals", metavar="NAME,...", help="(all) what is measured beside longclock")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    p.add_argument("--threads", type=int, help="(all cores)")
    p.add_argument("--compile", action="store_true", help="torch.compile as a rival: slow to start")
    p.add_argument(
        "--scaling", action="store_true", help="clock_gsu over one size at a time instead"
    )
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(cpu)")
    return p


def cases_of(
    op: str, named: str = "", rivals: Sequence[str] | None = None
) -> Callable[[bool], Iterator[harness.Case]]:
    """Its cases with ``named`` in their names, and of their rivals these."""
    every: Callable[[bool], Iterator[harness.Case]] = importlib.import_module(f"bench.{op}").cases

    def chosen(quick: bool) -> Iterator[harness.Case]:
        for case in every(quick):
            if named not in case.name:
                continue
            if rivals is not None:
                kept = {n: f for n, f in case.rivals.items() if n in (harness.OURS, *rivals)}
                case = dataclasses.replace(case, rivals=kept)
            yield case

    return chosen


def printed(
    text: Callable[[str, dict[str, Any]], str],
) -> Callable[[str, dict[str, Any]], None]:
    """Prints a result as it comes."""
    return lambda name, result: print(text(name, result), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    p = parser()
    args = p.parse_args(argv)
    for op in args.ops:
        if op not in OPS:
            p.error(f"unknown op {op!r}; choose from {', '.join(OPS)}")
    if args.threads is not None and args.threads < 1:
        p.error(f"--threads must be at least 1, got {args.threads}")
    if args.scaling and (args.ops or args.cases or args.rivals or args.compile):
        p.error("--scaling has cases of its own; give it without ops, --cases, --rivals, --compile")
    if args.scaling and args.device == "cuda":
        p.error("--scaling measures the CPU")
    torch.set_num_threads(args.threads or harness.cores())
    if args.device == "cuda" and not torch.cuda.is_available():
        p.error("--device cuda: PyTorch finds no GPU")
    if args.scaling:
        results = scaling.run(args.quick, printed(report.scaling_line))
    else:
        rivals = args.rivals.split(",") if args.rivals else None
        ops = {op: cases_of(op, args.cases, rivals) for op in args.ops or OPS}
        show = printed(report.line)
        results = harness.run(ops, args.quick, args.compile, show, args.device)
    print(report.footer(results))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(results, indent=1, allow_nan=False) + "\n"
        args.json.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
