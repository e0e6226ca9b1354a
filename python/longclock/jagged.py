# SPDX-License-Identifier: Apache-2.0
"""Lists of sequences one behind the other, cut by offsets, as jagged tensors are."""

from __future__ import annotations

import torch
from torch import Tensor

from longclock._checks import check, check_int, dtype_of, shape_of
from longclock._mlp import require_tensor
from longclock._torch_state import reads_values
from longclock.history.history import History
from longclock.history.windows import each_query
from longclock.ops._errors import named_as

__all__ = ["select"]
NAME = "jagged.select"


@named_as(NAME, {})
def select(
    found: Tensor, offsets: Tensor, *values: Tensor, query_offsets: Tensor | None = None
) -> tuple[Tensor, ...]:
    """What a search found, out of what lies one sequence behind the other: the winners' ids and times, for a second look-up.

    A search needs the rows of whole histories, without gradient, the attention those of K behaviours, with it. So a sharded table
    is asked twice: for a search under ``no_grad``, and for what this gives. ``lc.History.ragged`` takes it with its lengths,
    as does TorchRec's KeyedJaggedTensor.

    Args:
        found: int64 [Q, K], the indices of a search, -1 for nothing.
        offsets: int32 or int64 [S + 1], where each sequence begins in values; some of more such offsets, too.
        values: [T] or [T, ...] each, as ids, times or rows.
        query_offsets: [S + 1], where the queries of each sequence begin; None: one each, Q = S.
    Returns:
        The chosen of each of values, [n, ...], query after query, the best first, differentiable where it is of floats; and after
        them int64 [Q], how many each query has.
    Raises:
        ValueError: an argument that does not fit, or (on the CPU) an index outside its sequence; on CUDA such is left out.

    n is read on the host, which on a GPU waits for it.

    Example::

        >>> import torch, longclock as lc
        >>> ids, offsets = torch.tensor([70, 71, 72, 80]), torch.tensor([0, 3, 4])
        >>> lc.jagged.select(torch.tensor([[2, 0], [0, -1]]), offsets, ids)
        (tensor([72, 70, 80]), tensor([2, 1]))
    """
    for name, value in (("found", found), ("offsets", offsets)):
        require_tensor(NAME, name, value)
    check(NAME, found.dtype == torch.int64, lambda: f"found must be int64, got {dtype_of(found)}; pass the indices of a search")  # fmt: skip
    check(NAME, found.dim() == 2, lambda: f"found must have shape [Q, K], got {shape_of(found)}")
    check_int(NAME, "offsets", offsets)
    check(NAME, offsets.dim() == 1 and len(offsets) >= 1, lambda: f"offsets must have shape [S + 1], got {shape_of(offsets)}")  # fmt: skip
    for i, value in enumerate(values):
        require_tensor(NAME, f"values[{i}]", value)
        check(NAME, value.dim() >= 1 and len(value) == len(values[0]), lambda i=i, value=value: f"values[{i}] must have the "  # type: ignore[misc]
              f"length of values[0], got {shape_of(value)}")  # fmt: skip
    begins, ends = _bounds(found, offsets, query_offsets)
    there = found >= 0
    inside = found < (ends - begins)[:, None]
    if reads_values(found) and bool((there & ~inside).any()):
        query = int((there & ~inside).any(1).to(torch.uint8).argmax())
        raise ValueError(f"{NAME}: found must be indices of their query's sequence, from 0 to {int(ends[query] - begins[query]) - 1}, "
                         f"got {int(found[query].max())} at {query}")  # fmt: skip
    there = there & inside
    places = (begins[:, None] + found)[there]
    return (*(value.index_select(0, places) for value in values), there.sum(1))


def _bounds(found: Tensor, offsets: Tensor, query_offsets: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of the sequence of each query, int64 [Q] twice."""
    offsets = offsets.long()
    if query_offsets is None:
        sequences = len(offsets) - 1
        check(NAME, sequences == len(found), lambda: f"found must have a row for each of S = {sequences} sequences, got "
              f"{shape_of(found)}; pass query_offsets for more")  # fmt: skip
        return offsets[:-1], offsets[1:]
    check_int(NAME, "query_offsets", query_offsets)
    check(NAME, query_offsets.shape == offsets.shape, lambda: f"query_offsets must have offsets' shape {shape_of(offsets)}, got "
          f"{shape_of(query_offsets)}")  # fmt: skip
    history = History(found, found, query_offsets=query_offsets)  # whose rows are not looked at
    begins, ends = each_query(NAME, history, found.shape[:1], offsets[:-1], offsets[1:], wait=False)
    return begins, ends
