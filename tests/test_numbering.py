# SPDX-License-Identifier: Apache-2.0
"""Numbers for ids, the rows that are kept of them, and rows that are given to others."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sourced import SMALL, memory_of, run_over

from longclock import metrics
from longclock.data import EventStream
from longclock.data.by_user import ByUser
from longclock.data.kept_histories import COLUMNS, KeptHistories
from longclock.data.numbering import NEVER, Numbering
from longclock.data.sources import Events, EventSource
from longclock.train import memory, sourced, tables
from longclock.train.memory import Bounds
from longclock.train.ranker import Ranker
from longclock.train.running import FINE, Bins, RunningFigures
from longclock.train.tables import begin_anew, start_rows

DAY = 86_400
FAR = 2**63 - 1


@pytest.mark.parametrize("seed", range(8))
def test_numbers_are_given_by_appearance_and_given_again(seed: int) -> None:
    """As a dictionary and a list of free numbers give them."""
    draw = np.random.default_rng(seed)
    numbering, known, free, size = Numbering(), {}, [], 0
    born: dict[int, int] = {}
    latest: dict[int, int] = {}
    now = 0
    for _ in range(12):
        ids = draw.integers(-5, 40, draw.integers(0, 30)) * (FAR // 40)
        time = now + np.sort(draw.integers(0, 50, len(ids)))
        new = [one for one in dict.fromkeys(ids.tolist()) if one not in known]
        for one in new:
            if free:
                known[one] = free.pop(0)
            else:
                known[one], size = size, size + 1
        expected = [known[one] for one in ids.tolist()]
        firsts = [at for at, n in enumerate(expected) if n not in latest and n not in expected[:at]]
        for number, second in zip(expected, time.tolist(), strict=True):
            born.setdefault(number, second)
            latest[number] = second
        found = numbering.of_events(ids, time)
        assert [column.tolist() for column in found] == [expected, firsts]
        assert numbering.size == size
        assert numbering.known == len(known)
        assert {n: numbering.born[n] for n in born} == born
        assert {n: numbering.latest[n] for n in latest} == latest
        assert numbering.find(np.array([FAR - 1, *ids])).tolist() == [-1, *expected]
        now += 50
        gone = sorted(number for number, second in latest.items() if second < now - 60)
        assert numbering.forget(now - 60).tolist() == gone
        for number in gone:
            del born[number], latest[number]
        known = {one: number for one, number in known.items() if number not in gone}
        free = sorted([*free, *gone])
        arrays = {key: x.copy() for key, x in numbering.arrays().items()}
        numbering = Numbering.from_arrays(arrays, 0)


def test_hashed_numbers_are_of_the_id_alone() -> None:
    ids = np.random.default_rng(0).integers(-FAR, FAR, 1000)
    numbering, other = Numbering(16), Numbering(16)
    numbers = numbering.of(ids, np.arange(1000))
    assert set(numbers.tolist()) == set(range(16))
    assert numbering.size == numbering.known == 16
    assert other.of(ids[::-1], np.arange(1000)).tolist() == numbers[::-1].tolist()
    assert numbering.born.tolist() == [int((numbers == n).argmax()) for n in range(16)]
    assert numbering.forget(FAR).tolist() == []
    assert (Numbering(16).born == NEVER).all()


@pytest.mark.parametrize("seed", range(8))
def test_kept_rows_are_what_was_kept(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a dictionary of lists keeps them, however they move."""
    monkeypatch.setattr("longclock.data.kept_histories.AT_ONCE", 7)
    draw = np.random.default_rng(seed)
    kept, expected = KeptHistories(), {}
    nothing: dict[str, list[int]] = {name: [] for name in COLUMNS}
    for _ in range(60):
        users = draw.permutation(30)[: draw.integers(0, 8)]
        if draw.random() < 0.2:
            kept.forget(users)
            for user in users.tolist():
                expected.pop(user, None)
        else:
            new = draw.integers(0, 12, len(users))
            counts = np.minimum(kept.counts(users) + new, draw.integers(0, 20, len(users)))
            rows = {name: draw.integers(0, 100, new.sum()).astype(kind) for name, kind in COLUMNS.items()}  # fmt: skip
            kept.add(users, counts, new, rows)
            ends = np.cumsum(new)
            for user, count, begin, end in zip(users.tolist(), counts, ends - new, ends, strict=True):  # fmt: skip
                before = expected.get(user, nothing)
                of_user = {name: before[name] + column[begin:end].tolist() for name, column in rows.items()}  # fmt: skip
                expected[user] = {name: column[len(column) - count :] for name, column in of_user.items()}  # fmt: skip
        if draw.random() < 0.2:
            arrays = {key: x.copy() for key, x in kept.arrays().items()}
            kept = KeptHistories()
            kept.put_back(arrays)
        asked = draw.permutation(33)
        counts, rows = kept.of(asked)
        of_users = [expected.get(user, nothing) for user in asked.tolist()]
        assert counts.tolist() == kept.counts(asked).tolist() == [len(one["item"]) for one in of_users]  # fmt: skip
        for name, column in rows.items():
            assert column.dtype == COLUMNS[name]
            assert column.tolist() == [value for one in of_users for value in one[name]]
        assert len(kept) == sum(len(one["item"]) for one in expected.values())
        assert len(kept.arrays()["item"]) <= 1.3 * (len(kept) + 160) + 30 * 8


