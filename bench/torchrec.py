# SPDX-License-Identifier: Apache-2.0
"""``python -m bench.torchrec``: what examples/train_torchrec.py reaches on its ranks, beside the same ranker with nn.Embedding in one process.

    python -m bench.torchrec [--ranks 2] [--seeds 3] [--days 60] [--json FILE]

Both go through the same stream, with the same optimizers and rates, from the same first weights: those that the example draws.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from examples.train_torchrec import DIM, OPTIMIZERS, SPREAD, auc
from torch import Tensor, nn

import longclock as lc
from bench.harness import ROOT, surroundings
from longclock.data import Catalogue, nyc
from longclock.data.stream import IntArray
from longclock.nn.parameter_groups import DENSE_SHARE
from longclock.optim import RowWiseAdagrad
from longclock.train.batches import Batch, TrainingData
from longclock.train.config import Config
from longclock.train.loop import chunks

EXAMPLE = ROOT / "examples" / "train_torchrec.py"
OPTIMIZER, RATE, WARMUP = "rowwise-adagrad", 0.2, 0.4


class Plain(nn.Module):
    """The example's ranker with nn.Embedding: one look-up of everything, one call of the interest module, and its gradient."""

    attributes: Tensor

    def __init__(self, catalogue: Catalogue, k: int) -> None:
        super().__init__()
        sizes = {"user": catalogue.users, "item": catalogue.items, **catalogue.category_sizes}
        self.tables = nn.ModuleDict({name: nn.Embedding(size, DIM) for name, size in sizes.items()})
        for weight in self.tables.parameters():
            nn.init.normal_(weight, std=SPREAD)
        attributes = [torch.from_numpy(ids) for ids in catalogue.categories.values()]
        self.register_buffer("attributes", torch.stack(attributes), persistent=False)
        width = DIM * (len(sizes) - 1)
        self.interest = lc.LongTermInterestClock(width, width, k=k, out_dim=width)
        self.tower = nn.Sequential(nn.Linear(DIM + 4 * width, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, batch: Batch, data: TrainingData) -> Tensor:
        user, item, *others = self.tables.values()
        parts = [item.weight, *(table(ids) for table, ids in zip(others, self.attributes, strict=True))]  # fmt: skip
        items = torch.cat(parts, 1)
        items = F.rms_norm(items, items.shape[1:])
        candidate, rows = items[batch.item], lc.Lookup(items, data.behaviour)
        windows = (batch.starts, batch.ends, batch.query_offsets)
        history = lc.History.windows(rows, data.behaviour_time, *windows)
        v, context = self.interest(candidate, history, batch.time, return_context=True)
        met = context[..., : candidate.shape[1]].mean(-2)
        read = [user(batch.user)[batch.event], candidate, v, candidate * v, candidate * met]
        logits: Tensor = self.tower(torch.cat(read, 1)).squeeze(1)
        return logits


class PlainTrainer:
    """The same, on its way through a stream."""

    def __init__(self, data: TrainingData, optimizer: str, rate: float, config: Config) -> None:
        torch.manual_seed(config.seed)
        self.data, self.model = data, Plain(data.catalogue, config.k)
        of_tables, of_others, more = OPTIMIZERS[optimizer]
        if optimizer == "rowwise-adagrad":
            of_tables = RowWiseAdagrad
        tables = set(self.model.tables.parameters())
        others = [weight for weight in self.model.parameters() if weight not in tables]
        self.optimizers = [
            of_tables(self.model.tables.parameters(), lr=rate, **more),
            of_others(others, lr=DENSE_SHARE * rate, **more),
        ]
        self.scores = torch.zeros(len(data.candidates.item))

    def start_from(self, folder: Path) -> None:
        """Take the weights that ranks have saved."""
        own = self.model.state_dict()
        state = {"model": {re.sub("^tables", "tables.embeddings", name): weight for name, weight in own.items()}}  # fmt: skip
        dcp.load(state, checkpoint_id=folder, no_dist=True)  # into the weights themselves

    def step(self, events: IntArray) -> float:
        """Score the events, then learn from them; the mean loss over their candidates."""
        batch = self.data.batch(events)
        logits = self.model(batch, self.data)
        loss = F.binary_cross_entropy_with_logits(logits, batch.label)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.scores[torch.from_numpy(self.data.candidates.rows(events))] = logits.detach()
        return float(loss.detach())


def plain(data: TrainingData, config: Config, first: Path) -> float:
    """Seen AUC of one process."""
    trainer = PlainTrainer(data, OPTIMIZER, RATE, config)
    trainer.start_from(first)
    for events in chunks(data.stream, config):
        trainer.step(events)
    return auc(data, trainer.scores, WARMUP)


def sharded(ranks: int, seed: int, days: int, *more: str) -> str:
    """What the example prints."""
    command = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), str(EXAMPLE), "--seed", str(seed)]  # fmt: skip
    command += ["--days", str(days), "--optimizer", OPTIMIZER, "--rate", str(RATE), *more]
    done = subprocess.run([sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def sharded_auc(printed: str) -> float:
    found = re.search(r"seen AUC (\S+)", printed)
    assert found is not None, printed
    return float(found.group(1))


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Plain numbers and text, for JSON."""
    found: dict[str, Any] = {name: {"auc": [], "seconds": []} for name in ("nn.Embedding", "TorchRec")}  # fmt: skip
    for seed in range(args.seeds):
        config = Config(protocol="stream", k=20, seed=seed)
        data = TrainingData.of(nyc().head(args.days), config)
        with tempfile.TemporaryDirectory() as first:
            sharded(args.ranks, seed, args.days, "--until", "0", "--save", first)
            calls: dict[str, Callable[[], float]] = {
                "nn.Embedding": partial(plain, data, config, Path(first)),
                "TorchRec": lambda: sharded_auc(sharded(args.ranks, seed, args.days)),  # noqa: B023
            }
            for name, call in calls.items():
                started = time.perf_counter()
                found[name]["auc"].append(call())
                found[name]["seconds"].append(round(time.perf_counter() - started, 1))
    sizes = {"ranks": args.ranks, "seeds": args.seeds, "days": args.days, "optimizer": OPTIMIZER, "rate": RATE}  # fmt: skip
    return {**surroundings(), "sizes": sizes, "rankers": found}


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser("bench.torchrec", description=(__doc__ or "").split("\n")[0])
    p.add_argument("--ranks", type=int, default=2)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--days", type=int, default=60)
    p.add_argument("--json", type=Path)
    args = p.parse_args(argv)
    torch.set_num_threads(1)
    found = run(args)
    for name, one in found["rankers"].items():
        values = ", ".join(f"{value:.4f}" for value in one["auc"])
        print(
            f"{name:14} seen AUC {statistics.mean(one['auc']):.4f} ({values}), {statistics.median(one['seconds']):.0f} s"
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
