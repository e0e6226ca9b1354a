# SPDX-License-Identifier: Apache-2.0
"""Grids of more blocks than a launch may have: in portions, or refused, never cut to 32 bits.

A device's limit is 2^31 - 1. Here the emulator's is made so small that little work exceeds it.
"""

from __future__ import annotations

import emulator
import pytest
import torch
from cases import FLOATS, Case, make_case
from cuda_calls import Call, esu_call, pack_call, score_call, search_call, time_call, topk_call
from esu_cases import make_esu
from raw_error import RAW_ERROR
from test_cuda_kernels import profile
from tolerance import assert_bitwise

import longclock as lc


def launches(call: Call, blocks: int) -> tuple[list[torch.Tensor], int, int]:
    """The results, how many launches there were, and the most blocks of one."""
    with emulator.options(blocks=blocks, counters=1):
        emulator.take_counters()
        found = call.run()
        counters = emulator.take_counters()
    return found, len(counters), max(each["grid"][0] for each in counters)


def all_scores_call(device: str, case: Case) -> Call:
    return Call([], lambda: [case.to(device).run(lc.gsu_score)])


# The last step of a time term's gradient has a block a parameter: 49, which no portion makes fewer.
BLOCKS = 50
CALLS = {
    "topk": lambda d: topk_call(d, 700, 90, 7, lengths=True),
    "topk, teams": lambda d: topk_call(d, 60, 9_000, 100, lengths=True),
    "topk, parts of teams": lambda d: topk_call(d, 30, 20_000, 100),
    "topk, parts": lambda d: topk_call(d, 9, 20_000, 150),
    "topk, two merges": lambda d: topk_call(d, 20, 40_000, 300),
    "topk, wide rows": lambda d: topk_call(d, 30, 10_000, 7),
    "gradient of queries": lambda d: score_call(
        d, make_case("dense", counts=(90,) * 40, width=140, poison=False)
    ),
    "gradient of queries, several together": lambda d: score_call(
        d, make_case("candidates", counts=(700, 70), width=140, candidates=9)
    ),
    "gradient of a table": lambda d: score_call(
        d, make_case("candidates", counts=(300, 70), table=True, width=16, candidates=2)
    ),
    "gradient of ragged keys": lambda d: score_call(
        d, make_case("ragged_many", counts=(1_900, 70, 40), width=16)
    ),
    "sweep of all scores": lambda d: all_scores_call(
        d, make_case("candidates", counts=(3_000, 9), width=8, candidates=70)
    ),
    "attention": lambda d: esu_call(d, make_esu(queries=120, width=16)),
    "attention, chunks": lambda d: esu_call(d, make_esu(queries=20, k=1_500, width=16)),
    "attention, heads": lambda d: esu_call(d, make_esu(queries=20, heads=6, width=140)),
    "times": lambda d: time_call(d, 30_000),
    "signs": lambda d: pack_call(d, 64, 10_000),
    "signs by columns": lambda d: pack_call(d, 70, 10_000),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_portions_give_the_bits_of_the_whole(device: str, name: str) -> None:
    call = CALLS[name](device)
    whole, few, wide = launches(call, 2**31 - 1)
    found, many, narrow = launches(call, BLOCKS)
    assert_bitwise(found, whole)
    assert narrow <= BLOCKS < wide
    assert many > few or name.startswith(("times", "signs"))  # whose threads stride


@pytest.mark.parametrize("dtype", FLOATS)
def test_sweeps_of_tiles_in_portions(device: str, dtype: torch.dtype) -> None:
    case = make_case("candidates", dtype, counts=(3_000,) * 4, width=8, candidates=16)
    call = search_call(device, 7, case)
    whole, few, wide = launches(call, 2**31 - 1)
    found, many, narrow = launches(call, 64)
    assert_bitwise(found, whole)
    assert narrow <= 64 < wide
    assert many > few == (3 if dtype == torch.float32 else 4)  # one sweep, which stores all scores


@pytest.mark.parametrize("sm", [75, 90])
def test_what_does_not_fit_a_launch_is_refused(device: str, sm: int) -> None:
    """Of a search a query is a block, and a call has fewer than 2^31 of them."""
    case = make_case("dense", counts=(90,) * 20, width=8, poison=False)
    with (
        profile(True, sm=sm),
        emulator.options(blocks=19),
        pytest.raises(RuntimeError, match=r"longclock::clock_gsu failed with CUDA error 9"),
    ):
        case.run(lc.clock_gsu, 7)


def huge(layout: str) -> dict[str, torch.Tensor]:
    """Arguments that say 2^31 queries or sequences and hold one."""
    n = 2**31
    one, time = torch.randn(1, 8), torch.zeros(1, dtype=torch.int64)
    windows = {"starts": time.expand(n), "ends": time.expand(n)}
    return {
        "windows": {"query": one.expand(n, 8), "query_time": time.expand(n)} | windows,
        "candidates": {"query": one.expand(1, n, 8), "query_time": time},
        "sequences": {
            "query": one,
            "query_time": time.expand(n),
            "offsets": time.expand(n + 1),
            "query_offsets": time.expand(n + 1),
        },
    }[layout]


@pytest.mark.parametrize("layout", ["windows", "candidates", "sequences"])
@pytest.mark.parametrize("op", ["clock_gsu", "gsu_score", "hamming_gsu"])
def test_more_queries_than_blocks_are_named(device: str, op: str, layout: str) -> None:
    given = huge(layout)
    flat = layout != "candidates"
    keys = torch.randn(5, 8) if flat else torch.randn(1, 5, 8)
    times = torch.zeros(5, dtype=torch.int64) if flat else torch.zeros(1, 5, dtype=torch.int64)
    mlp = make_case().mlp
    names = ("ids", "lengths", "offsets", "query_offsets", "starts", "ends", "mask")
    where = [given.get(name) for name in names]
    query, query_time = given["query"], given["query_time"]
    if op == "hamming_gsu":
        query = torch.zeros(1, 1, dtype=torch.int64).expand(*query.shape[:-1], 8)
        keys = torch.zeros(keys.shape, dtype=torch.int64)
        arguments = [query, keys, times, query_time, *where, False, 3]
    else:
        last = 3 if op == "clock_gsu" else 5
        arguments = [
            query,
            keys,
            times,
            query_time,
            *mlp,
            *where,
            False,
            0.5,
            [86400],
            [3600.0],
            [],
            [],
            None,
            None,
            last,
        ]
    name = "query_time" if layout == "sequences" else "query"
    with pytest.raises(
        RAW_ERROR, match=rf"^{op}: {name} must have fewer than 2\^31 .*; call with fewer"
    ):
        getattr(torch.ops.longclock, op)(*arguments)
