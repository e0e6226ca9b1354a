# SPDX-License-Identifier: Apache-2.0
"""Kills processes that append to a store, and the server of one, at random moments.

    python -m tests.torture.store_rounds --what redis --rounds 20 --seed 0      (sqlite, redis, or all)

After every round, and once more after all of them, each behaviour whose append was acknowledged is there, once, with what it
was appended with; so is nothing that nobody tried to append; and a reader that goes on all the time has seen every history
grow, in order.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import torch
from stores import NO_REDIS, REDIS_SERVER, RedisProcess
from tests.torture.counted import counted

from longclock.store import BehaviourStore, open_store, sqlite_file

WRITERS, THREADS = 3, 3
SAID = struct.Struct("<?qqqq")  # acknowledged (else tried), user, time, item, writer
SECONDS = 120.0  # far beyond a round
COLUMNS = {"writer": "int32"}
Behaviour = tuple[int, int, int, int]


def process(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(70)  # it should have been killed


def write(store: BehaviourStore, users: tuple[int, int], writer: int, seed: str, said: int) -> None:
    """Until it is killed: in order and late, one and several, of one user and both, and some again."""
    draw, turn = random.Random(seed), 0
    mine: list[Behaviour] = []
    while True:
        count = draw.choice([1, 1, 1, 5])
        new = []
        for _ in range(count):
            late = draw.randrange(300) if draw.random() < 0.2 else 0
            new.append(
                (draw.choice(users), 10**6 + turn - late, WRITERS * THREADS * turn + writer, writer)
            )
            turn += 1
        if mine and draw.random() < 0.2:
            new.append(draw.choice(mine))
        os.write(said, b"".join(SAID.pack(False, *behaviour) for behaviour in new))
        if len(new) == 1:
            user, when, item, _ = new[0]
            store.append(user, item, when, writer=writer)
        else:
            by_user, times, items, writers = zip(*new, strict=True)
            store.append_many(by_user, items, times, writer=writers)
        os.write(said, b"".join(SAID.pack(True, *behaviour) for behaviour in new))
        mine += new


def write_in_threads(store: BehaviourStore, users: tuple[int, int], process_: int, seed: str, said: int) -> None:  # fmt: skip
    threads = [
        threading.Thread(
            target=write, args=(store, users, THREADS * process_ + n, f"{seed} {n}", said)
        )
        for n in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def behaviours(store: BehaviourStore, user: int) -> list[Behaviour]:
    found = store.get(user)
    columns = (found.time.tolist(), found.item.tolist(), found.columns["writer"].tolist())
    return [(user, *behaviour) for behaviour in zip(*columns, strict=True)]


def read(store: BehaviourStore, seen: Any) -> None:
    """``seen``: the round that is on, and how often it has been read."""
    last: dict[int, list[Behaviour]] = {}
    while True:
        number = int(seen[0])
        for user in (2 * number, 2 * number + 1):
            found = behaviours(store, user)
            assert [x[:3] for x in found] == sorted({x[:3] for x in found}), (
                "out of order, or twice"
            )
            assert set(last.get(user, [])) <= set(found), "what was there is gone"
            last[user] = found
        seen[1] += 1
        last = {user: found for user, found in last.items() if user >= 2 * number}


class Backend:
    """A store, and the server that it needs."""

    def __init__(self, what: str, folder: Path) -> None:
        self.server = RedisProcess() if what == "redis" else None
        url = self.server.url if self.server else folder / "histories.db"
        self.store = open_store(url, capacity=10**6, columns=COLUMNS)

    def close(self) -> None:
        self.store.close()
        if self.server is not None:
            self.server.stop()


def collect(end: int) -> tuple[set[Behaviour], set[Behaviour]]:
    """What was tried, and what acknowledged; a writer's last words may be cut off."""
    data = b""
    while more := os.read(end, 1 << 20):
        data += more
    tried: set[Behaviour] = set()
    acknowledged: set[Behaviour] = set()
    for acknowledgement, *behaviour in SAID.iter_unpack(data[: len(data) // SAID.size * SAID.size]):
        (acknowledged if acknowledgement else tried).add(tuple(behaviour))
    return tried, acknowledged


def kill_round(backend: Backend, number: int, draw: random.Random) -> tuple[set[Behaviour], set[Behaviour]]:  # fmt: skip
    store, users = backend.store, (2 * number, 2 * number + 1)
    end, said = os.pipe()
    sqlite_file.CHECKPOINT_PAGES = draw.choice([5, 50, 4000])
    seed = f"{number} {draw.random()}"
    children = [
        process(lambda: write_in_threads(store, users, n, f"{seed} {n}", said))  # noqa: B023
        for n in range(WRITERS)
    ]
    os.close(said)
    collected: list[Any] = []
    collector = threading.Thread(target=lambda: collected.append(collect(end)))
    collector.start()
    time.sleep(draw.uniform(0.0, 0.15))
    if backend.server is not None and draw.random() < 0.7:
        backend.server.kill()
        time.sleep(draw.uniform(0, 0.05))
        backend.server.start()
        time.sleep(draw.uniform(0, 0.1))
    draw.shuffle(children)
    for child in children:
        time.sleep(draw.choice([0, 0, 0.02]))
        os.kill(child, signal.SIGKILL)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    collector.join(SECONDS)
    os.close(end)
    assert statuses == [-signal.SIGKILL] * WRITERS, f"a writer ended by itself: {statuses}"
    return collected[0]


def check(store: BehaviourStore, number: int, tried: set[Behaviour], acknowledged: set[Behaviour]) -> int:  # fmt: skip
    """How many are there without an acknowledgement."""
    found = behaviours(store, 2 * number) + behaviours(store, 2 * number + 1)
    assert len({x[:3] for x in found}) == len(found), "a behaviour is there twice"
    lost = acknowledged - set(found)
    assert not lost, (
        f"{len(lost)} of {len(acknowledged)} acknowledged behaviours are lost: {sorted(lost)[:3]}"
    )
    assert set(found) <= tried, "something is there that nobody appended"
    return len(set(found) - acknowledged)


@contextlib.contextmanager
def reader(store: BehaviourStore) -> Iterator[Any]:
    memory = shared_memory.SharedMemory(create=True, size=16)
    seen = memory.buf.cast("q")
    seen[0] = seen[1] = 0
    child = process(lambda: read(store, seen))
    try:
        yield seen
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the reader ended"
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        seen.release()
        memory.close()
        memory.unlink()


def rounds(what: str, count: int, seed: int, folder: Path) -> int:
    """How many of the rounds failed."""
    backend, failed, unanswered = Backend(what, folder), 0, 0
    said: list[tuple[set[Behaviour], set[Behaviour]]] = []
    try:
        with reader(backend.store) as seen:
            for number in range(count):
                seen[0] = number
                try:
                    said.append(
                        kill_round(backend, number, random.Random(f"{seed} {what} {number}"))
                    )
                    unanswered += check(backend.store, number, *said[-1])
                except AssertionError as error:
                    failed += 1
                    print(f"{what} {number}: FAILED: {error}", flush=True)
            reads = int(seen[1])
        if not failed:
            for number, words in enumerate(said):
                check(backend.store, number, *words)
    except AssertionError as error:
        failed += 1
        print(f"{what}: FAILED: {error}", flush=True)
    finally:
        backend.close()
    acknowledged = sum(len(done) for _, done in said)
    print(f"{what}: {acknowledged:,} acknowledged, {unanswered:,} there without an answer, {reads:,} reads")  # fmt: skip
    return failed


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m tests.torture.store_rounds", description=__doc__)
    p.add_argument("--what", choices=["sqlite", "redis", "all"], default="all")
    p.add_argument("--rounds", type=int, default=20, help="of each (20)")
    p.add_argument("--seed", type=int, default=0, help="of moments and behaviours (0)")
    args = p.parse_args()
    torch.set_num_threads(1)
    kinds = ["sqlite", "redis"] if args.what == "all" else [args.what]
    if "redis" in kinds and REDIS_SERVER is None:
        print(f"no rounds of Redis: {NO_REDIS}")
        kinds.remove("redis")
    return counted(kinds, args.rounds, args.seed, rounds)


if __name__ == "__main__":
    sys.exit(main())
