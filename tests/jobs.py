# SPDX-License-Identifier: Apache-2.0
"""Ranks are processes, as torchrun starts them: of any program, and of a function over gloo."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

HERE = Path(__file__).parent
RANKS = 4
Work = Callable[[Any, int, int], Any]  # of a group, a rank and how many there are


def start(world: int, command: Sequence[str]) -> list[subprocess.Popen[str]]:
    """The processes of a job of Python, each with one thread; they find tests, benches and examples."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH")]
    known = os.environ | {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    return [
        subprocess.Popen([sys.executable, *command], env=known | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in range(world)
    ]  # fmt: skip


def run(world: int, command: Sequence[str]) -> list[str]:
    """What each rank of a job said that ended well."""
    job = start(world, command)
    try:
        said = [process.communicate(timeout=300)[0] for process in job]
    finally:
        for process in job:
            process.kill()
    assert [process.returncode for process in job] == [0] * world, "\n".join(said)
    return said


def run_ranks(work: Work) -> dict[int, list[Any]]:
    """What ``work(group, rank, count)`` gives on each rank, by the number of ranks: four, and of them groups of one to three.

    Args:
        work: a function of a module that new processes can import.
    """
    with tempfile.TemporaryDirectory() as folder:
        run(RANKS, [__file__, work.__module__, work.__name__, folder])
        return {
            count: [torch.load(Path(folder, f"{count}-{rank}")) for rank in range(count)]
            for count in range(1, RANKS + 1)
        }


def _work(module: str, name: str, folder: str) -> None:
    work: Work = getattr(importlib.import_module(module), name)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    rank = dist.get_rank()
    try:
        for count in range(1, RANKS + 1):
            group = None if count == RANKS else dist.new_group(list(range(count)))
            if rank < count:
                torch.manual_seed(0)
                torch.save(work(group, rank, count), Path(folder, f"{count}-{rank}"))
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    _work(*sys.argv[1:])
