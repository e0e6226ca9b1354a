# SPDX-License-Identifier: Apache-2.0
"""``python -m bench.many_items``: a step of training with 10,000 and with 10 million items.

Both streams have the same users, times and numbers of different items a batch; in the longer table these lie anywhere. A step is all
of it: the batch, forward, loss, backward and both optimizers. Steps of the two take turns in one process, by one thread; figures are the
median CPU time of the thread over different batches. *Rows* is what must be: the rows of a batch, of the item table and of what
its optimizer keeps for each, are read and written, by two operations a table. Rows that lie anywhere are found in pages of 4 KB unless PyTorch asks
Linux for larger ones, by ``THP_MEM_ALLOC_ENABLE=1`` in the environment.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.harness import surroundings
from longclock.data import EventStream
from longclock.train.batches import TrainingData
from longclock.train.config import MODELS, Config
from longclock.train.loop import EMBEDDING_OPTIMIZERS, Run, learn
from longclock.train.ranker import Ranker
from longclock.train.team import Team

SECONDS = 3600  # between a user's events


@dataclasses.dataclass
class Sizes:
    items: tuple[int, int] = (10_000, 10_000_000)
    batches: int = 30
    batch: int = 32  # users, with an event each
    behaviours: int = 300  # a user
    k: int = 100


def streams(sizes: Sizes) -> list[EventStream]:
    """One of few items, and one in which each batch's items are as many among many more."""
    few, many = sizes.items
    rng = np.random.default_rng(0)
    users = sizes.batches * sizes.batch
    item = rng.integers(0, few, (sizes.behaviours + 1, users))  # event by event, all users each
    spread = np.empty_like(item)
    for batch in range(sizes.batches):
        own = slice(batch * sizes.batch, (batch + 1) * sizes.batch)
        spread[:, own] = rng.choice(many, few, replace=False)[item[:, own]]
    user = np.tile(np.arange(users), sizes.behaviours + 1)
    when = np.repeat(SECONDS * np.arange(1, sizes.behaviours + 2), users)
    return [
        EventStream(f"{count:,} items", user, ids.reshape(-1), when, order_time=when, items=count)
        for count, ids in zip(sizes.items, (item, spread), strict=True)
    ]


def rows_of(data: TrainingData, events: np.ndarray) -> Tensor:
    """The different items that a step over the events reads."""
    found = data.touched(data.batch(events))
    assert found is not None
    return found.items


def touch(run: Run, rows: Tensor) -> None:
    """Reads these rows of the item table and of what its optimizer keeps for each, and writes them back."""
    assert isinstance(run.ranker, Ranker)
    assert run.embedding_optimizer is not None
    weight = run.ranker.item.weight.detach()
    kept = run.embedding_optimizer.state[run.ranker.item.weight].values()
    for table in (weight, *(each for each in kept if isinstance(each, Tensor) and len(each.shape))):
        table.index_copy_(0, rows, table.index_select(0, rows))


def measured(sizes: Sizes, optimizer: str) -> dict[str, Any]:
    config = Config(k=sizes.k, batch=sizes.batch, embedding_optimizer=optimizer)
    data = [TrainingData.of(stream, config) for stream in streams(sizes)]
    runs = [Run.start(one, MODELS["lic"], config) for one in data]
    last = np.arange(len(data[0].stream))[-sizes.batches * sizes.batch :]
    batches = np.split(last, sizes.batches)
    seconds: dict[str, list[list[float]]] = {"step": [[], []], "rows": [[], []]}
    for number, (events, others) in enumerate(zip(batches, [*batches[1:], batches[0]], strict=True)):  # fmt: skip
        for side in (0, 1) if number % 2 else (1, 0):
            run, one = runs[side], data[side]
            step = partial(learn, run, one, events, config.seed, Team())
            seconds["step"][side].append(spent(step))
            seconds["rows"][side].append(spent(partial(touch, run, rows_of(one, others))))
    few, many = data[0].stream.name, data[1].stream.name
    found: dict[str, Any] = {}
    for what, sides in seconds.items():
        ms = [1e3 * statistics.median(side[1:]) for side in sides]
        found[what] = {few: ms[0], many: ms[1]}
    return found | {"ratio": found["step"][many] / found["step"][few]}


def spent(call: Callable[[], Any]) -> float:
    begun = time.thread_time()
    call()
    return time.thread_time() - begun


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.many_items", description=__doc__.splitlines()[0])  # fmt: skip
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    p.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    args = p.parse_args(argv)
    sizes = Sizes((500, 5000), 3, 4, 20, 5) if args.quick else Sizes()
    torch.set_num_threads(1)
    found = {}
    for optimizer in EMBEDDING_OPTIMIZERS:
        found[optimizer] = measured(sizes, optimizer)
        for what in ("step", "rows"):
            ms = ", ".join(f"{name} {each:.2f} ms" for name, each in found[optimizer][what].items())
            print(f"{optimizer}, {what}: {ms}", flush=True)
        print(
            f"{optimizer}: a step takes {found[optimizer]['ratio']:.2f} times as long", flush=True
        )
    if args.json:
        about = {
            "large_pages": os.environ.get("THP_MEM_ALLOC_ENABLE") == "1",
            "sizes": dataclasses.asdict(sizes),
            **surroundings(),
        }
        args.json.write_text(json.dumps({**about, "results": found}, indent=1) + "\n", encoding="utf-8")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
