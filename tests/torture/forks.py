# SPDX-License-Identifier: Apache-2.0
"""Processes that fork while their threads are inside ops, in every way that Python has.

No child may hang, and each must find what its parent finds: in ops forward and backward, with
arguments that have to be copied or converted first, and in clock_time.

    PYTHONPATH=tests python -m tests.torture.forks --seconds 60
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from cases import make_case, make_mlp
from esu_cases import make_esu
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torture.threads import Quiet, beside

import longclock as lc

SECONDS = 60  # far beyond what a child needs: only one that hangs is stopped by it


class Expected:
    """Inputs large enough for several threads, and what the parent finds in them."""

    def __init__(self) -> None:
        self.dense = make_case("dense", counts=(3000, 3000, 50, 700), width=32, poison=False)
        self.table = make_case("dense", counts=(900, 700), width=16, table=True)
        self.esu = make_esu(queries=16, k=300)
        wide = make_case("dense", counts=(3000,) * 4, width=16, poison=False)
        twice = torch.stack([wide.key_time, wide.key_time + 1], -1).flatten(1)
        turned = wide.keys.mT.contiguous().mT
        self.strided = wide.map(lambda x: turned if x is wide.keys else x)
        self.strided.key_time = twice[:, ::2]
        self.mixed = wide.map(lambda x: x.bfloat16() if x is wide.keys else x)
        self.answers = self.run()

    def run(self) -> list[bytes]:
        case, strided = self.dense, self.strided
        delta = lc.circular_delta(case.key_time, case.query_time[:, None])
        found = [
            case.run(lc.gsu_score), *case.run(lc.clock_gsu, 50), self.table.run(lc.gsu_score),
            *strided.run(lc.clock_gsu, 50), strided.run(lc.gsu_score),
            *self.mixed.run(lc.clock_gsu, 9), self.esu.run(lc.esu_attention), delta,
            lc.time_similarity(delta, *case.mlp), lc.clock_time(strided.key_time, 3600),
            *self.gradients(),
        ]  # fmt: skip
        # As bytes: PyTorch's own operators may hang in a forked child.
        return [x.detach().contiguous().numpy().tobytes() for x in found]

    def gradients(self) -> list[Tensor]:
        trained = self.dense.trained()
        scores = trained.run(lc.gsu_score)
        gradient = torch.ones_like(scores)
        return list(torch.autograd.grad(scores, list(trained.leaves().values()), gradient))


def worker_answers(expected: Expected) -> bool:
    return expected.run() == expected.answers


def fork_here(expected: Expected) -> str | None:
    """os.fork; a child that hangs is told by how long it takes."""
    child = os.fork()
    if child == 0:
        code = 4
        try:
            code = 0 if worker_answers(expected) else 3
        finally:
            os._exit(code)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return {0: None, 3: "a child found something else"}.get(
                code, f"a child ended with {code}"
            )
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "a child hung"


def pool(expected: Expected) -> str | None:
    """A pool of multiprocessing's fork method."""
    context = multiprocessing.get_context("fork")
    workers = context.Pool(2)
    try:
        answers = workers.map_async(worker_answers, [expected] * 4, chunksize=1).get(SECONDS)
        return None if all(answers) else "a worker of a pool found something else"
    except multiprocessing.TimeoutError:
        return "a worker of a pool hung"
    finally:
        workers.terminate()
        workers.join()


class Answers(Dataset):  # type: ignore[type-arg]
    def __init__(self, expected: Expected) -> None:
        self.expected = expected

    def __len__(self) -> int:
        return 4

    def __getitem__(self, item: int) -> bool:
        return worker_answers(self.expected)


def loader(expected: Expected) -> str | None:
    """Workers of a DataLoader."""
    batches = DataLoader(
        Answers(expected), batch_size=None, num_workers=2, timeout=SECONDS,
        multiprocessing_context="fork",
    )  # fmt: skip
    try:
        return None if all(batches) else "a worker of a DataLoader found something else"
    except RuntimeError as error:
        return f"a worker of a DataLoader: {error}"


ROUNDS: tuple[Callable[[Expected], str | None], ...] = (
    *[fork_here] * 8, pool, loader,
)  # fmt: skip


@contextmanager
def load() -> Iterator[None]:
    """Threads in ops: tables of s that come and go, and large gradients that are kept."""
    quiet, mlps = Quiet(1000), [make_mlp(64) for _ in range(6)]
    keys = torch.zeros(1, 130_000, 16, requires_grad=True)
    times = torch.zeros(1, 130_000, dtype=torch.int64)

    def search() -> None:
        quiet.scores(random.choice(mlps))

    def train() -> None:
        lc.gsu_score(torch.ones(1, 16), keys, times, times[:, 0], mlps[0]).sum().backward()
        keys.grad = None

    with beside(search, search, train):
        yield


def run(seconds: float, seed: int) -> tuple[dict[str, int], list[str]]:
    """Rounds of each kind until the time is up: how many, and what was wrong."""
    random.seed(seed)
    torch.manual_seed(seed)
    expected = Expected()
    counts = dict.fromkeys((kind.__name__ for kind in ROUNDS), 0)
    wrong: list[str] = []
    end = time.monotonic() + seconds
    with warnings.catch_warnings(), load():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: meant here
        while not wrong and (time.monotonic() < end or not all(counts.values())):
            for kind in ROUNDS:
                fault = kind(expected)
                counts[kind.__name__] += 1
                if fault is not None:
                    wrong.append(f"{kind.__name__}, round {counts[kind.__name__]}: {fault}")
                    break
    return counts, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    counts, wrong = run(arguments.seconds, arguments.seed)
    print("forks:", ", ".join(f"{count} rounds of {name}" for name, count in counts.items()))
    for line in wrong:
        print("WRONG:", line)
    sys.stdout.flush()
    os._exit(1 if wrong else 0)  # without waiting for what hangs


if __name__ == "__main__":
    main()
