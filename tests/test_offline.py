# SPDX-License-Identifier: Apache-2.0
"""Rankings of all users at once, by the example for Ray and by what docs/scaling.md shows for Spark, are those of requests."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from streams import stream

from longclock.export import export
from longclock.serve import Recommender
from longclock.store import SQLiteStore
from longclock.train import checkpoint
from longclock.train.batches import TrainingData
from longclock.train.config import MODELS, Config
from longclock.train.loop import Run, chunks, train

ROOT = Path(__file__).parents[1]
TOP = 100  # of the example and of the page


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a store of histories, and moments of users to rank for."""
    folder = tmp_path_factory.mktemp("offline")
    events = stream(events=200, items=150)
    config = Config(batch=16, k=5, heads=2, head_dim=4)
    data = TrainingData.of(events, config)
    run, parts = Run.start(data, MODELS["lic"], config), chunks(events, config)
    train(run, data, config, lambda run, events: None)
    path, identity = folder / "lic.safetensors", checkpoint.identity("lic", events, config)
    checkpoint.save(path, run, identity, data, parts)
    export(path, folder / "model")
    with SQLiteStore(folder / "histories.db") as store:
        store.append_many(events.user, events.item, events.time)
    now = int(events.time[-1]) + np.arange(2) * 6 * 3600
    user = np.arange(events.users + 1)  # the last one is nobody's
    moments = pd.DataFrame({"user": user.repeat(len(now)), "now": np.tile(now, len(user))})
    moments.to_parquet(folder / "moments.parquet")
    return folder


def right(folder: Path, moments: pd.DataFrame) -> list[list[int]]:
    """What requests are answered."""
    with SQLiteStore(folder / "histories.db") as store:
        recommender = Recommender(folder / "model", store, scoring="precomputed")
        assert recommender.items == 150
        asked = zip(moments.user.tolist(), moments.now.tolist(), strict=True)
        return [
            recommender.rank(user, torch.arange(150), now, TOP).items.tolist()
            for user, now in asked
        ]


def check(folder: Path, found: pd.DataFrame) -> None:
    moments = pd.read_parquet(folder / "moments.parquet")
    found = found.sort_values(["user", "now"])
    assert np.array_equal(found[["user", "now"]], moments.sort_values(["user", "now"]))
    best = [np.asarray(items).tolist() for items in found["items"]]
    assert best == right(folder, found)
    assert len({tuple(items) for items in best}) > len(best) // 2  # users and moments differ


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'ray[data]'"
)
def test_the_example_for_ray(made: Path) -> None:
    example, out = ROOT / "examples" / "ray_projections.py", made / "best"
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 30
    given = [made / "model", made / "histories.db", made / "moments.parquet", out, "1"]
    # Ray gives up on processes of its own that a busy machine has not started in half a minute.
    patient = {"RAY_worker_register_timeout_seconds": "300", "RAY_raylet_start_wait_time_s": "300"}
    done = subprocess.run(
        [sys.executable, example, *given], capture_output=True, text=True, timeout=600, env={**os.environ, **patient}
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check(made, pd.read_parquet(out))


def test_what_the_page_shows_for_spark(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function that Spark maps over its batches, on batches as Spark gives them."""
    monkeypatch.chdir(made)
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    (block,) = (
        text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def rank(" in text
    )
    names: dict[str, Any] = {}
    exec(block.replace("redis://localhost:6379", "histories.db"), names)
    moments = pd.read_parquet("moments.parquet")
    batches = [moments[:5], moments[5:5], moments[5:]]
    check(made, pd.concat(names["rank"](iter(batches))))
