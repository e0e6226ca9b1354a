# SPDX-License-Identifier: Apache-2.0
"""``python -m bench.store``: how fast the stores of histories append and read, and how much they write.

    python -m bench.store [--redis redis://localhost:6379] [--folder DIR] [--json FILE] [--quick]

The file lies in ``--folder``, whose disk is what is measured. Redis is measured where ``--redis`` names a server (``make redis``
starts one). Kinds of appends take turns, round after round, so that what else the machine does hits all of them; every
behaviour that was acknowledged is counted at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.harness import surroundings
from longclock.store import BehaviourStore, RedisStore, open_store

LENGTH = 10_000  # behaviours of a user before
TOGETHER = 64  # callers at a time, and behaviours of a call
START = 10**9
PARTS = 20  # in which bytes are counted


class Bench:
    """One store with so many users, to which behaviours are appended in order and late."""

    def __init__(self, store: BehaviourStore, users: int, length: int) -> None:
        self.store, self.users, self.length = store, users, length
        self.clock = START + 2 * length
        self.ticks = threading.Lock()
        self.appended = 0

    def load(self) -> float:
        """Milliseconds a user, in a call each."""
        rng = np.random.default_rng(0)
        times = START + 2 * np.arange(self.length)
        began = time.perf_counter()
        for user in range(self.users):
            items = rng.integers(0, 30_000, self.length)
            self.appended += self.store.append_many([user] * self.length, items, times)
        return 1e3 * (time.perf_counter() - began) / self.users

    def next_time(self, count: int) -> int:
        with self.ticks:
            self.clock += count
            return self.clock - count

    def one(self, draw: random.Random) -> int:
        return self.store.append(draw.randrange(self.users), 1, self.next_time(1))

    def late(self, draw: random.Random) -> int:
        """Anywhere in the history."""
        when = START + 2 * draw.randrange(self.length) + 1
        return self.store.append(draw.randrange(self.users), draw.randrange(10**9), when)

    def many(self, draw: random.Random) -> int:
        users = [draw.randrange(self.users) for _ in range(TOGETHER)]
        begin = self.next_time(TOGETHER)
        return self.store.append_many(users, [1] * TOGETHER, range(begin, begin + TOGETHER))

    def per_second(
        self, call: Callable[[random.Random], int], callers: int, seconds: float
    ) -> float:
        """Behaviours that were acknowledged."""
        done, until = [0] * callers, time.perf_counter() + seconds

        def work(caller: int) -> None:
            draw = random.Random(f"{caller} {self.clock}")
            while time.perf_counter() < until:
                done[caller] += call(draw)

        threads = [threading.Thread(target=work, args=(caller,)) for caller in range(callers)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.appended += sum(done)
        return sum(done) / (time.perf_counter() - began)

    def written_by(self, call: Callable[[random.Random], int], calls: int) -> float:
        """Bytes a behaviour: what this process hands to the kernel, or what Redis adds to its log."""
        draw, sizes, count = random.Random(0), 0, 0
        for _ in range(PARTS):
            before = self.written()
            done = sum(call(draw) for _ in range(max(1, calls // PARTS)))
            self.appended += done
            if self.written() >= before:  # else Redis has compacted its log meanwhile
                sizes, count = sizes + self.written() - before, count + done
        return sizes / max(count, 1)

    def written(self) -> int:
        if isinstance(self.store, RedisStore):
            info = self.store._server.call(lambda client: client.info("persistence"))
            return int(info["aof_current_size"])
        lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
        return int(dict(line.split(": ") for line in lines)["wchar"])

    def read(self, repeats: int) -> dict[str, float]:
        """Milliseconds of this thread's processor time for a whole history."""
        taken = []
        for turn in range(repeats):
            before = time.thread_time()
            self.store.get(turn % self.users)
            taken.append(1e3 * (time.thread_time() - before))
        return {"min": min(taken), "median": statistics.median(taken)}

    def check(self) -> None:
        lengths = [len(self.store.get(user).item) for user in range(self.users)]
        if sum(lengths) != self.appended:
            raise AssertionError(f"{self.appended} were acknowledged, {sum(lengths)} are there")


def disk_ms(folder: Path | None) -> float:
    """What one write takes to be on the disk, which bounds a single caller."""
    taken = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(20):
            before = time.perf_counter()
            os.write(file.fileno(), bytes(4096))
            os.fdatasync(file.fileno())
            taken.append(1e3 * (time.perf_counter() - before))
    return statistics.median(taken)


