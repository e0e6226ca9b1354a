# SPDX-License-Identifier: Apache-2.0
"""The memory that a call takes beyond its inputs and outputs: ``python -m bench.memory OP CASE``.

That is the rise of the peak of the resident set over what is resident before the call, less the
bytes of the results. A child process measures it, whose malloc returns what is freed at once: memory that
inputs left behind would hide some of the rise. The call is the first at its size, so buffers that
a thread keeps for the next call count. A tiny call before it has loaded the code.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed leaves the resident set
RIVALS = ("longclock", "torch", "reference")


def kilobytes(name: str) -> int:
    """A line of this process's status: VmRSS, what is resident; VmHWM, the peak of it."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}")


def held(result: Any) -> int:
    """Bytes of the tensors in nested tuples."""
    if isinstance(result, Tensor):
        return result.numel() * result.element_size()
    return sum(held(each) for each in result) if isinstance(result, tuple) else 0


def rise(call: Callable[[], Any]) -> float:
    """MB beyond the inputs and outputs, at least 0."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts anew
    before = kilobytes("VmRSS")
    result = call()
    return max(0.0, (kilobytes("VmHWM") - before) * 1024 - held(result)) / 1e6


def of(op: str, case: str, rivals: Iterable[str], quick: bool) -> dict[str, float] | None:
    """MB of each of the rivals that is one of RIVALS, by a child; None where Linux does not tell."""
    command = [sys.executable, "-m", "bench.memory", op, case]
    command += ["--threads", str(torch.get_num_threads())] + (["--quick"] if quick else [])
    command += ["--rivals", *(name for name in RIVALS if name in rivals)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | MALLOC,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] | None = json.loads(done.stdout.splitlines()[-1])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    from bench.__main__ import cases_of

    p = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    p.add_argument("op")
    p.add_argument("case")
    p.add_argument("--quick", action="store_true")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--rivals", nargs="*", default=["longclock"])
    args = p.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    cases = cases_of(args.op)
    pairs = zip(cases(args.quick), cases(True), strict=True)
    case, small = next(pair for pair in pairs if pair[0].name == args.case)
    for name in args.rivals:
        small.rivals[name]()
    try:
        found = {name: rise(case.rivals[name]) for name in args.rivals}
    except OSError as error:
        print(f"without memory: {error}", file=sys.stderr)
        found = None
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
