# SPDX-License-Identifier: Apache-2.0
"""What a run depends on, and the models that can be run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import nn

from longclock import reference
from longclock.baselines import (
    DIN,
    ETA,
    SDIM,
    TWIN,
    FullClock,
    HourEmbedding,
    NoTime,
    ReferenceETA,
    ReferenceFullClock,
    ReferenceTWIN,
)
from longclock.nn import LongTermInterestClock


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything but the data and the model that changes a score. All models of a run share it."""

    protocol: str = "daily"  # "daily" or "stream"
    batch: int = 32  # events a step
    learning_rate: float = 1e-2
    time_share: float = 0.1  # of the learning rate, for the parameters of s
    spread: float = 0.5  # standard deviation of new embeddings
    k: int = 20  # behaviours that the search keeps
    heads: int = 4
    head_dim: int = 16
    recent: int = 50  # behaviours in the plain mean that every model sees
    history: int | None = None  # longest window; None: all of it
    negatives: int = 4  # for an event without a label
    period: int = 86400  # of the clock, seconds
    unit: float = 0.0  # seconds of one x of s; 0: half the period, so that x runs 0 to 1
    seed: int = 0
    reference: bool = False  # plain PyTorch in place of the compiled ops

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", self.unit or self.period / 2)


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of the comparison: its name in reports, its interest module, and its data option."""

    title: str
    interest: Callable[..., nn.Module]
    reference: Callable[..., nn.Module] | None = None  # of a model that searches: in plain PyTorch
    shuffled_times: bool = False

    def build(self, config: Config, behaviour_dim: int, candidate_dim: int) -> nn.Module:
        """The interest module; ``out_dim`` is the candidate's, so that both can be multiplied."""
        sizes: dict[str, Any] = {"k": config.k, "out_dim": candidate_dim, "period": config.period}
        interest = self.interest
        if self.reference is not None:
            sizes.update(heads=config.heads, head_dim=config.head_dim, unit=config.unit)
            interest = self.reference if config.reference else interest
        return interest(behaviour_dim, candidate_dim, **sizes)


MODELS = {
    "lic": Model("LIC", LongTermInterestClock, reference.LongTermInterestClock),
    "no-time": Model("no time", NoTime),
    "hour": Model("hour embedding", HourEmbedding),
    "twin": Model("TWIN-like", TWIN, ReferenceTWIN),
    "lic-shuffled": Model(
        "LIC, shuffled times",
        LongTermInterestClock,
        reference.LongTermInterestClock,
        shuffled_times=True,
    ),
    "din": Model("DIN", DIN),
    "eta": Model("ETA", ETA, ReferenceETA),
    "sdim": Model("SDIM", SDIM),
    "full-clock": Model("full clock", FullClock, ReferenceFullClock),
}
# What is compared where nothing is named: a model of each kind.
USUAL = ("lic", "no-time", "hour", "twin", "lic-shuffled")

# Settings that suit a data set better than the defaults above.
PRESETS: dict[str, dict[str, Any]] = {
    "nyc": {},
    "music": {
        "protocol": "stream",
        "learning_rate": 5e-3,
        "spread": 0.1,
        "k": 100,
        "history": 10_000,
        "batch": 128,
    },
}
