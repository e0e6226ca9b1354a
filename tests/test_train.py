# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from streams import stream

from longclock.train import checkpoint, loop, results
from longclock.train.batches import TrainingData
from longclock.train.compare import Options, run_model
from longclock.train.config import MODELS, Config
from longclock.train.loop import Run, chunks, score, train

SMALL = Config(batch=16, k=3, heads=2, head_dim=4, recent=5)
PROTOCOLS = ("daily", "hourly", "stream")
every_model = pytest.mark.parametrize("name", MODELS)
# What a protocol does is the loop's and not the module's: one of a kind meets all of them, every other model one.
OF_A_KIND = ("lic", "interest-clock", "period-graph", "transact-v2", "lic-stack", "counts")


def some_protocols(shift: int = 0) -> list[tuple[str, str]]:
    """Every model with one protocol, those of a kind with all."""
    return [
        (name, protocol)
        for number, name in enumerate(MODELS)
        for place, protocol in enumerate(PROTOCOLS)
        if name in OF_A_KIND or place == (number + shift) % len(PROTOCOLS)
    ]


def scores_of(events, config=SMALL, name="lic"):
    config = MODELS[name].settings(config)
    data = TrainingData.of(events, config, MODELS[name].shuffled_times)
    run = Run.start(data, MODELS[name], config)
    train(run, data, config, lambda run, events: None)
    return run.scores, data


@pytest.mark.parametrize(
    ("name", "protocol", "labels"),
    [
        pytest.param(*way, labels, id="-".join([*way, "labels" if labels else "sampled"]))
        for labels in (False, True)
        for way in some_protocols(shift=labels)
    ],
)
def test_the_future_changes_no_score(name, protocol, labels):
    """Altering every event after a cut leaves all scores up to it bitwise as they were."""
    config = dataclasses.replace(SMALL, protocol=protocol)
    events = stream(labels=labels)
    cut = 140
    rng = np.random.default_rng(5)
    columns = {}
    for column in ("user", "item"):
        columns[column] = getattr(events, column).copy()
        columns[column][cut:] = rng.permutation(columns[column][cut:])
    time = events.time.copy()
    time[cut:] += rng.integers(0, 86400, len(time) - cut)
    columns["time"] = time
    if labels:
        columns["label"] = np.append(events.label[:cut], 1 - events.label[cut:])
    category = {
        "category": np.append(events.categories["category"][:cut], columns["item"][cut:] % 4)
    }
    altered = dataclasses.replace(events, categories=category, **columns)

    before, data = scores_of(events, config, name)
    after, _ = scores_of(altered, config, name)
    # Within the cut's own chunk later events are not scored yet, but share its batch: rows up to the cut.
    rows = data.candidates.first_row[cut]
    assert torch.equal(before[:rows], after[:rows])
    assert not torch.equal(before[rows:], after[rows : len(before)])


@pytest.mark.parametrize(("name", "protocol"), some_protocols(shift=2))
def test_resumed_is_bitwise_uninterrupted(tmp_path, name, protocol):
    config = MODELS[name].settings(dataclasses.replace(SMALL, protocol=protocol))
    data = TrainingData.of(stream(), config, MODELS[name].shuffled_times)
    path = tmp_path / "checkpoints" / f"{name}.safetensors"
    identity = checkpoint.identity(name, data.stream, config)

    class Interrupted(Exception):
        pass

    def stop(run, events):
        if run.chunk == 3:
            checkpoint.save(path, run, identity, data, chunks(data.stream, config))
        if run.chunk == 5:  # what came after the checkpoint is lost
            raise Interrupted

    with pytest.raises(Interrupted):
        train(Run.start(data, MODELS[name], config), data, config, stop)
    torch.rand(7)  # another state of the generator
    resumed = run_model(name, data, config, Options(tmp_path, resume=True, quiet=True), 0)
    whole = run_model(name, data, config, Options(tmp_path / "whole", quiet=True), 0)
    assert torch.equal(resumed.scores, whole.scores)
    assert not whole.scores.isnan().any()
    for one, other in zip(resumed.ranker.parameters(), whole.ranker.parameters(), strict=True):
        assert torch.equal(one, other)
    again = run_model(name, data, config, Options(tmp_path, resume=True, quiet=True), 0)
    assert torch.equal(again.scores, whole.scores)  # finished: nothing left to do


