# SPDX-License-Identifier: Apache-2.0
"""A search over sequences of which every rank holds a part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longclock import ops
from longclock._checks import check_ints
from longclock._torch_state import reads_values
from longclock.distributed.checks import check_search_of
from longclock.distributed.ranks import best_of_ranks, packed, ranks_of, unpacked
from longclock.history.history import History
from longclock.history.windows import each_query
from longclock.ops._call import check_k
from longclock.ops._errors import named_as
from longclock.types import Clocks, Mlp, TopK

NAME = "distributed.clock_gsu"
WORDS = {"keys": "part.rows", "key_time": "part.time"}
WORD = 2**31 - 1  # the bits of a place that one int32 carries


@named_as(NAME, WORDS)
def clock_gsu(
    query: Tensor,
    part: History,
    query_time: Tensor,
    mlp: Mlp,
    k: int = 100,
    *,
    begins: Tensor | None = None,
    group: Any = None,
    scale: float | None = None,
    clocks: Clocks | None = None,
    unit: float | tuple[float, ...] | None = None,
    exclude_future: bool = False,
) -> TopK:
    """:func:`longclock.clock_gsu` over sequences of which every rank holds a part, in one exchange of k results a query.

    Every rank searches its part, the ranks tell each other what they found, and :func:`longclock.merge_topk` keeps the best: to
    the bit what one rank finds that holds all, if the ranks' CPUs work at one SIMD level, or their GPUs are of one kind.

    Args:
        query, query_time, mlp, k, scale, clocks, unit, exclude_future: as of :func:`longclock.clock_gsu`, the same on every rank.
        part: this rank's part of every sequence or window, in the same layout on every rank; it may be empty. Parts do not
            overlap.
        begins: int32 or int64 [S], the index in its sequence or window of the first behaviour of each part here. None: the
            parts of a sequence follow each other in the order of the ranks, which tell each other their lengths.
        group: a process group of ``torch.distributed``, of any backend; every rank of it must call. None: the default one, or
            this process alone where none is initialised.
    Returns:
        TopK(scores float32, indices int64), [S, k], [S, C, k] or [Q, k], the same on every rank; indices count from the start
        of the whole sequence or window; padded with -inf and -1.
    Raises:
        ValueError: an argument that does not fit; the message names it and the remedy. The other ranks wait meanwhile.

    A rank sends 8 Q (k + 1) bytes.

    Example::

        >>> import torch, longclock as lc
        >>> keys, when, s = torch.randn(1, 9, 8), 3600 * torch.arange(9)[None], lc.TimeSimilarity()
        >>> query, now = torch.randn(1, 8), torch.tensor([9 * 3600])
        >>> mine = slice(0, 9)  # under torchrun: what lies on this rank
        >>> part = lc.History.dense(keys[:, mine], when[:, mine])
        >>> found = lc.distributed.clock_gsu(query, part, now, s, k=3)
        >>> torch.equal(found.indices, lc.clock_gsu(query, keys, when, now, s, k=3).indices)
        True
    """
    check_search_of(NAME, "part", query, part, query_time)
    ranks = ranks_of(NAME, group)
    if begins is not None:
        _check_begins(begins, query_time)
    found = ops.clock_gsu(
        query, query_time=query_time, mlp=mlp, k=check_k(NAME, k), scale=scale, clocks=clocks, unit=unit,
        exclude_future=exclude_future, **part.arguments(),
    )  # fmt: skip
    if k == 0:
        return found
    messages = ranks.gather(message_of(found, part, begins))
    return merged(messages, consecutive=begins is None)


def message_of(found: TopK, part: History, begins: Tensor | None) -> Tensor:
    """What a rank tells: for each query what it found, and where the part begins, or None: how long it is.

    Returns:
        int32 [*queries, 2 k + 2].
    """
    queries = found.scores.shape[:-1]
    told = _lengths(part) if begins is None else begins
    (told,) = each_query(NAME, part, queries[:1], told.long())
    words = torch.stack([told & WORD, told >> 31], -1).int()
    words = words.view(-1, *(1,) * (len(queries) - 1), 2).expand(*queries, 2)
    return torch.cat([packed(found), words], -1)


def merged(messages: Tensor, consecutive: bool) -> TopK:
    """The best of what all ranks found.

    Args:
        messages: int32 [ranks, *queries, 2 k + 2], of all ranks, in their order.
        consecutive: whether these tell lengths.
    """
    scores, indices = unpacked(messages[..., :-2])
    low, high = messages[..., -2:].long().split(1, -1)
    first = low | high << 31
    if consecutive:
        first = first.cumsum(0) - first
    return best_of_ranks(scores, torch.where(indices < 0, -1, indices + first))


def _lengths(part: History) -> Tensor:
    """Behaviours of each sequence or window, [S]."""
    if part.offsets is not None:
        return part.offsets.diff()
    if part.starts is not None and part.ends is not None:
        return part.ends - part.starts
    if part.lengths is not None:
        return part.lengths
    sequences, columns = part.time.shape
    return torch.full((sequences,), columns, device=part.time.device)


def _check_begins(begins: Tensor, query_time: Tensor) -> None:
    check_ints(NAME, "begins", begins, {"S": query_time.shape[0]}, "to match query_time")
    if reads_values(begins) and (begins < 0).any():
        raise ValueError(f"{NAME}: begins must be at least 0, got {int(begins.min())}")
