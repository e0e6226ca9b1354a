# SPDX-License-Identifier: Apache-2.0
"""The step whose gradient is written out has the bits of the one that autograd takes."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from streams import stream
from test_train_touched import MANY, SMALL, run_of, spread
from tolerance import assert_bitwise

import longclock as lc
from longclock.data import EventStream
from longclock.nn.pooling import last_of
from longclock.train.batches import TrainingData
from longclock.train.clock_step import ClockStep, latest
from longclock.train.config import MODELS, Config
from longclock.train.loop import score
from longclock.train.ranker import Ranker

EVENTS = np.arange(90, 118)
# Models whose interest module the step takes, and settings that change what it computes.
TAKEN = ["lic", "twin", "lic-search", "lic-attention", "lic-week", "lic-elapsed", "lic-day-elapsed", "lic-minutes", "lic-literal", "lic-s-free"]  # fmt: skip
NOT_TAKEN = ["no-time", "twin-hour", "full-clock", "lic-day-week", "lic-precomputed", "lic-s-per-head", "lic-s-per-stage", "sim-hard", "sim-soft", "eta", "twin-v2"]  # fmt: skip
SETTINGS = {
    "usual": {},
    "as learned": {"item_scale": 0.0},
    "other scale": {"item_scale": 0.7},
    "hashed": {"item_buckets": 37},
    "sparse": {"embedding_optimizer": "lazy-adam"},
    "long": {"recent": 1000, "k": 2000},
}


def by_autograd(ranker: Ranker, data: TrainingData, rows: int) -> torch.Tensor:
    """Scores, and gradients of all that learns."""
    batch = data.batch(EVENTS)
    logits, *_ = ranker.with_auxiliary(batch, data)
    loss = F.binary_cross_entropy_with_logits(logits, batch.label)
    if len(logits) < rows:
        loss = loss * (len(logits) / rows)
    loss.backward()
    return logits.detach()


def check(events: EventStream, name: str, config: Config, more: int = 0) -> None:
    """That a step on some events has the same bits both ways."""
    run, data = run_of(events, name, config)
    ranker, batch = run.ranker, data.batch(EVENTS)
    assert isinstance(ranker, Ranker)
    other = copy.deepcopy(ranker)
    rows = len(batch.item) + more
    wanted = by_autograd(other, data, rows)
    step = ClockStep.of(ranker, data)
    assert step is not None
    found = step.learn(ranker, batch, data, rows)
    assert found is not None
    assert not found.requires_grad
    assert_bitwise(found, wanted)
    assert_bitwise(step.scores(ranker, batch, data), wanted)
    for (word, weight), theirs in zip(ranker.named_parameters(), other.parameters(), strict=True):
        assert (weight.grad is None) == (theirs.grad is None), word
        if weight.grad is None:
            continue
        assert weight.grad.is_sparse == theirs.grad.is_sparse, word
        assert weight.grad.is_sparse or weight.grad.is_contiguous(), word
        own, their = (grad.coalesce().to_dense() for grad in (weight.grad, theirs.grad)) if weight.grad.is_sparse else (weight.grad, theirs.grad)  # fmt: skip
        assert_bitwise(own + 0, their + 0)  # -0 is 0
        assert own.any(), word


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("labels", [False, True], ids=["sampled", "labels"])
def test_scores_and_gradients_are_those_of_autograd(name: str, labels: bool) -> None:
    check(spread(stream(events=120, labels=labels)), name, MODELS[name].settings(SMALL))


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("labels", [False, True], ids=["sampled", "labels"])
def test_whatever_the_settings(settings: str, labels: bool) -> None:
    check(spread(stream(events=120, labels=labels)), "lic", dataclasses.replace(SMALL, **SETTINGS[settings]))  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS)
def test_of_all_items_where_these_are_fewer(settings: str) -> None:
    events, config = stream(events=120), dataclasses.replace(SMALL, **SETTINGS[settings])
    _, data = run_of(events, "lic", config)
    assert data.touched(data.batch(EVENTS)) is None
    check(events, "lic", config)


def test_a_part_of_a_step_counts_by_its_candidates() -> None:
    check(spread(stream(events=120)), "lic", SMALL, more=31)


def test_items_without_attributes() -> None:
    check(spread(stream(events=120), categories=False), "lic", SMALL)


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_other_models_take_autograd(name: str) -> None:
    config = MODELS[name].settings(SMALL)
    if name == "lic-s-per-stage":
        assert config.search_loss
    run, data = run_of(spread(stream(events=60)), name, config)
    assert ClockStep.of(run.ranker, data) is None
    assert score(run.ranker, data, np.arange(40, 50)).isfinite().all()


def test_other_devices_and_plain_pytorch_take_autograd() -> None:
    run, data = run_of(spread(stream(events=60)), "lic")
    elsewhere = dataclasses.replace(data, device=torch.device("meta"))
    assert ClockStep.of(run.ranker, elsewhere) is None
    assert ClockStep.of(run.ranker, data) is not None
    plain, data = run_of(spread(stream(events=60)), "lic", dataclasses.replace(SMALL, reference=True))  # fmt: skip
    assert ClockStep.of(plain.ranker, data) is None


def test_labelled_behaviours_of_all_items_take_autograd() -> None:
    run, data = run_of(stream(events=120, labels=True), "lic")
    step, batch = ClockStep.of(run.ranker, data), data.batch(EVENTS)
    assert step is not None
    assert data.touched(batch) is None
    assert step.scores(run.ranker, batch, data) is None
    assert step.learn(run.ranker, batch, data, len(batch.item)) is None


@pytest.mark.parametrize("k", [0, 1, 3, 99])
def test_the_latest_are_the_last(k: int) -> None:
    starts, ends = np.array([[0, 2, 2, 5, 0], [4, 2, 9, 6, 10]])
    index, first = latest(k, starts, ends)
    windows = lc.History.windows(torch.zeros(10, 2), torch.arange(10), torch.from_numpy(starts), torch.from_numpy(ends))  # fmt: skip
    wanted, counts = last_of(k, windows)
    assert_bitwise(index, wanted)
    assert_bitwise(first, counts.cumsum(0) - counts)
    assert [len(part) for part in latest(k, starts[:0], ends[:0])] == [0, 0]


def test_ids_are_far_apart() -> None:
    """What the tests above rest on: a batch has far fewer behaviours than there are items."""
    events = spread(stream(events=120))
    _, data = run_of(events, "lic")
    touched = data.touched(data.batch(EVENTS))
    assert touched is not None
    assert len(touched.position) < MANY / 2