@pytest.mark.parametrize("seed", range(5))
def test_rows_by_user(seed: int) -> None:
    draw = np.random.default_rng(seed)
    time = np.sort(draw.integers(0, 40, 100))
    user, item = draw.integers(0, 7, 100), draw.integers(0, 9, 100)
    rows = ByUser.of(EventStream("small", user, item, time, time))
    for event in range(100):
        own = np.flatnonzero(user == user[event])
        past = own[time[own] < time[event]]
        begin = rows.first[rows.row[event]]
        assert rows.item[begin : begin + len(own)].tolist() == item[own].tolist()
        assert rows.moment[rows.row[event]] == begin + len(past)
        assert rows.earlier(6)[event] == (time[own] < time[event] - 6).sum()
        assert rows.pair_seen()[event] == (item[event] in item[past])


@pytest.mark.parametrize("seed", range(5))
def test_bins_find_the_area_under_the_curve(seed: int) -> None:
    draw = np.random.default_rng(seed)
    label, group = draw.integers(0, 2, 4000), draw.integers(0, 3, 4000)
    score = (draw.normal(size=4000) * 10.0 ** draw.integers(-3, 3) + label).astype(np.float32)
    score[:50] = np.repeat([0.0, -0.0], 25)
    bins = Bins(3, FINE)
    for part in np.array_split(np.arange(4000), 7):
        bins.add(group[part], label[part], score[part])
    for one in range(3):
        own = group == one
        assert bins.auc(one) == pytest.approx(metrics.auc(label[own], score[own]), abs=3e-4)
    few = np.float32([-np.inf, -3, -1e-30, 0, 1e-30, 2, np.inf])  # of different bins: exact
    bins = Bins(1, FINE)
    bins.add(0, np.array([0, 1, 0, 1, 0, 1, 1]), few)
    assert bins.auc() == metrics.auc(np.array([0, 1, 0, 1, 0, 1, 1]), few)
    assert Bins(1, FINE).auc() is None


class Weeks(EventSource):
    """Other users and items every week, but for user 0."""

    kind = "weeks"

    def __init__(
        self, weeks: int, each: int = 60, users: int = 5, items: int = 9, seed: int = 0
    ) -> None:
        super().__init__()
        self.weeks, self.each, self.users, self.items, self.seed = weeks, each, users, items, seed

    def _read(self, cursor: Any, batch: int) -> Iterator[tuple[Events, Any]]:
        for week in range(cursor["next"] if cursor else 0, self.weeks):
            draw = np.random.default_rng([self.seed, week])
            time = np.sort(draw.integers(week * 7 * DAY, (week + 1) * 7 * DAY, self.each))
            user = draw.integers(0, self.users, self.each)
            user += np.where(user, week * self.users, 0)
            item = draw.integers(0, self.items, self.each) + week * self.items
            yield Events(user, item, time, time), {"next": week + 1}


FORGETFUL = dataclasses.replace(SMALL, protocol="stream", history_days=10)


