# SPDX-License-Identifier: Apache-2.0
"""``python -m bench.serve_load``: latency at fixed rates of requests, while other processes append.

    python -m bench.serve_load [--seconds S] [--json FILE] [--svg FILE] [--quick]

2,000 users have 10,000 behaviours each in an SQLite file: stretches of the listening histories of the music data, and, in a second
run, items that are all different. Requests of 500 candidates come at fixed rates (``bench.open_loop``), to the recommender in threads,
to the endpoint over HTTP, and to rivals that read the same store: plain PyTorch, torch.compile, ONNX Runtime. Meanwhile another
process appends behaviours, each durable, at a fixed rate. Rates go up, all that are compared taking turns at each, until a
rival answers less than it is asked.

The answers a second of one core are those of a second of processor time, which other work on the machine changes less than
latency.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

from bench.harness import cores, load, surroundings
from bench.load_figure import KEPT_UP, figure
from bench.open_loop import Answers, Seconds, arrivals, by_threads, over_http
from bench.plain_request import rivals_of
from bench.serve import NOW, USERS, Sizes, random_model
from longclock.data import music
from longclock.serve import Recommender
from longclock.store import SQLiteStore

ASKED = NOW + 10**8  # requests come after everything that is appended
TOP = 50
APPENDING = 8  # callers at a time, who share commits
ENDPOINT = "endpoint, bf16"


@dataclasses.dataclass(frozen=True)
class Load:
    sizes: Sizes
    users: int = 2_000
    seconds: float = 10.0  # of one rate
    rates: tuple[float, ...] = (5, 10, 20, 30, 45, 65, 95, 140, 200, 300, 450, 650)
    appends: float = 100.0  # a second
    threads: int = 1


FULL = Load(Sizes(items=30_005))
QUICK = Load(Sizes(500, 60, 20, 16, 10, compiled=False), 5, 0.3, (30, 600), 20.0)


# Histories.


def of_music(sizes: Sizes, users: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Items and times of each user: a stretch of what one of the listeners played, brought to the same end.

    The data have whole minutes; plays of one minute get seconds of their own, which keep their order.
    """
    stream, rng = music(), np.random.default_rng(0)
    listeners = [np.flatnonzero(stream.user == user) for user in range(stream.users)]
    count = sizes.behaviours
    for _ in range(users):
        plays = listeners[rng.integers(len(listeners))]
        plays = plays[(first := rng.integers(len(plays) - count)) : first + count]
        steps = np.arange(count)
        times = np.maximum.accumulate(stream.order_time[plays] - steps) + steps
        yield stream.item[plays] % sizes.items, times - times[-1] + NOW


def all_distinct(sizes: Sizes, users: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    for _ in range(users):
        times = np.sort(rng.integers(NOW - 10**8, NOW, sizes.behaviours))
        yield rng.permutation(sizes.items)[: sizes.behaviours], times


DATA = {"music": of_music, "distinct items": all_distinct}


def filled(path: Path, data: str, of: Load) -> dict[str, float]:
    """A file with all histories; what it took."""
    begun, most, behaviours = time.perf_counter(), of.sizes.behaviours, 0
    with SQLiteStore(path, capacity=most) as store:
        for user, (items, times) in enumerate(DATA[data](of.sizes, of.users)):
            behaviours += store.append_many([user] * len(items), items, times)
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "behaviours": behaviours, "bytes": path.stat().st_size}


def append_at(path: str, of: Load, seed: int) -> Answers:
    """One durable behaviour at a time, to any user, behind all others."""
    due = arrivals(of.appends, of.seconds, seed)
    users = np.random.default_rng(seed).integers(of.users, size=len(due)).tolist()
    begin = NOW + 1 + seed * len(due)
    with SQLiteStore(path) as store:
        return by_threads(lambda n: store.append(users[n], 7, begin + n), due, APPENDING)


# What answers.


