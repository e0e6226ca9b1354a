# SPDX-License-Identifier: Apache-2.0
"""The example's tables, sharded by TorchRec, learn what nn.Embedding learns in one process; any number of ranks goes on from a checkpoint."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jobs
import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torchrec") is None,
    reason="TorchRec is not installed: make setup-distributed",
)
COMPARED = {
    f"{optimizer} {sharding}": {"sharding": sharding, "optimizer": optimizer, "rate": rate}
    for optimizer, rate in (("sgd", 0.05), ("adagrad", 0.01), ("rowwise-adagrad", 0.01))
    for sharding in ("row_wise", "table_wise", "column_wise")
    # Its accumulator is one of the columns that lie together.
    if (optimizer, sharding) != ("rowwise-adagrad", "column_wise")
}
# The worst difference of a weight after 8 steps.
WEIGHTS = {"sgd": 1e-6, "adagrad": 1e-5, "rowwise-adagrad": 1e-5}
SAVED = "rowwise-adagrad row_wise"


def run(world: int, cases: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """What came of every case, by rank."""
    out = folder / str(world)
    out.mkdir()
    whole = {name: {"save": None, "resume": None, **case} for name, case in cases.items()}
    (out / "cases.json").write_text(json.dumps(whole))
    jobs.run(world, [str(jobs.HERE / "torchrec_worker.py"), str(out / "cases.json"), str(out)])
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(world)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torchrec")


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    """All cases by two ranks, and what one of them goes on to from its own checkpoint."""
    saved = {SAVED: COMPARED[SAVED] | {"save": str(folder / "saved")}}
    return run(2, COMPARED | saved | resumed(folder), folder)


def resumed(folder: Path) -> dict[str, Any]:
    how = COMPARED[SAVED] | {"resume": str(folder / "saved")}
    return {"resumed": how, "resumed table-wise": how | {"sharding": "table_wise"}}


@pytest.mark.parametrize("name", COMPARED)
def test_two_ranks_learn_what_one_process_learns(two: list[dict[str, Any]], name: str) -> None:
    for rank in two:
        case = rank[name]
        assert len(case["loss"]) == 8
        assert max(abs(a - b) for a, b in zip(case["loss"], case["plain"], strict=True)) <= 1e-6
        assert case["apart"] <= WEIGHTS[name.split()[0]] < case["moved"]


def test_a_rank_without_requests_takes_part(two: list[dict[str, Any]]) -> None:
    first, second = (rank[SAVED]["requests"] for rank in two)
    assert 0 in second
    assert all(first)
    assert sum(first) + sum(second) > 8


@pytest.mark.parametrize("world", [1, 2, 4])
def test_any_number_of_ranks_goes_on(two: list[dict[str, Any]], folder: Path, world: int) -> None:
    expected = two[0][SAVED]["loss"][4:]
    for rank in two if world == 2 else run(world, resumed(folder), folder):
        for name in resumed(folder):
            found = rank[name]["loss"]
            assert len(found) == 4
            assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 1e-6


def test_the_example_under_torchrun(tmp_path: Path) -> None:
    """It stops, goes on with another number of ranks and another sharding, and says how well it scored."""

    def said(ranks: int, *options: str) -> str:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
        command += [str(ROOT / "examples" / "train_torchrec.py"), "--days", "2", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    kept = str(tmp_path / "kept")
    assert said(2, "--until", "20", "--save", kept, "--sharding", "table_wise") == ""
    found = re.fullmatch(r"seen AUC (0\.\d{4})\n", said(1, "--resume", kept))
    assert found is not None
    whole = re.fullmatch(r"seen AUC (0\.\d{4})\n", said(2))
    assert whole is not None
