# SPDX-License-Identifier: Apache-2.0
"""Checks the results, then times the rivals in turns within one process.

Ours is held to the fp64 reference by each case's own check. What computes the same besides may differ from
ours by rounding only: else its time says nothing.

A case's rivals run one after the other, round after round, so that what else the machine does hits
all of them. Figures are the median and the smallest of many short repetitions.

On a GPU a repetition is one call between two events, after 1 GiB has been read, which empties the L2
cache, leaves nothing in it that must be written back, and keeps the GPU busy while the call is being
enqueued.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import longclock as lc
from bench import memory, peers
from longclock import _native

OURS = "longclock"
SAME = ("reference", "torch", "torch.topk", "torch.compile")  # rivals that compute what we do
DISAGREEMENT = 0.01  # allowed: products of bfloat16 are rounded to 0.4%
ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass
class Check:
    """What was compared, how far off we are, and how far off we may be."""

    against: str
    error: float
    allowed: float


@dataclasses.dataclass
class Case:
    """One thing to measure. ``rivals`` maps a name to a call; the first is ours."""

    name: str
    sizes: dict[str, Any]
    rivals: dict[str, Callable[[], Any]]
    check: Callable[[], Check]
    read: Tensor | None = None  # what must be read at least once, where that is the limit
    passes: int = 1  # how often at least it crosses the memory bus: 3 for read, read, write
    flops: int = 0
    behaviours: int = 0  # scores of behaviours, where their number is what the time depends on
    compiled: str | None = None  # the rival that --compile gives to torch.compile
    memory: bool = False  # whether the memory that a call takes is measured as well


@dataclasses.dataclass
class Step:
    """forward(*leaves) and its backward; a call returns the result and every gradient."""

    forward: Callable[..., Tensor]
    leaves: tuple[Tensor, ...]
    grad: Tensor

    def __call__(self) -> tuple[Tensor, ...]:
        result = self.forward(*self.leaves)
        return result, *torch.autograd.grad(result, self.leaves, self.grad)


def compiled(call: Callable[[], Any]) -> Callable[[], Any]:
    """By torch.compile; of a step the forward, whose backward autograd then compiles."""
    if isinstance(call, Step):
        return dataclasses.replace(call, forward=torch.compile(call.forward))
    result: Callable[[], Any] = torch.compile(call)
    return result


def disagreement(ours: Any, other: Any) -> float:
    """Mean difference of two results (of the first of several), as a share of the mean size of ours.

    The mean, because rounding may choose another behaviour where two are next to equal.
    """
    if isinstance(ours, tuple):
        ours, other = ours[0], other[0]
    if not isinstance(ours, Tensor):
        return 0.0
    finite = ours.isfinite()
    if ours.shape != other.shape or not torch.equal(finite, other.isfinite()):
        return float("inf")
    a, b = ours[finite].detach().double(), other[finite].detach().double()
    apart, size = (a - b).abs().sum(), a.abs().sum()
    return 0.0 if torch.equal(a, b) else float(apart / size)


class WrongResult(AssertionError):
    """A rival that computes something else is not measured."""


@dataclasses.dataclass
class Effort:
    """How long a case is measured."""

    seconds: float = 6.0
    rounds: tuple[int, int] = (7, 40)
    warm_up: int = 2
    shortest: float = 2e-3  # seconds of one repetition; a quicker call is repeated within it


QUICK = Effort(seconds=0.0, rounds=(2, 2), warm_up=1, shortest=0.0)
GPU = Effort(seconds=1.0, rounds=(20, 100), warm_up=3, shortest=0.0)


Timer = Callable[[Callable[[], Any], int], float]


def once(call: Callable[[], Any], times: int) -> float:
    """Seconds of one of ``times`` calls."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


