# SPDX-License-Identifier: Apache-2.0
"""A ranker in a stream of check-ins, its tables of users, items and their attributes spread over the ranks by TorchRec.

    make setup-distributed
    torchrun --nproc-per-node 2 examples/train_torchrec.py --sharding row_wise --save build/torchrec
    torchrun --nproc-per-node 4 examples/train_torchrec.py --sharding row_wise --resume build/torchrec

Every rank has the requests of its own users, or none. Each event is scored before it is learned from. See docs/scaling.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import Tensor, nn
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.sharding_plan import (
    column_wise,
    construct_module_sharding_plan,
    row_wise,
    table_wise,
)
from torchrec.distributed.types import ShardingPlan
from torchrec.optim import RowWiseAdagrad
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter

import longclock as lc
from longclock import metrics
from longclock.data import Catalogue, nyc
from longclock.data.stream import IntArray, stretches
from longclock.nn.parameter_groups import DENSE_SHARE
from longclock.train.batches import TrainingData
from longclock.train.config import Config
from longclock.train.loop import chunks

DIM = 16  # of every table
SPREAD = 0.5  # standard deviation of new rows
# Where a table lies, by its number and that of the ranks: its rows on all of them, all of it on one, or its columns on all.
SHARDINGS: dict[str, Callable[[int, int], Any]] = {
    "row_wise": lambda table, ranks: row_wise(),
    "table_wise": lambda table, ranks: table_wise(rank=table % ranks),
    "column_wise": lambda table, ranks: column_wise(ranks=list(range(ranks))),
}
# A first step of Adagrad is the learning rate whatever the gradient, so that rounding decides about tiny ones; not so with this eps.
EPS = {"eps": 1e-4}
# The optimizer of the tables, which is a part of the backward pass of a look-up; that of other weights; their arguments.
OPTIMIZERS: dict[str, tuple[Any, Any, dict[str, float]]] = {
    "sgd": (torch.optim.SGD, torch.optim.SGD, {}),
    "adagrad": (torch.optim.Adagrad, torch.optim.Adagrad, EPS),
    "rowwise-adagrad": (RowWiseAdagrad, torch.optim.Adagrad, EPS),
}


class Ranker(nn.Module):
    """Scores candidates by their user, their item with its attributes, and the Long-term Interest Clock.

    A step asks the tables twice: for all items of the histories without a gradient, to search among them, and for the winners, the
    candidates and the users with it. One look-up with a gradient is one step of the tables' optimizer. An item is asked
    for once, however often it occurs.
    """

    attributes: Tensor  # [A, items]

    def __init__(self, catalogue: Catalogue, k: int) -> None:
        super().__init__()
        sizes = {"user": catalogue.users, "item": catalogue.items, **catalogue.category_sizes}
        self.names = list(sizes)
        new = partial(nn.init.normal_, std=SPREAD)
        tables = [
            EmbeddingConfig(name=name, embedding_dim=DIM, num_embeddings=size, feature_names=[name], init_fn=new)
            for name, size in sizes.items()
        ]  # fmt: skip
        self.tables = EmbeddingCollection(tables=tables, device=torch.device("meta"))
        attributes = [torch.from_numpy(ids) for ids in catalogue.categories.values()]
        self.register_buffer("attributes", torch.stack(attributes), persistent=False)
        width = DIM * (len(sizes) - 1)
        self.interest = lc.LongTermInterestClock(width, width, k=k, out_dim=width)
        self.tower = nn.Sequential(nn.Linear(DIM + 4 * width, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, features: KeyedJaggedTensor, user: Tensor, now: Tensor) -> Tensor:
        """The logit of every candidate, [R].

        Args:
            features: "candidate" and "history" of E requests: items, and int32 seconds as weights.
            user, now: [E].
        """
        items, times, bounds = features.values(), features.weights(), features.offsets()
        query_offsets, offsets = bounds[: len(now) + 1], bounds[len(now) :]
        candidates, asked = int(offsets[0]), {"query_offsets": query_offsets}
        with torch.no_grad():
            _, table, places = self.look_up(user[:0], items)
            rows = KeyedJaggedTensor(features.keys(), places, times, features.lengths())
            history = lc.interop.torchrec.history(rows, "history", table=table, **asked)
            found = self.interest.search(table[places[:candidates]], history, now)
            winners, when, lengths = lc.jagged.select(found, offsets, items, times, **asked)
        of_user, table, places = self.look_up(user, torch.cat([items[:candidates], winners]))
        candidate = table[places[:candidates]]
        history = lc.History.ragged(lc.Lookup(table, places[candidates:]), when, lengths=lengths)
        request = torch.arange(len(now)).repeat_interleave(query_offsets.diff())
        v, context = self.interest.attend(candidate, history, now[request], longest=self.interest.k, return_context=True)  # fmt: skip
        met = context[..., : candidate.shape[1]].mean(-2)  # without features of time
        read = [of_user[request], candidate, v, candidate * v, candidate * met]
        logits: Tensor = self.tower(torch.cat(read, 1)).squeeze(1)
        return logits

    def look_up(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of users, [len(users), DIM]; vectors of the different items, [U, width]; and each item's place among these.

        Every rank calls it at one time, whether it has something to ask for or not: it asks with one bag a table, which may be empty.
        """
        items, places = items.unique(return_inverse=True)
        ids = [users, items, *self.attributes[:, items]]
        lengths = torch.tensor([len(each) for each in ids])
        asked = KeyedJaggedTensor(self.names, torch.cat(ids), lengths=lengths)
        found = dict(self.tables(asked).items())  # in the order of the ranks
        of_users, *parts = (found[name].values() for name in self.names)
        vectors = torch.cat(parts, 1)
        return of_users, F.rms_norm(vectors, vectors.shape[1:]), places


