# SPDX-License-Identifier: Apache-2.0
"""Batches without a sequence, a candidate or a behaviour: empty or zero, and trained as others."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from rival_calls import BUILD, LAYOUTS, OUT, extras
from rivals import C, H, L, M, S

from longclock import History, Lookup
from longclock.baselines import PeriodGraph, SIMSoft, WithHour

I64 = torch.int64


def none(*shape):
    return torch.zeros(*shape, dtype=I64)


def dense(s, m, candidates=None, table=False, **options):
    shape = (s,) if candidates is None else (s, candidates)
    rows = (
        Lookup(torch.randn(3, L, requires_grad=True), none(s, m)) if table else torch.randn(s, m, L)
    )
    return {"candidate": torch.randn(*shape, H, requires_grad=True),
            "history": History.dense(rows, none(s, m), **options), "query_time": none(s) + 86400}  # fmt: skip


def flat(layout, q, t, *bounds, sequences=None):
    history = layout(torch.randn(t, L), none(t), *bounds)
    return {"candidate": torch.randn(q, H), "history": history,
            "query_time": none(q if sequences is None else sequences)}  # fmt: skip


ragged, windows = partial(flat, History.ragged), partial(flat, History.windows)


EMPTY = {
    "S = 0": dense(0, M),
    "S = 0, lengths": dense(0, M, lengths=none(0)),
    "S = 0, C = 2": dense(0, M, C),
    "S = 0, C = 0": dense(0, M, 0),
    "S = 0, M = 0": dense(0, 0),
    "S = 0, table": dense(0, M, table=True),
    "C = 0": dense(S, M, 0),
    "C = 0, table": dense(S, M, 0, table=True),
    "M = 0": dense(S, 0),
    "M = 0, C = 2": dense(S, 0, C),
    "M = 0, table": dense(S, 0, table=True),
    "masked": dense(S, M, mask=torch.zeros(S, M, dtype=torch.bool)),
    "S = 0, masked": dense(0, M, mask=torch.zeros(0, M, dtype=torch.bool)),
    "no windows": windows(0, 5, none(0), none(0)),
    "empty windows of T = 0": windows(S, 0, none(S), none(S)),
    "no queries of windows": windows(0, 5, none(1), none(1) + 5, none(2), sequences=1),
    "no windows of queries": windows(0, 5, none(0), none(0), none(1), sequences=0),
    "windows without queries": windows(1, 5, none(2), torch.tensor([5, 0]), torch.tensor([0, 0, 1]), sequences=2),
    "T = 0": ragged(S, 0, none(S + 1)),
    "no sequences": ragged(0, 0, none(1)),
    "no queries of sequences": ragged(0, 5, torch.tensor([0, 5]), none(2), sequences=1),
}  # fmt: skip


@pytest.mark.parametrize("case", EMPTY)
@pytest.mark.parametrize("name", BUILD)
def test_empty_batches(name, case):
    model, call = BUILD[name](), EMPTY[case]
    v, context = model(**call, **extras(model, call), return_context=True)
    queries = call["candidate"].shape[:-1]
    assert v.shape == (*queries, OUT)
    assert context.shape[: len(queries)] == queries
    assert context.dim() == len(queries) + 2
    assert v.isfinite().all()
    if "PeriodGraph" not in name:  # whose context is of the graph
        assert not context[..., :L].any()
    v.square().sum().backward()
    for weight_name, weight in model.named_parameters():
        assert weight.grad is None or weight.grad.isfinite().all(), weight_name


@pytest.mark.parametrize("case", EMPTY)
@pytest.mark.parametrize("hour", [False, True])
def test_auxiliary_logits_of_empty_batches(case, hour):
    model, call = WithHour(SIMSoft, L, H) if hour else SIMSoft(L, H), EMPTY[case]
    logits = model.auxiliary_logits(**call)
    assert logits.shape == call["candidate"].shape[:-1]
    logits.sum().backward()
    for weight in model.parameters():
        assert weight.grad is None or weight.grad.isfinite().all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", BUILD)
def test_integers_of_32_bits_are_the_same(name, layout):
    model = BUILD[name]()
    call = LAYOUTS[layout](model)
    expected = model(**call)

    def narrow(value):
        if isinstance(value, Lookup):
            return value._replace(ids=value.ids.int())
        if isinstance(value, History):
            return History(*map(narrow, value))
        return value.int() if isinstance(value, torch.Tensor) and value.dtype == I64 else value

    assert torch.equal(model(**{key: narrow(value) for key, value in call.items()}), expected)


def test_nothing_observed():
    model = PeriodGraph(L, H, users=2)
    model.observe(none(0), none(0), none(0))
    assert not any(len(edges) for edges in model._edges)
