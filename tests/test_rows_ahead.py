# SPDX-License-Identifier: Apache-2.0
"""Small batches of one candidate on CUDA: rows are copied ahead, and found, to the bit, as in a large batch, which loads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import emulator
import pytest
import torch
from cases import CLOCKS, FLOATS, NOWHERE, Case, make_case
from test_clock_gsu import check
from test_cuda_kernels import profile
from test_many_candidates_cuda import launched, names
from tolerance import assert_bitwise

import longclock as lc
from longclock.types import Clocks

COUNTS = (700, 0, 1, 31, 33, 257)
MANY = 400  # rows: more than two blocks for each of 188 multiprocessors
DEAD: list[dict[str, Any]] = [{}, {"mask": True}, {"exclude_future": True}]


def repeated(case: Case, times: int) -> Case:
    """A dense case whose batch is that of `case` so many times."""

    def whole(x: torch.Tensor) -> torch.Tensor:
        return x.repeat(times, *[1] * (x.dim() - 1))

    layout = {
        name: whole(value) if isinstance(value, torch.Tensor) else value
        for name, value in case.layout.items()
    }
    keys: Any = case.keys if "ids" in layout else whole(case.keys)
    return Case(
        whole(case.query), keys, whole(case.key_time), whole(case.query_time), case.mlp, layout
    )


def in_any_layout(case: Case, layout: str) -> Case:
    """A dense case as ragged rows or windows."""
    lengths = case.layout["lengths"]
    inside = torch.arange(case.key_time.shape[1]) < lengths[:, None]
    given = dict(case.layout)
    given.pop("lengths")
    for name in ("ids", "mask"):
        if name in given:
            given[name] = given[name][inside]
    ends = lengths.cumsum(0)
    if layout == "ragged":
        given["offsets"] = torch.cat([ends.new_zeros(1), ends])
    else:
        given |= {"starts": ends - lengths, "ends": ends}
    keys = case.keys if "ids" in given else case.keys[inside]  # type: ignore[index]
    return replace(case, keys=keys, key_time=case.key_time[inside], layout=given)


def same_as_in_a_large_batch(case: Case, k: int, device: str) -> None:
    s = len(case.query)
    few = case.to(device).run(lc.clock_gsu, k)
    many = repeated(case, -(-MANY // s)).to(device).run(lc.clock_gsu, k)
    assert_bitwise(few, [part[:s] for part in many])
    assert_bitwise(few, [part[-s:] for part in many])
    for layout in ("ragged", "windows"):
        assert_bitwise(in_any_layout(case, layout).to(device).run(lc.clock_gsu, k), few)


@pytest.mark.parametrize(
    ("sm", "s", "m", "width", "kernel"),
    [
        (80, 3, 700, 64, "clock_gsu_ahead"),
        (90, 200, 40, 64, "clock_gsu_ahead"),
        (75, 3, 700, 64, "clock_gsu"),  # has no asynchronous copies
        (80, MANY, 40, 64, "clock_gsu"),  # more blocks than are resident
        (86, 3, 700, 64, "clock_gsu_ahead"),
        (86, 100, 700, 64, "clock_gsu"),  # two blocks have no room for what is on its way
        (80, 3, 700, 7, "clock_gsu"),  # rows are not whole pieces
        (80, 3, 70, 512, "clock_gsu_ahead"),
        (86, 3, 70, 512, "clock_gsu"),  # a pass is too large
    ],
)
def test_who_copies_ahead(
    emulator_only: None, device: str, sm: int, s: int, m: int, width: int, kernel: str
) -> None:
    case = make_case("dense", torch.float16, counts=(m,) * s, width=width).to(device)
    assert names(launched(case, 20, sm)) == [kernel]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sm", [80, 90])
@pytest.mark.parametrize("width", [8, 32, 40, 64, 72, 128, 136, 192, 264, 512])
def test_widths(device: str, emulated: bool, width: int, sm: int, dtype: torch.dtype) -> None:
    """One step of a row, two, three, four, and more than lie in shared memory at a time; the last one whole or not."""
    with profile(emulated, sm=sm):
        case = make_case("dense", dtype, counts=COUNTS, width=width)
        same_as_in_a_large_batch(case, 20, device)
        check(case, 20, device)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("dead", DEAD)
def test_what_is_not_valid(
    device: str, dtype: torch.dtype, table: bool, dead: dict[str, Any]
) -> None:
    for width in (40, 128):
        case = make_case("dense", dtype, counts=COUNTS, width=width, table=table, **dead)
        for k in (1, 300):
            same_as_in_a_large_batch(case, k, device)
        check(case, 100, device)


@pytest.mark.parametrize("table", [False, True])
def test_long_stretches_that_are_not_valid(emulated: bool, device: str, table: bool) -> None:
    """Tiles of which nothing is read, many more than are on their way, at the beginning, in the middle and at the end."""
    case = make_case("dense", torch.float16, counts=(9_000, 8_990), width=16, table=table)
    at = torch.arange(9_000)
    mask = ((at > 2_000) & (at < 2_050)) | ((at > 6_000) & (at < 7_000) & (at % 3 == 0))
    mask = torch.stack((mask, mask.flip(0)))
    for given in (mask, torch.zeros_like(mask)):
        dead = case.with_layout(mask=given)
        same_as_in_a_large_batch(replace(dead, layout=dead.layout), 100, device)
        check(dead, 100, device)
    if emulated and not table:
        (launch, *_) = launched(case.with_layout(mask=torch.zeros_like(mask)).to(device), 100)
        copies = [x for x in launch["places"] if any("async_copy" in at for at in x["source"])]
        assert sum(x["global"]["bytes"] for x in copies if "global" in x) == 0


@pytest.mark.parametrize("clocks", [86400, *CLOCKS])
def test_clocks(device: str, clocks: Clocks) -> None:
    case = make_case("dense", counts=COUNTS, width=16, clocks=clocks, mask=True)
    same_as_in_a_large_batch(case, 9, device)


def test_nan_and_infinity(device: str) -> None:
    for dtype in FLOATS:
        for width in (16, 128):
            case = make_case("dense", dtype, counts=(900, 50), width=width, poison=False)
            keys = case.keys
            assert isinstance(keys, torch.Tensor)
            for i, odd in enumerate((torch.nan, torch.inf, -torch.inf)):
                keys[:, i::41, 3] = odd
            case.query[1, 2] = torch.inf
            for k in (7, 200):
                same_as_in_a_large_batch(case, k, device)


def test_only_the_row_of_an_unknown_id_is_nan(device: str, emulated: bool) -> None:
    for dtype in FLOATS:
        for width in (16, 128):
            case = make_case("dense", dtype, counts=(40, 40), table=True, width=width)
            ids = case.layout["ids"]
            ids[0, 3], ids[1, 39] = -1, NOWHERE
            if device == "cpu" and not emulated:
                with pytest.raises(ValueError, match="ids must be from 0 to N - 1"):
                    case.run(lc.clock_gsu, 40)
                continue
            found = case.to(device).run(lc.clock_gsu, 40)
            assert found.indices[:, 0].cpu().tolist() == [3, 39]
            assert found.scores.isnan().sum().item() == 2
            nothing = replace(case, keys=case.keys[:0])
            assert nothing.to(device).run(lc.clock_gsu, 40).scores.isnan().all()


def test_parts_longer_than_a_selection_takes(device: str, emulated: bool) -> None:
    """A block's scores come in several rounds of shared memory, and what is on its way begins anew in each."""
    case = make_case("dense", torch.float16, counts=(70_000,), width=8, integers=True)
    for k in (100, 2048):
        found = case.to(device).run(lc.clock_gsu, k)
        assert_bitwise(found, case.run(lc.reference.clock_gsu, k))


