# SPDX-License-Identifier: Apache-2.0
"""WithHour and DayAndWeek hand on what the modules inside them offer and take."""

from __future__ import annotations

import pytest
import torch
from rival_calls import ITEMS, LAYOUTS, USERS
from rivals import LENGTHS, C, H, K, L, inputs

from longclock import LongTermInterestClock, Lookup
from longclock.baselines import (
    ETA,
    TWIN,
    DayAndWeek,
    HourEmbedding,
    NoTime,
    PeriodGraph,
    SIMSoft,
    WithHour,
)

HOUR = 16  # the width of an hour's vector


def joined(model, candidate, now):
    """Candidates beside their hour's vector, by the definition."""
    hour = model.hour(now % 86400 // 3600)
    if candidate.dim() == 3:
        hour = hour[:, None].expand(-1, candidate.shape[1], -1)
    return torch.cat([candidate, hour], -1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_auxiliary_logits_join_the_hour_as_a_call_does(layout):
    model = WithHour(SIMSoft, L, H, k=K)
    call = LAYOUTS[layout](model)
    logits = model.auxiliary_logits(**call)
    hours = call["query_time"]
    if layout == "ragged_many":
        hours = hours.repeat_interleave(C, 0)
    inner = call | {"candidate": joined(model, call["candidate"], hours)}
    torch.testing.assert_close(logits, model.interest.auxiliary_logits(**inner))
    later = call | {"query_time": call["query_time"] + 6 * 3600}
    assert not torch.equal(model.auxiliary_logits(**later), logits)
    logits.sum().backward()
    assert model.interest.search_q.grad.any()
    assert model.hour.weight.grad.any()


def test_with_hour_observes_what_its_graph_does():
    model = WithHour(PeriodGraph, L, H, users=USERS)
    none = torch.zeros(1, dtype=torch.int64)
    call = (torch.zeros(1, H), None, none[None], none)
    ids = {"user": none, "item": none, "item_vectors": torch.randn(ITEMS, H)}
    before, alone = model(*call, **ids, return_context=True)
    torch.testing.assert_close(alone[0, 0], model.interest.user.weight[0] / 3)
    model.observe(none, none + 2, none)
    after, context = model(*call, **ids, return_context=True)
    assert not torch.equal(before, after)
    # In a graph of one edge every step swaps its two ends; an item has no hour: 0 there.
    item = torch.nn.functional.pad(ids["item_vectors"][2], (0, HOUR))
    torch.testing.assert_close(context[0, 0], (2 * model.interest.user.weight[0] + item) / 3)
    wide = {**ids, "item_vectors": torch.nn.functional.pad(ids["item_vectors"], (0, HOUR))}
    assert torch.equal(model(*call, **wide), after)
    with pytest.raises(ValueError, match=r"PeriodGraph: item_vectors must be rows with .* = 21"):
        model(*call, **{**ids, "item_vectors": torch.zeros(ITEMS, 2)})


def test_with_hour_offers_what_its_module_offers_only():
    for module in (TWIN, NoTime, HourEmbedding):
        model = WithHour(module, L, H)
        assert not hasattr(model, "observe")
        assert not hasattr(model, "auxiliary_logits")
        with pytest.raises(AttributeError, match="no_such_thing"):
            _ = model.no_such_thing
    assert not hasattr(WithHour(PeriodGraph, L, H, users=1), "auxiliary_logits")
    assert not hasattr(WithHour(SIMSoft, L, H), "observe")
    eta = WithHour(ETA, L, H)
    rows = torch.randn(4, L)
    assert torch.equal(eta.project(rows), eta.interest.project(rows))


def test_with_hour_takes_keys_that_its_module_projected():
    table, ids, time, now, candidate = inputs()
    model = WithHour(LongTermInterestClock, L, H, k=K, scoring="precomputed")
    call = (candidate, Lookup(table, ids), time, now, LENGTHS)
    torch.testing.assert_close(model(*call, keys=model.project(table)), model(*call))


@pytest.mark.parametrize(
    "changes", [{"hours": 0}, {"hour_dim": 0}, {"out_dim": -1}, {"hours": 2.0}]
)
def test_with_hour_names_sizes_that_do_not_fit(changes):
    with pytest.raises(ValueError, match=f"WithHour: {next(iter(changes))} must be"):
        WithHour(NoTime, L, H, **changes)


def test_each_of_two_clocks_has_its_own_keys():
    table, ids, time, now, candidate = inputs()
    model = DayAndWeek(L, H, k=2, scoring="precomputed")
    call = (candidate, Lookup(table, ids), time, now, LENGTHS)
    keys = model.project(table)
    assert keys.shape == (len(table), 2 * 4 * 32)
    v, context = model(*call, keys=keys, return_context=True)
    torch.testing.assert_close((v, context), model(*call, return_context=True))
    for wrong in (model.day.project(table), keys[:, :-1], keys[0, 0]):
        with pytest.raises(ValueError, match="DayAndWeek: keys must have 2 n d = 256"):
            model(*call, keys=wrong)
    with pytest.raises(ValueError, match="DayAndWeek: keys must be a tensor, got list"):
        model(*call, keys=[keys])
    found = torch.tensor([[8], [0], [-1]])
    torch.testing.assert_close(
        model(*call, found=found), model.day(*call, found=found) + model.week(*call, found=found)
    )


def test_day_and_week_names_a_period_without_a_seventh():
    with pytest.raises(ValueError, match="DayAndWeek: period must be at least 7 seconds, got 6"):
        DayAndWeek(L, H, period=6)
