# SPDX-License-Identifier: Apache-2.0
"""Training by several processes: the same as by one, and a word for whoever ends."""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from pathlib import Path

import jobs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from longclock.train.config import Config
from longclock.train.team import Team

SMALL = Config(batch=16, k=3, heads=2, head_dim=4, recent=5)


def case(stop=None, resume=None, labels=False, **changes):
    config = dataclasses.asdict(dataclasses.replace(SMALL, **changes))
    return {"config": config, "labels": labels, "stop": stop, "resume": resume}


IN_ORDER = {
    "adam": {"groups": 4},
    "stream": {"groups": 4, "protocol": "stream", "labels": True},
    "rows": {"groups": 8, "embedding_optimizer": "lazy-adam", "search_loss": 0.1},
    "rowwise": {"groups": 4, "embedding_optimizer": "rowwise-adagrad", "protocol": "stream"},
}
FREE = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.05},
    "sgd labels": {"optimizer": "sgd", "learning_rate": 0.05, "labels": True},
}
STOP = 3  # chunks


def run(world: int, cases: dict, folder: Path, name: str) -> dict[str, dict[str, torch.Tensor]]:
    """What came of every case."""
    (folder / f"{name}.json").write_text(json.dumps(cases))
    out = folder / name
    out.mkdir()
    jobs.run(world, [str(jobs.HERE / "rank_worker.py"), str(folder / f"{name}.json"), str(folder), str(out)])  # fmt: skip
    return {each: load_file(out / f"{each}.safetensors") for each in cases}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """All cases by 1, 2 and 4 ranks; and what stopped by 2 ranks, gone on with by each of these."""
    folder = tmp_path_factory.mktemp("ranks")
    whole = {name: case(**changes) for name, changes in (IN_ORDER | FREE).items()}
    stopped = whole | {
        f"{name} stopped": case(stop=STOP, **changes) for name, changes in IN_ORDER.items()
    }
    resumed = {
        f"{name} resumed": case(resume=f"{name} stopped", **changes)
        for name, changes in IN_ORDER.items()
    }
    results = {2: run(2, stopped, folder, "2")}
    results[1] = run(1, whole | resumed, folder, "1")
    results[4] = run(4, whole | resumed, folder, "4")
    return results


def assert_same_bits(a, b):
    for name in ("scores", "weights"):
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("name", IN_ORDER)
@pytest.mark.parametrize("world", [2, 4])
def test_groups_give_the_same_bits_for_any_number_of_ranks(found, name, world):
    assert found[1][name]["scores"].isfinite().all()
    assert_same_bits(found[world][name], found[1][name])


@pytest.mark.parametrize("name", IN_ORDER)
@pytest.mark.parametrize("world", [1, 4])
def test_what_stopped_on_two_ranks_goes_on_with_the_same_bits(found, name, world):
    assert_same_bits(found[world][f"{name} resumed"], found[1][name])


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("world", [2, 4])
def test_without_groups_scores_are_the_same_but_for_rounding(found, name, world):
    for what in ("scores", "weights"):
        assert (found[world][name][what] - found[1][name][what]).abs().max() <= 1e-6


def test_a_group_of_users_learns_what_one_process_learns(found, tmp_path):
    """The gradient of a step is the same whoever makes it: SGD, one group against eight, rounding alone."""
    options = {"optimizer": "sgd", "learning_rate": 0.05}
    got = run(1, {"one": case(**options), "eight": case(groups=8, **options)}, tmp_path, "groups")
    assert (got["one"]["scores"] - got["eight"]["scores"]).abs().max() <= 1e-6


def test_every_event_is_of_one_rank_and_one_group():
    user = np.random.default_rng(0).integers(0, 1000, 5000)
    for world in (1, 2, 4, 8):
        groups: dict[int, np.ndarray] = {}
        for rank in range(world):
            own = Team(8, rank, world).events_of(user)
            assert not own.keys() & groups.keys()
            groups |= own
        assert sorted(groups) == list(range(8))
        assert np.array_equal(np.sort(np.concatenate([*groups.values()])), np.arange(5000))
        for places in groups.values():
            assert 0.05 < len(places) / 5000 < 0.2
    of_first = Team(8).events_of(user)
    of_second = Team(8, 1, 2).events_of(user)
    assert all(np.array_equal(of_second[group], of_first[group]) for group in of_second)


@pytest.mark.parametrize(("groups", "world"), [(3, 1), (4, 3), (2, 4)])
def test_groups_that_do_not_fit_are_refused(groups, world):
    with pytest.raises(
        ValueError, match=f"--groups must be a power of two that .* got {groups} for {world} rank"
    ):
        Team(groups, 0, world)


TRAIN = ["-m", "longclock.train", "--data", "nyc", "--models", "lic", "--quiet", "--k", "5"]


def test_one_report_of_two_ranks(tmp_path):
    said = jobs.run(2, [*TRAIN, "--days", "2", "--out", str(tmp_path), "--groups", "2"])
    assert "report:" in said[0]
    assert said[1] == ""
    (written,) = tmp_path.glob("*.json")
    assert json.loads(written.read_text())["ranks"] == 2


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_rank_that_is_gone_is_named(tmp_path, sent):
    job = jobs.start(
        2,
        [
            *TRAIN,
            "--days",
            "60",
            "--out",
            str(tmp_path),
            "--checkpoint-seconds",
            "0",
            "--rank-timeout",
            "10",
        ],
    )
    kept = tmp_path / "checkpoints" / "lic.safetensors"
    try:
        until = time.monotonic() + 120
        while not kept.exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert kept.exists(), job[0].poll()
        job[1].send_signal(sent)
        said = job[0].communicate(timeout=120)[0]
    finally:
        for process in job:
            process.kill()
    assert job[0].returncode == 1, said
    assert f"longclock.train: rank 1 (process {job[1].pid} on" in said
    assert "ended or does not answer; the same command with --resume goes on" in said
    assert "Traceback" not in said