class Trainer:
    """A ranker on its way through a stream, on all ranks.

    Args:
        rate: the learning rate of the tables; other weights have a tenth of it.
    """

    def __init__(
        self, data: TrainingData, sharding: str, optimizer: str, rate: float, config: Config
    ) -> None:
        self.data, self.rank, self.world = data, dist.get_rank(), dist.get_world_size()
        torch.manual_seed(config.seed)
        ranker = Ranker(data.catalogue, config.k)
        fused, of_others, more = OPTIMIZERS[optimizer]
        apply_optimizer_in_backward(fused, ranker.tables.parameters(), {"lr": rate, **more})
        sharder = EmbeddingCollectionSharder()
        places = {name: SHARDINGS[sharding](i, self.world) for i, name in enumerate(ranker.names)}
        of_tables = construct_module_sharding_plan(
            ranker.tables, places, sharder, self.world, self.world, "cpu"
        )
        plan = ShardingPlan({"tables": of_tables})
        torch.manual_seed(config.seed * self.world + self.rank)  # of this rank's rows
        self.model = DistributedModelParallel(ranker, device=torch.device("cpu"), plan=plan, sharders=[sharder])  # fmt: skip
        others = dict(in_backward_optimizer_filter(self.model.named_parameters()))
        dense = KeyedOptimizerWrapper(others, lambda w: of_others(w, lr=DENSE_SHARE * rate, **more))
        self.optimizer = CombinedOptimizer([self.model.fused_optimizer, dense])
        self.scores = torch.zeros(len(data.candidates.item))
        self.steps = 0

    def step(self, events: IntArray) -> float:
        """Score the events, then learn from them; the mean loss over all of their candidates, the same on every rank."""
        mine = self.data.stream.user[events] % self.world == self.rank
        features, user, now, label = requests(self.data, events[mine])
        rows = torch.from_numpy(self.data.candidates.rows(events))
        logits = self.model(features, user, now)
        # Gradients are divided by the number of ranks, so the mean over all candidates is this sum times that.
        loss = F.binary_cross_entropy_with_logits(logits, label, reduction="sum")
        self.optimizer.zero_grad()
        (loss * self.world / len(rows)).backward()
        self.optimizer.step()
        own, found = torch.from_numpy(self.data.candidates.rows(events[mine])), torch.zeros_like(self.scores[rows])  # fmt: skip
        found[torch.isin(rows, own)] = logits.detach()
        dist.all_reduce(found)
        self.scores[rows] = found
        self.steps += 1
        labels = torch.from_numpy(self.data.candidates.label)[rows].float()
        return float(F.binary_cross_entropy_with_logits(found, labels))

    def save(self, folder: Path) -> None:
        """All of it, each rank its share."""
        dcp.save(self._state(), checkpoint_id=folder)

    def load(self, folder: Path) -> None:
        """What any number of ranks has saved, whatever its sharding."""
        state = self._state()
        dcp.load(state, checkpoint_id=folder)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = int(state["steps"])

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scores": self.scores,
            "steps": torch.tensor(self.steps),
        }


def requests(data: TrainingData, events: IntArray) -> tuple[KeyedJaggedTensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The features of events as :class:`Ranker` takes them, and the labels of their candidates."""
    batch = data.batch(events)
    lengths = batch.ends - batch.starts
    seen = torch.from_numpy(stretches(batch.starts.numpy(), lengths.numpy()))
    features = KeyedJaggedTensor(
        ["candidate", "history"],
        torch.cat([batch.item, data.behaviour[seen]]),
        weights=torch.cat([batch.time[batch.event], data.behaviour_time[seen]]),
        lengths=torch.cat([batch.query_offsets.diff(), lengths]),
    )
    return features, batch.user, batch.time, batch.label


def auc(data: TrainingData, scores: Tensor, warmup: float) -> float:
    """Of the events behind the share ``warmup`` whose item occurred before."""
    counted = (data.candidates.event >= warmup * len(data.stream)) & data.seen
    return metrics.auc(data.candidates.label[counted], scores.numpy()[counted])


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    p.add_argument("--sharding", choices=SHARDINGS, default="row_wise", help="of all tables (%(default)s)")  # fmt: skip
    p.add_argument("--optimizer", choices=[*OPTIMIZERS], default="rowwise-adagrad", help="(%(default)s)")  # fmt: skip
    p.add_argument("--rate", type=float, default=0.2, metavar="X", help="learning rate of the tables (%(default)s)")  # fmt: skip
    p.add_argument("--seed", type=int, default=0, metavar="N", help="(0)")
    p.add_argument("--days", type=int, default=60, metavar="N", help="of check-ins (%(default)s)")
    p.add_argument("--until", type=int, metavar="N", help="stop after so many steps (all)")
    p.add_argument("--save", type=Path, metavar="FOLDER", help="write a checkpoint at the end")
    p.add_argument("--resume", type=Path, metavar="FOLDER", help="go on from a checkpoint")
    args = p.parse_args(argv)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        config = Config(protocol="stream", k=20, seed=args.seed)
        data = TrainingData.of(nyc().head(args.days), config)
        trainer = Trainer(data, args.sharding, args.optimizer, args.rate, config)
        if args.resume is not None:
            trainer.load(args.resume)
        parts, first = chunks(data.stream, config)[: args.until], trainer.rank == 0
        for events in parts[trainer.steps :]:
            loss = trainer.step(events)
            if first and trainer.steps % 200 == 0:
                print(f"step {trainer.steps} of {len(parts)}: loss {loss:.4f}", flush=True)
        if args.save is not None:
            trainer.save(args.save)
        if first and args.until is None:
            print(f"seen AUC {auc(data, trainer.scores, warmup=0.4):.4f}")
    finally:
        dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
