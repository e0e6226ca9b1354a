# SPDX-License-Identifier: Apache-2.0
"""Errors that belong to no single op: from threads, and of raw ops called past the wrappers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from raw_error import RAW_ERROR

import longclock as lc

RAW = torch.ops.longclock


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_first_bad_id_is_named_whatever_the_threads(threads: int) -> None:
    ids = torch.randint(0, 100, (64, 5_000))
    ids[50, 7] = ids[20, 4_000] = ids[63, 4_999] = 100
    time, now = torch.zeros(64, 5_000, dtype=torch.int64), torch.zeros(64, dtype=torch.int64)
    table, query, s = torch.randn(100, 4), torch.randn(64, 4), lc.TimeSimilarity()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pytest.raises(
            ValueError, match="ids must be from 0 to N - 1 = 99, got 100 at position 104000"
        ):
            lc.clock_gsu(query, table, time, now, s, k=3, ids=ids)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("op", [lc.clock_gsu, lc.gsu_score, lc.hamming_gsu])
def test_rows_that_are_not_a_tensor(op: Any) -> None:
    ids, now = torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    mlp = () if op is lc.hamming_gsu else (lc.TimeSimilarity(),)
    query, table = torch.randn(2, 3), torch.randn(4, 3)
    message = f"{op.__name__}: keys must be a tensor, got Lookup; give its table .* its ids as ids"
    with pytest.raises(ValueError, match=message):
        op(query, lc.Lookup(table, ids), ids, now, *mlp)
    with pytest.raises(ValueError, match=f"{op.__name__}: query must be a tensor, got ndarray"):
        op(query.numpy(), table, ids, now, *mlp, ids=ids)


def raw_search(**changes: object) -> dict[str, object]:
    """Arguments of the raw clock_gsu, dense [2, 5, 3]."""
    arguments: dict[str, object] = {
        "query": torch.randn(2, 3), "keys": torch.randn(2, 5, 3),
        "key_time": torch.zeros(2, 5, dtype=torch.int64),
        "query_time": torch.zeros(2, dtype=torch.int64),
        "w1": torch.randn(8, 4), "b1": torch.randn(8), "w2": torch.randn(8), "b2": torch.randn(()),
        "ids": None, "lengths": None, "offsets": None, "query_offsets": None, "starts": None,
        "ends": None, "mask": None, "exclude_future": False, "scale": 1.0, "periods": [86400],
        "units": [3600.0], "features": [], "feature_ids": [], "key_scale": None,
        "query_dtype": None, "k": 2,
    }  # fmt: skip
    return arguments | changes


INTS = torch.tensor([0, 5])
FLAT = {"keys": torch.randn(5, 3), "key_time": torch.zeros(5, dtype=torch.int64)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": torch.tensor(1.0)}, r"keys must have shape \[S, M, D\].*got \[\]"),
        ({"keys": torch.randn(2, 5, 3).double()}, "keys must be .*longclock.reference"),
        ({"query": torch.randn(2, 3).half()}, "query must be float32 to match keys, got float16"),
        ({"query": torch.randn(2, 4)}, "query must have D = 3"),
        ({"lengths": torch.tensor([1, 6])}, "lengths must be from 0 to M = 5, got 6 at 1"),
        ({"starts": INTS}, r"starts must come with ends \(windows\), got ends=None"),
        ({"ends": INTS}, r"ends must come with starts \(windows\), got starts=None"),
        ({"starts": INTS, "ends": INTS, "offsets": INTS}, "starts must not be given with offsets"),
        (
            {"query_offsets": INTS},
            r"query_offsets must come with offsets \(ragged\), or starts and ends \(windows\), got neither$",
        ),
        (FLAT | {"offsets": torch.tensor([0, 6, 5])}, "offsets must not decrease, got 6 then 5"),
        (FLAT | {"offsets": torch.tensor([0, 2, 4])}, "offsets must end at T = 5, got 4"),
        (
            FLAT | {"starts": INTS, "ends": INTS + 1},
            "starts and ends must satisfy .*, got 5 and 6 at 1",
        ),
        (
            FLAT | {"starts": INTS, "ends": INTS, "query_offsets": torch.tensor([0, 1, 3])},
            "query_offsets must end at Q = 2, got 3",
        ),
        (
            FLAT | {"starts": INTS, "ends": INTS, "query_offsets": INTS},
            r"query_offsets must have shape \[S \+ 1\] = \[3\] to match query_time \[S\], got \[2\]",
        ),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, r"mask must be bool of key_time's shape"),
        ({"periods": [-1]}, "periods must be from 1 to"),
        ({"periods": []}, "periods must be of 1 to 4 clocks, got 0"),
        ({"periods": [7] * 5}, "periods must be of 1 to 4 clocks, got 5"),
        ({"periods": [7, 7]}, "units must be one for each of periods, 2, got 1"),
        ({"units": [1e-320]}, "units must be a positive number"),
        (
            {"periods": [7, 0], "units": [1.0, 1.0]},
            r"mlp w1 must have shape \[C, h, 4\] with C = 2 clocks and h from 1 to 32, got \[8, 4\]",
        ),
        ({"k": -1}, "k must be from 0 to 2048, got -1"),
        ({"w1": torch.randn(65, 4)}, r"mlp w1 must have shape \[h, 4\] with h from 1 to 64"),
        ({"b1": torch.randn(7)}, r"mlp b1 must have shape \[h\] = \[8\] to match w1, got \[7\]"),
    ],
)
def test_raw_search(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RAW_ERROR, match=f"clock_gsu: {message}"):
        RAW.clock_gsu(**raw_search(**changes))


def test_an_empty_table_says_so() -> None:
    ids = torch.zeros(2, 5, dtype=torch.int64)
    with pytest.raises(RAW_ERROR, match="the table has no rows, got 0 at position 0"):
        RAW.clock_gsu(**raw_search(keys=torch.randn(0, 3), ids=ids))


@pytest.mark.parametrize("m", [-1, 2**62])
def test_block_topk_backward_refuses_impossible_sizes(m: int) -> None:
    with pytest.raises(RAW_ERROR, match="block_topk_backward: m must be at"):
        RAW.block_topk_backward(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.int64), m)
