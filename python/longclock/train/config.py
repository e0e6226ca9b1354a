# SPDX-License-Identifier: Apache-2.0
"""What a run depends on, and the models that can be run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch

from longclock._mlp import DEFAULT_UNIT, MAX_PERIOD
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
    PeriodGraph,
    SIMHard,
    SIMSoft,
    TransActV2,
    WithHour,
)
from longclock.data.stream import DAY
from longclock.nn import ClockAttentionStack, InterestModule, LongTermInterestClock, TimeSimilarity
from longclock.nn.parameter_groups import DENSE_SHARE
from longclock.nn.time_similarity import S_AT_START
from longclock.optim import LazyAdam, RowWiseAdagrad
from longclock.train.adam import Adam
from longclock.types import ELAPSED

ITEM_DIM, CATEGORY_DIM, USER_DIM = 16, 8, 16  # widths of the ranker's embeddings
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": Adam,
    "adagrad": partial(torch.optim.Adagrad, fused=True),
    "sgd": partial(torch.optim.SGD, fused=True),
}
# The arguments of a module by its kind, besides the widths and out_dim.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "": ("k", "period"),
    "searches": ("k", "heads", "head_dim", "clocks", "unit", "backend"),
    "day and week": ("k", "heads", "head_dim", "period", "unit", "backend"),
    "attends": ("heads", "head_dim", "clocks", "unit", "backend"),  # to everything
    "nearest": ("k", "heads", "period", "backend"),
    "latest": ("k", "heads", "head_dim", "period"),
    "categories": ("k", "fields", "category_dim", "period"),
    "graph": ("k", "users", "period"),
}
# Of embeddings besides, and what they multiply the learning rate by: the steps of row-wise Adagrad shrink.
EMBEDDING_OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], float]] = {
    "lazy-adam": (LazyAdam, 1.0),
    "rowwise-adagrad": (RowWiseAdagrad, 10.0),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything but the data and the model that changes a score. All models of a run share it."""

    protocol: str = "daily"  # "daily", "hourly" or "stream"
    batch: int = 32  # events a step
    optimizer: str = "adam"  # "adam", "adagrad" or "sgd"
    embedding_optimizer: str = ""  # of EMBEDDING_OPTIMIZERS; empty: the same
    learning_rate: float = 2e-2  # of embeddings
    dense_share: float = DENSE_SHARE  # of the learning rate, for all other weights
    spread: float = 0.5  # standard deviation of new embeddings
    item_scale: float = 1.0  # root mean square of an item's vector; 0: as learned
    k: int = 100  # behaviours that the search keeps
    heads: int = 4
    head_dim: int = 16
    recent: int = 50  # behaviours in the plain mean that every model sees
    history: int | None = None  # longest window; None: all of it
    history_days: int = 0  # days after which behaviours are forgotten; 0: never
    history_delay: int = 0  # seconds before an event whose behaviours its window does not hold yet
    negatives: int = 4  # for an event without a label
    negatives_from: str = "both"  # "popularity", "own" items of the user, or "both"
    period: int = 86400  # of the clock, seconds
    unit: float = DEFAULT_UNIT  # seconds of one x of s
    outcomes: bool = True  # in a labelled stream the tower also reads how earlier events ended
    item_buckets: int = 0  # rows of the item table that ids are hashed to; 0: a row an item
    s_at_start: float = S_AT_START  # s at difference 0 before anything is learned; it falls to 0
    learn_until: float = 1.0  # share of the stream behind which nothing is learned any more
    search_loss: float = 0.0  # weight of what teaches a search, which then has weights of its own; 0: shared, and not taught
    groups: int = 0  # of users, whose gradients are added up in one order by any number of ranks; 0: of each rank, in any order
    seed: int = 0
    reference: bool = False  # plain PyTorch in place of the compiled ops

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(
                f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}"
            )
        if self.embedding_optimizer not in ("", *EMBEDDING_OPTIMIZERS):
            raise ValueError(
                f"embedding_optimizer must be empty or one of {', '.join(EMBEDDING_OPTIMIZERS)}, got "
                f"{self.embedding_optimizer!r}"
            )


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of the comparison: its name in reports, its interest module, and what is special about it.

    Args:
        title: in tables and figures.
        interest: builds the module.
        kind: the arguments that the module takes, by ``ARGUMENTS``.
        options: arguments of the module besides.
        changes: fields of ``Config`` that are other for this model.
        own_search: the module takes ``own_search``, for ``Config.search_loss``.
        shuffled_times: see :meth:`longclock.data.Histories.with_shuffled_times`.
        counts: width of the kernel of a model that counts in place of learning (:class:`longclock.train.counting.CountingRanker`);
            its interest module does nothing.
    """

    title: str
    interest: Callable[..., InterestModule]
    kind: Literal[
        "searches", "day and week", "attends", "nearest", "latest", "categories", "graph", ""
    ] = ""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    own_search: bool = False
    shuffled_times: bool = False
    counts: float | None = None

    def settings(self, config: Config) -> Config:
        """``config`` with this model's changes."""
        return dataclasses.replace(config, **self.changes)

    def place(self, device: torch.device) -> torch.device:
        """Where the model runs if models run on the device: one that counts, on the CPU."""
        return device if self.counts is None else torch.device("cpu")

    def build(
        self, config: Config, behaviour_dim: int, candidate_dim: int, categories: int, users: int
    ) -> InterestModule:
        """The interest module; ``out_dim`` is the candidate's, so that both can be multiplied."""
        if self.counts is not None:
            return InterestModule()
        values: dict[str, Any] = {
            "k": config.k,
            "period": config.period,
            "clocks": config.period,
            "heads": config.heads,
            "head_dim": config.head_dim,
            "unit": config.unit,
            "backend": "reference" if config.reference else "compiled",
            "fields": max(categories, 1),
            "category_dim": CATEGORY_DIM if categories else ITEM_DIM,
            "users": users,
        }
        sizes = {name: values[name] for name in ARGUMENTS[self.kind]}
        sizes |= {"out_dim": candidate_dim, **self.options}
        if self.own_search and config.search_loss:
            sizes.update(own_search=True)
        module = self.interest(behaviour_dim, candidate_dim, **sizes)
        for part in module.modules():
            if isinstance(part, TimeSimilarity):
                part.w2.data.mul_(config.s_at_start / S_AT_START)
        return module