def measure(store: BehaviourStore, quick: bool, folder: Path | None) -> dict[str, Any]:
    users, length, rounds, seconds = (4, 600, 1, 0.2) if quick else (100, LENGTH, 5, 2.0)
    bench = Bench(store, users, length)
    found: dict[str, Any] = {
        "load_ms_a_user": bench.load(),
        "read_cpu_ms": bench.read(30 if quick else 500),
    }
    kinds: dict[str, tuple[Callable[[random.Random], int], int]] = {
        "1 caller, one a call": (bench.one, 1),
        f"1 caller, {TOGETHER} a call": (bench.many, 1),
        f"{TOGETHER} callers, one a call": (bench.one, TOGETHER),
        "1 caller, one a call, late": (bench.late, 1),
    }
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    waits = []
    for _ in range(rounds):
        waits.append(disk_ms(folder))
        for name, (call, callers) in kinds.items():
            rates[name].append(bench.per_second(call, callers, seconds))
    found["appends_a_second"] = {
        name: {"median": statistics.median(values), "least": min(values), "most": max(values)}
        for name, values in rates.items()
    }
    found["disk_ms"] = statistics.median(waits)
    alone, together = rates["1 caller, one a call"], rates[f"{TOGETHER} callers, one a call"]
    ratios = [b / a for a, b in zip(alone, together, strict=True)]
    found["together_over_alone"] = statistics.median(ratios)
    calls = 50 if quick else 2_000
    found["bytes_an_append"] = {
        "in order": bench.written_by(bench.one, calls),
        f"in order, {TOGETHER} a call": bench.written_by(bench.many, calls // TOGETHER + 1),
        "late": bench.written_by(bench.late, calls),
    }
    bench.check()
    return found


@contextlib.contextmanager
def sqlite(folder: Path | None) -> Iterator[BehaviourStore]:
    with (
        tempfile.TemporaryDirectory(dir=folder) as inside,
        open_store(Path(inside) / "histories.db", capacity=10**6) as store,
    ):
        yield store


@contextlib.contextmanager
def redis(url: str) -> Iterator[BehaviourStore]:
    with open_store(url, name=f"bench-{os.getpid()}", capacity=10**6) as store:
        try:
            yield store
        finally:
            for user in list(store.users()):
                store.delete(user)


def lines(name: str, found: dict[str, Any]) -> Iterator[str]:
    yield f"{name}: load {found['load_ms_a_user']:.1f} ms a user; read {found['read_cpu_ms']['min']:.3f} ms of CPU ({found['read_cpu_ms']['median']:.3f})"
    for kind, rate in found["appends_a_second"].items():
        yield f"  {kind:28} {rate['median']:>9,.0f} a second ({rate['least']:,.0f} to {rate['most']:,.0f})"
    yield f"  {TOGETHER} callers together over one: {found['together_over_alone']:.1f}, where the disk takes {found['disk_ms']:.2f} ms"
    for kind, count in found["bytes_an_append"].items():
        yield f"  {kind:28} {count:>9,.0f} bytes an append"


def table(results: dict[str, Any]) -> list[str]:
    """Rows of docs/serving.md."""
    stores = [results[name] for name in ("SQLite", "Redis")]
    figures: dict[str, list[str]] = {
        "load 10,000 behaviours of a user, ms": [f"{x['load_ms_a_user']:.0f}" for x in stores],
        "read them, ms of CPU": [f"{x['read_cpu_ms']['median']:.2f}" for x in stores],
    }
    for kind in stores[0]["appends_a_second"]:
        rates = [x["appends_a_second"][kind]["median"] for x in stores]
        figures[f"appends a second: {kind}"] = [f"{rate:,.0f}" for rate in rates]
    ratios = [f"{x['together_over_alone']:.0f}" for x in stores]
    figures[f"{TOGETHER} callers together over one"] = ratios
    for kind in stores[0]["bytes_an_append"]:
        sizes = [x["bytes_an_append"][kind] for x in stores]
        figures[f"bytes written an append: {kind}"] = [f"{size:,.0f}" for size in sizes]
    return [f"| {name} | {' | '.join(values)} |" for name, values in figures.items()]


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m bench.store", description=__doc__)
    p.add_argument("--redis", metavar="URL", help="a server to measure; without, SQLite alone")
    p.add_argument(
        "--folder", type=Path, help="where the file lies (the folder for temporary ones)"
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    p.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    args = p.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = dict(surroundings())
    stores = {"SQLite": sqlite(args.folder)}
    if args.redis:
        stores["Redis"] = redis(args.redis)
    for name, opened in stores.items():
        with opened as store:
            results[name] = measure(store, args.quick, args.folder)
        print("\n".join(lines(name, results[name])), flush=True)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
