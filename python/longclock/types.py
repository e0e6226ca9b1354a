# SPDX-License-Identifier: Apache-2.0
"""Argument and result types of the public interface. NamedTuples, so that compile and export trace them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from torch import Tensor

from longclock._torch_state import register_for_saving

if TYPE_CHECKING:
    from longclock.nn.time_similarity import TimeSimilarity


class Lookup(NamedTuple):
    """Rows of a table, gathered inside the kernel in place of a copy of them.

    ``table[ids]`` without making it: ``table`` is [N, L], ``ids`` any integer shape; where a position
    does not count its id is never read. The table gets its gradient as from ``nn.Embedding``,
    as a sparse tensor where ``sparse`` is True.

    Example::

        >>> import torch, longclock as lc
        >>> items, played = torch.nn.Embedding(1_000, 8), torch.tensor([[7, 3, 7]])
        >>> when, now = 3600 * torch.tensor([[8, 20, 9]]), torch.tensor([32 * 3600])
        >>> lic = lc.LongTermInterestClock(behaviour_dim=8, candidate_dim=8)
        >>> history = lc.History.dense(lc.Lookup(items.weight, played), when)
        >>> lic(torch.ones(1, 8), history, now).sum().backward()
        >>> items.weight.grad.any(dim=1).nonzero().flatten()  # rows that get a gradient
        tensor([3, 7])
    """

    table: Tensor
    ids: Tensor
    sparse: bool = False


register_for_saving(Lookup)


class TopK(NamedTuple):
    """The best K, best first: scores (-inf where padded) and int64 indices (-1 where padded).

    Example::

        >>> import torch, longclock as lc
        >>> scores, indices = lc.block_topk(torch.tensor([1.0, 2.0]), k=3)
        >>> scores, indices
        (tensor([2., 1., -inf]), tensor([ 1,  0, -1]))
    """

    scores: Tensor
    indices: Tensor


Mlp: TypeAlias = "tuple[Tensor, Tensor, Tensor, Tensor] | TimeSimilarity"
