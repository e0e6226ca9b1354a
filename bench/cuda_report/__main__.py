# SPDX-License-Identifier: Apache-2.0
"""Measures the CUDA kernels without a GPU and checks them against their gates and the last report.

Fails where a gate is neither met nor explained, where an op has no kernels, and where a figure is
worse than in bench/results/cuda.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.cuda_report import cubins, gates, page, roofline, sass
from bench.cuda_report.occupancy import occupancy

COUNTS = "80"  # the profile whose counts are shown
EMULATED = cubins.ROOT / "build" / "cmake" / "emulated" / "liblongclock.so"


def counts(library: Path) -> dict[str, dict[str, Any]]:
    """What the emulator counts, by profile and workload."""

    def of_profile(sm: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "bench.cuda_report.workloads", sm],
            env=os.environ | {"LONGCLOCK_LIBRARY": str(library)},
            cwd=cubins.ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise cubins.ToolError(f"the workloads do not run on the emulator as sm_{sm}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    profiles = [str(sm) for sm in sorted(set(cubins.PROFILES.values()))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(profiles, pool.map(of_profile, profiles), strict=True))


SWEEP = r"sweep_kernel<\w+, (\d+), "  # bytes of a key, of which a tile has 64


def kernel_figures(
    cubin: cubins.Cubin, kernel: str, launches: list[dict[str, Any]]
) -> dict[str, Any]:
    """Of one kernel on one architecture; occupancy for the largest block that was launched."""
    resources = cubin.resources[kernel]
    found: dict[str, Any] = {
        "registers": resources.registers,
        "stack": resources.stack,
        "spills": resources.spill_stores + resources.spill_loads,
        "static_shared": resources.static_shared,
        "global_reductions": sass.opcodes(cubin.sass[kernel]).get("RED/ATOM", 0),
    }
    mine = [launch for launch in launches if launch["kernel"] == kernel]
    if mine:
        launch = max(mine, key=lambda each: each["shared_bytes"])
        x, y, z = launch["block"]
        found["shared_bytes"] = launch["shared_bytes"]
        if sweep := re.match(SWEEP, kernel):
            tiles = launch["shared_bytes"] // (64 * int(sweep[1]))  # besides less than one
            found["share_of_a_tile_in_flight"] = 1 / (tiles - 1)
        found |= dataclasses.asdict(
            occupancy(cubin.sm, x * y * z, resources.registers, launch["shared_bytes"])
        )
    return found


def measure(library: Path, lines: bool = False) -> dict[str, Any]:
    built = cubins.build_all()
    counted = counts(library)
    kernels: dict[str, dict[str, Any]] = {}
    lost = []
    for cubin in sorted(built, key=lambda each: (each.source, each.sm)):
        for kernel in sorted(cubin.sass):
            on_device = counted[str(cubins.PROFILES[cubin.sm])]
            launches = [x for each in on_device.values() for x in each.get("launches", [])]
            found = kernel_figures(cubin, kernel, launches)
            kernels.setdefault(kernel, {})[str(cubin.sm)] = found
            hot = next((each for each in gates.HOT_LOOPS if each.kernel == kernel), None)
            ran = on_device.get(hot.workload, {}).get("ran", {}).get(kernel) if hot else None
            if hot is None or ran is None:
                continue
            loop = sass.hot_loop(cubin.sass[kernel], hot.work, {tuple(each) for each in ran})
            if loop is None:
                lost.append(f"{kernel}, sm_{cubin.sm}")
                continue
            found["instructions_a_unit"] = round(loop.per_unit, 3)
            found["barriers_in_hot_loop"] = loop.classes.get("BAR", 0)
            if loop.classes.get("LDSM"):
                products = loop.classes["HMMA"]
                found["instructions_a_product"] = round(loop.instructions / products, 3)
                found["matrix_loads_a_product"] = loop.classes["LDSM"] / products
            found["hot_loop"] = loop.classes
            if lines:
                print(f"{kernel}, sm_{cubin.sm}: {loop.instructions} instructions a turn")
                for line, times in list(loop.lines.items())[:25]:
                    print(f"  {times:5} {line}")
    workloads = counted[COUNTS]
    for workload in workloads.values():
        workload.pop("ran", None)
    report: dict[str, Any] = {
        "nvcc": cubins.release(),
        "kernels": kernels,
        "workloads": workloads,
        "hot_loops_not_found": lost,
    }
    report["gates"] = gates.check(report)
    report["predictions"] = roofline.predict(report)
    return report


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.cuda_report", description=__doc__)
    p.add_argument("--update", action="store_true", help=f"write {page.RESULTS.name} and the page")
    p.add_argument("--lines", action="store_true", help="show where hot loops spend instructions")
    p.add_argument("--library", type=Path, default=EMULATED, help="the ops on the emulator")
    args = p.parse_args(argv)
    try:
        report = measure(args.library, args.lines)
    except cubins.ToolError as error:
        print(error, file=sys.stderr)
        return 1
    committed = page.read()
    for made in page.TABLES.values():
        print(made(report), end="\n\n")
    wrong = gates.failures(report)
    if committed is not None and not args.update:
        if committed["nvcc"] != report["nvcc"]:
            print(f"Machine code is not compared: nvcc {report['nvcc']}, not {committed['nvcc']}.")
        wrong += gates.regressions(report, committed)
    if args.update:
        page.RESULTS.write_text(page.dumps(report) + "\n", encoding="utf-8")
        text = page.updated(page.PAGE.read_text(encoding="utf-8"), report)
        page.PAGE.write_text(text, encoding="utf-8")
    for each in wrong:
        print(f"cuda-report: {each}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
