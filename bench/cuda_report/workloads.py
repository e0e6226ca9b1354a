# SPDX-License-Identifier: Apache-2.0
"""What the emulator counts of one call of each op at M = 10,000.

``python -m bench.cuda_report.workloads`` prints JSON; LONGCLOCK_LIBRARY must name the emulated
library, so the report runs it in a process of its own.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import longclock as lc
from bench.cuda_report.cubins import PROFILES, short_name
from bench.cuda_report.sass import place
from bench.inputs import DTYPES, make_mlp, make_search, times
from bench.report import ROOT

sys.path.insert(0, str(ROOT / "tests"))
import emulator

M, D, K = 10_000, 128, 100


@dataclasses.dataclass
class Call:
    """One call of an op: what it reads must be read once at least, what it returns written once."""

    run: Callable[[], Any]
    inputs: tuple[Tensor, ...]
    rows: Tensor | None = None  # the input that should come in loads of 16 bytes: keys, z


@dataclasses.dataclass
class Workload:
    """``units``: keys, behaviours or elements of a call, to which instructions are related."""

    name: str
    units: int
    make: Callable[[bool], Call]  # given whether all scores shall be equal
    depends_on_data: bool = False  # also counted with equal scores


def search(
    dtype: str, s: int = 4, m: int = M, candidates: int | None = None
) -> Callable[[bool], Call]:
    def make(equal: bool) -> Call:
        case = make_search(s, m, D, DTYPES[dtype], candidates=candidates)
        if equal:
            case.keys.zero_()
            case.key_time.fill_(1_700_000_000)
        inputs = (case.query, case.keys, case.key_time, case.query_time, *case.mlp)
        return Call(lambda: case.run(lc.clock_gsu, K), inputs, case.keys)

    return make


def hashes(s: int = 4, m: int = M) -> Callable[[bool], Call]:
    def make(equal: bool) -> Call:
        query, keys = torch.randint(-(2**63), 2**63 - 1, (s, 1)), torch.zeros(s, m, 1).long()
        if not equal:
            keys.random_(-(2**63), 2**63 - 1)
        key_time, query_time = times(s, m), times(s)  # not read: nothing is excluded by its time
        return Call(lambda: lc.hamming_gsu(query, keys, key_time, query_time, K), (query, keys))

    return make


def signs(equal: bool) -> Call:
    x = torch.randn(4 * M, 64)
    return Call(lambda: lc.pack_signs(x), (x,), x)


def topk(rows: int = 4) -> Callable[[bool], Call]:
    def make(equal: bool) -> Call:
        scores = torch.zeros(rows, M) if equal else torch.randn(rows, M)
        return Call(lambda: lc.block_topk(scores, K), (scores,))

    return make


def backward(
    forward: Callable[..., Tensor],
    leaves: tuple[Tensor, ...],
    others: tuple[Tensor, ...],
    rows: int,
) -> Call:
    """The backward alone; ``rows`` is the index of the leaf that is read in rows."""
    for leaf in leaves:
        leaf.requires_grad_()
    result = forward(*leaves)
    grad = torch.randn_like(result)

    def run() -> tuple[Tensor, ...]:
        return torch.autograd.grad(result, leaves, grad, retain_graph=True)

    return Call(run, (*leaves, *others, grad), leaves[rows])


def scores(
    dtype: str, with_backward: bool, s: int = 4, candidates: int | None = None
) -> Callable[[bool], Call]:
    def make(equal: bool) -> Call:
        case = make_search(s, M, D, DTYPES[dtype], candidates=candidates)
        others = (case.key_time, case.query_time)
        leaves = (case.query, case.keys, *case.mlp)
        if not with_backward:
            return Call(lambda: case.run(lc.gsu_score), (*leaves, *others), case.keys)

        def forward(query: Tensor, keys: Tensor, *mlp: Any) -> Tensor:
            return lc.gsu_score(query, keys, *others, mlp)

        return backward(forward, leaves, others, 1)

    return make


def attention(dtype: str, k: int, with_backward: bool, q: int = 8) -> Callable[[bool], Call]:
    def make(equal: bool) -> Call:
        heads, width = 4, 128
        u = (torch.randn(q, heads, width) / width**0.5).to(DTYPES[dtype])
        z, others = torch.randn(q, k, width).to(DTYPES[dtype]), (times(q, k), times(q))
        leaves = (u, z, *make_mlp())

        def forward(u: Tensor, z: Tensor, *mlp: Any) -> Tensor:
            return lc.esu_attention(u, z, *others, mlp)

        if with_backward:
            return backward(forward, leaves, others, 1)
        return Call(lambda: forward(*leaves), (*leaves, *others), z)

    return make


def similarity(with_backward: bool) -> Callable[[bool], Call]:
    def make(equal: bool) -> Call:
        delta, mlp = torch.randint(0, 43_201, (4, M)), make_mlp()
        if with_backward:
            return backward(lambda *w: lc.time_similarity(delta, *w), mlp, (delta,), 0)
        return Call(lambda: lc.time_similarity(delta, *mlp), (delta, *mlp))

    return make


def delta(equal: bool) -> Call:
    a, b = times(4, M), times(4, 1)
    return Call(lambda: lc.circular_delta(a, b), (a, b))


WORKLOADS = (
    *(Workload(f"clock_gsu {each}", 4 * M, search(each), True) for each in DTYPES),
    # As many sequences as in training: none is cut into parts for several blocks.
    Workload("clock_gsu fp16 S=512 M=1000", 512_000, search("fp16", 512, 1000)),
    # A tile of candidates, which shows that each sweep reads the keys once, and a whole request.
    Workload("clock_gsu fp16 128 candidates", 128 * M, search("fp16", 1, candidates=128), True),
    Workload("clock_gsu fp16 1000 candidates", 1000 * M, search("fp16", 1, candidates=1000), True),
    Workload("clock_gsu fp32 500 candidates", 500 * M, search("fp32", 1, candidates=500), True),
    Workload("hamming_gsu 64 bits", 4 * M, hashes(), True),
    Workload("hamming_gsu 64 bits S=512 M=1000", 512_000, hashes(512, 1000), True),
    Workload("block_topk fp32", 4 * M, topk(), True),
    Workload("block_topk fp32 700 rows", 700 * M, topk(700), True),
    Workload("gsu_score fp16", 4 * M, scores("fp16", False)),
    Workload("gsu_score fp16 1000 candidates", 1000 * M, scores("fp16", False, 1, candidates=1000)),
    Workload("gsu_score fp16 backward", 4 * M, scores("fp16", True)),
    Workload("esu_attention fp16", 8 * K, attention("fp16", K, False)),
    Workload("esu_attention fp16 backward", 8 * K, attention("fp16", K, True)),
    Workload("esu_attention fp16 K=10000", 8 * M, attention("fp16", M, False)),
    Workload("esu_attention fp16 K=10000 backward", 8 * M, attention("fp16", M, True)),
    Workload("time_similarity", 4 * M, similarity(False)),
    Workload("time_similarity backward", 4 * M, similarity(True)),
    Workload("circular_delta int64", 4 * M, delta),
    Workload("pack_signs fp32", 4 * M, signs),
)

# Where an instruction belongs, by the files of the source lines that it was inlined at.
PHASES = {"select": r"select|topk|cub/|merge", "stream": ""}
SECTOR = 32
COPIES = "common/async_copy.cuh"  # of rows to shared memory
SECOND_SWEEP = r"sweep_kernel<.*\(Sweep\)1>"  # writes the scores that survive
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


def instructions(launches: list[Launch]) -> int:
    """Of warps, as PTX."""
    return sum(sum(launch["instructions"].values()) for launch in launches)


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
        "barriers_a_warp": sum(x["barriers"] for x in launches) / sum(map(warps, launches)),
        "ptx_instructions_a_unit": instructions(launches) / units,
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


def warps(launch: Launch) -> int:
    x, y, z = launch["block"]
    blocks: int = launch["grid"][0] * launch["grid"][1] * launch["grid"][2]
    return blocks * -(-x * y * z // 32)


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
        launches, result = counted(call)
    except NotImplementedError as error:
        return {"missing": str(error).partition("\n")[0]}
    if not launches:
        return {"missing": "no kernel was launched: the op ran on the CPU"}
    minimum = size(*call.inputs, *tensors(result))
    rows = 0 if call.rows is None else size(call.rows)
    found = figures(launches, workload.units, minimum, rows)
    written = [
        launch["global_stores"]["bytes"] for launch in launches
        if re.fullmatch(SECOND_SWEEP, short_name(launch["kernel"]))
    ]  # fmt: skip
    if written:
        found["survivors_a_result"] = sum(written) / size(result.scores)
    if workload.depends_on_data:
        equal, _ = counted(workload.make(True))
        found["data_dependence"] = abs(instructions(equal) / instructions(launches) - 1)
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
    """By profile: code, chunks and parts depend on the device."""
    found: dict[str, Any] = {}
    for sm in sorted(set(PROFILES.values())):
        with emulator.options(sm=sm, seed=0):
            found[str(sm)] = {workload.name: measure(workload) for workload in WORKLOADS}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