@dataclasses.dataclass(frozen=True)
class Asked:
    """The requests of a run: whose, of what, when."""

    users: list[int]
    candidates: list[torch.Tensor]
    now: list[int]

    @classmethod
    def drawn(cls, of: Load, count: int, seed: int) -> Asked:
        rng = np.random.default_rng(seed)
        sizes = of.sizes
        pool = [torch.from_numpy(rng.permutation(sizes.items)[: sizes.candidates]) for _ in range(32)]  # fmt: skip
        users, times = rng.integers(of.users, size=count), rng.integers(86_400, size=count)
        candidates = [pool[number % len(pool)] for number in range(count)]
        return cls(users.tolist(), candidates, (ASKED + times).tolist())

    def __len__(self) -> int:
        return len(self.users)

    def bodies(self) -> list[bytes]:
        """As the endpoint takes them."""
        return [
            orjson.dumps(
                {
                    "inputs": [
                        _tensor("user", [user]),
                        _tensor("candidates", candidates.tolist()),
                        _tensor("now", [now]),
                    ],
                    "parameters": {"top": TOP},
                }
            )
            for user, candidates, now in zip(self.users, self.candidates, self.now, strict=True)
        ]


def _tensor(name: str, values: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": "INT64", "shape": [len(values)], "data": values}


class InThreads:
    """Calls of this process: ``call(user, candidates, now)``."""

    def __init__(self, call: Callable[[int, torch.Tensor, int], Any], threads: int) -> None:
        self.call, self.threads = call, threads

    def run(self, asked: Asked, due: Seconds) -> tuple[Answers, float]:
        """What came of it, and the seconds of processor time that it took."""
        given = list(zip(asked.users, asked.candidates, asked.now, strict=True))
        begun = time.process_time()
        answers = by_threads(lambda number: self.call(*given[number]), due, self.threads)
        return answers, time.process_time() - begun


class OverHTTP:
    """A server of another process."""

    def __init__(self, port: int, process: int) -> None:
        self.port, self.process = port, process

    def run(self, asked: Asked, due: Seconds) -> tuple[Answers, float]:
        bodies, before = asked.bodies(), self._spent()
        answers = over_http(self.port, "/v2/models/longclock/infer", bodies, due)
        return answers, self._spent() - before

    def _spent(self) -> float:
        words = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def endpoint(folder: Path, store: Path, threads: int) -> Iterator[OverHTTP]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = {"--model": folder, "--store": store, "--port": port, "--threads": threads}
    arguments = [str(word) for pair in words.items() for word in pair]
    command = [sys.executable, "-m", "longclock.serve", "--dtype", "bf16", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready").close()
                break
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{' '.join(command)} does not start")
            time.sleep(0.05)
        yield OverHTTP(port, process.pid)
    finally:
        process.terminate()
        process.wait()


def rivals(recommender: Recommender, of: Load) -> Iterator[tuple[str, InThreads]]:
    """The model by others, with the histories of the same store; all in fp32."""
    store = recommender.store

    def arguments(user: int, candidates: torch.Tensor, now: int) -> tuple[torch.Tensor, ...]:
        seen = store.get(user, before=now)
        return (
            torch.tensor([min(user, USERS)]),
            candidates,
            seen.item,
            seen.time,
            torch.tensor([now]),
        )

    asked = Asked.drawn(of, 1, 0)
    example = arguments(asked.users[0], asked.candidates[0], asked.now[0])
    model = recommender._served.model
    with torch.inference_mode():
        calls = rivals_of(model, example, of.sizes.compiled)
    for name, call in calls.items():

        def answered(
            user: int, candidates: torch.Tensor, now: int, call: Callable[..., Any] = call
        ) -> Any:
            with torch.inference_mode():
                scores = call(*arguments(user, candidates, now))
                return scores.argsort(descending=True, stable=True)[:TOP]

        yield f"{name}, fp32", InThreads(answered, of.threads)


@contextlib.contextmanager
def systems(folder: Path, path: Path, of: Load) -> Iterator[dict[str, InThreads | OverHTTP]]:
    found: dict[str, InThreads | OverHTTP] = {}
    with (
        SQLiteStore(path) as store,
        endpoint(folder / "model", path, of.threads) as over_http,
    ):
        for dtype in ("bf16", "fp32"):
            recommender = Recommender(folder / "model", store, dtype=dtype)
            rank = partial(recommender.rank, top=TOP)
            found[f"longclock, {dtype}"] = InThreads(rank, of.threads)
        found[ENDPOINT] = over_http
        found |= dict(rivals(recommender, of))
        yield found


# The sweep.


def measured(folder: Path, data: str, of: Load, say: Callable[[str], None]) -> dict[str, Any]:
    path = folder / f"{data}.db"
    found: dict[str, Any] = {"load": filled(path, data, of), "points": {}}
    loaded = found["load"]
    say(f"{data}: {of.users:,} users in {loaded['seconds']:.1f} s, {loaded['bytes'] / loaded['behaviours']:.1f} bytes a behaviour")  # fmt: skip
    context = multiprocessing.get_context("spawn")
    with systems(folder, path, of) as all_of_them, context.Pool(1) as writer:
        warm = Asked.drawn(of, 3 * of.threads, 0)
        for system in all_of_them.values():
            system.run(warm, np.zeros(len(warm)))
        going = dict(all_of_them)
        for number, rate in enumerate(of.rates):
            for name, system in list(going.items()):
                seed = 1 + number * len(all_of_them) + list(all_of_them).index(name)
                due = arrivals(rate, of.seconds, seed)
                asked = Asked.drawn(of, len(due), seed)
                appending = writer.apply_async(append_at, (str(path), of, seed))
                answers, spent = system.run(asked, due)
                point = point_of(rate, answers, spent, appending.get())
                found["points"].setdefault(name, []).append(point)
                say(f"  {line(name, point)}")
                if point["a_second"] < KEPT_UP * rate:
                    del going[name]
    path.unlink()
    return found


def point_of(rate: float, answers: Answers, spent: float, appended: Answers) -> dict[str, Any]:
    count = int(answers.answered.sum())
    return {
        "rate": rate, "a_second": answers.a_second, "answers": count, "refused": len(answers.due) - count,
        "latency_ms": answers.latency_ms(), "cpu_ms": 1e3 * spent / max(count, 1), "a_second_of_a_core": count / max(spent, 1e-9),
        "appends": {"a_second": appended.a_second, "latency_ms": appended.latency_ms()}, "load": load(),
    }  # fmt: skip


def line(name: str, point: dict[str, Any]) -> str:
    latency = ", ".join(f"{q} {ms:.1f}" for q, ms in point["latency_ms"].items() if ms is not None)
    return f"{name:24} {point['rate']:>6g} a second: {point['a_second']:.1f} answered, {point['refused']} refused; ms: {latency}; {point['cpu_ms']:.2f} ms of CPU"


def rates_of(text: str) -> tuple[float, ...]:
    return tuple(float(rate) for rate in text.split(","))


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog="python -m bench.serve_load", description=__doc__.splitlines()[0]
    )
    p.add_argument("--seconds", type=float, help=f"of each rate ({FULL.seconds:g})")
    p.add_argument("--users", type=int, help=f"({FULL.users})")
    p.add_argument("--rates", type=rates_of, metavar="R,...", help=f"({','.join(map(str, FULL.rates))})")  # fmt: skip
    p.add_argument("--threads", type=int, help="that answer, and of the endpoint (a core each)")
    p.add_argument("--folder", type=Path, help="where the file of histories lies (the folder for temporary ones)")  # fmt: skip
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    p.add_argument("--svg", type=Path, metavar="FILE", help="draw latency against rate here")
    p.add_argument("--quick", action="store_true", help="tiny sizes, two rates: does it run?")
    args = p.parse_args(argv)
    of = QUICK if args.quick else FULL
    asked = {name: getattr(args, name) for name in ("users", "seconds", "rates", "threads")}
    asked = {name: value for name, value in asked.items() if value is not None}
    of = dataclasses.replace(of, **({"threads": cores()} | asked))
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        "settings": dataclasses.asdict(of),
        **surroundings(),
        "load": {"before": load()},
        "results": {},
    }
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        random_model(Path(folder) / "model", of.sizes)
        for data in DATA:
            results["results"][data] = measured(
                Path(folder), data, of, lambda text: print(text, flush=True)
            )
    results["load"]["after"] = load()
    for path, content in ((args.json, json.dumps(results, indent=1) + "\n"), (args.svg, figure(results))):  # fmt: skip
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