@pytest.mark.parametrize("layout", ["dense", "ragged", "windows"])
@pytest.mark.parametrize("table", [False, True])
def test_schedules_give_the_same_bits(
    emulator_only: None, device: str, layout: str, table: bool
) -> None:
    case = make_case("dense", torch.float16, counts=(3_000, 1, 700), width=64, table=table, mask=True)  # fmt: skip
    case = (case if layout == "dense" else in_any_layout(case, layout)).to(device)
    first = case.run(lc.clock_gsu, 100)
    for seed in (1, 2, 3):
        for sm in (80, 90):
            with emulator.options(sm=sm, seed=seed, threads=seed):
                assert_bitwise(case.run(lc.clock_gsu, 100), first)


@pytest.mark.parametrize(("sm", "width"), [(80, 128), (90, 128), (80, 64), (90, 512)])
def test_bytes_on_their_way(emulator_only: None, device: str, sm: int, width: int) -> None:
    """Of a block, whenever a warp waits: three tiles of 64 rows of 256 bytes and more; each row is read once."""
    counts = (5_000,) * 32
    case = make_case("dense", torch.float16, counts=counts, width=width).to(device)
    launch = launched(case, 100, sm)[0]
    assert launch["copy_wait_bytes"] / launch["copy_waits"] * 8 >= 3 * 64 * 256
    copies = [x for x in launch["places"] if any("async_copy" in at for at in x["source"])]
    read = sum(x["global"]["bytes"] for x in copies if "global" in x)
    assert read == sum(counts) * width * 2