class EventTimer:
    """Seconds of a call on a GPU, with a cold L2; events and flush are given for tests."""

    def __init__(
        self,
        event: Callable[[], Any] | None = None,
        flush: Callable[[], Any] | None = None,
    ) -> None:
        self.event = event or (lambda: torch.cuda.Event(enable_timing=True))
        self.flush: Callable[[], Any] = flush or torch.ones(1 << 28, device="cuda").sum

    def __call__(self, call: Callable[[], Any], times: int) -> float:
        total = 0.0
        for _ in range(times):
            begin, end = self.event(), self.event()
            self.flush()
            begin.record()
            call()
            end.record()
            end.synchronize()
            total += begin.elapsed_time(end) * 1e-3
        return total / times


def interleave(
    calls: dict[str, Callable[[], Any]], effort: Effort, timer: Timer = once
) -> dict[str, list[float]]:
    """Seconds of every repetition of every call, taken in turns."""
    inner = {}
    for name, call in calls.items():
        for _ in range(effort.warm_up):
            call()
        inner[name] = max(1, int(effort.shortest / max(timer(call, 1), 1e-7)))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    started = time.perf_counter()
    fewest, most = effort.rounds
    for number in range(most):
        if number >= fewest and time.perf_counter() - started > effort.seconds:
            break
        order = list(calls)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            if isinstance(calls[name], Step):
                calls[name]()  # a step follows a step, in the memory that the one before gave back
            taken[name].append(timer(calls[name], inner[name]))
    return taken


def summary(seconds: list[float]) -> dict[str, Any]:
    """Median, smallest and quartiles in milliseconds."""
    ordered = sorted(seconds)
    quartiles = statistics.quantiles(ordered, n=4) if len(ordered) > 1 else [ordered[0]] * 3
    return {
        "median_ms": statistics.median(ordered) * 1e3,
        "min_ms": ordered[0] * 1e3,
        "quartiles_ms": [quartiles[0] * 1e3, quartiles[2] * 1e3],
        "repetitions": len(ordered),
    }


