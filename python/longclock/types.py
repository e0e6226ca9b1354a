# SPDX-License-Identifier: Apache-2.0
"""Argument and result types of the public interface. NamedTuples, so that compile and export trace them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from torch import Tensor

if TYPE_CHECKING:
    from longclock.nn.time_similarity import TimeSimilarity


class Lookup(NamedTuple):
    """Rows of a table, gathered inside the kernel in place of a copy of them.

    ``table[ids]`` without making it: ``table`` is [N, L], ``ids`` any integer shape; where a position
    does not count its id is never read. The table gets its gradient as from ``nn.Embedding``,
    as a sparse tensor where ``sparse`` is True.
    """

    table: Tensor
    ids: Tensor
    sparse: bool = False


class TopK(NamedTuple):
    """The best K, best first: scores (-inf where padded) and int64 indices (-1 where padded)."""

    scores: Tensor
    indices: Tensor


Mlp: TypeAlias = "tuple[Tensor, Tensor, Tensor, Tensor] | TimeSimilarity"
