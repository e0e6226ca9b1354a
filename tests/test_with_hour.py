# SPDX-License-Identifier: Apache-2.0
"""WithHour and DayAndWeek hand on what the modules inside them offer and take."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from rival_calls import ITEMS, LAYOUTS, USERS
from rivals import LENGTHS, C, H, K, L, inputs
from streams import stream
from test_train import SMALL

from longclock import History, LongTermInterestClock, Lookup
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
from longclock.nn import InterestModule
from longclock.train.batches import TrainingData
from longclock.train.config import Model
from longclock.train.loop import Run, learn, train
from longclock.train.team import Team

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
    if layout.endswith("_many"):
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
    call = (torch.zeros(1, H), History.dense(torch.zeros(1, 1, L), none[None]), none)
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


def bare(*sizes, **options):
    """A module that has nothing but a call."""

    class Bare(InterestModule):
        def forward(self, candidate, history, query_time, *, return_context=False):
            v = candidate.new_ones(*candidate.shape[:-1], 64)
            return (v, v[..., None, :]) if return_context else v

    return Bare()


@pytest.mark.parametrize(
    "build", [bare, TWIN, NoTime, HourEmbedding, PeriodGraph, SIMSoft, LongTermInterestClock]
)
@pytest.mark.parametrize("hour", [False, True])
def test_what_a_module_does_not_offer_is_nothing(build, hour):
    if build is PeriodGraph:
        build = partial(build, users=1)
    model = WithHour(build, L, H) if hour else build(L, H)
    inner = model.interest if hour else model
    name, none = type(inner).__name__, torch.zeros(1, dtype=torch.int64)
    table, ids, time, now, candidate = inputs()
    call = (candidate, History.dense(table[ids], time, LENGTHS), now)
    if name == "PeriodGraph":
        assert model.reads == ("user", "item", "item_vectors")
    else:
        assert model.reads == ()
        before = model(*call)
        assert model.observe(none, none, none) is None
        assert torch.equal(model(*call), before)
    logits = model.auxiliary_logits(*call)
    assert logits is None or name == "SIMSoft"
    if name in ("TWIN", "SIMSoft", "LongTermInterestClock"):
        assert torch.equal(model.project(table), inner.project(table))
    else:
        with pytest.raises(
            NotImplementedError, match=f"^{name}: it searches by no keys of its own$"
        ):
            model.project(table)
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = model.no_such_thing


def test_with_hour_hands_on_what_its_module_keeps_and_makes():
    eta = WithHour(ETA, L, H)
    rows = torch.randn(4, L)
    assert torch.equal(eta.project(rows), eta.interest.project(rows))


def test_a_trainer_tells_and_trains_the_module_of_with_hour():
    data = TrainingData.of(stream(events=48), SMALL)
    graph = Run.start(data, Model("", "PeriodGraph", with_hour=True, kind="graph"), SMALL)
    assert graph.ranker.interest.reads == ("user", "item", "item_vectors")
    train(graph, data, SMALL, lambda run, events: None)
    alone = PeriodGraph(L, H, users=data.stream.users)
    alone.observe(*map(torch.from_numpy, (data.stream.user, data.stream.item, data.stream.time)))
    observed = graph.ranker.interest.interest._edges
    assert all(torch.equal(a, b) for a, b in zip(observed, alone._edges, strict=True))
    assert sum(map(len, observed)) > 10

    soft = Run.start(data, Model("", "SIMSoft", with_hour=True, kind="searches"), SMALL)
    search = soft.ranker.interest.interest
    weights = (search.search_b, search.search_q, *search.auxiliary.parameters())
    before = [weight.detach().clone() for weight in weights]
    learn(soft, data, np.arange(40, 48), 0, Team())
    assert not any(torch.equal(a, b) for a, b in zip(weights, before, strict=True))


def test_with_hour_takes_keys_that_its_module_projected():
    table, ids, time, now, candidate = inputs()
    model = WithHour(LongTermInterestClock, L, H, k=K, scoring="precomputed")
    call = (candidate, History.dense(Lookup(table, ids), time, LENGTHS), now)
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
    call = (candidate, History.dense(Lookup(table, ids), time, LENGTHS), now)
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
