# SPDX-License-Identifier: Apache-2.0
"""The ops' CUDA kernels on the emulator: what it counts, and that order and device change nothing."""

from __future__ import annotations

import emulator
import pytest
import torch
from tolerance import assert_bitwise

import longclock as lc


def counters_of(function):
    with emulator.options(counters=1):
        emulator.take_counters()
        function()
        return emulator.take_counters()


def test_circular_delta_reads_and_writes_every_sector_once():
    a = torch.randint(0, 10**9, (4096,), dtype=torch.int32)
    b = torch.randint(0, 10**9, (4096,), dtype=torch.int32)
    (launch,) = counters_of(lambda: lc.circular_delta(a, b))
    assert launch["kernel"].startswith("void longclock::")
    assert "circular_delta_kernel" in launch["kernel"]
    assert launch["grid"] == [16, 1, 1]
    assert launch["block"] == [256, 1, 1]
    loads, stores = launch["global_loads"], launch["global_stores"]
    assert loads["requests"] == 2 * 4096 // 32
    assert stores["requests"] == 4096 // 32
    assert loads["bytes"] == loads["first_bytes"] == 2 * 4 * 4096
    assert stores["bytes"] == stores["first_bytes"] == 4 * 4096
    assert loads["again_bytes"] == stores["again_bytes"] == 0
    # Tensors begin at multiples of 64 bytes, a request is 128: no sector is shared.
    assert loads["sectors"] == loads["minimum_sectors"] == 2 * 4096 * 4 // 32
    assert stores["sectors"] == stores["minimum_sectors"] == 4096 * 4 // 32
    assert launch["barriers"] == launch["atomics"] == 0


def test_an_expanded_operand_is_read_again():
    a = torch.randint(0, 10**9, (64, 128), dtype=torch.int64)
    b = torch.randint(0, 10**9, (64, 1), dtype=torch.int64)
    (launch,) = counters_of(lambda: lc.circular_delta(a, b))
    loads = launch["global_loads"]
    assert loads["first_bytes"] == 8 * (64 * 128 + 64)
    # A warp's 32 elements are of one row, which has four warps: three of them read b again.
    assert loads["again_bytes"] == 8 * 64 * 3


def test_time_similarity_holds_the_mlp_in_shared_memory():
    delta = torch.randint(0, 43200, (1024,), dtype=torch.int64)
    mlp = lc.TimeSimilarity(hidden=8)
    with torch.no_grad():
        (launch,) = [
            each for each in counters_of(lambda: mlp(delta)) if "time_similarity" in each["kernel"]
        ]
    assert launch["grid"] == [4, 1, 1]
    assert launch["barriers"] == 4 * 8  # one a warp, after the MLP is loaded
    assert launch["shared_loads"]["wavefronts"] == launch["shared_loads"]["minimum_wavefronts"]
    assert launch["lane_utilisation"] > 0.9


def test_counters_are_told_apart_by_source():
    delta = torch.randint(0, 43200, (1024,), dtype=torch.int64)
    mlp = lc.TimeSimilarity(hidden=8)
    with torch.no_grad():
        (launch,) = [
            each for each in counters_of(lambda: mlp(delta)) if "time_similarity" in each["kernel"]
        ]
    places = launch["places"]
    keys = [(tuple(place["source"]), place.get("lane_bytes")) for place in places]
    assert len(set(keys)) == len(keys)
    assert sum(p["instructions"] for p in places) == sum(launch["instructions"].values())
    for kind, field in (("global", "sectors"), ("shared", "wavefronts")):
        total = sum(launch[f"{kind}_{way}"][field] for way in ("loads", "stores", "atomics"))
        assert sum(place[kind][field] for place in places if kind in place) == total
    # delta itself: 32 lanes of 8 bytes, in the kernel's body.
    (loads,) = [p["global"] for p in places if p.get("lane_bytes") == 8 and "global" in p]
    assert loads["bytes"] == 8 * 1024
    inlined = [place["source"] for place in places if len(place["source"]) > 1]
    assert any("time_term.cuh" in at and "time_similarity.cu:" in last for at, *_, last in inlined)


@pytest.mark.parametrize("sm", [75, 80, 86, 89, 90, 100, 120])
def test_every_profile_and_order_give_the_same_bits(sm):
    delta = torch.randint(0, 43200, (5000,), dtype=torch.int64)
    mlp = lc.TimeSimilarity()

    def run():
        mlp.zero_grad()
        out = mlp(delta)
        out.sum().backward()
        return [out.detach(), *(parameter.grad.clone() for parameter in mlp.parameters())]

    first = run()
    for seed in (1, 2):
        with emulator.options(sm=sm, seed=seed, threads=seed):
            for got, expected in zip(run(), first, strict=True):
                assert_bitwise(got, expected)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="no option sm=42"), emulator.options(sm=42):
        pass