def gpu_bandwidth(timer: Timer, size: int = 1 << 30) -> dict[str, float]:
    """GB/s of a sum over and of a copy of ``size`` bytes, the fastest of 20: what the GPU can do."""
    source = torch.ones(size // 4, device="cuda")
    target = torch.empty_like(source)
    calls: dict[str, tuple[Callable[[], Any], int]] = {
        "read": (source.sum, 1),
        "copy": (lambda: target.copy_(source), 2),
    }
    return {
        name: passes * size / min(timer(call, 1) for _ in range(20)) / 1e9
        for name, (call, passes) in calls.items()
    }


def measure(
    case: Case,
    effort: Effort,
    compile_too: bool = False,
    timer: Timer = once,
    read_gb_per_s: float | None = None,
) -> dict[str, Any]:
    """Checks and times one case; raises WrongResult where ours or one of SAME is wrong.

    ``read_gb_per_s``: the bandwidth to compare with; None: that of reading the case's own input.
    """
    check = case.check()
    if not check.error <= check.allowed:
        raise WrongResult(
            f"{case.name}: error {check.error:.3e} against {check.against}, "
            f"allowed {check.allowed:.3e}"
        )
    calls = dict(case.rivals)
    if compile_too and case.compiled in calls:
        torch.compiler.reset()  # else the cases before count as other shapes of the same code
        calls["torch.compile"] = compiled(calls[case.compiled])
    same = [name for name in SAME if name in calls]
    result = calls[OURS]() if same else None
    for name in same:
        apart = disagreement(result, calls[name]())
        if not apart <= DISAGREEMENT:
            raise WrongResult(f"{case.name}: {name} is {apart:.1%} away from our result")
    if case.read is not None and read_gb_per_s is None:
        words = case.read.view(torch.float32)  # the same bytes, whatever the dtype
        calls["read"] = words.sum
    timings = {name: summary(seconds) for name, seconds in interleave(calls, effort, timer).items()}
    ours = timings[OURS]
    found: dict[str, Any] = {
        "case": case.name,
        "sizes": case.sizes,
        "check": dataclasses.asdict(check),
        "timings": timings,
        "ratio": {
            name: {
                "median": timing["median_ms"] / ours["median_ms"],
                "min": timing["min_ms"] / ours["min_ms"],
            }
            for name, timing in timings.items()
            if name not in (OURS, "read")
        },
    }
    if case.read is not None:
        size = case.read.numel() * case.read.element_size()
        found["gb_per_s"] = case.passes * size / ours["median_ms"] / 1e6
        if read_gb_per_s is None:
            read_gb_per_s = size / timings["read"]["median_ms"] / 1e6
        found["read_gb_per_s"] = read_gb_per_s
        found["of_read_bandwidth"] = found["gb_per_s"] / found["read_gb_per_s"]
    if case.flops:
        found["gflop_per_s"] = case.flops / ours["median_ms"] / 1e6
    if case.behaviours:
        found["ns_per_behaviour"] = ours["median_ms"] * 1e6 / case.behaviours
    return found


def cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use; two threads of one core count once."""
    allowed = sorted(os.sched_getaffinity(0))
    found = set()
    for cpu in allowed:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            found.add(path.read_text())
        except OSError:
            found.add(str(cpu))
    return len(found)


def commit() -> str | None:
    """The commit that was measured, marked where the tree differs from it; None outside git."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None


def surroundings() -> dict[str, Any]:
    """All that the figures depend on besides the cases."""
    build = _native.build_info()
    return {
        "machine": {
            "cpu": cpu_model(),
            "cores": os.cpu_count(),
            "simd_level": _native.simd_level(),
            "threads": torch.get_num_threads(),
        },
        "versions": {
            "longclock": lc.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "compiler": build["compiler"],
            **peers.versions(),
        },
        "commit": commit(),
    }


def gpu() -> dict[str, Any]:
    """The GPU and its driver."""
    found = torch.cuda.get_device_properties()
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = None
    with contextlib.suppress(OSError):
        driver = subprocess.run(query, capture_output=True, text=True).stdout.partition("\n")[0]
    return {
        "name": found.name,
        "architecture": f"{found.major}{found.minor}",
        "memory_gb": round(found.total_memory / 1e9, 1),
        "multiprocessors": found.multi_processor_count,
        "l2_bytes": found.L2_cache_size,
        "driver": driver,
        "cuda": torch.version.cuda,
    }


def load() -> float | None:
    """How many processes wanted a core over the last minute."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def made_on(device: str, cases: Iterator[Case]) -> Iterator[Case]:
    """The cases, their inputs made on the device; nothing is set while they are measured."""
    while True:
        with torch.device(device) if device != "cpu" else contextlib.nullcontext():
            case = next(cases, None)
        if case is None:
            return
        yield case


def run(
    ops: dict[str, Callable[[bool], Iterator[Case]]],
    quick: bool,
    compile_too: bool = False,
    report: Callable[[str, dict[str, Any]], None] = lambda op, result: None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Measures every case of the ops. The result is plain numbers and text, for JSON."""
    effort = QUICK if quick else Effort()
    found: dict[str, Any] = {**surroundings(), "quick": quick, "load": {"before": load()}}
    timer: Timer = once
    bandwidth: float | None = None
    if device == "cuda":
        effort = QUICK if quick else GPU
        timer = EventTimer()
        found["bandwidth_gb_per_s"] = gpu_bandwidth(timer)
        bandwidth = found["bandwidth_gb_per_s"]["read"]
        found["machine"]["gpu"] = gpu()
    results = []
    for op, cases in ops.items():
        torch.manual_seed(0)
        for case in made_on(device, cases(quick)):
            result = {"op": op, **measure(case, effort, compile_too, timer, bandwidth)}
            if case.memory and device == "cpu":
                result["memory_mb"] = memory.of(op, case.name, case.rivals, quick)
            results.append(result)
            report(op, result)
    found["load"]["after"] = load()
    found["results"] = results
    return found
