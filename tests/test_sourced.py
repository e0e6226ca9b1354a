# SPDX-License-Identifier: Apache-2.0
"""A run over a source is that over the same events in memory, however the source is cut."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from sourced import MANY, SMALL, events, memory_of, run_in_memory, run_over, source_of, table_of

from longclock.data.sources import ArrowSource, Events
from longclock.data.sources.source import Read
from longclock.train import results, sourced, tables
from longclock.train.batches import TrainingData
from longclock.train.config import MODELS, USUAL
from longclock.train.loop import Run
from longclock.train.memory import Bounds
from longclock.train.ranker import Ranker
from longclock.train.source_arguments import check_possible, possible
from longclock.train.sourced import SourcedRun

POSSIBLE = [name for name in MODELS if possible(name)]
SETTINGS = [
    {},
    {"protocol": "hourly"},
    {"protocol": "stream"},
    {"protocol": "stream", "history": 7},
    {"protocol": "stream", "history_delay": 9000},
    {"protocol": "stream", "history_days": 2, "negatives_from": "popularity"},
    {"protocol": "stream", "negatives_from": "own", "embedding_optimizer": "lazy-adam"},
    {"protocol": "stream", "embedding_optimizer": "rowwise-adagrad", "search_loss": 0.1},
    {"protocol": "stream", "groups": 4},
]


def same_run(over_source: SourcedRun, in_memory: Run) -> None:
    expected = in_memory.ranker.state_dict()
    for name, weight in over_source.run.ranker.state_dict().items():
        assert torch.equal(weight, expected[name]), name


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
@pytest.mark.parametrize("labels", [False, True], ids=["sampled", "labels"])
def test_scores_and_weights_are_those_of_a_run_in_memory(
    changes: dict[str, Any], labels: bool
) -> None:
    config, made = dataclasses.replace(SMALL, **changes), events(labels)
    if config.history == 7 or config.history_days:
        # What is kept of a user's past is all that their own negatives and outcomes know of it.
        config = dataclasses.replace(config, negatives_from="popularity", outcomes=False)
    expected, data = run_in_memory(made, config)
    assert data.touched(data.batch(np.arange(200, 216))) is not None  # steps are the same in both
    found, scores = run_over(source_of(made), config)
    assert torch.equal(scores, expected.scores)
    same_run(found, expected)
    assert found.memory.trained == len(made)


@pytest.mark.parametrize("name", POSSIBLE)
def test_every_model_that_is_possible(name: str) -> None:
    config, made = dataclasses.replace(SMALL, protocol="stream"), events(labels=True)
    expected, _ = run_in_memory(made, config, name)
    found, scores = run_over(source_of(made), config, name=name)
    assert torch.equal(scores, expected.scores)
    same_run(found, expected)


@pytest.mark.parametrize("bounds", [Bounds(), Bounds(events=1), Bounds(events=100, rows=50), Bounds(rows=1)], ids=str)  # fmt: skip
@pytest.mark.parametrize("protocol", ["daily", "stream"])
def test_how_events_come_changes_nothing(bounds: Bounds, protocol: str) -> None:
    config, made = dataclasses.replace(SMALL, protocol=protocol), events()
    expected, _ = run_in_memory(made, config)
    for rows in (1, 240):
        found, scores = run_over(source_of(made, rows), config, bounds)
        assert torch.equal(scores, expected.scores)
        same_run(found, expected)


def test_events_of_one_moment_do_not_see_each_other() -> None:
    """Also where the moment lies in several excerpts and batches."""
    made = events()
    order_time = made.order_time.copy()
    order_time[90:170] = order_time[90]
    made = dataclasses.replace(made, order_time=order_time)
    for labels in (False, True):
        label = made.item % 2 if labels else None
        config, both = (
            dataclasses.replace(SMALL, protocol="stream"),
            dataclasses.replace(made, label=label),
        )
        expected, data = run_in_memory(both, config)
        assert (
            data.histories.ends[169]
            == data.histories.starts[169] + (made.user[:90] == made.user[169]).sum()
        )
        _, scores = run_over(source_of(both), config)
        assert torch.equal(scores, expected.scores)


def test_tables_grow_with_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables that begin with two rows end as those that have all rows from the beginning."""
    config, made = dataclasses.replace(SMALL, protocol="stream"), events(items=200)
    monkeypatch.setattr(tables, "LEAST_ROWS", 2)
    found, scores = run_over(source_of(made), config)
    assert isinstance(found.run.ranker, Ranker)
    sizes = [table.num_embeddings for table in (found.run.ranker.user, found.run.ranker.item)]
    assert sizes == [8, 1 << int(made.item.max()).bit_length()]

    # The same, but that weights besides those of tables are drawn behind smaller tables.
    small = SourcedRun.start(MODELS["lic"], config, memory_of(config, MANY), found.figures).run
    dense = {
        key: x
        for key, x in small.ranker.state_dict().items()
        if key.split(".")[0] not in ("user", "item", "category")
    }
    begun = Run.start

    def start(data: TrainingData, *rest: Any) -> Run:
        run = begun(data, *rest)
        run.ranker.load_state_dict(dense, strict=False)
        return run

    monkeypatch.setattr(Run, "start", start)
    expected, _ = run_in_memory(made, config)
    torch.testing.assert_close(scores, expected.scores, rtol=1e-5, atol=1e-6)