def _clock(title: str, **options: Any) -> Model:
    """The clock itself, with something changed."""
    return Model(title, LongTermInterestClock, kind="searches", own_search=True, **options)


def _counts(title: str, width: float) -> Model:
    """A model that learns nothing."""
    return Model(title, InterestModule, changes={"learn_until": 0.0}, counts=width)


MODELS = {
    "lic": _clock("LIC"),
    "no-time": Model("no time", NoTime),
    "hour": Model("hour embedding", HourEmbedding),
    "interest-clock": Model("Interest Clock", InterestClock, kind="categories"),
    "interest-clock-naive": Model(
        "Interest Clock, naive", InterestClock, kind="categories", options={"mode": "naive"}
    ),
    "interest-clock-adaptive": Model(
        "Interest Clock, adaptive", InterestClock, kind="categories", options={"mode": "adaptive"}
    ),
    "interest-clock-positives": Model(
        "Interest Clock, positives only",
        InterestClock,
        kind="categories",
        options={"preference": "positives"},
    ),
    "period-graph": Model("period graph", PeriodGraph, kind="graph"),
    "graph": Model(
        "one graph for the whole day", PeriodGraph, kind="graph", options={"periods": 1}
    ),
    "din": Model("DIN", DIN),
    "sim-hard": Model("SIM, hard", SIMHard, kind="searches"),
    "sim-soft": Model("SIM, soft", SIMSoft, kind="searches"),
    "eta": Model("ETA", ETA, kind="searches"),
    "sdim": Model("SDIM", SDIM),
    "twin": Model("TWIN-like", TWIN, kind="searches", own_search=True),
    "twin-hour": Model("TWIN + hour", partial(WithHour, TWIN), kind="searches", own_search=True),
    "full-clock": Model("full clock", FullClock, kind="searches"),
    "lic-stack": Model("LIC, stacked, over everything", ClockAttentionStack, kind="attends"),
    "stca": Model("STCA-like", ClockAttentionStack, kind="attends", options={"clock": False}),
    "transact-v2": Model("TransAct V2", TransActV2, kind="nearest"),
    "twin-v2": Model("TWIN V2", TWINV2, kind="searches"),
    "hstu": Model("HSTU", HSTU, kind="latest"),
    "counts": _counts("counts", math.inf),
    "clock-counts": _counts("counts around this time of day", 1200.0),
    # Controls and variants of the clock.
    "lic-shuffled": _clock("LIC, shuffled times", shuffled_times=True),
    "lic-hour": Model(
        "LIC + hour",
        partial(WithHour, LongTermInterestClock),
        kind="searches",
        own_search=True,
    ),
    "lic-search": Model(
        "LIC, time in the search only", ClockSearch, kind="searches", own_search=True
    ),
    "lic-attention": Model(
        "LIC, time in the attention only", ClockAttention, kind="searches", own_search=True
    ),
    # On a clock of two days, times of one day are as far apart as they are on a line.
    "lic-line": _clock("LIC, without the circle", options={"clocks": 2 * 86400}),
    "lic-week": _clock("LIC, week clock", changes={"period": 7 * 86400}),
    "lic-day-week": Model(
        "LIC, day and week clocks",
        DayAndWeek,
        kind="day and week",
        own_search=True,
        changes={"period": 7 * 86400},
    ),
    # Times of a clock that does not turn within a stream are times.
    "lic-elapsed": _clock(
        "LIC, time elapsed",
        changes={"period": MAX_PERIOD},
        options={"clocks": ELAPSED, "unit": None},
    ),
    "lic-day-elapsed": _clock(
        "LIC, day and time elapsed",
        changes={"period": MAX_PERIOD},
        options={"clocks": (DAY, ELAPSED), "unit": None},
    ),
    "lic-minutes": _clock("LIC, x in minutes", changes={"unit": 60.0}),
    "lic-month": _clock("LIC, histories of 30 days", changes={"history_days": 30}),
    "lic-half-day": _clock("LIC, x from 0 to 1", changes={"unit": 43200.0}),
    "lic-literal": _clock("LIC, scores over sqrt(d)", options={"literal_scale": True}),
    "lic-precomputed": _clock("LIC, precomputed keys", options={"scoring": "precomputed"}),
    "lic-s-low": _clock("LIC, s falls by 1 at start", changes={"s_at_start": 1.0}),
    "lic-s-free": _clock("LIC, s of any form", options={"time_falls": False}),
    "lic-s-per-head": _clock("LIC, an s a head", options={"time_per": "head"}),
    "lic-s-per-stage": _clock(
        "LIC, an s a stage, search taught",
        options={"time_per": "stage", "own_search": True},
        changes={"search_loss": 0.1},
    ),
    "lic-dense-fast": _clock("LIC, one learning rate", changes={"dense_share": 1.0}),
    "lic-unscaled": _clock("LIC, item vectors as learned", changes={"item_scale": 0.0}),
    "lic-adagrad": _clock("LIC, Adagrad", changes={"optimizer": "adagrad"}),
    "lic-sgd": _clock("LIC, SGD", changes={"optimizer": "sgd"}),
    "lic-hashed": _clock("LIC, 1,024 item rows", changes={"item_buckets": 1024}),
    "lic-frozen": _clock("LIC, frozen at 40%", changes={"learn_until": 0.4}),
    "hour-frozen": Model(
        "hour embedding, frozen at 40%", HourEmbedding, changes={"learn_until": 0.4}
    ),
    "lic-k20": _clock("LIC, K = 20", changes={"k": 20}),
    "lic-k50": _clock("LIC, K = 50", changes={"k": 50}),
    "lic-k100": _clock("LIC, K = 100", changes={"k": 100}),
    "lic-k200": _clock("LIC, K = 200", changes={"k": 200}),
}
# What is compared where nothing is named: a model of each kind.
USUAL = ("lic", "no-time", "hour", "twin", "lic-shuffled")

# Settings that suit a data set better than the defaults above.
PRESETS: dict[str, dict[str, Any]] = {
    "nyc": {"k": 20},
    "nycflights": {"k": 300},
    "bikeshare14": {"k": 300},
    "bikeshare14-home": {"k": 300},
    "music": {
        "protocol": "stream",
        "spread": 0.1,
        "history": 10_000,
        "batch": 128,
    },
}