def test_rows_without_events_are_given_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LEAST_ROWS", 4)
    found, scores = run_over(Weeks(20), FORGETFUL, Bounds(events=32, forget_days=10))
    assert isinstance(found.run.ranker, Ranker)
    assert found.run.ranker.user.num_embeddings == 16  # of three weeks, where 97 users came
    assert found.run.ranker.item.num_embeddings == 32  # where 180 items did
    assert found.memory.users.known <= 13
    assert len(found.memory.kept) <= 3 * 60
    assert scores.isfinite().all()
    never, _ = run_over(Weeks(20), FORGETFUL, Bounds(events=32))
    assert isinstance(never.run.ranker, Ranker)
    assert never.run.ranker.user.num_embeddings == 128
    assert never.memory.users.known == len(
        {0, *(w * 5 + u for w in range(20) for u in range(1, 5))}
    )


def test_rows_that_are_given_to_others_begin_anew() -> None:
    found, _ = run_over(Weeks(6), FORGETFUL, Bounds(events=32, forget_days=10))
    ranker, run, numbers = found.run.ranker, found.run, found.memory.users
    assert isinstance(ranker, Ranker)
    gone = numbers.forget(2**40)
    start = start_rows(FORGETFUL, 0, gone, ranker.user.embedding_dim)
    assert not torch.equal(ranker.user.weight[gone], start)
    before = ranker.user.weight.detach().clone()
    begin_anew(run, gone, np.zeros(0, np.int64), FORGETFUL)
    assert torch.equal(ranker.user.weight[gone], start)
    others = np.setdiff1d(np.arange(len(before)), gone)
    assert torch.equal(ranker.user.weight[others], before[others])
    state = run.optimizer.state[ranker.user.weight]
    for name in ("exp_avg", "exp_avg_sq"):
        assert not state[name][gone].any()
    assert state["step"] > 0


def test_histories_never_show_what_is_another_by_now() -> None:
    """All that steps read of an item whose number was given to another is the other's."""
    config, bounds = FORGETFUL, Bounds(events=16, forget_days=10)
    keep = memory_of_weeks(config, bounds)
    names: dict[int, int] = {}
    source = Weeks(30)
    for excerpt in sourced.excerpts(source, keep):
        for number in keep.forgotten[1].tolist():
            del names[number]
        ids = dict(zip(keep.items.arrays()["numbers"].tolist(), keep.items.arrays()["ids"].tolist(), strict=True))  # fmt: skip
        for number, one in ids.items():
            assert names.setdefault(number, one) == one  # none changes but by being forgotten
        week = {number: one // 9 for number, one in ids.items()}
        for event in range(excerpt.first, len(excerpt.stream)):
            now = excerpt.stream.order_time[event] // (7 * DAY)
            window = slice(excerpt.histories.starts[event], excerpt.histories.ends[event])
            for number, time in zip(excerpt.histories.item[window], excerpt.histories.time[window], strict=True):  # fmt: skip
                assert week[number] == time // (7 * DAY)
            rows = excerpt.candidates.rows(np.array([event]))
            assert all(now - 2 <= week[number] <= now for number in excerpt.candidates.item[rows])
        keep.keep(excerpt)


def memory_of_weeks(config: Any, bounds: Bounds) -> memory.Memory:
    return memory.Memory(config, bounds, [])


@pytest.mark.parametrize(
    "rows", [{}, {"user_rows": 3, "item_rows": 8}], ids=["forgotten", "hashed"]
)
def test_memory_does_not_grow_with_the_events(rows: dict[str, int]) -> None:
    """What is kept after 10 weeks of users and items that never come again is as large after 40."""
    config = dataclasses.replace(FORGETFUL, history=20)
    bounds = Bounds(events=256, popular=500, **({**rows} if rows else {"forget_days": 10}))
    held = []
    for weeks in (10, 40):
        keep, figures = memory_of_weeks(config, bounds), RunningFigures(0, 20)
        tracemalloc.start()
        for excerpt in sourced.excerpts(Weeks(weeks, each=1000, users=200, items=600), keep):
            figures.add(excerpt, torch.zeros(len(excerpt.candidates.item)), len(excerpt.stream))
            keep.keep(excerpt)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert keep.trained == figures.count["events"] == weeks * 1000
        held.append(peak)
    assert held[1] < 1.1 * held[0]


def test_memory_is_read_back_whole() -> None:
    keep = memory_of(dataclasses.replace(SMALL, protocol="stream"), Bounds(events=48))
    assert keep.arrays()["recent"].shape == (0,)
    other = memory_of(keep.config, keep.bounds)
    other.put_back(keep.arrays(), None)
    assert other.arrays().keys() == keep.arrays().keys()