def test_figures_are_those_of_a_run_in_memory() -> None:
    for labels in (False, True):
        config, made = dataclasses.replace(SMALL, protocol="stream"), events(labels, events=600)
        expected, data = run_in_memory(made, config)
        found, _ = run_over(source_of(made), config)
        known, measured = found.figures.measure(), results.measure(expected, data, 0)
        for name in ("seen_auc", "own_auc", "auc", "logloss"):
            assert known[name] == pytest.approx(measured[name], abs=2e-4), name
        assert known["seen_auc_long"] is None
        by_hour = zip(found.figures.by_hour(), measured["seen_auc_by_hour"], strict=True)
        for ours, exact in by_hour:
            assert (ours is None) == (exact is None)
            assert ours is None or ours == pytest.approx(exact, abs=0.02)
        described, exactly = sourced._described(found, "small"), results.describe(data, 0)
        for name in ("events", "users", "items", "days", "candidates", "labels", "negatives_repeated",
                     "counted_new_items", "history_median", "history_longest"):  # fmt: skip
            assert described[name] == exactly[name], name
        assert len(found.figures.over_stream()) == exactly["days"]


def test_late_events_count_from_when_they_come() -> None:
    """As those of several partitions do, whose times go back and forth."""
    config = dataclasses.replace(SMALL, protocol="stream")
    made = events()
    late = np.flatnonzero(np.arange(240) % 5 == 3)
    order_time = made.order_time.copy()
    order_time[late] -= 7200

    def reads(source: Any, cursor: Any = None, batch: int = 0) -> Any:
        for read in ArrowSource.read(source, cursor, batch=60):
            first = read.cursor["rows"] - len(read.events)
            time = order_time[first : first + len(read.events)]
            yield Read(dataclasses.replace(read.events, order_time=time), read.cursor)

    source = source_of(made)
    source.read = reads.__get__(source)  # type: ignore[method-assign]
    _, scores = run_over(source, config)
    as_they_came = dataclasses.replace(made, order_time=np.maximum.accumulate(order_time))
    expected, _ = run_in_memory(as_they_came, config)
    assert torch.equal(scores, expected.scores)


def test_negatives_by_popularity_are_of_the_latest_events() -> None:
    config = dataclasses.replace(SMALL, protocol="stream", negatives_from="popularity")
    made = events(items=150, events=400)
    seen: set[tuple[int, int]] = set()
    keep = memory_of(config, Bounds(popular=20, events=32))
    for excerpt in sourced.excerpts(source_of(made), keep):
        candidates = excerpt.candidates
        for event, item, label in zip(
            candidates.event, candidates.item, candidates.label, strict=True
        ):
            number = excerpt.before + int(event)
            earlier = int(np.searchsorted(made.order_time, made.order_time[number]))
            if not label:
                assert item in made.item[max(earlier - 20, 0) : earlier]
                seen.add((number, int(item)))
        keep.keep(excerpt)
    assert len(seen) > 600
    assert len(keep.recent) == 20


def test_what_is_kept_is_bounded() -> None:
    config = dataclasses.replace(SMALL, protocol="stream", history=5)
    found, _ = run_over(source_of(events(events=600)), config)
    assert len(found.memory.kept) <= 6 * 5
    assert found.figures.longest() == 5


def test_models_and_settings_that_need_the_whole_past() -> None:
    assert {"lic", "twin", "hstu", "counts"} < set(POSSIBLE)
    assert set(USUAL) - set(POSSIBLE) == {"lic-shuffled"}
    for name in ("interest-clock", "graph", "lic-shuffled", "lic-frozen"):
        with pytest.raises(ValueError, match=f"--models {name}: it reads more of the past"):
            check_possible([name], follow=False)
    with pytest.raises(ValueError, match="--follow: the first model never ends, got 2 models"):
        check_possible(["lic", "twin"], follow=True)
    with pytest.raises(ValueError, match="give --history"):
        memory_of(dataclasses.replace(SMALL, history=None), MANY)
    with pytest.raises(
        ValueError, match="--history-days must be from 1 to --forget-days = 3, got 0"
    ):
        memory_of(SMALL, Bounds(forget_days=3))


def test_an_empty_source_has_no_excerpts() -> None:
    keep = memory_of(SMALL, MANY)
    assert list(sourced.excerpts(ArrowSource(lambda: table_of(events())[:0].to_batches(), categories=["category"]), keep)) == []  # fmt: skip
    none = np.zeros(0, np.int64)
    keep.take(Read(Events(none, none, none, none), {"rows": 0}))
    assert keep.excerpt(ended=True) is None
