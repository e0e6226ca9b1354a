# SPDX-License-Identifier: Apache-2.0
"""Threads that search and train while others change the weights.

A search beside an update may see the weights of before, of after, or some of each. One that runs
after the last update must be exact, and large gradients, whose pages are taken over by the next,
must stay what they were for as long as somebody holds them.

    PYTHONPATH=tests python -m tests.torture.threads --seconds 60
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from cases import make_mlp
from torch import Tensor

import longclock as lc

HIDDEN = 64
HISTORY = 30_000  # behaviours: few calls, and a table of s pays


@contextmanager
def beside(*work: Callable[[], None]) -> Iterator[None]:
    """Runs each of `work` over and over in a thread of its own; raises what one of them raised."""
    done = threading.Event()
    errors: list[BaseException] = []

    def repeat(function: Callable[[], None]) -> None:
        try:
            while not done.is_set():
                function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(function,)) for function in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


class Quiet:
    """Scores that are s alone, so that they can be compared bit by bit with what s is."""

    def __init__(self, length: int = HISTORY) -> None:
        self.query, self.keys = torch.zeros(1, 1), torch.zeros(1, length, 1)
        self.key_time = torch.randint(0, 86400, (1, length))
        self.query_time = torch.randint(0, 86400, (1,))

    def scores(self, mlp: tuple[Tensor, ...]) -> Tensor:
        with torch.no_grad():
            return lc.gsu_score(self.query, self.keys, self.key_time, self.query_time, mlp)

    def search(self, mlp: tuple[Tensor, ...]) -> None:
        with torch.no_grad():
            lc.clock_gsu(self.query, self.keys, self.key_time, self.query_time, mlp, 5)

    def is_exact(self, mlp: tuple[Tensor, ...]) -> bool:
        with torch.no_grad():
            delta = lc.circular_delta(self.key_time, self.query_time[:, None])
            return torch.equal(self.scores(mlp), lc.time_similarity(delta, *mlp))


def swaps(searchers: int = 3) -> str | None:
    """Raw and averaged weights are exchanged in place while others search with them."""
    quiet = Quiet()
    raw, averaged = make_mlp(HIDDEN), make_mlp(HIDDEN)
    live = tuple(weight.clone() for weight in raw)
    with beside(*[lambda: quiet.search(live)] * searchers):
        for turn in range(6):
            time.sleep(random.uniform(0, 0.004))
            for weight, value in zip(live, (averaged, raw)[turn % 2], strict=True):
                weight.copy_(value)
    for name, mlp in (("raw", raw), ("averaged", averaged), ("live", live)):
        if not quiet.is_exact(mlp):
            return f"a quiet search with the {name} weights is not exact"
    return None


def hogwild(trainers: int = 3) -> str | None:
    """Trainers step the same weights without a lock; then all rest, and one trains alone."""
    quiet = Quiet(5000)
    time_term = lc.TimeSimilarity(hidden=HIDDEN)
    target = torch.randn(1, 5000)

    def step() -> None:
        scores = lc.gsu_score(
            quiet.query, quiet.keys, quiet.key_time, quiet.query_time, time_term.mlp()
        )
        parameters = list(time_term.parameters())
        gradients = torch.autograd.grad((scores - target).square().mean(), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.data -= 1e-4 * gradient.clamp(-1, 1)  # which autograd does not watch

    with beside(*[step] * trainers):
        time.sleep(0.05)
    if not quiet.is_exact(time_term.mlp()):
        return "a quiet search with what the trainers left is not exact"
    alone, again = (
        tuple(weight.detach().clone().requires_grad_() for weight in time_term.mlp())
        for _ in range(2)
    )
    for mlp in (alone, again):
        quiet_scores = lc.gsu_score(quiet.query, quiet.keys, quiet.key_time, quiet.query_time, mlp)
        quiet_scores.square().sum().backward()
    if not all(torch.equal(a.grad, b.grad) for a, b in zip(alone, again, strict=True)):
        return "equal weights have different gradients after training without a lock"
    return None


def held_gradients(threads: int = 3) -> str | None:
    """Gradients of 8 to 11 MB, whose pages are kept for the next, held across several more."""
    wrong: list[str] = []

    def train(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        rows = 130_000 + 15_000 * (seed % 4)
        query = torch.randint(-3, 4, (1, 16), generator=generator).float()
        keys = torch.zeros(1, rows, 16, requires_grad=True)
        times = torch.zeros(1, rows, dtype=torch.int64)
        mlp = tuple(torch.zeros(size) for size in ((1, 4), (1,), (1,), ()))
        held: list[tuple[float, Tensor]] = []
        for turn in range(6):
            factor = float(seed * 10 + turn + 1)
            scores = lc.gsu_score(query, keys, times, times[:, 0], mlp, scale=1.0)
            (gradient,) = torch.autograd.grad(scores, keys, torch.full_like(scores, factor))
            held = [*held[-2:], (factor, gradient)]
            if not all(bool((kept == f * query).all()) for f, kept in held):
                wrong.append(f"a gradient of {rows} rows that is held was written to")
                return

    workers = [
        threading.Thread(target=train, args=(random.randrange(100),)) for _ in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return wrong[0] if wrong else None


ROUNDS = (swaps, hogwild, held_gradients)


def run(seconds: float, seed: int) -> tuple[dict[str, int], list[str]]:
    """Rounds of each kind until the time is up: how many, and what was wrong."""
    random.seed(seed)
    torch.manual_seed(seed)
    counts = dict.fromkeys((kind.__name__ for kind in ROUNDS), 0)
    wrong: list[str] = []
    end = time.monotonic() + seconds
    while not wrong and (time.monotonic() < end or not all(counts.values())):
        for kind in ROUNDS:
            fault = kind()
            counts[kind.__name__] += 1
            if fault is not None:
                wrong.append(f"{kind.__name__}, round {counts[kind.__name__]}: {fault}")
    return counts, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    counts, wrong = run(arguments.seconds, arguments.seed)
    print("threads:", ", ".join(f"{count} rounds of {name}" for name, count in counts.items()))
    for line in wrong:
        print("WRONG:", line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
