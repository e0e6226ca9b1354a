# SPDX-License-Identifier: Apache-2.0
"""Ops in forked children: OpenMP's workers do not survive a fork, the ops must finish anyway."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from cases import Case, make_case
from esu_cases import EsuCase, make_esu
from torch.utils.data import DataLoader, Dataset
from torture.forks import Expected, fork_here, load, pool

import longclock as lc

SECONDS = 60  # far beyond what the ops need: only a child that hangs is stopped by it


def big_case() -> Case:
    return make_case("dense", counts=(3000, 3000, 50, 700), width=32)


def run_everything(case: Case, esu: EsuCase) -> list[torch.Tensor]:
    scores = case.run(lc.gsu_score)
    delta = lc.circular_delta(case.key_time, case.query_time[:, None])
    return [
        scores, *case.run(lc.clock_gsu, 50), *lc.block_topk(scores, 9), esu.run(lc.esu_attention),
        delta, lc.time_similarity(delta, *case.mlp),
    ]  # fmt: skip


def same(ours: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    """Compared as bytes: torch's own operators may hang in a forked child."""
    return all(
        a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(ours, expected, strict=True)
    )


def test_a_forked_child_finishes(device: str) -> None:
    if device == "cuda":
        pytest.skip("CUDA contexts cannot be forked")
    torch.set_num_threads(2)
    case, esu = big_case(), make_esu(queries=16, k=300)
    expected = run_everything(case, esu)  # the parent's threads are up
    trained = case.trained()
    scores = trained.run(lc.gsu_score)
    scores.backward(torch.ones_like(scores))
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if same(run_everything(case, esu), expected) else 3)
        except BaseException:
            os._exit(4)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the forked child hung")


class Searches(Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 4

    def __getitem__(self, item: int) -> torch.Tensor:
        torch.manual_seed(item)
        return big_case().run(lc.clock_gsu, 50).indices


def test_data_loader_workers_finish(device: str) -> None:
    if device == "cuda":
        pytest.skip("CUDA contexts cannot be forked")
    torch.set_num_threads(2)
    expected = [Searches()[item] for item in range(4)]
    loader = DataLoader(
        Searches(), batch_size=None, num_workers=1, timeout=SECONDS,
        multiprocessing_context="fork",
    )  # fmt: skip
    assert same(list(loader), expected)


def test_children_of_a_busy_process_find_what_it_finds(device: str, emulated: bool) -> None:
    if device == "cuda":
        pytest.skip("CUDA contexts cannot be forked")
    if emulated:
        pytest.skip("the emulator's own threads do not survive a fork")
    torch.set_num_threads(2)
    expected = Expected()
    with load():
        for _ in range(20):
            assert fork_here(expected) is None
        assert pool(expected) is None
