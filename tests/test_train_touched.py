# SPDX-License-Identifier: Apache-2.0
"""Steps that read only the items and behaviours of their batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from streams import stream
from tolerance import assert_bitwise

from longclock.data import EventStream
from longclock.train.batches import TrainingData
from longclock.train.config import MODELS, Config
from longclock.train.loop import Run, train
from longclock.train.ranker import Inputs

SMALL = Config(batch=16, k=3, heads=2, head_dim=4, recent=5)
MANY = 5000  # items, far more than a batch has behaviours


def spread(events: EventStream, categories: bool = True) -> EventStream:
    """The same events over ids far apart."""
    item = events.item * (MANY // events.items)
    category = {"category": item % 4} if categories else {}
    sizes = dict.fromkeys(category, 4)
    return dataclasses.replace(
        events, item=item, categories=category, category_sizes=sizes, items=0
    )


def run_of(events: EventStream, name: str, config: Config = SMALL) -> tuple[Run, TrainingData]:
    config = MODELS[name].settings(config)
    data = TrainingData.of(events, config, MODELS[name].shuffled_times)
    return Run.start(data, MODELS[name], config), data


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("labels", [False, True], ids=["sampled", "labels"])
def test_a_step_is_that_of_all_items(
    name: str, labels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = spread(stream(events=120, labels=labels))
    # Adam makes a whole step of the rounding in a gradient near zero.
    smooth = dataclasses.replace(SMALL, optimizer="sgd", learning_rate=1e-3)
    config = MODELS[name].settings(smooth)
    scores = []
    for everything in (False, True):
        run, data = run_of(events, name, smooth)
        assert data.touched(data.batch(np.arange(40, 60))) is not None
        if everything:
            monkeypatch.setattr(TrainingData, "touched", lambda self, batch: None)
        train(run, data, config, lambda run, events: None)
        scores.append(run.scores)
    torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["lic", "period-graph", "interest-clock"])
def test_items_without_attributes(name: str) -> None:
    """Whose own rows some models then read as those of attributes."""
    run, data = run_of(spread(stream(events=60), categories=False), name)
    train(run, data, MODELS[name].settings(SMALL), lambda run, events: None)
    assert run.scores.isfinite().all()


@pytest.mark.parametrize("labels", [False, True])
def test_what_is_touched_is_what_the_batch_has(labels: bool) -> None:
    run, data = run_of(spread(stream(labels=labels)), "lic")
    batch = data.batch(np.array([100, 140, 141, 180]))
    inputs, touched = Inputs(run.ranker, batch, data), data.touched(batch)
    assert touched is not None
    assert len(touched.items) == len(touched.items.unique())
    assert_bitwise(touched.items[touched.candidate], batch.item)
    vectors = run.ranker.item_table()
    assert_bitwise(inputs.candidate, vectors[batch.item])
    every = run.ranker.behaviour_table(vectors)
    rows = inputs.history.rows
    starts, ends = inputs.history.starts, inputs.history.ends
    for event, (start, end) in enumerate(zip(starts, ends, strict=True)):
        seen = slice(int(batch.starts[event]), int(batch.ends[event]))
        assert_bitwise(rows.table[rows.ids[start:end]], every[data.behaviour[seen]])
        assert_bitwise(inputs.history.time[start:end], data.behaviour_time[seen])


def test_few_items_are_taken_whole() -> None:
    _, data = run_of(stream(), "lic")
    assert data.touched(data.batch(np.arange(150, 200))) is None


@pytest.mark.parametrize("optimizer", ["lazy-adam", "rowwise-adagrad"])
def test_gradients_are_of_the_rows_that_were_read(optimizer: str) -> None:
    config = dataclasses.replace(SMALL, embedding_optimizer=optimizer)
    events = spread(stream(events=60))
    run, data = run_of(events, "lic", config)
    before = run.ranker.item.weight.detach().clone()
    logits, *_ = run.ranker.with_auxiliary(data.batch(np.arange(40, 50)), data)
    logits.sum().backward()
    for table in (run.ranker.item, run.ranker.user):
        assert table.weight.grad.is_sparse
    run.embedding_optimizer.step()
    moved = (run.ranker.item.weight != before).any(1).nonzero().flatten()
    touched = data.touched(data.batch(np.arange(40, 50)))
    assert len(moved)
    assert set(moved.tolist()) <= set(touched.items.tolist())
