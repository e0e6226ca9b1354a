# SPDX-License-Identifier: Apache-2.0
"""A search where the rows live finds what a search of one table finds, to the bit."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from distributed_cases import Chance, Parts, make_parts
from jobs import run_ranks
from tolerance import assert_bitwise
from torch import Tensor

import longclock as lc
from longclock.distributed import ranks, rows

SEEDS, OF_ROUND = 1500, 150


class Board:
    """Where the threads of one process leave messages for each other."""

    def __init__(self, size: int) -> None:
        self.messages: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=60)

    def swap(self, rank: int, message: Any) -> list[Any]:
        self.messages[rank] = message
        self.barrier.wait()
        found = list(self.messages)
        self.barrier.wait()
        return found


class Threads(ranks.Ranks):
    """Ranks that are threads; ``group`` is their board. They count the bytes that go to others."""

    sent = 0

    def gather(self, message: Tensor) -> Tensor:
        return torch.stack(self.group.swap(self.rank, message.clone()))

    def exchange(self, sent: Tensor, sizes: Any, expected: Any) -> Tensor:
        assert sum(sizes) == len(sent)
        pieces = sent.split(list(sizes))
        Threads.sent += sum(piece.nbytes for r, piece in enumerate(pieces) if r != self.rank)
        received = [pieces[self.rank] for pieces in self.group.swap(self.rank, pieces)]
        assert [len(piece) for piece in received] == list(expected)
        return torch.cat(received)


def on_threads(size: int, work: Callable[[Threads], Any]) -> list[Any]:
    """What every rank gives, in one process."""
    board = Board(size)

    def one(rank: int) -> Any:
        try:
            torch.set_num_threads(1)
            return work(Threads(board, rank, size))
        except BaseException:
            board.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        waiting = [pool.submit(one, rank) for rank in range(size)]
        errors = [each.exception() for each in waiting]
    own = [e for e in errors if e is not None and not isinstance(e, threading.BrokenBarrierError)]
    if own:
        raise own[0]
    return [each.result() for each in waiting]


@pytest.fixture(autouse=True)
def threads_as_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    of_torch = rows.ranks_of
    monkeypatch.setattr(rows, "ranks_of", lambda op, group: group if isinstance(group, Threads) else of_torch(op, group))  # fmt: skip


@dataclasses.dataclass
class Shared:
    """A table, its shares, and the users of each rank."""

    table: Tensor
    edges: list[int]
    users: list[Parts]  # whose histories look up the whole table

    def share(self, rank: int, history: lc.History) -> lc.History:
        own = self.table[self.edges[rank] : self.edges[rank + 1]]
        return history._replace(rows=history.rows._replace(table=own))  # type: ignore[union-attr]

    def found(self, rank: int, mlp: Any, group: Any, told: bool) -> lc.TopK:
        one = self.users[rank]
        offsets = torch.tensor(self.edges) if told else None
        return lc.distributed.clock_gsu_at_rows(
            one.query, self.share(rank, one.whole), one.query_time, mlp, one.k, row_offsets=offsets,
            group=group, exclude_future=one.exclude_future,
        )  # fmt: skip


def make_shared(seed: int, size: int | None = None) -> Shared:
    """One table with ties and values that are no numbers; users in another layout on each rank, some ranks with none."""
    c = Chance(seed)
    size = size or 1 + c.below(4)
    items, width, k, future = 1 + c.below(200), 1 + c.below(50), c.below(40), c.pick(False, True)
    table = c.normal(items, width)
    if c.below(3) == 0:
        table = table.round()
    if c.below(4) == 0:
        table[items // 2], table[items // 3], table[0] = torch.nan, -torch.inf, torch.inf
    table = table.to(c.pick(torch.float32, torch.float16, torch.bfloat16))
    times = c.pick(torch.int32, torch.int64)
    users = []
    for rank in range(size):
        one = make_parts(1000 * seed + rank, ranks=1, most=400)
        history = one.whole
        ids = c.ints(0, items, *history.time.shape)
        if history.mask is not None:  # what is ruled out is not looked up
            ids[~history.mask] = -7
        rows = lc.Lookup(table, ids.to(c.pick(torch.int32, torch.int64)))
        query = c.normal(*one.query.shape[:-1], width).round().to(table.dtype)
        history = history._replace(rows=rows, time=history.time.to(times) // 3600 * 3600)
        users.append(dataclasses.replace(one, query=query, whole=history, k=k, exclude_future=future))  # fmt: skip
    return Shared(table, c.cuts(size, items), users)


@pytest.mark.parametrize("first", range(0, SEEDS, OF_ROUND))
def test_the_bits_of_one_table(first: int) -> None:
    """Users in any layout, another number of them on each rank, shares of any size, ties, NaN, infinities, masks."""
    mlp = lc.TimeSimilarity().mlp()
    for seed in range(first, first + OF_ROUND):
        case = make_shared(seed)
        told = bool(seed % 2)
        found = on_threads(len(case.users), lambda r: case.found(r.rank, mlp, r, told))  # noqa: B023
        for one, own in zip(case.users, found, strict=True):
            assert_bitwise(own, one.found_by_one(mlp))


def work_of_this_rank(group: object, rank: int, count: int) -> list[bool]:
    mlp, same = lc.TimeSimilarity().mlp(), []
    for seed in range(20):
        case = make_shared(seed, size=count)
        found, expected = (
            case.found(rank, mlp, group, bool(seed % 2)),
            case.users[rank].found_by_one(mlp),
        )
        same.append(torch.equal(found.indices, expected.indices))
        same.append(torch.equal(found.scores.view(torch.int32), expected.scores.view(torch.int32)))
    return same


def test_over_gloo() -> None:
    """Processes, in groups of 1 to 4 of them."""
    for count, of_ranks in run_ranks(work_of_this_rank).items():
        assert len(of_ranks) == count
        for same in of_ranks:
            assert same
            assert all(same), f"{same.count(False)} of {len(same)} differ on {count} ranks"


def test_a_fraction_of_the_rows_bytes() -> None:
    """Ids, times and results are at most a tenth of ids and rows of 32 float32 that come to their users."""
    table, ids = torch.randn(1000, 32), torch.randint(0, 1000, (4, 5000), dtype=torch.int32)
    time, mlp = torch.randint(0, 10**9, (4, 5000), dtype=torch.int32), lc.TimeSimilarity().mlp()
    history, now = lc.History.dense(lc.Lookup(table, ids), time), torch.full((4,), 10**9)
    users = Parts(torch.randn(4, 32), history, now, 100, False, [], [], None)
    case = Shared(table, [0, 500, 1000], [users, users])
    Threads.sent = 0
    on_threads(2, lambda r: case.found(r.rank, mlp, r, True))
    fetched = 2 * int((ids >= 500).sum()) * (4 + 32 * 4)
    assert Threads.sent < 0.1 * fetched


def test_errors() -> None:
    rows_, time, now = lc.Lookup(torch.eye(3), torch.tensor([[0, 1, 2]])), torch.zeros(1, 3, dtype=torch.int64), torch.tensor([0])  # fmt: skip
    history, query, mlp = lc.History.dense(rows_, time), torch.eye(3)[:1], lc.TimeSimilarity()
    two = lc.Lookup((torch.eye(3), torch.eye(3)), (rows_.ids, rows_.ids))
    wrong = {
        r"history must be a History, got Tensor": {"history": query},
        r"history.rows must be a Lookup of one table, got a tensor; .* distributed.clock_gsu": {"history": lc.History.dense(torch.eye(3)[None], time)},
        r"history.rows must be a Lookup of one table, got 2 tables": {"history": lc.History.dense(two, time)},
        r"k must be from 0 to 2048, got 2049": {"k": 2049},
        r"query must have shape \[S, D\] or \[S, C, D\], got \[3\]": {"query": query[0]},
        r"row_offsets must have shape \[ranks \+ 1\] = \[2\] of the group, got \[3\]": {"row_offsets": torch.tensor([0, 1, 3])},
        r"row_offsets must start at 0 and not decrease, got \[1, 4\]": {"row_offsets": torch.tensor([1, 4])},
        r"history.rows' table must have the 4 rows that row_offsets gives rank 0, got 3": {"row_offsets": torch.tensor([0, 4])},
        r"query must have D = 3 .* to match history.rows, got \[1, 2\]": {"query": query[:, :2]},
        r"ids must be from 0 to .*2, got 3": {"history": lc.History.dense(lc.Lookup(torch.eye(3), torch.tensor([[0, 1, 3]])), time)},
    }  # fmt: skip
    good = {"query": query, "history": history, "query_time": now, "mlp": mlp}
    for text, changed in wrong.items():
        with pytest.raises(ValueError, match=f"^distributed.clock_gsu_at_rows: {text}"):
            lc.distributed.clock_gsu_at_rows(**good | changed)


def test_what_differs_between_ranks_is_told_on_each() -> None:
    case = make_shared(3, size=2)
    case.users[1] = dataclasses.replace(case.users[1], k=case.users[0].k + 1)
    case.users[0].whole = case.users[0].whole._replace(time=case.users[0].whole.time.long())

    def told(group: Threads) -> str:
        with pytest.raises(
            ValueError,
            match=r"^distributed.clock_gsu_at_rows: k must be the same on every rank, got",
        ):
            case.found(group.rank, lc.TimeSimilarity(), group, False)
        return "told"

    case.users[1].whole = case.users[1].whole._replace(time=case.users[1].whole.time.long())
    assert on_threads(2, told) == ["told", "told"]
