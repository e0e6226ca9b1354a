# SPDX-License-Identifier: Apache-2.0
"""Embeddings learn at one rate, everything else at a share of it."""

from __future__ import annotations

import pytest
import torch
from streams import stream
from test_train import SMALL
from torch import nn

import longclock as lc
from longclock.train.batches import TrainingData
from longclock.train.config import MODELS, Config
from longclock.train.loop import Run


class Ranker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.item, self.bag = nn.Embedding(9, 4), nn.EmbeddingBag(5, 4)
        self.clock = lc.LongTermInterestClock(4, 4, 2, 2, 3, 5)
        self.positions = nn.Parameter(torch.zeros(3, 4))
        self.tower = nn.Linear(5, 1)


def ids(weights) -> set[int]:
    return {id(weight) for weight in weights}


def test_embeddings_and_the_rest() -> None:
    ranker = Ranker()
    tables, dense = lc.parameter_groups(ranker, 0.5)
    assert (tables["lr"], dense["lr"]) == (0.5, pytest.approx(0.05))
    assert set(tables) == set(dense) == {"params", "lr"}
    assert ids(tables["params"]) == ids([ranker.item.weight, ranker.bag.weight])
    assert ids(dense["params"]) == ids(ranker.parameters()) - ids(tables["params"])
    assert id(ranker.positions) in ids(dense["params"])
    tables, dense = lc.parameter_groups(ranker, 2, dense_share=3)
    assert (tables["lr"], dense["lr"]) == (2, 6)


def test_other_weights_may_count_as_embeddings() -> None:
    ranker = Ranker()
    tables, dense = lc.parameter_groups(ranker, 0.5, embeddings=iter([ranker.positions]))
    expected = ids([ranker.item.weight, ranker.bag.weight, ranker.positions])
    assert ids(tables["params"]) == expected
    assert ids(dense["params"]) == ids(ranker.parameters()) - expected


def test_every_trainable_weight_is_in_exactly_one_group() -> None:
    ranker = Ranker()
    ranker.bag.weight.requires_grad_(False)
    ranker.tower.bias.requires_grad_(False)
    ranker.same = ranker.item  # a weight of two names
    grouped = [id(w) for group in lc.parameter_groups(ranker, 0.5) for w in group["params"]]
    trainable = [id(w) for w in ranker.parameters() if w.requires_grad]
    assert sorted(grouped) == sorted(trainable)
    assert id(ranker.bag.weight) not in grouped
    assert id(ranker.tower.bias) not in grouped


@pytest.mark.parametrize("model", [name for name in MODELS if MODELS[name].counts is None])
def test_every_weight_of_the_trainers_models_is_learned_once(model) -> None:
    settings = MODELS[model].settings(SMALL)
    run = Run.start(TrainingData.of(stream(events=20), settings), MODELS[model], settings)
    grouped = [id(w) for group in run.optimizer.param_groups for w in group["params"]]
    assert sorted(grouped) == sorted(id(w) for w in run.ranker.parameters() if w.requires_grad)


def test_a_group_without_weights_is_left_out() -> None:
    (dense,) = lc.parameter_groups(nn.Linear(2, 1), 0.5)
    assert dense["lr"] == pytest.approx(0.05)
    (tables,) = lc.parameter_groups(nn.Embedding(2, 1), 0.5)
    assert tables["lr"] == 0.5
    assert lc.parameter_groups(nn.ReLU(), 0.5) == []
    assert lc.parameter_groups(nn.Linear(2, 1).requires_grad_(False), 0.5) == []


@pytest.mark.parametrize("share", [None, 0.25])
@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_the_clocks_groups_are_the_functions(backend, share) -> None:
    clock = lc.LongTermInterestClock(4, 3, backend=backend)
    options = {} if share is None else {"dense_share": share}
    (own,) = clock.parameter_groups(0.5, **options)
    (expected,) = lc.parameter_groups(clock, 0.5, **options)
    assert own["lr"] == expected["lr"] == pytest.approx(0.5 * (share or 0.1))
    assert [id(weight) for weight in own["params"]] == [id(w) for w in expected["params"]]
    assert ids(own["params"]) == ids(clock.parameters())


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.Adagrad, torch.optim.SGD])
def test_an_optimizer_takes_the_groups(optimizer) -> None:
    ranker = Ranker()
    rates = {id(w): g["lr"] for g in lc.parameter_groups(ranker, 0.5) for w in g["params"]}
    step = optimizer(lc.parameter_groups(ranker, 0.5))
    before = {name: weight.detach().clone() for name, weight in ranker.named_parameters()}
    for weight in ranker.parameters():
        weight.grad = torch.ones_like(weight)
    step.step()
    for name, weight in ranker.named_parameters():  # the first step of all three is the rate itself
        torch.testing.assert_close(before[name] - weight, torch.full_like(weight, rates[id(weight)]))  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": [nn.Linear(1, 1)]}, "model must be a module, got list"),
        ({"model": None}, "model must be a module, got NoneType"),
        ({"lr": float("nan")}, "lr must be positive, got nan"),
        ({"lr": float("inf")}, "lr must be positive, got inf"),
        ({"lr": 0}, "lr must be positive, got 0"),
        ({"lr": -1e-3}, "lr must be positive, got -0.001"),
        ({"lr": True}, "lr must be a number, got True"),
        ({"lr": "0.1"}, "lr must be a number, got '0.1'"),
        ({"lr": None}, "lr must be a number, got None"),
        ({"dense_share": 0.0}, "dense_share must be positive, got 0.0"),
        ({"dense_share": float("nan")}, "dense_share must be positive, got nan"),
        ({"dense_share": False}, "dense_share must be a number, got False"),
    ],
)
def test_what_is_wrong_is_named(arguments, message) -> None:
    with pytest.raises(ValueError, match=f"^parameter_groups: {message}$"):
        lc.parameter_groups(**{"model": nn.Linear(1, 1), "lr": 0.1, **arguments})
    if "model" not in arguments:
        with pytest.raises(ValueError, match=f"{message}$"):
            lc.LongTermInterestClock(4, 3).parameter_groups(**{"lr": 0.1, **arguments})


def test_every_table_of_ids_in_the_rivals_counts_as_an_embedding() -> None:
    """A table that is a bare parameter would learn at a tenth of the rate: a rival held back."""
    for name, model in MODELS.items():
        module = model.build(Config(), 24, 24, categories=1, users=997)
        tables = [w for w in module.parameters() if w.requires_grad and 997 in w.shape]
        own, *_ = lc.parameter_groups(nn.ModuleList([module, nn.Embedding(1, 1)]), lr=1.0)
        assert {id(w) for w in tables} <= {id(w) for w in own["params"]}, name
