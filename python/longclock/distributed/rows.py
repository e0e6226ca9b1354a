# SPDX-License-Identifier: Apache-2.0
"""A search where the rows live: behaviours go to the ranks that hold their rows, and what these find comes back."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from longclock import ops
from longclock._checks import OUTSIDE, check, check_ids, check_ints
from longclock.distributed.checks import check_search_of
from longclock.distributed.ranks import Ranks, best_of_ranks, packed, ranks_of, unpacked
from longclock.history.history import History
from longclock.history.windows import bounds_of, each_query, within
from longclock.ops._call import check_k
from longclock.ops._errors import named_as
from longclock.types import Clocks, Lookup, Mlp, QuantizedRows, TopK

NAME = "distributed.clock_gsu_at_rows"
WORDS = {"keys": "history.rows", "key_time": "history.time"}


@named_as(NAME, WORDS)
def clock_gsu_at_rows(
    query: Tensor,
    history: History,
    query_time: Tensor,
    mlp: Mlp,
    k: int = 100,
    *,
    row_offsets: Tensor | None = None,
    group: Any = None,
    scale: float | None = None,
    clocks: Clocks | None = None,
    unit: float | tuple[float, ...] | None = None,
    exclude_future: bool = False,
) -> TopK:
    """:func:`longclock.clock_gsu` with a table whose rows are spread over the ranks, none of which travels.

    The ids and times of a history go to the ranks that hold the rows; each searches what it was sent, and k results a query come
    back, which :func:`longclock.merge_topk` merges: to the bit what a search of one table finds, if the ranks' CPUs work at one SIMD
    level, or their GPUs are of one kind. What a mask rules out, or lies in no sequence, is not sent.

    Args:
        query, query_time: as of :func:`longclock.clock_gsu`, of this rank's users, of whom every rank has as many as it likes.
        history: theirs, in any layout; its rows are a Lookup of this rank's share of one table, [n, D], by ids of the whole table.
        mlp, k, scale, clocks, unit, exclude_future: as of :func:`longclock.clock_gsu`, the same on every rank.
        row_offsets: int32 or int64 [ranks + 1]; rank r holds rows ``row_offsets[r]`` to ``row_offsets[r + 1] - 1``. None: the
            shares follow each other in the order of the ranks, which tell each other how many rows they have.
        group: a process group of ``torch.distributed``; every rank of it must call. None: the default one, or this process alone
            where none is initialised.
    Returns:
        TopK(scores float32, indices int64), [S, k], [S, C, k] or [Q, k], of this rank's queries; indices count from the start of
        the sequence or window; padded with -inf and -1.
    Raises:
        ValueError: an argument that does not fit, or dtypes, D or k that differ between ranks; the message names it and the
            remedy. The other ranks wait meanwhile, but where all see it.

    A behaviour is 8 bytes on its way with times of int32, 12 with int64. Sizes are read on the host, which on a GPU waits for them.

    Example::

        >>> import torch, longclock as lc
        >>> share, played = torch.randn(100, 8), torch.tensor([7, 3, 99, 7])  # under torchrun: this rank's rows
        >>> when, now = 3600 * torch.tensor([8, 20, 9, 10]), torch.tensor([32 * 3600])
        >>> history = lc.History.ragged(lc.Lookup(share, played), when, offsets=torch.tensor([0, 4]))
        >>> lc.distributed.clock_gsu_at_rows(share[99:], history, now, lc.TimeSimilarity(), k=2).indices
        tensor([[2, 0]])
    """
    check_search_of(NAME, "history", query, history, query_time)
    ranks = ranks_of(NAME, group)
    table = _share(history)
    check_k(NAME, k)
    time_term = {"scale": scale, "clocks": clocks, "unit": unit, "exclude_future": exclude_future}
    edges = _edges(ranks, table, row_offsets)
    if ranks.size == 1:
        return ops.clock_gsu(query, query_time=query_time, mlp=mlp, k=k, **time_term, **history.arguments())  # type: ignore[arg-type]  # fmt: skip
    queries = query.shape[:-1]
    question = question_of(history, edges)
    asked, sizes = _ask(ranks, question, history, query, query_time, k)
    found = ops.clock_gsu(keys=table, mlp=mlp, k=k, **time_term, **asked)  # type: ignore[arg-type]
    every = [int(query.flatten(0, -2).shape[0])] * ranks.size
    answers = ranks.exchange(packed(found), sizes, every).unflatten(0, (ranks.size, -1))
    merged = answer_of(answers, question, history, queries)
    return TopK(*(part.unflatten(0, queries) for part in merged))


class Question(NamedTuple):
    """A history as the owners of its rows are asked for it: behaviours in the order of their owners, then of their positions."""

    ids: Tensor  # int32 [n], rows of the owner's share
    time: Tensor  # [n]
    positions: Tensor  # int64 [n], where they lie among the flattened behaviours
    counts: Tensor  # int64 [ranks], behaviours of each owner
    starts: Tensor  # int64 [ranks, S], from the first of the owner's behaviours
    ends: Tensor


def question_of(history: History, edges: Tensor) -> Question:
    """
    Args:
        edges: int64 [ranks + 1], of the ranks' shares of the table.
    """
    starts, ends = bounds_of(NAME, history)
    positions = within(NAME, history).nonzero().flatten()
    ids = history.rows.ids.flatten().index_select(0, positions)  # type: ignore[union-attr]
    check_ids(NAME, "ids", ids, int(edges[-1]), OUTSIDE)
    owner = torch.bucketize(ids, edges[1:], right=True)
    order, ranks = by_owner(owner, len(edges) - 1), len(edges) - 1
    ids, positions = ids.index_select(0, order), positions.index_select(0, order)
    time = history.time.flatten().index_select(0, positions)
    counts = torch.bincount(owner, minlength=ranks)
    places = max(history.time.numel(), 1)
    each = torch.arange(ranks, device=ids.device) * places
    line = each.repeat_interleave(counts) + positions  # which rises
    first = counts.cumsum(0) - counts
    starts, ends = (
        torch.searchsorted(line, each[:, None] + edge) - first[:, None] for edge in (starts, ends)
    )
    local = (ids - edges[:-1].repeat_interleave(counts)).int()
    return Question(local, time, positions, counts, starts, ends)


def by_owner(owner: Tensor, ranks: int) -> Tensor:
    """A stable order of their owners; of the narrowest numbers, which PyTorch sorts many times as fast."""
    return owner.to(torch.uint8 if ranks <= 256 else torch.int32).argsort(stable=True)


def answer_of(answers: Tensor, question: Question, history: History, queries: torch.Size) -> TopK:
    """The best of what the owners found, [Q, k].

    Args:
        answers: int32 [ranks, Q, 2 k], of each owner.
    """
    counts = question.counts
    first = (counts.cumsum(0) - counts)[:, None] + question.starts
    begins, _ = bounds_of(NAME, history)
    first, begins = each_query(NAME, history, queries, first.T, begins)
    scores, local = unpacked(answers)
    places = torch.where(local < 0, len(question.positions), first.T[..., None] + local)
    positions = F.pad(question.positions, (0, 1))[places]
    return best_of_ranks(scores, torch.where(local < 0, -1, positions - begins[:, None]))


def _ask(
    ranks: Ranks, question: Question, history: History, query: Tensor, query_time: Tensor, k: int
) -> tuple[dict[str, Any], list[int]]:
    """What all ranks ask of this one, as the arguments of one search of windows; and how many queries each has."""
    flat, sequences = query.flatten(0, -2), len(query_time)
    alike = {"history.time's bytes": question.time.element_size(), "query's bytes": query.element_size(), "D": query.shape[-1], "k": k}  # fmt: skip
    sizes = torch.tensor(
        [[n, sequences, len(flat), *alike.values()] for n in question.counts.tolist()]
    )
    one_each = [1] * ranks.size
    told = ranks.exchange(sizes.to(query.device), one_each, one_each).tolist()
    for i, (name, own) in enumerate(alike.items(), 3):
        others = [row[i] for row in told]
        check(NAME, max(others) == min(others), lambda name=name, own=own, others=others:  # type: ignore[misc]
              f"{name} must be the same on every rank, got {own} here and {others} on the ranks")  # fmt: skip
    behaviours, windows, queries = ([row[i] for row in told] for i in range(3))
    sent = question.counts.tolist()
    ids, time = (ranks.exchange(x, sent, behaviours) for x in (question.ids, question.time))
    shared = torch.cat([query_time.long(), _query_offsets(history, query, sequences)])
    bounds = torch.cat([question.starts, question.ends, shared.expand(ranks.size, -1)], 1)
    lengths = [4 * count + 1 for count in windows]
    received = ranks.exchange(bounds.flatten(), [bounds.shape[1]] * ranks.size, lengths)
    edges = _joined(received.split(lengths), windows, behaviours, queries)
    every = ranks.exchange(flat.repeat(ranks.size, 1), [len(flat)] * ranks.size, queries)
    return {"query": every, "key_time": time, "ids": ids, **edges}, queries


def _joined(
    bounds: tuple[Tensor, ...], windows: list[int], behaviours: list[int], queries: list[int]
) -> dict[str, Tensor]:
    """Windows of every rank as windows of all their behaviours, one rank's behind another's."""
    parts: dict[str, list[Tensor]] = {
        "starts": [],
        "ends": [],
        "query_time": [],
        "query_offsets": [],
    }
    behind = asked = 0
    for given, count, more, its_queries in zip(bounds, windows, behaviours, queries, strict=True):
        starts, ends, query_time, offsets = given.split([count, count, count, count + 1])
        last = count + 1 if given is bounds[-1] else count
        for name, value in zip(parts, (starts + behind, ends + behind, query_time, offsets[:last] + asked), strict=True):  # fmt: skip
            parts[name].append(value)
        behind, asked = behind + more, asked + its_queries
    return {name: torch.cat(values) for name, values in parts.items()}


def _query_offsets(history: History, query: Tensor, sequences: int) -> Tensor:
    """Of any layout, int64 [S + 1]."""
    if history.query_offsets is not None:
        return history.query_offsets.long()
    each = query.shape[1] if query.dim() == 3 else 1
    return torch.arange(sequences + 1, device=query.device) * each


def _share(history: History) -> Tensor:
    rows = history.rows
    if not isinstance(rows, Lookup) or not isinstance(rows.table, Tensor):
        got = _kind(rows.table if isinstance(rows, Lookup) else rows)
        raise ValueError(f"{NAME}: history.rows must be a Lookup of one table, got {got}; rows that lie with their behaviours are "
                         "searched by distributed.clock_gsu")  # fmt: skip
    return rows.table


def _kind(rows: Tensor | QuantizedRows | tuple[Tensor, ...]) -> str:
    if isinstance(rows, QuantizedRows):
        return "QuantizedRows"
    return "a tensor" if isinstance(rows, Tensor) else f"{len(rows)} tables"


def _edges(ranks: Ranks, table: Tensor, row_offsets: Tensor | None) -> Tensor:
    """Where each rank's rows begin, and the end: int64 [ranks + 1]."""
    own = table.shape[0]
    if row_offsets is None:
        rows = ranks.gather(torch.tensor(own, device=table.device))
        return F.pad(rows.cumsum(0), (1, 0))
    check_ints(NAME, "row_offsets", row_offsets, {"ranks + 1": ranks.size + 1}, "of the group")
    edges = row_offsets.long()
    if int(edges[0]) != 0 or bool((edges.diff() < 0).any()):
        raise ValueError(f"{NAME}: row_offsets must start at 0 and not decrease, got {edges.tolist()}")  # fmt: skip
    wanted = int(edges[ranks.rank + 1] - edges[ranks.rank])
    check(NAME, own == wanted, lambda: f"history.rows' table must have the {wanted} rows that row_offsets gives rank {ranks.rank}, got "
          f"{own}")  # fmt: skip
    return edges
