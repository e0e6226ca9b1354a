# SPDX-License-Identifier: Apache-2.0
"""One rank of tests/test_torchrec.py: trains examples/train_torchrec.py's ranker as a JSON file says, and writes what came of it.

A case is {"sharding", "optimizer", "rate", "save": folder or null, "resume": folder or null}. One that does not resume goes through
STEPS steps beside the ranker with nn.Embedding in one process, from the same weights; with ``save`` it keeps a checkpoint of step SAVED. One that
resumes goes through the steps behind that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from bench.torchrec import Plain, PlainTrainer
from examples.train_torchrec import Trainer
from streams import stream
from torch import Tensor

from longclock.train.batches import TrainingData
from longclock.train.config import Config

STEPS, SAVED, EVENTS = 8, 4, 24
CONFIG = Config(protocol="stream", k=5)


def batches(data: TrainingData) -> list[np.ndarray]:
    """Events late in the stream, whose users have histories; every third time of users of the first rank alone."""
    first = len(data.stream) - STEPS * EVENTS
    found = np.arange(first, len(data.stream)).reshape(STEPS, EVENTS)
    return [
        events[data.stream.user[events] % 4 == 0] if step % 3 == 1 else events
        for step, events in enumerate(found)
    ]


def weights(trainer: Trainer, plain: Plain) -> Iterator[tuple[Tensor, Tensor]]:
    """What this rank has of every weight, and the same of the plain ranker's."""
    of_plain = plain.state_dict()
    for name, value in trainer.model.state_dict().items():
        if not name.startswith("tables."):
            yield value, of_plain[name]
            continue
        table = of_plain[f"tables.{name.split('.')[2]}.weight"]
        for shard in value.local_shards():
            (row, column), (rows, columns) = (
                shard.metadata.shard_offsets,
                shard.metadata.shard_sizes,
            )
            yield shard.tensor, table[row : row + rows, column : column + columns]


def run_case(data: TrainingData, case: dict[str, Any]) -> dict[str, Any]:
    how = (case["sharding"], case["optimizer"], case["rate"], CONFIG)
    trainer = Trainer(data, *how)
    if case["resume"]:
        trainer.load(Path(case["resume"]))
        return {"loss": [trainer.step(events) for events in batches(data)[trainer.steps :]]}
    plain = PlainTrainer(data, *how[1:])
    with torch.no_grad():
        for ours, theirs in weights(trainer, plain.model):
            ours.copy_(theirs)
    start = {name: weight.clone() for name, weight in plain.model.state_dict().items()}
    found: dict[str, Any] = {"loss": [], "plain": [], "requests": []}
    for events in batches(data):
        mine = data.stream.user[events] % trainer.world == trainer.rank
        found["requests"].append(int(mine.sum()))
        found["loss"].append(trainer.step(events))
        found["plain"].append(plain.step(events))
        if case["save"] and trainer.steps == SAVED:
            trainer.save(Path(case["save"]))
    pairs = [(ours, theirs) for ours, theirs in weights(trainer, plain.model) if len(ours)]
    found["apart"] = max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
    found["moved"] = max(
        float((theirs - start[name]).abs().max())
        for name, theirs in plain.model.state_dict().items()
    )
    return found


if __name__ == "__main__":
    cases, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    data = TrainingData.of(stream(events=600, users=16, items=40), CONFIG)
    found = {name: run_case(data, case) for name, case in cases.items()}
    (out / f"{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
