# SPDX-License-Identifier: Apache-2.0
"""Runs calls in a child process that may die or hang, and counts what came of them."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest has it
from fuzz.pool import FAULTS, run
from fuzz.run import make, outcome


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--calls", type=int, help="how many calls; 2,000 unless --seconds is given")
    parser.add_argument("--seconds", type=float, help="for how long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="the first index")
    parser.add_argument("--only", type=int, metavar="INDEX", help="show and repeat one call")
    parser.add_argument("--op", help="calls of one op")
    parser.add_argument("--device", choices=("cpu", "emulated"), default="cpu")
    parser.add_argument("--show", type=int, default=10, help="faults printed of each op")
    given = parser.parse_args()
    if (given.device == "emulated") != bool(os.environ.get("LONGCLOCK_LIBRARY")):
        parser.error(
            "--device emulated and LONGCLOCK_LIBRARY, which names its library, go together"
        )
    return given


def main() -> int:
    given = arguments()
    if given.only is not None:
        call = make(given.seed, given.only, given.device == "emulated", given.op)
        print(call, flush=True)
        status, text = outcome(call, given.device == "emulated")
        print(f"{status}: {text}")
        return status in FAULTS
    begin = time.monotonic()
    counted = run(given)
    print(counted.table())
    faults = counted.faults()
    print(f"seed {given.seed} on {given.device}: {faults} faults, {time.monotonic() - begin:.0f} s")
    return faults > 0


if __name__ == "__main__":
    sys.exit(main())
