# SPDX-License-Identifier: Apache-2.0
"""The ranks of a process group, and how tensors pass between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from longclock import ops
from longclock.types import TopK


class Ranks(NamedTuple):
    """Those of a group, and which of them this one is."""

    group: Any
    rank: int
    size: int

    def gather(self, message: Tensor) -> Tensor:
        """The messages of all ranks, of one shape: [ranks, *shape]."""
        if self.size == 1:
            return message[None]
        found = message.new_empty(self.size, *message.shape)
        dist.all_gather(list(found.unbind()), message.contiguous(), group=self.group)
        return found

    def exchange(self, sent: Tensor, sizes: Sequence[int], expected: Sequence[int]) -> Tensor:
        """Rows from every rank, those of the first rank first.

        Args:
            sent: rows for every rank, ``sizes`` of them each.
            expected: how many come from each.
        """
        if self.size == 1:
            return sent
        found = sent.new_empty(sum(expected), *sent.shape[1:])
        dist.all_to_all_single(
            found, sent.contiguous(), list(expected), list(sizes), group=self.group
        )
        return found


def ranks_of(op: str, group: Any) -> Ranks:
    """Of a process group; None: of the default one, or one rank where there is none."""
    if group is None and not (dist.is_available() and dist.is_initialized()):
        return Ranks(None, 0, 1)
    rank = dist.get_rank(group)
    if rank < 0:
        raise ValueError(f"{op}: group must be one that this rank belongs to, got another; call it on the group's ranks alone")  # fmt: skip
    return Ranks(group, rank, dist.get_world_size(group))


def packed(found: TopK) -> Tensor:
    """Scores and indices of a rank's own behaviours, at most 2^31 - 1, side by side: int32 [..., 2 k]."""
    return torch.cat([found.scores.view(torch.int32), found.indices.int()], -1)


def unpacked(message: Tensor) -> TopK:
    scores, indices = message.chunk(2, -1)
    return TopK(scores.view(torch.float32), indices.long())


def best_of_ranks(scores: Tensor, indices: Tensor) -> TopK:
    """The best k of the k that each rank found, [ranks, *queries, k], by indices that hold for all ranks."""
    lists = [each.movedim(0, -2).flatten(-2) for each in (scores, indices)]
    return ops.merge_topk(lists[0], lists[1], scores.shape[-1])
