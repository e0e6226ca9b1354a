# SPDX-License-Identifier: Apache-2.0
"""What baselines without a search share: one vector pooled from the behaviours, then a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from longclock._keywords import keywords_of, named_keywords, unexpected
from longclock._mlp import resolve_period
from longclock._sizes import check_size
from longclock.baselines._checks import check_model_call, check_sizes, dtype_of
from longclock.history import History
from longclock.history.rows import floating_rows, rows_at
from longclock.history.windows import bounds_of, each_query, edges_of, flattened
from longclock.nn.interest_module import InterestModule
from longclock.types import Lookup


class Pooled(InterestModule):
    """``v_cur = h([pooled ; beside])``, one vector pooled from a window of behaviours: what a baseline derives from.

    Takes every layout of :class:`longclock.LongTermInterestClock` and returns the same shapes; the context
    has one head and no time features: ``[..., 1, L]``. Both have the weights' dtype.

    Args:
        behaviour_dim, candidate_dim: L and H.
        k: how many of the last behaviours are pooled; None: all.
        out_dim, hidden_dim: sizes of the two-layer network.
        period: of the clock, seconds.
        extra_dim: columns that ``beside`` adds to L.

    Raises:
        ValueError: a size, or an argument of a call, that does not fit; the message names the class, the argument and
            the remedy. Lengths, bounds of windows and the ids that are read are checked on every device, which on a
            GPU waits for them.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import Pooled
        >>> class Last(Pooled):
        ...     def pool(self, candidate, windows, query_time):
        ...         return windows.rows[windows.ends - 1]
        >>> history = lc.History.dense(torch.randn(2, 5, 8), torch.zeros(2, 5, dtype=torch.int64))
        >>> Last(8, 8, out_dim=3)(torch.randn(2, 8), history, torch.tensor([0, 60])).shape
        torch.Size([2, 3])
    """

    of_candidate = (
        True  # the pooled vector depends on the candidate; ``reads`` is what ``beside`` takes
    )

    @named_keywords()
    def __init__(
        self,
        behaviour_dim: int,
        candidate_dim: int,
        k: int | None = 100,
        out_dim: int = 64,
        hidden_dim: int = 128,
        *,
        period: int = 86400,
        extra_dim: int = 0,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_sizes(
            name,
            behaviour_dim=behaviour_dim,
            candidate_dim=candidate_dim,
            out_dim=out_dim,
            hidden_dim=hidden_dim,
        )
        check_size(name, "extra_dim", extra_dim, 0)
        if k is not None:
            check_size(name, "k", k, 0, hint="; k=None pools the whole sequence")
        self.behaviour_dim, self.candidate_dim = behaviour_dim, candidate_dim
        self.k, self.period = k, resolve_period(name, period)
        self.head = nn.Sequential(
            nn.Linear(behaviour_dim + extra_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, out_dim),
        )

    def forward(
        self,
        candidate: Tensor,
        history: History,
        query_time: Tensor,
        *,
        return_context: bool = False,
        **reads: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        op = type(self).__name__
        for name in reads.keys() - set(self.reads):
            raise unexpected(op, name, [*keywords_of(Pooled.forward), *self.reads])
        check_model_call(op, candidate, self.candidate_dim, self.behaviour_dim, history, query_time)
        queries, many = candidate.shape[:-1], candidate.dim() == 3
        rows = (*bounds_of(op, history), query_time, *self.beside(query_time, **reads))
        if self.of_candidate or not many:  # else one vector a history, for all its candidates
            rows = each_query(op, history, queries, *rows)
        starts, ends, now, *beside = rows
        windows = flattened(history)._replace(starts=starts, ends=ends)
        pooled = self.pool(candidate.flatten(0, -2), windows, now).to(dtype_of(self.head))
        v, context = self.head(torch.cat([pooled, *beside], -1)), pooled.unsqueeze(-2)
        if many:
            v, context = (
                value.unflatten(0, queries)
                if self.of_candidate
                else value.unsqueeze(1).expand(-1, queries[1], *value.shape[1:])
                for value in (v, context)
            )
        return (v, context) if return_context else v

    def pool(self, candidate: Tensor, windows: History, query_time: Tensor) -> Tensor:
        """One vector a query, [Q, L]; 0 where no behaviour counts.

        Args:
            candidate: [Q, H], a row each; without meaning where ``of_candidate`` is False.
            windows: the behaviours of each query, ``starts`` and ``ends`` [Q].
            query_time: [Q], seconds.
        """
        raise NotImplementedError

    def beside(self, query_time: Tensor) -> tuple[Tensor, ...]:
        """What the network reads beside the pooled behaviours: ``extra_dim`` columns for every query time, [S] or [Q].

        A model that needs more than the time for it takes it by the names in its ``reads``.
        """
        return ()


def different_windows(windows: History) -> tuple[list[tuple[int, int]], Tensor]:
    """Where the windows of queries begin and end, a row of equal ones once; and which one each query has, [Q].

    Candidates of one history follow each other, so what depends on the history alone is computed once.
    """
    bounds, which = torch.unique_consecutive(
        torch.stack(edges_of(windows)), dim=1, return_inverse=True
    )
    return [(begin, end) for begin, end in bounds.T.tolist()], which


def rows_of(op: str, history: History, bounds: list[tuple[int, int]]) -> tuple[Tensor, ...]:
    """The behaviours of a flattened history between each two bounds that count, one after another: [P, L] each."""
    mask = history.mask

    def counting(values: Tensor, begin: int, end: int) -> Tensor:
        values = values[begin:end]
        return values if mask is None else values[mask[begin:end]]

    rows = floating_rows(op, history)
    if not isinstance(rows, Lookup):
        return tuple(counting(rows, *at) for at in bounds)
    place = torch.arange(history.time.numel(), device=history.time.device)
    places = [counting(place, *at) for at in bounds]
    # One gather, so that each table gets one gradient.
    every = rows_at(op, "history.rows.ids", rows, torch.cat([place[:0], *places]))
    return every.split([len(part) for part in places])


def check_item_columns(model: Pooled) -> None:
    """Behaviours must begin with a vector like the candidates'."""
    if model.candidate_dim > model.behaviour_dim:
        raise ValueError(
            f"{type(model).__name__}: behaviour_dim must be at least candidate_dim = {model.candidate_dim}, got "
            f"{model.behaviour_dim}: a behaviour's first columns are compared with the candidate's"
        )
