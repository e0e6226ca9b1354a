# SPDX-License-Identifier: Apache-2.0
"""A search over parts finds what one rank finds that holds all, to the bit."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from distributed_cases import CANDIDATES, Parts, make_parts
from jobs import run_ranks
from tolerance import assert_bitwise

import longclock as lc
from longclock.distributed.parts import merged, message_of

ROUNDS, OF_ROUND = 15, 100


def found_by_ranks(case: Parts, mlp: object, told: bool, backwards: bool = False) -> lc.TopK:
    """As every rank of a group gets it, in one process: through the same messages."""
    messages = []
    for part, begins in zip(case.parts, case.begins, strict=True):
        own = lc.clock_gsu(case.query, query_time=case.query_time, mlp=mlp, k=case.k,
                           exclude_future=case.exclude_future, **part.arguments())  # fmt: skip
        messages.append(message_of(own, part, begins if told else None))
    return merged(torch.stack(messages[::-1] if backwards else messages), consecutive=not told)


@pytest.mark.parametrize("first", range(0, ROUNDS * OF_ROUND, OF_ROUND))
def test_the_bits_of_one_rank(first: int) -> None:
    """Dense, ragged and windows, rows and tables, 1 to 4 parts cut anywhere, ties, NaN, infinities, masks."""
    mlp = lc.TimeSimilarity().mlp()
    for seed in range(first, first + OF_ROUND):
        case = make_parts(seed)
        expected = case.found_by_one(mlp)
        for told in (False, True):
            assert_bitwise(found_by_ranks(case, mlp, told), expected)
        assert_bitwise(found_by_ranks(case, mlp, True, backwards=True), expected)


def test_the_cases_are_of_every_kind() -> None:
    kinds = Counter(
        (make_parts(seed).candidates, len(make_parts(seed).parts)) for seed in range(400)
    )
    assert set(kinds) == {
        (candidates, ranks) for candidates in CANDIDATES for ranks in (1, 2, 3, 4)
    }


def test_padding_before_what_scores_minus_infinity() -> None:
    """The first part has fewer than k behaviours, the second one that scores -inf: it is found."""
    keys = torch.tensor([[[1.0], [-torch.inf]]])
    time, now, mlp = (
        torch.zeros(1, 2, dtype=torch.int64),
        torch.tensor([0]),
        lc.TimeSimilarity().mlp(),
    )
    parts = [lc.History.dense(keys[:, at], time[:, at]) for at in (slice(0, 1), slice(1, 2))]
    case = Parts(torch.ones(1, 1), lc.History.dense(keys, time), now, 3, False, parts, [torch.tensor([0]), torch.tensor([1])], None)  # fmt: skip
    assert found_by_ranks(case, mlp, False).indices.tolist() == [[0, 1, -1]]
    assert_bitwise(found_by_ranks(case, mlp, False), case.found_by_one(mlp))


@pytest.mark.parametrize("candidates", [None, 2, 16])
def test_a_rank_tells_at_most_16_bytes_a_result(candidates: int | None) -> None:
    shape = (3,) if candidates is None else (3, candidates)
    for k in (1, 2, 100):
        found = lc.TopK(torch.zeros(*shape, k), torch.zeros(*shape, k, dtype=torch.int64))
        part = lc.History.dense(torch.zeros(3, 5, 2), torch.zeros(3, 5, dtype=torch.int64))
        message = message_of(found, part, None)
        assert message.nbytes == 8 * found.scores.numel() // k * (k + 1)
        assert message.nbytes <= 16 * found.scores.numel()


def test_one_rank_where_there_is_no_group() -> None:
    mlp = lc.TimeSimilarity().mlp()
    for seed in range(30):
        case = make_parts(seed)
        found = lc.distributed.clock_gsu(case.query, case.whole, case.query_time, mlp, case.k,
                                         exclude_future=case.exclude_future)  # fmt: skip
        assert_bitwise(found, case.found_by_one(mlp))


def test_a_part_that_begins_elsewhere() -> None:
    part = lc.History.dense(torch.eye(3)[None], torch.zeros(1, 3, dtype=torch.int64))
    begins = torch.tensor([2**40])
    found = lc.distributed.clock_gsu(torch.eye(3)[:1], part, torch.tensor([0]), lc.TimeSimilarity(), 4, begins=begins)  # fmt: skip
    assert found.indices.tolist() == [[2**40, 2**40 + 1, 2**40 + 2, -1]]


def random_cases_of_this_rank(group: object, rank: int, count: int) -> list[bool]:
    """On a rank: whether it found what one rank finds, of each case."""
    mlp, same = lc.TimeSimilarity().mlp(), []
    for seed in range(30):
        case = make_parts(seed, ranks=count)
        begins = case.begins[rank] if seed % 2 else None
        found = lc.distributed.clock_gsu(case.query, case.parts[rank], case.query_time, mlp, case.k, begins=begins,
                                         group=group, exclude_future=case.exclude_future)  # fmt: skip
        expected = case.found_by_one(mlp)
        same.append(torch.equal(found.indices, expected.indices))
        same.append(torch.equal(found.scores.view(torch.int32), expected.scores.view(torch.int32)))
    return same


def a_million_on_this_rank(group: object, rank: int, count: int) -> list[bool]:
    """Uneven parts of 1,000,000 behaviours, one of them empty where there are four."""
    generator, mlp = torch.Generator().manual_seed(1), lc.TimeSimilarity().mlp()
    keys = torch.randn(10**6, 32, generator=generator)
    keys[::3] = keys[::3].round()
    time, query = torch.randint(0, 10**9, (10**6,), generator=generator), torch.randn(2, 32, generator=generator)  # fmt: skip
    now = torch.tensor([10**9])
    cuts = {1: [], 2: [512_345], 3: [333_333, 345_678], 4: [262_345, 262_345, 900_001]}[count]
    begin, end = [0, *cuts, 10**6][rank : rank + 2]
    mine = slice(begin, end)
    part = lc.History.dense(keys[None, mine], time[None, mine])
    found = lc.distributed.clock_gsu(query[None], part, now, mlp, group=group)
    whole = lc.clock_gsu(query[None], keys[None], time[None], now, mlp)
    return [torch.equal(found.indices, whole.indices), torch.equal(found.scores, whole.scores)]


def work_of_this_rank(group: object, rank: int, count: int) -> list[bool]:
    found = random_cases_of_this_rank(group, rank, count)
    return found + a_million_on_this_rank(group, rank, count)


def test_over_gloo() -> None:
    """Processes, in groups of 1 to 4 of them."""
    for count, of_ranks in run_ranks(work_of_this_rank).items():
        assert len(of_ranks) == count
        for same in of_ranks:
            assert same
            assert all(same), f"{same.count(False)} of {len(same)} differ on {count} ranks"


def test_errors() -> None:
    rows, time, now = torch.eye(3)[None], torch.zeros(1, 3, dtype=torch.int64), torch.tensor([0])
    part, query, mlp = lc.History.dense(rows, time), torch.eye(3)[:1], lc.TimeSimilarity()
    wrong = {
        r"part must be a History, got Tensor": {"part": rows},
        r"k must be from 0 to 2048, got 2049": {"k": 2049},
        r"begins must have shape \[S\] = \[1\] to match query_time, got \[2\]": {"begins": torch.tensor([0, 1])},
        r"begins must be int32 or int64, got float32": {"begins": torch.zeros(1)},
        r"begins must be at least 0, got -3": {"begins": torch.tensor([-3])},
        r"query must have D = 3 .* to match part.rows, got \[1, 2\]": {"query": query[:, :2]},
        r"query must have shape \[S, D\] or \[S, C, D\], got \[3\]": {"query": query[0]},
        r"query must be a tensor, got list": {"query": [1.0]},
        r"query_time must be a tensor, got int": {"query_time": 3},
        r"part.time must be a tensor, got list": {"part": part._replace(time=[[0, 0, 0]])},
        r"query_time must have shape \[S\] = \[1\] to match part.rows, got \[2\]": {"query_time": torch.tensor([0, 1])},
        r"part.time must be int32 or int64, got float32": {"part": part._replace(time=time.float())},
        r"query must be .*float32.*, got float64": {"query": query.double()},
        r"mlp must be \(w1, b1, w2, b2\) or a TimeSimilarity": {"mlp": None},
    }  # fmt: skip
    good = {"query": query, "part": part, "query_time": now, "mlp": mlp}
    for text, changed in wrong.items():
        with pytest.raises(ValueError, match=f"^distributed.clock_gsu: {text}"):
            lc.distributed.clock_gsu(**good | changed)
    with pytest.raises(
        TypeError, match=r"^distributed.clock_gsu: unexpected keyword argument 'begin'; begins is"
    ):
        lc.distributed.clock_gsu(**good, begin=None)
