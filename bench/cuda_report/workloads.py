# SPDX-License-Identifier: Apache-2.0
"""What the emulator counts of one call of each op.

``python -m bench.cuda_report.workloads SM`` prints JSON; LONGCLOCK_LIBRARY must name the emulated
library, so the report runs it in a process of its own for each profile.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bench.cuda_report.cubins import short_name
from bench.cuda_report.entries import Call, Workload, of_ops
from bench.cuda_report.sass import place
from bench.report import ROOT

sys.path.insert(0, str(ROOT / "tests"))
import emulator

# Where an instruction belongs, by the files of the source lines that it was inlined at.
PHASES = {"select": r"select|topk|cub/|merge", "stream": ""}
SECTOR = 32
TILE = 64 * 256  # bytes: 64 rows of 128 elements of 16 bits
COPIES = "common/async_copy.cuh"  # of rows to shared memory
TIME_TERM = "time/time_term.cuh"
SELECTIONS = r"sweep_(choose|select)\w*_kernel"  # of many candidates
SECOND_SWEEP = r"sweep_(panels_)?kernel<.*\(Sweep\)1>"  # writes the scores that survive
Launch = dict[str, Any]


def phase_of(source: list[str]) -> str:
    files = " ".join(place(*at.rsplit(":", 1)) for at in source)
    return next(name for name, pattern in PHASES.items() if re.search(pattern, files))


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from tensors(each)


def size(*values: Tensor) -> int:
    return sum(value.numel() * value.element_size() for value in values)


@functools.cache
def line_of_s() -> str:
    """The instruction of which an evaluation of s has one a clock."""
    lines = (ROOT / "kernels" / TIME_TERM).read_text(encoding="utf-8").splitlines()
    return f"{TIME_TERM}:{next(i for i, line in enumerate(lines, 1) if 'sqrt.approx' in line)}"


def evaluations_of_s(launches: list[Launch]) -> int:
    """Of behaviours, by whole warps; times the clocks."""
    places = (x for launch in launches for x in launch["places"])
    return 32 * sum(
        x["instructions"]
        for x in places
        if any(place(*at.rsplit(":", 1)) == line_of_s() for at in x["source"])
    )


def instructions(launches: list[Launch]) -> int:
    """Of warps, as PTX."""
    return sum(sum(launch["instructions"].values()) for launch in launches)


def barriers_a_warp(launches: list[Launch]) -> float:
    count: int = sum(x["barriers"] for x in launches)
    return count / sum(map(warps, launches))


def busiest_warps(launches: list[Launch]) -> int:
    """The longest path: instructions of the warp that has the most, launch after launch. Without CUB's sorts, whose warps wait
    for others in loops."""
    return sum(x["busiest_warp"] for x in launches if "cub::" not in x["kernel"])


def busiest_over_mean(launches: list[Launch]) -> float:
    """Of multiprocessors that take blocks in turn, in the launch that is most of the work."""
    largest = max(launches, key=lambda x: sum(x["instructions"].values()))
    busiest: int = largest["busiest_multiprocessor"] * largest["multiprocessors"]
    return busiest / sum(largest["instructions"].values())


def share_in_flight(launches: list[Launch]) -> float:
    """Of a tile of 16 KB, over what a block has asked for by cp.async whenever a warp waits for some of it."""
    waits = sum(x["copy_waits"] for x in launches)
    of_blocks = sum(x["copy_wait_bytes"] * warps_of_block(x) for x in launches)
    return TILE * waits / of_blocks if of_blocks else float(waits)


def without_moves(launches: list[Launch]) -> int:
    """Instructions but for moves between registers, most of which ptxas removes."""
    return instructions(launches) - sum(x["instructions"].get("move", 0) for x in launches)


def selections(launches: list[Launch]) -> list[Launch]:
    return [x for x in launches if re.fullmatch(SELECTIONS, short_name(x["kernel"]))]


def figures(launches: list[Launch], units: int, minimum: int, rows: int) -> dict[str, float]:
    """Of one call. Lower is better in all of them."""
    kinds = ("global_loads", "global_stores", "global_atomics")
    sectors = sum(launch[kind]["sectors"] for launch in launches for kind in kinds)
    distinct = sum(launch[kind]["first_bytes"] for launch in launches for kind in kinds)
    found: dict[str, float] = {
        "launches": len(launches),
        "bytes_over_minimum": sectors * SECTOR / minimum,
        "distinct_bytes_over_minimum": distinct / minimum,  # what a launch reads again is not in it
        "local_bytes": sum(x["local_load_bytes"] + x["local_store_bytes"] for x in launches),
        "global_atomics": sum(launch["global_atomics"]["requests"] for launch in launches),
        "atomics": sum(launch["atomics"] for launch in launches),
        "barriers_a_warp": barriers_a_warp(launches),
        "ptx_instructions_a_unit": instructions(launches) / units,
        "instructions_of_busiest_warps": busiest_warps(launches),
    }
    places = [each for launch in launches for each in launch["places"]]
    wide = [p["global"] for p in places if p.get("lane_bytes") == 16 and "global" in p]
    if rows:
        found["rows_in_narrow_loads"] = max(0.0, 1 - sum(x["bytes"] for x in wide) / rows)
    if wide:
        found["sectors_of_wide_accesses"] = total(wide, "sectors") / total(wide, "minimum_sectors")
    copies = [
        p["global"] for p in places
        if "global" in p and any(place(*x.rsplit(":", 1)).startswith(COPIES) for x in p["source"])
    ]  # fmt: skip
    if copies:
        found["times_rows_are_copied"] = total(copies, "bytes") / rows
        found["sectors_of_copies"] = total(copies, "sectors") / total(copies, "minimum_sectors")
        tensor = sum(launch["instructions"].get("tensor", 0) for launch in launches)
        found["tensor_instructions_a_unit"] = tensor / units
        found["share_of_a_tile_in_flight"] = share_in_flight(launches)
    for phase in PHASES:
        mine = [each for each in places if phase_of(each["source"]) == phase]
        if mine:
            found[f"ptx_instructions_a_unit_{phase}"] = total(mine, "instructions") / units
        shared = [each["shared"] for each in mine if "shared" in each]
        if shared:
            found[f"bank_replays_{phase}"] = total(shared, "wavefronts") / total(
                shared, "minimum_wavefronts"
            )
    return found


def warps_of_block(launch: Launch) -> int:
    x, y, z = launch["block"]
    count: int = -(-x * y * z // 32)
    return count


def warps(launch: Launch) -> int:
    blocks: int = launch["grid"][0] * launch["grid"][1] * launch["grid"][2]
    return blocks * warps_of_block(launch)


def total(counters: list[dict[str, Any]], field: str) -> int:
    return sum(each[field] for each in counters)


def counted(call: Call) -> tuple[list[Launch], Any]:
    emulator.take_counters()
    with emulator.options(counters=1, checks="none"):
        result = call.run()
        return emulator.take_counters(), result


def measure(workload: Workload) -> dict[str, Any]:
    torch.manual_seed(0)
    try:
        call = workload.make(False)
        with emulator.options(multiprocessors=workload.multiprocessors):
            launches, result = counted(call)
    except NotImplementedError as error:
        return {"missing": str(error).partition("\n")[0]}
    if not launches:
        return {"missing": "no kernel was launched: the op ran on the CPU"}
    if workload.multiprocessors:
        return {
            "figures": {"busiest_multiprocessor_over_mean": round(busiest_over_mean(launches), 5)}
        }
    minimum = size(*call.inputs, *tensors(result))
    rows = 0 if call.rows is None else size(call.rows)
    found = figures(launches, workload.units, minimum, rows)
    second = [x for x in launches if re.fullmatch(SECOND_SWEEP, short_name(x["kernel"]))]
    if second and call.rows is not None:
        written = sum(launch["global_stores"]["bytes"] for launch in second)
        found["survivors_a_result"] = written / size(result.scores)
        keys = call.rows[..., 0].numel()
        found["evaluations_of_s_a_key"] = evaluations_of_s(launches) / keys
        found["evaluations_of_s_a_key_by_second_sweep"] = evaluations_of_s(second) / keys
    equal = counted(workload.make(True))[0] if workload.depends_on_data else []
    if equal:
        found["data_dependence"] = abs(instructions(equal) / instructions(launches) - 1)
    if selections(launches):
        queries = result.scores.shape[:-1].numel()
        for scores, of_scores in (("", launches), ("_of_equals", equal)):
            if of_scores:
                count = without_moves(selections(of_scores))
                found[f"ptx_instructions_of_selections_a_query{scores}"] = count / queries
        found["barriers_a_warp_of_selections"] = barriers_a_warp(selections(launches))
    keep = ("kernel", "grid", "block", "shared_bytes")
    ran: dict[str, set[tuple[str, ...]]] = {}
    for launch in launches:
        sources = (tuple(place(*at.rsplit(":", 1)) for at in x["source"]) for x in launch["places"])
        ran.setdefault(short_name(launch["kernel"]), set()).update(sources)
    return {
        "ran": {kernel: sorted(sources) for kernel, sources in ran.items()},
        "units": workload.units,
        "minimum_bytes": minimum,
        "figures": {name: round(value, 5) for name, value in found.items()},
        "launches": [
            {key: launch[key] for key in keep} | {"kernel": short_name(launch["kernel"])}
            for launch in launches
        ],
    }


def main() -> None:
    """Of one profile: code, chunks and parts depend on the device, and CUB keeps what it asked of the first."""
    with emulator.options(sm=int(sys.argv[1]), seed=0):
        print(json.dumps({workload.name: measure(workload) for workload in of_ops("CUDA_CALLS")}))


if __name__ == "__main__":
    main()
