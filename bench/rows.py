# SPDX-License-Identifier: Apache-2.0
"""``python -m bench.rows``: a search where the rows live, against rows that come to their users.

    python -m bench.rows [--ranks 2] [--users 32] [--length 10000] [--rows 200000] [--dim 32] [--json FILE] [--quick]

Ranks are processes of one thread each, over gloo on this machine; the table lies on them in equal shares. Rivals take turns, round after
round. Each is checked first: it finds, to the bit, what a search of the whole table finds. The rivals fetch rows with two exchanges, ids out and
rows back: of every behaviour, as sharded embeddings do, or of every item once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor

import longclock as lc
from bench.harness import surroundings
from longclock.distributed.ranks import ranks_of
from longclock.distributed.rows import by_owner

K = 100
ROUNDS = 7


class Users:
    """Those of one rank, and its share of the table."""

    def __init__(self, sizes: argparse.Namespace) -> None:
        self.ranks = ranks_of("bench.rows", None)
        everyone = torch.Generator().manual_seed(0)
        self.table = (
            torch.randn(sizes.rows, sizes.dim, generator=everyone).mul(2).round() / 2
        )  # ties
        self.edges = torch.arange(self.ranks.size + 1) * sizes.rows // self.ranks.size
        self.share = self.table[
            self.edges[self.ranks.rank] : self.edges[self.ranks.rank + 1]
        ].clone()
        own = torch.Generator().manual_seed(1 + self.ranks.rank)
        lengths = torch.randint(sizes.length // 2, sizes.length + 1, (sizes.users,), generator=own)
        lengths[0] = 0
        self.offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        behaviours = int(self.offsets[-1])
        self.ids = (
            torch.rand(behaviours, generator=own) ** 2 * sizes.rows
        ).int()  # some items are popular
        self.time = torch.randint(0, 10**9, (behaviours,), generator=own).int()
        self.now = torch.full((sizes.users,), 10**9)
        self.query = torch.randn(sizes.users, sizes.dim, generator=own)
        torch.manual_seed(2)
        self.mlp = lc.TimeSimilarity().mlp()

    def history(self, table: Tensor, ids: Tensor | None) -> lc.History:
        rows = table if ids is None else lc.Lookup(table, ids)
        return lc.History.ragged(rows, self.time, self.offsets)

    def searched(self, table: Tensor, ids: Tensor | None) -> lc.TopK:
        history = self.history(table, ids).arguments()
        return lc.clock_gsu(self.query, query_time=self.now, mlp=self.mlp, k=K, **history)

    def where_rows_live(self) -> lc.TopK:
        history = self.history(self.share, self.ids)
        return lc.distributed.clock_gsu_at_rows(
            self.query, history, self.now, self.mlp, K, row_offsets=self.edges
        )

    def rows_come(self) -> lc.TopK:
        return self.searched(self.fetched(self.ids), None)

    def rows_come_once(self) -> lc.TopK:
        items, places = self.ids.unique(return_inverse=True)
        return self.searched(self.fetched(items), places)

    def fetched(self, ids: Tensor) -> Tensor:
        """Their rows, from the ranks that hold them."""
        owner = torch.bucketize(ids, self.edges[1:], right=True)
        order = by_owner(owner, self.ranks.size)
        sizes = torch.bincount(owner, minlength=self.ranks.size)
        one_each = [1] * self.ranks.size
        asked = self.ranks.exchange(sizes, one_each, one_each).tolist()
        wanted = self.ranks.exchange(ids[order], sizes.tolist(), asked)
        rows = self.share[wanted - int(self.edges[self.ranks.rank])]
        found = torch.empty(len(ids), rows.shape[1])
        found[order] = self.ranks.exchange(rows, asked, sizes.tolist())
        return found


@contextmanager
def counted(rank: int) -> Iterator[list[int]]:
    """The bytes that this rank sends to others meanwhile."""
    real, sent = dist.all_to_all_single, [0]

    def counting(found: Tensor, given: Tensor, expected: Any, sizes: list[int], group: Any) -> Any:
        sent[0] += given.nbytes - given.nbytes // max(len(given), 1) * sizes[rank]
        return real(found, given, expected, sizes, group=group)

    with mock.patch.object(dist, "all_to_all_single", counting):
        yield sent


def measured(users: Users, rounds: int) -> dict[str, Any]:
    """Milliseconds and bytes of each rival, of a rank; every one begins when all ranks are there."""
    rivals: dict[str, Callable[[], lc.TopK]] = {
        "where the rows live": users.where_rows_live,
        "rows come": users.rows_come,
        "rows come, each once": users.rows_come_once,
    }
    right = users.searched(users.table, users.ids)
    found: dict[str, Any] = {}
    for name, search in rivals.items():
        with counted(users.ranks.rank) as sent:
            own = search()
        if not (torch.equal(own.indices, right.indices) and torch.equal(own.scores, right.scores)):
            raise AssertionError(f"{name} does not find what a search of the whole table finds")
        found[name] = {"ms": [], "bytes": sent[0]}
    for _ in range(rounds):
        for name, search in rivals.items():
            dist.barrier()
            start = time.perf_counter()
            search()
            dist.barrier()
            found[name]["ms"].append(1000 * (time.perf_counter() - start))
    return found


def _rank(rank: int, sizes: argparse.Namespace, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=sizes.ranks)
    try:
        with torch.no_grad():
            found = measured(Users(sizes), sizes.rounds)
        Path(folder, f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    finally:
        dist.destroy_process_group()


def run(sizes: argparse.Namespace) -> dict[str, Any]:
    """Plain numbers and text, for JSON: the slowest rank's time of a round, and the bytes of all ranks."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_rank, (sizes, folder), sizes.ranks)
        of_ranks = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(sizes.ranks)]  # fmt: skip
    of_run = {name: size for name, size in vars(sizes).items() if name not in ("json", "quick")}
    found: dict[str, Any] = {**surroundings(), "sizes": of_run, "rivals": {}}
    found["machine"]["threads"] = 1  # of a rank
    for name in of_ranks[0]:
        rounds = [
            max(times) for times in zip(*(each[name]["ms"] for each in of_ranks), strict=True)
        ]
        sent = sum(each[name]["bytes"] for each in of_ranks)
        found["rivals"][name] = {"min_ms": min(rounds), "median_ms": statistics.median(rounds), "bytes": sent}  # fmt: skip
    return found


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser("bench.rows", description=(__doc__ or "").split("\n")[0])
    sizes = {
        "ranks": 2,
        "users": 32,
        "length": 10_000,
        "rows": 200_000,
        "dim": 32,
        "rounds": ROUNDS,
    }
    for name, size in sizes.items():
        p.add_argument(f"--{name}", type=int, default=size)
    p.add_argument("--json", type=Path)
    p.add_argument("--quick", action="store_true", help="a look: few users, two rounds")
    args = p.parse_args(argv)
    if args.quick:
        args.users, args.length, args.rows, args.rounds = 4, 200, 1000, 2
    found = run(args)
    ours = found["rivals"]["where the rows live"]
    for name, one in found["rivals"].items():
        beside = f"{one['min_ms'] / ours['min_ms']:.2f} times, {100 * ours['bytes'] / max(one['bytes'], 1):.1f}% of its bytes"
        print(
            f"{name:22} {one['min_ms']:8.1f} ms (median {one['median_ms']:.1f})  {one['bytes'] / 1e6:8.2f} MB  ours: {beside}"
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
