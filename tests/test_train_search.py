# SPDX-License-Identifier: Apache-2.0
"""In the trainer: what teaches a search, how much of the attention it finds, and embeddings with an optimizer of their own."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from streams import stream
from test_train import SMALL, scores_of

from longclock.optim import LazyAdam, RowWiseAdagrad
from longclock.study.plan import Task
from longclock.study.run import run_task
from longclock.train import checkpoint, report, results
from longclock.train.batches import TrainingData
from longclock.train.cli import main
from longclock.train.compare import Options, run_model
from longclock.train.config import MODELS, Config
from longclock.train.loop import EMBEDDING_OPTIMIZERS, Run, chunks, learn, train
from longclock.train.ranker import Inputs
from longclock.train.team import Team

TAUGHT = dataclasses.replace(SMALL, search_loss=0.5)
every_optimizer = pytest.mark.parametrize("optimizer", EMBEDDING_OPTIMIZERS)


def carried(name, config, events=None):
    config = MODELS[name].settings(config)
    data = TrainingData.of(stream() if events is None else events, config)
    run = Run.start(data, MODELS[name], config)
    train(run, data, config, lambda run, events: None)
    return run, data


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("lic", TAUGHT),
        ("sim-soft", TAUGHT),
        *(("lic", dataclasses.replace(TAUGHT, embedding_optimizer=kind)) for kind in EMBEDDING_OPTIMIZERS),
    ],
    ids=["lic", "sim-soft", *EMBEDDING_OPTIMIZERS],
)  # fmt: skip
def test_resumed_is_bitwise_uninterrupted(tmp_path, name, config):
    data = TrainingData.of(stream(), config)
    path = tmp_path / "checkpoints" / f"{name}.safetensors"
    identity = checkpoint.identity(name, data.stream, config)

    class Interrupted(Exception):
        pass

    def stop(run, events):
        checkpoint.save(path, run, identity, data, chunks(data.stream, config))
        if run.chunk == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(Run.start(data, MODELS[name], config), data, config, stop)
    torch.rand(7)  # another state of the generator, of which the draws are
    resumed = run_model(name, data, config, Options(tmp_path, resume=True, quiet=True), 0)
    whole = run_model(name, data, config, Options(tmp_path / "whole", quiet=True), 0)
    assert torch.equal(resumed.scores, whole.scores)
    for one, other in zip(resumed.ranker.parameters(), whole.ranker.parameters(), strict=True):
        assert torch.equal(one, other)
    other = dataclasses.replace(config, search_loss=0.0, embedding_optimizer="")
    wrong = Options(tmp_path, resume=True, quiet=True)
    with pytest.raises(
        ValueError, match=r"by a run with another (embedding_optimizer, )?search_loss"
    ):
        run_model(name, data, other, wrong, 0)


def test_the_loss_moves_what_is_the_searchs_own_and_no_other_weight():
    data = TrainingData.of(stream(), TAUGHT)
    batch = data.batch(chunks(data.stream, TAUGHT)[-1])
    for name, own in (
        ("lic", {"w_s", "t_s"}),
        ("twin", {"w_s", "t_s"}),
        ("lic-search", {"w_s", "t_s"}),
        ("twin-hour", {"interest.w_s", "interest.t_s"}),
        ("lic-day-week", {"day.w_s", "day.t_s", "week.w_s", "week.t_s"}),
        ("sim-soft", {"search_b", "search_q"}),
    ):
        run = Run.start(data, MODELS[name], MODELS[name].settings(TAUGHT))
        logits, _, loss = run.ranker.with_auxiliary(batch, data)
        loss.backward(retain_graph=True)
        given = {key for key, weight in run.ranker.named_parameters() if weight.grad is not None}
        assert given == {f"interest.{key}" for key in own}, name
        assert loss.item() > 0
        run.ranker.zero_grad(set_to_none=True)
        logits.sum().backward()
        trained = {key for key, weight in run.ranker.named_parameters() if weight.grad is not None}
        assert not trained & given, name
        doubled = dataclasses.replace(TAUGHT, search_loss=1.0)
        twice = Run.start(data, MODELS[name], MODELS[name].settings(doubled))
        torch.manual_seed(3)
        first = run.ranker.with_auxiliary(batch, data)[2]
        torch.manual_seed(3)
        assert twice.ranker.with_auxiliary(batch, data)[2].item() == pytest.approx(2 * first.item())
        before = {key: weight.clone() for key, weight in run.ranker.named_parameters()}
        learn(run, data, batch.number.numpy(), 0, Team())
        moved = {key for key, w in run.ranker.named_parameters() if not torch.equal(w, before[key])}
        assert given <= moved, name


@pytest.mark.parametrize("name", ["no-time", "hour", "eta", "sim-hard", "full-clock", "din"])
def test_models_without_such_a_search_are_as_they_were(name):
    assert torch.equal(scores_of(stream(), TAUGHT, name)[0], scores_of(stream(), SMALL, name)[0])


def test_searches_are_shared_and_not_taught_unless_asked():
    assert (Config().search_loss, Config().embedding_optimizer) == (0.0, "")
    run, data = carried("lic", SMALL)
    assert run.ranker.interest.w_s is None
    assert run.optimizers == [run.optimizer]
    batch = data.batch(np.arange(4))
    assert run.ranker.with_auxiliary(batch, data)[2] is None
    taught, _ = carried("lic", TAUGHT)
    assert taught.ranker.interest.w_s.any()


@pytest.mark.parametrize("name", ["lic", "twin", "eta", "sim-hard", "sim-soft", "lic-hour"])
def test_recall_is_that_of_the_last_weights(name, monkeypatch):
    run, data = carried(name, TAUGHT)
    found = results.recall_of_attention(run, data, 60)
    assert found["recall_k"] == 3
    assert results.measure(run, data, 60)["recall_of_attention"] == found["recall_of_attention"]
    shares, best = [], []
    for event in range(60, len(data.stream)):
        if data.histories.lengths[event] <= 3:
            continue
        inputs = Inputs(run.ranker, data.batch(np.array([event])), data)
        index = run.ranker.interest.search(*inputs.call, **inputs.reads)
        with torch.no_grad():
            mass = run.ranker.interest.attention_mass(*inputs.call)
        for row, places in zip(mass, index, strict=True):
            shares.append(float(row[places[places >= 0]].sum()))
            best.append(float(row.sort(descending=True).values[:3].sum()))
    assert 0 < found["recall_of_attention"] < 1
    assert found["recall_of_attention"] == pytest.approx(np.mean(shares), rel=1e-4)
    assert found["best_recall"] == pytest.approx(np.mean(best), rel=1e-4)
    assert found["best_recall"] >= found["recall_of_attention"]
    asked = []
    monkeypatch.setattr(results, "RECALLED", 20)
    monkeypatch.setattr(results, "RECALLED_AT_ONCE", 8)
    whole = type(run.ranker.interest).search
    monkeypatch.setattr(type(run.ranker.interest), "search", lambda self, *call, **reads: asked.append(len(call[2])) or whole(self, *call, **reads))  # fmt: skip
    results.recall_of_attention(run, data, 60)
    assert sum(asked) == 20  # it does not grow with the stream
    assert max(asked) <= 8


def test_recall_is_left_out_where_it_says_nothing():
    for name in ("no-time", "full-clock", "lic-day-week", "din", "counts"):
        run, data = carried(name, SMALL)
        assert results.recall_of_attention(run, data, 60) == dict.fromkeys(results.RECALL)  # fmt: skip
    run, data = carried("lic", dataclasses.replace(SMALL, k=500))  # no history is longer
    assert results.measure(run, data, 60)["recall_of_attention"] is None
    line = run_task(Task("daily", "lic", 0, 2e-2), stream(), SMALL, 0.4)
    assert 0 < line["recall_of_attention"] < 1


@every_optimizer
def test_embeddings_that_no_batch_reads_are_not_moved(optimizer):
    """Adam moves every row by what is left of its moments; these stop when a row's gradients do."""
    config = dataclasses.replace(SMALL, embedding_optimizer=optimizer)
    data = TrainingData.of(stream(items=40), config)
    run = Run.start(data, MODELS["lic"], config)
    kind, factor = EMBEDDING_OPTIMIZERS[optimizer]
    assert type(run.embedding_optimizer) is kind
    assert [group["lr"] for group in run.embedding_optimizer.param_groups] == [factor * 2e-2]
    assert [group["lr"] for group in run.optimizer.param_groups] == [pytest.approx(2e-3)]
    weights = [w for one in run.optimizers for group in one.param_groups for w in group["params"]]
    assert {id(w) for w in weights} == {id(w) for w in run.ranker.parameters() if w.requires_grad}
    assert len(weights) == len({id(w) for w in weights})
    for events in (np.arange(100, 110), np.arange(20, 30)):
        batch = data.batch(events)
        before = {key: w.detach().clone() for key, w in run.ranker.named_parameters()}
        learn(run, data, batch.number.numpy(), 0, Team())
        windows = [data.histories.item[s:e] for s, e in zip(batch.starts, batch.ends, strict=True)]
        read = {
            "user.weight": set(batch.user.tolist()),
            "item.weight": set(batch.item.tolist()) | set(np.concatenate(windows).tolist()),
        }
        for key, rows in read.items():
            weight = dict(run.ranker.named_parameters())[key]
            moved = set((weight != before[key]).any(1).nonzero().flatten().tolist())
            assert moved <= rows
            assert len(moved) > len(rows) / 2
        assert not torch.equal(run.ranker.interest.w_q, before["interest.w_q"])


