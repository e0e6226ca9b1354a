# SPDX-License-Identifier: Apache-2.0
"""Measures the CUDA kernels without a GPU and checks them against their gates and the last report.

Fails where a gate is neither met nor explained, where an op has no kernels, and where a figure is
worse than in bench/results/cuda.json. Sources whose text is that of the report there are not
compiled again: their machine code is as it was. Where that holds for all, and for all that counts come
from, nothing is measured again. --update does all of it and writes the report; --recount writes it with the machine code as it was.
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

from bench.cuda_report import cubins, digests, gates, page, roofline, sass
from bench.cuda_report.occupancy import Occupancy, occupancy

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


# What of a kernel follows from how it was launched.
OF_LAUNCHES = {"shared_bytes", "share_of_a_tile_in_flight"} | {
    field.name for field in dataclasses.fields(Occupancy)
}
SWEEP = r"sweep_kernel<\w+, (\d+), "  # bytes of a key, of which a tile has 64


def machine_figures(cubin: cubins.Cubin, kernel: str) -> dict[str, Any]:
    """Of one kernel on one architecture, from its machine code alone."""
    resources = cubin.resources[kernel]
    return {
        "registers": resources.registers,
        "stack": resources.stack,
        "spills": resources.spill_stores + resources.spill_loads,
        "static_shared": resources.static_shared,
        "global_reductions": sass.opcodes(cubin.sass[kernel]).get("RED/ATOM", 0),
    }


def launch_figures(
    sm: int, kernel: str, registers: int, launches: list[dict[str, Any]]
) -> dict[str, Any]:
    """The same for the largest block that was launched; none where there was no launch."""
    found: dict[str, Any] = {}
    mine = [launch for launch in launches if launch["kernel"] == kernel]
    if mine:
        launch = max(mine, key=lambda each: each["shared_bytes"])
        x, y, z = launch["block"]
        found["shared_bytes"] = launch["shared_bytes"]
        if sweep := re.match(SWEEP, kernel):
            tiles = launch["shared_bytes"] // (64 * int(sweep[1]))  # besides less than one
            found["share_of_a_tile_in_flight"] = 1 / (tiles - 1)
        found |= dataclasses.asdict(occupancy(sm, x * y * z, registers, launch["shared_bytes"]))
    return found


def hot_loop_figures(
    cubin: cubins.Cubin, kernel: str, on_device: dict[str, Any], lines: bool
) -> dict[str, Any] | None:
    """Of the loop that CUDA_LOOPS names; empty where it names none, None where no loop does that work."""
    hot = next((each for each in gates.HOT_LOOPS if each.kernel == kernel), None)
    ran = on_device.get(hot.workload, {}).get("ran", {}).get(kernel) if hot else None
    if hot is None or ran is None:
        return {}
    loop = sass.hot_loop(cubin.sass[kernel], hot.work, {tuple(each) for each in ran})
    if loop is None:
        return None
    found: dict[str, Any] = {
        "instructions_a_unit": round(loop.per_unit, 3),
        "barriers_in_hot_loop": loop.classes.get("BAR", 0),
    }
    if loop.classes.get("LDSM"):
        products = loop.classes["HMMA"]
        found["instructions_a_product"] = round(loop.instructions / products, 3)
        found["matrix_loads_a_product"] = loop.classes["LDSM"] / products
    found["hot_loop"] = loop.classes
    if lines:
        print(f"{kernel}, sm_{cubin.sm}: {loop.instructions} instructions a turn")
        for line, times in list(loop.lines.items())[:25]:
            print(f"  {times:5} {line}")
    return found


def measure(
    library: Path, lines: bool = False, known: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The report; machine code of a source that ``known`` has with the same digest is taken from there."""
    of_known = {} if known is None else known.get("sources", {})
    own = {source.stem: cubins.digest(source) for source in cubins.sources()}
    same = {x for x, digest in own.items() if of_known.get(x, {}).get("digest") == digest}
    built = cubins.build_all([x for x in cubins.sources() if x.stem not in same])
    counted = counts(library)
    kernels: dict[str, dict[str, Any]] = {}
    of_source: dict[str, set[str]] = {stem: set() for stem in own}
    lost = []

    def launches_on(sm: int) -> list[dict[str, Any]]:
        on_device = counted[str(cubins.PROFILES[sm])]
        return [x for each in on_device.values() for x in each.get("launches", [])]

    for cubin in sorted(built, key=lambda each: (each.source, each.sm)):
        for kernel in sorted(cubin.sass):
            machine = machine_figures(cubin, kernel)
            hot = hot_loop_figures(cubin, kernel, counted[str(cubins.PROFILES[cubin.sm])], lines)
            if hot is None:
                lost.append(f"{kernel}, sm_{cubin.sm}")
            launched = launch_figures(cubin.sm, kernel, machine["registers"], launches_on(cubin.sm))
            kernels.setdefault(kernel, {})[str(cubin.sm)] = machine | launched | (hot or {})
            of_source[cubin.source.stem].add(kernel)
    for stem in sorted(same):
        assert known is not None
        of_source[stem] = set(of_known[stem]["kernels"])
        for kernel in of_known[stem]["kernels"]:
            for sm, before in known["kernels"][kernel].items():
                launched = launch_figures(
                    int(sm), kernel, before["registers"], launches_on(int(sm))
                )
                kept = {name: value for name, value in before.items() if name not in OF_LAUNCHES}
                kernels.setdefault(kernel, {})[sm] = kept | launched
    workloads = counted[COUNTS]
    for workload in workloads.values():
        workload.pop("ran", None)
    report: dict[str, Any] = {
        "nvcc": cubins.release(),
        "counted": digests.of_counts(),
        "sources": {
            stem: {"digest": digest, "kernels": sorted(of_source[stem])}
            for stem, digest in own.items()
        },
        "kernels": dict(sorted(kernels.items())),
        "workloads": workloads,
        "hot_loops_not_found": lost,
    }
    return judged(report)


