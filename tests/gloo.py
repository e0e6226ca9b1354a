# SPDX-License-Identifier: Apache-2.0
"""Real ranks: four processes over gloo, and of them groups of one to four."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

RANKS = 4
Work = Callable[[Any, int, int], Any]  # of a group, a rank and how many there are


def run_ranks(work: Work) -> dict[int, list[Any]]:
    """What ``work(group, rank, count)`` gives on each rank, by the number of ranks.

    Args:
        work: a function of a module that new processes can import.
    """
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_rank, (work, folder), RANKS)  # type: ignore[no-untyped-call]
        return {
            count: [torch.load(Path(folder, f"{count}-{rank}")) for rank in range(count)]
            for count in range(1, RANKS + 1)
        }


def _rank(rank: int, work: Work, folder: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    store, limit = f"file://{folder}/store", timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS, timeout=limit)
    try:
        for count in range(1, RANKS + 1):
            group = None if count == RANKS else dist.new_group(list(range(count)))
            if rank < count:
                torch.manual_seed(0)
                torch.save(work(group, rank, count), Path(folder, f"{count}-{rank}"))
    finally:
        dist.destroy_process_group()
