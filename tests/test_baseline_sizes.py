# SPDX-License-Identifier: Apache-2.0
"""Constructors name a size that does not fit."""

from __future__ import annotations

import pytest
import torch
from rivals import H, K, L, inputs

from longclock import History, baselines
from longclock.data import HourlyInterests

POOLED = ("NoTime", "HourEmbedding", "DIN", "SDIM", "InterestClock", "HSTU", "TransActV2")
NEEDED = {"InterestClock": {"category_dim": 2}, "PeriodGraph": {"users": 3}}
WRONG = [
    *((name, {size: value}) for name in (*POOLED, "PeriodGraph") for size in ("out_dim", "hidden_dim")
      for value in (0, -1, 2.0, True, None, "8")),
    *((name, {"k": value}) for name in POOLED for value in (-1, 2.5, "4", True)),
    *((name, {"period": value}) for name in (*POOLED, "PeriodGraph") for value in (0, -1, 86400.0, 2**31)),
    *(("HourEmbedding", {size: value}) for size in ("hours", "hour_dim") for value in (0, -1, 24.0)),
    *(("DIN", {"attention_dim": value}) for value in (0, -3, 8.0)),
    *(("SDIM", {size: value}) for size in ("hashes", "hash_bits") for value in (0, -1, 2.0, True, None)),
    *((name, {size: value}) for name in ("HSTU", "TransActV2") for size in ("heads", "layers") for value in (0, 2.0)),
    *(("HSTU", {"head_dim": value}) for value in (0, 2.0)),
    *(("TransActV2", {"recent": value}) for value in (-1, 2.0)),
    *((name, {"k": None}) for name in ("HSTU", "TransActV2")),
    ("TransActV2", {"k": 2049}),
    ("TransActV2", {"backend": "fast"}),
    *(("TWINV2", {"cluster_size": value}) for value in (0, 2.0, None)),
    *(("SIMSoft", {"search_dim": value}) for value in (0, -1, 3.0)),
    *(("ETA", {"hash_bits": value}) for value in (0, -1, "6", None)),
    *(("InterestClock", {size: value}) for size in ("category_dim", "fields") for value in (0, -1, 2.0)),
    *(("InterestClock", {"mode": value}) for value in ("Gaussian", None, 1, ["naive"])),
    ("InterestClock", {"period": 43200}),
    ("PeriodGraph", {"period": 43200}),
    *(("PeriodGraph", {size: value}) for size in ("users", "periods") for value in (0, -1, 2.0)),
    *(("PeriodGraph", {"layers": value}) for value in (-1, 1.0, None)),
    *((name, {"k": value}) for name in ("TWIN", "TWINV2", "SIMHard", "ETA", "ClockSearch", "DayAndWeek") for value in (-1, 2049, 2.0)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "sizes"), WRONG, ids=str)
def test_sizes_that_do_not_fit(name, sizes):
    (size,) = sizes
    of_clocks = (
        "|LongTermInterestClock"
        if hasattr(getattr(baselines, name), "scale") or size == "k"
        else ""
    )
    with pytest.raises(ValueError, match=f"^({name}{of_clocks}): {size} must be"):
        getattr(baselines, name)(L, H, **(NEEDED.get(name, {}) | sizes))


@pytest.mark.parametrize("name", [*POOLED, "PeriodGraph"])
@pytest.mark.parametrize("widths", [(0, H), (L, 0), (-1, H), (L, 5.0), ("6", H)])
def test_widths_that_do_not_fit(name, widths):
    with pytest.raises(ValueError, match=f"{name}: (behaviour_dim|candidate_dim) must be"):
        getattr(baselines, name)(*widths, **NEEDED.get(name, {}))


@pytest.mark.parametrize(
    "sizes", [{"fields": 0}, {"fields": 1.0}, {"fields": 1, "top": 0}, {"fields": 1, "days": -1}]
)
def test_hourly_interests_names_its_sizes(sizes):
    with pytest.raises(ValueError, match=f"HourlyInterests: {list(sizes)[-1]} must be"):
        HourlyInterests(**sizes)


@pytest.mark.parametrize("name", ["NoTime", "HourEmbedding", "DIN"])
def test_k_of_none_pools_all_and_of_0_nothing(name):
    table, ids, time, now, candidate = inputs()
    build = getattr(baselines, name)
    whole, many = build(L, H, k=None), build(L, H, k=100)
    many.load_state_dict(whole.state_dict())
    mask = torch.rand(time.shape) < 0.5
    for keep in (mask, None):
        call = (candidate, History.dense(table[ids], time, mask=keep), now)
        torch.testing.assert_close(whole(*call), many(*call))
    _, context = build(L, H, k=0)(*call, return_context=True)
    assert not context.any()
    assert whole(*call)[0].equal(build(L, H, k=K)(*call)[0]) is False
