# SPDX-License-Identifier: Apache-2.0
"""Argument and result types of the public interface. NamedTuples, so that compile and export trace them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from torch import Tensor

from longclock._constants import ELAPSED as ELAPSED
from longclock._keywords import named_keywords
from longclock._torch_state import register_for_saving

if TYPE_CHECKING:
    from longclock.nn.time_similarity import TimeSimilarity


class QuantizedRows(NamedTuple):
    """Rows in bytes, for a search: row m is ``scale[m] values[m]``.

    A quarter of the bytes of fp32. :func:`longclock.quantize_rows` makes them, and the searches by dot products take them wherever
    they take rows: as ``keys``, in a :class:`History`, and as the one table of a :class:`Lookup`. They have no gradient, and the attention
    does not read them. ``values`` is int8 [..., D], or float8_e4m3fn, which CUDA alone reads; ``scale`` is float32 [...].

    Example::

        >>> import torch, longclock as lc
        >>> rows = lc.quantize_rows(torch.tensor([[254.0, -1.0, 3.0], [0.5, 0.0, 0.0]]))
        >>> rows.values.tolist(), rows.float().tolist()
        ([[127, 0, 2], [127, 0, 0]], [[254.0, 0.0, 4.0], [0.5, 0.0, 0.0]])
    """

    values: Tensor
    scale: Tensor

    def float(self) -> Tensor:
        """The rows that they stand for, float32 [..., D]."""
        return self.values.float() * self.scale[..., None]

    def mapped(self, function: Callable[[Tensor], Tensor]) -> QuantizedRows:
        """``function`` of both."""
        return QuantizedRows(function(self.values), function(self.scale))


QuantizedRows.__new__ = named_keywords("QuantizedRows")(QuantizedRows.__new__)  # type: ignore[method-assign]
register_for_saving(QuantizedRows)


class Lookup(NamedTuple):
    """Rows of a table, or of several, gathered inside the kernel in place of a copy of them.

    ``table[ids]`` without making it: ``table`` is [N, L], ``ids`` any integer shape; where a position
    does not count its id is never read. The table gets its gradient as from ``nn.Embedding``,
    as a sparse tensor where ``sparse`` is True.

    A behaviour that is an item and its features is a row of each of several tables, side by side: ``table`` is a tuple of up to
    eight tables [N, L_i], which may differ in N and L_i but not in dtype, and ``ids`` a tuple of as many. Rows of width
    L = L_1 + L_2 + ... are never made: a search adds up the tables' products, and the attention reads the pieces of a row where
    they lie. Where an element of ``ids`` is None, its table has a row for every behaviour in their order, [S, M, L_i] or [T, L_i].

    Example::

        >>> import torch, longclock as lc
        >>> items, played = torch.nn.Embedding(1_000, 8), torch.tensor([[7, 3, 7]])
        >>> when, now = 3600 * torch.tensor([[8, 20, 9]]), torch.tensor([32 * 3600])
        >>> lic = lc.LongTermInterestClock(behaviour_dim=8, candidate_dim=8)
        >>> history = lc.History.dense(lc.Lookup(items.weight, played), when)
        >>> lic(torch.ones(1, 8), history, now).sum().backward()
        >>> items.weight.grad.any(dim=1).nonzero().flatten()  # rows that get a gradient
        tensor([3, 7])
        >>> actions, clicked = torch.nn.Embedding(5, 4), torch.tensor([[0, 4, 1]])
        >>> rows = lc.Lookup((items.weight, actions.weight), (played, clicked))
        >>> history = lc.History.dense(rows, when)
        >>> history.width
        12
    """

    table: Tensor | QuantizedRows | tuple[Tensor, ...]
    ids: Tensor | tuple[Tensor | None, ...]
    sparse: bool = False

    @property
    def has_several(self) -> bool:
        """Whether it is of a tuple of tables."""
        return isinstance(self.table, tuple) and not isinstance(self.table, QuantizedRows)

    def parts(self) -> list[tuple[Tensor, Tensor | None]]:
        """Each table, of rows in bytes the values, and its ids, None where it has a row for every behaviour."""
        if isinstance(self.table, QuantizedRows):
            return [(self.table.values, self.ids)]  # type: ignore[list-item]
        if isinstance(self.table, tuple) and isinstance(self.ids, tuple):
            return list(zip(self.table, self.ids, strict=True))
        return [(self.table, self.ids)]  # type: ignore[list-item]

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Lookup:
        """The same with another order of behaviours: ``function`` of all ids, and of the tables without."""
        if not self.has_several:
            return self._replace(ids=function(self.ids))  # type: ignore[arg-type]
        parts = [
            (function(table), None) if ids is None else (table, function(ids))
            for table, ids in self.parts()
        ]
        tables, every_ids = zip(*parts, strict=True)
        return Lookup(tables, every_ids, self.sparse)


Lookup.__new__ = named_keywords("Lookup")(Lookup.__new__)  # type: ignore[method-assign]
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


Clock: TypeAlias = int | Literal["elapsed"]  # a period in seconds, or ELAPSED
Clocks: TypeAlias = Clock | tuple[Clock, ...]
Mlp: TypeAlias = "tuple[Tensor, Tensor, Tensor, Tensor] | TimeSimilarity"
