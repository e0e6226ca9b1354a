# SPDX-License-Identifier: Apache-2.0
"""Every baseline at one small size, and the inputs of a call."""

from __future__ import annotations

from functools import partial

import torch

from longclock import ClockAttentionStack, History, LongTermInterestClock, Lookup
from longclock.baselines import (
    DIN,
    ETA,
    HSTU,
    SDIM,
    TWIN,
    TWINV2,
    ClockAttention,
    ClockSearch,
    DayAndWeek,
    FullClock,
    HourEmbedding,
    InterestClock,
    NoTime,
    SIMHard,
    SIMSoft,
    TransActV2,
    WithHour,
)

S, M, L, H, C, K, N = 3, 9, 6, 5, 2, 4, 11
LENGTHS = torch.tensor([9, 2, 0])


class Categorised(torch.nn.Module):
    """A model that reads categories, here made of what every layout hands over anyway."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.tables = torch.nn.ParameterList([torch.randn(3, 2), torch.randn(5, 2)])

    def forward(self, candidate, history, now, **options):
        time = history.time
        if isinstance(self.model, SIMHard):
            categories = {"candidate_category": (candidate[..., 0] > 0).long(),
                          "behaviour_category": time % 2}  # fmt: skip
        else:
            categories = {"behaviour_categories": torch.stack([time % 3, time % 5]),
                          "category_tables": tuple(self.tables)}  # fmt: skip
        return self.model(candidate, history, now, **categories, **options)


def interest_clock(*sizes, **options):
    return Categorised(InterestClock(*sizes, **options, category_dim=2, fields=2))


def stack(*sizes, k=None, **options):
    """Which reads everything."""
    return ClockAttentionStack(*sizes, **options)


MODELS = {
    "no-time": NoTime,
    "hour": HourEmbedding,
    "twin": partial(TWIN, backend="reference"),
    "eta": partial(ETA, backend="reference"),
    "full-clock": partial(FullClock, backend="reference"),
    "din": DIN,
    "sdim": partial(SDIM, hashes=3, hash_bits=1),
    "sim-hard": lambda *sizes, **options: Categorised(SIMHard(*sizes, **options)),
    "sim-soft": SIMSoft,
    "interest-clock": interest_clock,
    "interest-clock-naive": partial(interest_clock, mode="naive"),
    "interest-clock-adaptive": partial(interest_clock, mode="adaptive"),
    "twin-hour": partial(WithHour, TWIN),
    "lic-hour": partial(WithHour, LongTermInterestClock),
    "lic-search": ClockSearch,
    "lic-attention": ClockAttention,
    "lic-day-week": DayAndWeek,
    "lic-stack": partial(stack, backend="reference"),
    "stca": partial(stack, clock=False),
    "transact-v2": partial(TransActV2, recent=2),
    "twin-v2": partial(TWINV2, cluster_size=2),
    "hstu": HSTU,
}


def inputs():
    """A table of rows, ids, times, query times and candidates, dense."""
    generator = torch.Generator().manual_seed(3)
    table = torch.randn(N, L, generator=generator)
    ids = torch.randint(0, N, (S, M), generator=generator)
    time = torch.randint(0, 86400, (S, M), generator=generator)
    now = torch.randint(0, 86400, (S,), generator=generator)
    return table, ids, time, now, torch.randn(S, H, generator=generator)


def flat(values):
    """The dense rows that count, one sequence after another."""
    return torch.cat([values[s, :length] for s, length in enumerate(LENGTHS.tolist())])


def called(model, **options):
    """Each query alone: candidate, rows, times and its time, and the v and the context that a call of all gives."""
    table, ids, time, now, candidate = inputs()
    history = History.dense(Lookup(table, ids), time, LENGTHS)
    v, context = model(candidate, history, now, return_context=True, **options)
    for s, length in enumerate(LENGTHS.tolist()):
        yield candidate[s], table[ids[s, :length]], time[s, :length], now[s], (v[s], context[s])
