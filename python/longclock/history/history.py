# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Proxy

from longclock._checks import check, check_not_strided
from longclock._keywords import named_keywords
from longclock._torch_state import register_for_saving
from longclock.history.checks import check_device, check_history
from longclock.history.jagged import apart
from longclock.types import Lookup, QuantizedRows


class History(NamedTuple):
    """The behaviours that queries look at, in one of three layouts.

    - :meth:`dense`: S sequences of M behaviours each, of which the first ``lengths`` count.
    - :meth:`ragged`: S sequences of any length, one behind the other.
    - :meth:`windows`: S stretches of one list, which may overlap: histories of a user at several moments.

    In the last two, queries are one a sequence, or as many as ``query_offsets`` says: the candidates of a request share one
    sequence. A history is a tuple of tensors, so that ``torch.compile`` and ``torch.export`` take it as an argument.

    Example::

        >>> import torch, longclock as lc
        >>> rows, time, ends = torch.randn(6, 8), 3600 * torch.arange(6), torch.tensor([5])
        >>> request = {"ends": ends, "query_offsets": torch.tensor([0, 100])}  # of 100 candidates
        >>> history = lc.History.windows(rows, time, starts=ends - 3, **request)
        >>> lc.LongTermInterestClock(8, 8)(torch.randn(100, 8), history, time[5:]).shape
        torch.Size([100, 64])
    """

    rows: Tensor | QuantizedRows | Lookup
    time: Tensor
    lengths: Tensor | None = None
    offsets: Tensor | None = None
    query_offsets: Tensor | None = None
    starts: Tensor | None = None
    ends: Tensor | None = None
    mask: Tensor | None = None

    @classmethod
    @named_keywords("History.dense")
    def dense(
        cls,
        rows: Tensor | QuantizedRows | Lookup,
        time: Tensor,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> History:
        """Rows of one length, the same number of queries for each.

        Args:
            rows: [S, M, L], or a Lookup with ids [S, M], of one table or several; for a search also QuantizedRows.
            time: int32 or int64 [S, M], seconds.
            lengths: [S], how many behaviours of each row count; None: M.
            mask: bool [S, M]; False is as if the behaviour were not there.
        Raises:
            ValueError: an argument that does not fit; the message names it.

        Example::

            >>> import torch, longclock as lc
            >>> eight, nine = 8 * 3600, 9 * 3600
            >>> history = lc.History.dense(torch.randn(1, 2, 16), torch.tensor([[eight, nine]]))
            >>> history.rows.shape
            torch.Size([1, 2, 16])
        """
        return _checked("History.dense", cls(rows, time, lengths, mask=mask))

    @classmethod
    @named_keywords("History.ragged")
    def ragged(
        cls,
        rows: Any,
        time: Any,
        offsets: Tensor | None = None,
        query_offsets: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        lengths: Tensor | None = None,
    ) -> History:
        """Sequences one behind the other: that of user s begins at ``offsets[s]`` and ends before ``offsets[s + 1]``.

        Args:
            rows: [T, L], or a Lookup with ids [T]; for a search also QuantizedRows. Rows, ids and time may be jagged: anything with ``values()`` and ``offsets()``,
                as TorchRec's JaggedTensor or a nested tensor of layout ``torch.jagged``, whose offsets then hold.
            time: int32 or int64 [T], seconds.
            offsets: [S + 1], never falling: from 0 to T, or some of such offsets, as those of a feature of a KeyedJaggedTensor
                are, which makes windows of the sequences. On CUDA and in graphs nothing is read: give such as starts and ends there.
            lengths: [S], in place of offsets.
            query_offsets: [S + 1], from 0 to Q: queries ``query_offsets[s]`` to ``query_offsets[s + 1] - 1`` see sequence s.
                None: query s sees it.
            mask: bool [T]; False is as if the behaviour were not there.
        Raises:
            ValueError: an argument that does not fit; the message names it.

        Example::

            >>> import torch, longclock as lc
            >>> rows, time = torch.randn(3, 16), torch.tensor([0, 3600, 60])
            >>> two_users = lc.History.ragged(rows, time, offsets=torch.tensor([0, 2, 3]))
            >>> two_users.layout()["offsets"].tolist()
            [0, 2, 3]
            >>> of_lengths = lc.History.ragged(rows, time, lengths=torch.tensor([2, 1]))
            >>> torch.equal(of_lengths.offsets, two_users.offsets)
            True
        """
        found = apart("History.ragged", rows, time, offsets, lengths)
        history = cls(found.rows, found.time, offsets=found.offsets, query_offsets=query_offsets, starts=found.starts,
                      ends=found.ends, mask=mask)  # fmt: skip
        return _checked("History.ragged", history)

    @classmethod
    @named_keywords("History.windows")
    def windows(
        cls,
        rows: Tensor | QuantizedRows | Lookup,
        time: Tensor,
        starts: Tensor,
        ends: Tensor,
        query_offsets: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> History:
        """Stretches of one list: window s holds the rows from ``starts[s]`` to ``ends[s] - 1``.

        Args:
            rows: [T, L], or a Lookup with ids [T]; for a search also QuantizedRows.
            time: int32 or int64 [T], seconds.
            starts, ends: [S], with 0 <= start <= end <= T.
            query_offsets: [S + 1], from 0 to Q: queries ``query_offsets[s]`` to ``query_offsets[s + 1] - 1`` see window s. None:
                query s sees it.
            mask: bool [T]; False is as if the behaviour were not there.
        Raises:
            ValueError: an argument that does not fit; the message names it.

        Example::

            >>> import torch, longclock as lc
            >>> rows, time = torch.randn(3, 16), torch.tensor([0, 3600, 7200])
            >>> each_before = lc.History.windows(rows, time, torch.tensor([0, 0]), torch.tensor([1, 2]))
            >>> [len(tensor) for tensor in (each_before.starts, each_before.time)]
            [2, 3]
        """
        history = cls(rows, time, query_offsets=query_offsets, starts=starts, ends=ends, mask=mask)
        return _checked("History.windows", history)

    def layout(self) -> dict[str, Tensor | None]:
        """Which behaviours count, by the keywords of the functional ops.

        Example::

            >>> import torch, longclock as lc
            >>> history = lc.History.dense(torch.randn(1, 2, 16), torch.zeros(1, 2, dtype=torch.int64))
            >>> sorted(history.layout())
            ['ends', 'lengths', 'mask', 'offsets', 'query_offsets', 'starts']
        """
        return {name: getattr(self, name) for name in LAYOUT}

    def arguments(self) -> dict[str, Any]:
        """Rows, times and layout, by the keywords of the functional searches.

        Example::

            >>> import torch, longclock as lc
            >>> history = lc.History.dense(torch.randn(1, 5, 16), 3600 * torch.arange(5)[None])
            >>> s, now = lc.TimeSimilarity(), torch.tensor([4 * 3600])
            >>> lc.clock_gsu(torch.zeros(1, 16), query_time=now, mlp=s, k=2, **history.arguments()).indices
            tensor([[4, 3]])
        """
        looked_up = isinstance(self.rows, Lookup)
        keys, ids = (self.rows.table, self.rows.ids) if looked_up else (self.rows, None)  # type: ignore[union-attr]
        return {"keys": keys, "key_time": self.time, "ids": ids, **self.layout()}

    def to(
        self,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> History:
        """The same on another device; rows, where they are floating, in another dtype.

        Example::

            >>> import torch, longclock as lc
            >>> history = lc.History.dense(torch.randn(1, 2, 16), torch.zeros(1, 2, dtype=torch.int64))
            >>> history.to(dtype=torch.bfloat16).rows.dtype
            torch.bfloat16
        """

        if isinstance(device, torch.dtype):
            raise ValueError(
                f"History.to: device must be a device, got {device}; give it as dtype="
            )

        def moved(value: Any, dtype: torch.dtype | None = None) -> Any:
            if isinstance(value, QuantizedRows):
                return value.mapped(moved)
            if isinstance(value, tuple):
                return tuple(moved(each, dtype) for each in value)
            if not isinstance(value, Tensor):
                return value
            where = value.device if device is None else device
            return value.to(where, dtype or value.dtype, non_blocking=non_blocking)

        rows, *others = self
        if isinstance(rows, Lookup):
            rows = Lookup(moved(rows.table, dtype), moved(rows.ids), rows.sparse)
        else:
            rows = moved(rows, dtype)
        return History(rows, *map(moved, others))

    @property
    def tables(self) -> tuple[Tensor, ...]:
        """The rows as they lie in memory: [S, M, L], [T, L], or a Lookup's tables [N, L_i]; of rows in bytes their values."""
        rows = self.rows
        if isinstance(rows, Lookup):
            return tuple(table for table, _ in rows.parts())
        return (rows.values if isinstance(rows, QuantizedRows) else rows,)

    @property
    def table(self) -> Tensor:
        """The first of :attr:`tables`, which is all of them but for a Lookup of several."""
        return self.tables[0]

    @property
    def width(self) -> int:
        """L, the columns of a behaviour."""
        return sum(table.shape[-1] for table in self.tables)

    @property
    def is_dense(self) -> bool:
        return self.starts is None and self.offsets is None


LAYOUT = ("lengths", "offsets", "query_offsets", "starts", "ends", "mask")


def from_arguments(keys: Any, key_time: Tensor, ids: Any = None, **layout: Any) -> History:
    """The history whose :meth:`History.arguments` these are, as they are."""
    return History(keys if ids is None else Lookup(keys, ids), key_time, **layout)


def not_a_history(value: object) -> str:
    return f"must be a History, got {type(value).__name__}; make one with History.dense, .ragged or .windows"


def require_history(op: str, value: object) -> None:
    if not isinstance(value, History):
        raise ValueError(f"{op}: history {not_a_history(value)}")


def _checked(op: str, history: History) -> History:
    parts = _parts(history)
    check_not_strided(op, **dict(parts))
    for name, value in parts:
        if isinstance(value, Proxy):  # of torch.fx: the module that takes the history checks it
            return history
        wanted = "a tensor, QuantizedRows or a Lookup" if name == "rows" else "a tensor"
        check(op, isinstance(value, Tensor), lambda name=name, value=value, wanted=wanted:  # type: ignore[misc]
              f"{name} must be {wanted}, got {type(value).__name__}")  # fmt: skip
    check_history(op, history)
    for name, value in parts:
        check_device(op, name, value, history.time)
    return history


def _parts(history: History) -> list[tuple[str, Any]]:
    """All that was given, and its names."""
    rows = history.rows
    looked_up = isinstance(rows, Lookup)
    name, table = ("rows' table", rows.table) if looked_up else ("rows", rows)  # type: ignore[union-attr]
    parts: list[tuple[str, Any]] = [(name, table)]
    if isinstance(table, QuantizedRows):
        parts = [(f"{name}.values", table.values), (f"{name}.scale", table.scale)]
    if looked_up:
        parts.append(("ids", rows.ids))  # type: ignore[union-attr]
    if isinstance(rows, Lookup) and rows.has_several:
        parts = []
        for i, (table, ids) in enumerate(rows.parts()):
            parts += [(f"rows[{i}]", table), *([] if ids is None else [(f"ids[{i}]", ids)])]
    layout = history.layout().items()
    return [*parts, ("time", history.time), *(part for part in layout if part[1] is not None)]


History.__new__ = named_keywords("History")(History.__new__)  # type: ignore[method-assign]
register_for_saving(History)