def judged(report: dict[str, Any]) -> dict[str, Any]:
    """With what follows from its figures by today's gates and rates."""
    report["gates"] = gates.check(report)
    report["predictions"] = roofline.predict(report)
    return report


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.cuda_report", description=__doc__)
    p.add_argument("--update", action="store_true", help=f"write {page.RESULTS.name} and the page")
    p.add_argument("--recount", action="store_true", help="the same, where no CUDA source changed: what the emulator counts")  # fmt: skip
    p.add_argument("--lines", action="store_true", help="show where hot loops spend instructions")
    p.add_argument("--library", type=Path, default=EMULATED, help="the ops on the emulator")
    args = p.parse_args(argv)
    committed = page.read()
    try:
        known = None if args.update or args.lines else committed
        if args.recount and (known is None or known["nvcc"] != cubins.release()):
            p.error("--recount keeps machine code, but there is none of this nvcc: take --update")
        if known is not None and digests.current(known):
            print(f"{page.RESULTS.name} is of these files: nothing is measured again.", end="\n\n")
            report = judged(dict(known))
        else:
            report = measure(args.library, args.lines, known)
    except cubins.ToolError as error:
        print(error, file=sys.stderr)
        return 1
    for made in page.TABLES.values():
        print(made(report), end="\n\n")
    wrong = gates.failures(report)
    writes = args.update or args.recount
    if committed is not None and not writes:
        if committed["nvcc"] != report["nvcc"]:
            print(f"Machine code is not compared: nvcc {report['nvcc']}, not {committed['nvcc']}.")
        wrong += gates.regressions(report, committed)
    if writes:
        page.RESULTS.write_text(page.dumps(report) + "\n", encoding="utf-8")
        text = page.updated(page.PAGE.read_text(encoding="utf-8"), report)
        page.PAGE.write_text(text, encoding="utf-8")
    for each in wrong:
        print(f"cuda-report: {each}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