def test_checkpoint_of_another_run_is_refused(tmp_path):
    data = TrainingData.of(stream(events=60), SMALL)
    options = Options(tmp_path, resume=True, quiet=True)
    run_model("no-time", data, SMALL, options, 0)
    other = dataclasses.replace(SMALL, seed=1, learning_rate=1.0)
    with pytest.raises(ValueError, match="by a run with another learning_rate, seed: resume"):
        run_model("no-time", data, other, options, 0)
    other_data = TrainingData.of(stream(events=60, seed=1), SMALL)
    with pytest.raises(ValueError, match="by a run with another events"):
        run_model("no-time", other_data, SMALL, options, 0)


def test_chunks_of_every_protocol():
    events = stream()
    days = chunks(events, dataclasses.replace(SMALL, protocol="daily"))
    assert [len(set(events.day()[part])) for part in days] == [1] * 6
    batches = chunks(events, dataclasses.replace(SMALL, protocol="stream"))
    assert [len(part) for part in batches] == [16] * 15
    hours = chunks(events, dataclasses.replace(SMALL, protocol="hourly"))
    assert len(hours) == len(np.unique(events.order_time // 3600))
    assert all(len(set(events.order_time[part] // 3600)) == 1 for part in hours)
    for parts in (days, hours, batches):
        np.testing.assert_array_equal(np.concatenate(parts), np.arange(len(events)))
    with pytest.raises(ValueError, match="must be one of daily, hourly, stream, got 'weekly'"):
        chunks(events, dataclasses.replace(SMALL, protocol="weekly"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_chunk_is_scored_before_it_is_learned_from(protocol):
    config = dataclasses.replace(SMALL, protocol=protocol)
    data = TrainingData.of(stream(), config)
    first, second = chunks(data.stream, config)[:2]
    fresh = Run.start(data, MODELS["lic"], config)
    scores, _ = scores_of(stream(), config)
    expected = score(fresh.ranker, data, first)
    torch.testing.assert_close(scores[data.candidates.rows(first)], expected)

    one_chunk_later = []

    def keep(run, events):
        if run.chunk == 1:
            one_chunk_later.append(score(run.ranker, data, second))

    train(Run.start(data, MODELS["lic"], config), data, config, keep)
    torch.testing.assert_close(scores[data.candidates.rows(second)], one_chunk_later[0])


def test_every_event_is_learned_from_once():
    seen = []
    for protocol in ("daily", "stream"):
        config = dataclasses.replace(SMALL, protocol=protocol)
        data = TrainingData.of(stream(), config)
        run = Run.start(data, MODELS["no-time"], config)
        run.optimizer.register_step_post_hook(lambda *_: seen.append(protocol))  # noqa: B023
        train(run, data, config, lambda run, events: None)
    days = [len(part) for part in chunks(stream(), SMALL)]
    assert seen.count("daily") == sum(-(-day // 16) for day in days)
    assert seen.count("stream") == 15


@pytest.mark.parametrize(
    ("events", "sizes"), [(33, [17, 16]), (32, [32]), (1, [1]), (65, [22, 22, 21]), (64, [32, 32])]
)
def test_a_day_is_learned_in_equal_batches(monkeypatch, events, sizes):
    """33 events make no batch of one, whose gradient would be nothing but noise."""
    config = dataclasses.replace(SMALL, batch=32)
    data = TrainingData.of(stream(events=events, days=1), config)
    batches = []
    monkeypatch.setattr(loop, "learn", lambda run, data, batch, *how: batches.append(batch))
    train(Run.start(data, MODELS["no-time"], config), data, config, lambda run, events: None)
    assert [len(batch) for batch in batches] == sizes
    assert sorted(np.concatenate(batches).tolist()) == list(range(events))


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("buckets", [0, 7])
def test_item_vectors_have_one_size(scale, buckets):
    config = dataclasses.replace(SMALL, item_scale=scale, item_buckets=buckets)
    data = TrainingData.of(stream(), config)
    ranker = Run.start(data, MODELS["lic"], config).ranker
    with torch.no_grad():
        ranker.item.weight *= torch.logspace(-1, 2, len(ranker.item.weight))[:, None]
    table = ranker.item_table()
    rms = table.square().mean(1).sqrt()
    torch.testing.assert_close(rms, torch.full_like(rms, scale), rtol=1e-4, atol=1e-5)
    ranker.item_scale = 0.0
    learned = ranker.item_table()
    assert learned.square().mean(1).sqrt().std() > 0.1
    size = learned.square().mean(1, keepdim=True).sqrt()
    torch.testing.assert_close(table, learned / size * scale, rtol=1e-4, atol=1e-5)


def test_item_vectors_as_learned():
    settings = MODELS["lic-unscaled"].settings(SMALL)
    assert (SMALL.item_scale, settings.item_scale) == (1.0, 0.0)
    data = TrainingData.of(stream(), settings)
    ranker = Run.start(data, MODELS["lic-unscaled"], settings).ranker
    category = ranker.category[0](torch.from_numpy(data.stream.item_categories()["category"]))
    assert torch.equal(ranker.item_table(), torch.cat([ranker.item.weight, category], 1))


def test_variants_of_the_clock_change_what_they_say():
    data = TrainingData.of(stream(events=40), SMALL)

    def started(name):
        return Run.start(data, MODELS[name], MODELS[name].settings(SMALL))

    def falls(name):
        return results.s_fall(started(name))

    assert (falls("lic"), falls("lic-s-low")) == (pytest.approx(8, abs=1e-4), pytest.approx(1, abs=1e-4))  # fmt: skip
    assert started("lic").ranker.interest.time.falls == (True,)
    assert started("lic-s-free").ranker.interest.time.falls == (False,)
    assert {group["lr"] for group in started("lic-dense-fast").optimizer.param_groups} == {2e-2}
    assert not {"lic-s-flat", "lic-s-steep", "lic-s-fast"} & set(MODELS)


def test_seed_decides_everything():
    labelled = stream(labels=True)  # the same rows, whatever the seed
    again = scores_of(labelled)[0]
    assert torch.equal(scores_of(labelled)[0], again)
    assert not torch.equal(scores_of(labelled, dataclasses.replace(SMALL, seed=1))[0], again)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_reference_and_compiled_ops_agree(seed):
    """Adam makes of a gradient that is rounding alone a step as of any other: rounding grows from step to step."""
    events = stream(events=64, seed=seed)
    compiled, _ = scores_of(events)
    reference, _ = scores_of(events, dataclasses.replace(SMALL, reference=True))
    torch.testing.assert_close(compiled, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reference", [False, True])
@every_model
def test_interest_modules_can_be_copied_and_pickled(name, reference):
    module = MODELS[name].build(
        dataclasses.replace(SMALL, reference=reference), 26, 24, categories=1, users=6
    )
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(copied) is type(module)
        for one, other in zip(copied.parameters(), module.parameters(), strict=True):
            assert torch.equal(one, other)


def test_x_is_in_hours_and_dense_weights_have_their_own_rate():
    assert Config().unit == 3600
    data = TrainingData.of(stream(events=40), SMALL)
    run = Run.start(data, MODELS["lic"], SMALL)
    assert run.ranker.interest.time.units == (3600,)
    for name in ("lic", "twin", "hour"):
        run = Run.start(data, MODELS[name], SMALL)
        tables, dense = run.optimizer.param_groups
        assert (tables["lr"], dense["lr"]) == (2e-2, pytest.approx(2e-3))
        named = dict(run.ranker.named_parameters())
        of_tables = {
            name
            for name in named
            if name.startswith(("user.", "item.", "category.", "interest.hour."))
        }
        assert {id(weight) for weight in tables["params"]} == {id(named[n]) for n in of_tables}
        learned = {id(w) for n, w in named.items() if n not in of_tables and w.requires_grad}
        assert {id(weight) for weight in dense["params"]} == learned
    config = dataclasses.replace(SMALL, learning_rate=1e-2, dense_share=1.0)
    groups = Run.start(data, MODELS["lic"], config).optimizer.param_groups
    assert {group["lr"] for group in groups} == {1e-2}


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize(
    "name", ["lic", "no-time", "interest-clock", "sim-hard", "sim-soft", "period-graph", "twin-hour", "lic-stack", "stca",
             "transact-v2", "twin-v2", "hstu"],
)  # fmt: skip
def test_candidates_of_an_event_share_its_window(name, labels):
    data = TrainingData.of(stream(events=60, labels=labels), SMALL)
    events = np.array([50, 3, 41, 42])
    batch = data.batch(events)
    counts = batch.query_offsets.diff()
    assert counts.tolist() == ([1] * 4 if labels else [5, 1, 5, 5])  # few items have occurred at 3
    assert torch.equal(batch.event, torch.arange(4).repeat_interleave(counts))
    run, seen = Run.start(data, MODELS[name], SMALL), []
    run.ranker.interest.register_forward_pre_hook(lambda module, args: seen.append(args[1:]))
    together = run.ranker.with_auxiliary(batch, data)
    ((history, time),) = seen
    assert [len(bound) for bound in (history.starts, history.ends, time)] == [4] * 3
    assert history.query_offsets is batch.query_offsets
    alone = [run.ranker.with_auxiliary(data.batch(events[i : i + 1]), data) for i in range(4)]
    for found, each in zip(together, zip(*alone, strict=True), strict=True):
        assert (found is None) == (each[0] is None)
        if found is not None:
            torch.testing.assert_close(found, torch.cat(each))


def test_interest_of_a_day_sees_the_whole_last_moment():
    events = stream(events=60)
    last = np.flatnonzero(events.user == np.bincount(events.user).argmax())[-3:]
    order_time = events.order_time.copy()
    order_time[last[0] :] = order_time[-1]
    data = TrainingData.of(dataclasses.replace(events, order_time=order_time), SMALL)
    run = Run.start(data, MODELS["lic"], SMALL)
    seen = []

    def look(module, args, kwargs):
        _, history, _ = args
        seen.extend((history.ends - history.starts).tolist())

    run.ranker.interest.register_forward_pre_hook(look, with_kwargs=True)
    found = results.interest_over_a_day(run, data)
    assert set(seen) == {found["events"]}


def test_nothing_is_learned_behind_the_share():
    events = stream(events=200)
    config = dataclasses.replace(SMALL, protocol="stream")
    whole, data = scores_of(events, config)
    frozen, _ = scores_of(events, dataclasses.replace(config, learn_until=0.4))
    first = data.candidates.event < 80 + config.batch
    assert torch.equal(frozen[first], whole[first])
    assert not torch.equal(frozen, whole)
    run = Run.start(data, MODELS["lic"], config)
    train(run, data, dataclasses.replace(config, learn_until=0.4), lambda run, events: None)
    assert torch.equal(
        score(run.ranker, data, np.arange(96, 200)), run.scores[data.candidates.first_row[96] :]
    )


@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "sgd"])
def test_optimizers_and_hashed_items_learn(optimizer):
    events = stream(events=200)
    config = dataclasses.replace(SMALL, optimizer=optimizer, learning_rate=0.05, item_buckets=7)
    data = TrainingData.of(events, config)
    run = Run.start(data, MODELS["lic"], config)
    before = run.ranker.item.weight.clone()
    assert before.shape == (7, 16)
    assert run.ranker.item_table().shape[0] == events.items
    unscaled = dataclasses.replace(config, item_scale=0.0)  # the rows as they are
    table = Run.start(data, MODELS["lic"], unscaled).ranker.item_table()
    assert table.shape[0] == events.items
    assert len(table[:, :16].unique(dim=0)) == len(run.ranker.buckets.unique())
    train(run, data, config, lambda run, events: None)
    assert run.scores.isfinite().all()
    assert not torch.equal(run.ranker.item.weight, before)
    with pytest.raises(ValueError, match="optimizer must be one of adam, adagrad, sgd, got 'lion'"):
        Config(optimizer="lion")


def test_how_earlier_events_ended_is_read_where_labels_are_real():
    events = stream(labels=True)
    with_outcomes, _ = scores_of(events)
    without, _ = scores_of(events, dataclasses.replace(SMALL, outcomes=False))
    assert not torch.equal(with_outcomes, without)


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0])
def test_s_at_start(scale):
    config = dataclasses.replace(SMALL, s_at_start=scale)
    lic = MODELS["lic"].build(config, 26, 24, categories=1, users=6)
    found = lic.time(torch.tensor([0, 43_200]))
    torch.testing.assert_close(found, torch.tensor([scale, 0.0]), atol=1e-6, rtol=1e-6)