def test_a_comparison_with_both(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--max-events", "400", "--k", "5", "--models", "lic,twin,no-time", "--quiet", "--out", str(out)]  # fmt: skip
    more = ["--search-loss", "0.25", "--embedding-optimizer", "rowwise-adagrad"]
    assert main([*arguments, *more]) == 0
    found = json.loads((out / "results.json").read_text())
    assert (found["config"]["search_loss"], found["config"]["embedding_optimizer"]) == (0.25, "rowwise-adagrad")  # fmt: skip
    assert "recall@K" in capsys.readouterr().out
    head, *rows = report.table(found)
    cells = {row[0]: row[head.index("recall@K")] for row in rows}
    assert cells["LIC"] == "{recall_of_attention:.4f} of {best_recall:.4f} @5".format(
        **found["models"]["lic"]
    )
    assert cells["no time"] == "n/a"
    assert (out / "recall.png").exists()
    assert "recall@K" in (out / "report.html").read_text()
    assert main([*arguments[:-1], str(tmp_path / "adam"), "--embedding-optimizer", "adam"]) == 0
    plain = json.loads((tmp_path / "adam" / "results.json").read_text())
    assert plain["config"]["embedding_optimizer"] == ""
    for model in plain["models"].values():
        model["recall_of_attention"] = None
    assert "recall@K" not in report.table(plain)[0]  # no model has it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--search-loss", "-1"], "--search-loss must be a number of at least 0, got -1"),
        (["--search-loss", "nan"], "--search-loss must be a number of at least 0, got nan"),
        (["--embedding-optimizer", "sgd"], "invalid choice: 'sgd' (choose from"),
    ],
)
def test_mistakes_get_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unknown_optimizer_is_named():
    with pytest.raises(
        ValueError, match=r"embedding_optimizer must be empty or one of lazy-adam, .* got 'sgd'"
    ):
        Config(embedding_optimizer="sgd")
    assert {kind for kind, _ in EMBEDDING_OPTIMIZERS.values()} == {LazyAdam, RowWiseAdagrad}
