# SPDX-License-Identifier: Apache-2.0
"""Every public class of longclock.baselines that is called, and whole calls of it in every layout."""

from __future__ import annotations

from functools import partial

import torch
from rivals import LENGTHS, C, H, K, L, S, flat, inputs

from longclock import ClockAttentionStack, History, Lookup, baselines

ITEMS, USERS, OUT = 7, 5, 4
WithHour = baselines.WithHour
SIZES = {"k": K, "out_dim": OUT, "hidden_dim": 3}


def graph(build):
    model = build(L, H, users=USERS, **SIZES)
    some = torch.tensor([0, 1, 4, 4])
    model.observe(some, some + 2, some * 21600)
    return model


SPECIAL = {
    "PeriodGraph": partial(graph, baselines.PeriodGraph),
    "InterestClock": lambda: baselines.InterestClock(L, H, category_dim=2, fields=2, **SIZES),
    "WithHour": lambda: WithHour(baselines.TWIN, L, H, **SIZES),
    "TWINV2": lambda: baselines.TWINV2(L, H, cluster_size=2, **SIZES),
}
BUILD = {
    name: SPECIAL.get(name, partial(getattr(baselines, name), L, H, **SIZES))
    for name in baselines.__all__
    if name != "Pooled"  # which is derived from
}
# Those that search, in plain PyTorch.
PLAIN = {
    f"{name}, plain": partial(getattr(baselines, name), L, H, backend="reference", **SIZES)
    for name in ("ClockAttention", "ClockSearch", "DayAndWeek", "ETA", "FullClock", "SIMHard", "SIMSoft", "TWIN",
                 "TWINV2", "TransActV2")
}  # fmt: skip
BUILD |= PLAIN
STACK = partial(ClockAttentionStack, L, H, out_dim=OUT, hidden_dim=3)
BUILD |= {
    "ClockAttentionStack": STACK,
    "ClockAttentionStack, plain": partial(STACK, backend="reference"),
    "ClockAttentionStack without the clock": partial(STACK, clock=False),
}
BUILD |= {
    "WithHour of SIMSoft": lambda: WithHour(baselines.SIMSoft, L, H, **SIZES),
    "WithHour of PeriodGraph": partial(graph, partial(WithHour, baselines.PeriodGraph)),
    "WithHour of NoTime": lambda: WithHour(baselines.NoTime, L, H, **SIZES),
    "WithHour of ClockAttentionStack": lambda: WithHour(
        ClockAttentionStack, L, H, out_dim=OUT, hidden_dim=3
    ),
    "WithHour of HSTU": lambda: WithHour(baselines.HSTU, L, H, **SIZES),
    "WithHour of TWIN, plain": lambda: WithHour(baselines.TWIN, L, H, backend="reference", **SIZES),
}


def compiled(model):
    """Whether ops compute it: they take no float64, and check ids under their own names."""
    model = getattr(model, "interest", model)
    return getattr(getattr(model, "day", model), "backend", None) == "compiled"


COMPILED = {name for name, build in BUILD.items() if compiled(build())}


def extras(model, call):
    """What the model reads beyond the call."""
    reads, times = model.reads, call["history"].time.shape
    queries = call["candidate"].shape[:-1]
    generator = torch.Generator().manual_seed(2)

    def ids(end, shape):
        return torch.randint(0, end, tuple(shape), generator=generator)

    more = {}
    if "user" in reads:
        more = {"user": ids(USERS, call["query_time"].shape), "item": ids(ITEMS, queries),
                "item_vectors": torch.randn(ITEMS, H, generator=generator)}  # fmt: skip
    elif "behaviour_seconds" in reads:
        more = {
            "behaviour_seconds": ids(10**9, times),
            "query_seconds": ids(10**9, call["query_time"].shape),
        }
    elif "behaviour_category" in reads:
        more = {"candidate_category": ids(3, queries), "behaviour_category": ids(3, times)}
    elif "interests" in reads:
        more = {"behaviour_categories": ids(3, (2, *times)),
                "category_tables": [torch.randn(4, 2, generator=generator) for _ in range(2)]}  # fmt: skip
    return more


def dense(model, table=False, candidates=False):
    rows, ids, time, now, candidate = inputs()
    if candidates:
        candidate = candidate[:, None].expand(-1, C, -1) + torch.arange(C)[:, None]
    history = History.dense(Lookup(rows, ids) if table else rows[ids], time - 86400, LENGTHS)
    call = {"candidate": candidate, "history": history, "query_time": now}
    return call | extras(model, call)


def ragged(model, many=False):
    call = dense(model)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), LENGTHS.cumsum(0)])
    query_offsets = torch.arange(S + 1) * C if many else None
    rows, time = map(flat, call["history"][:2])
    call["history"] = History.ragged(rows, time, offsets, query_offsets)
    if many:
        call["candidate"] = call["candidate"].repeat_interleave(C, 0)
    return call | extras(model, call)


def windows(model, many=False):
    call = ragged(model, many)
    rows, time, _, offsets, query_offsets, *_ = call["history"]
    history = History.windows(rows, time, offsets[:-1], offsets[1:], query_offsets)
    return call | {"history": history}


LAYOUTS = {
    "dense": dense, "table": partial(dense, table=True), "candidates": partial(dense, candidates=True),
    "ragged": ragged, "ragged_many": partial(ragged, many=True),
    "windows": windows, "windows_many": partial(windows, many=True),
}  # fmt: skip
