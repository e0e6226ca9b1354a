# SPDX-License-Identifier: Apache-2.0
"""Queries of candidates: their projections, and these folded into the width of a behaviour."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class CandidateQueries:
    """What a module asks of both stages for its candidates, made here or stored ahead of time."""

    heads: int
    head_dim: int
    w_b: Tensor
    w_q: Tensor
    w_s: Tensor | None

    def project_query(self, candidate: Tensor) -> Tensor:
        """W_q q of candidates, which a server may store for every item: [..., H] -> [..., n d].

        With ``own_search`` that of the search lies behind it, [..., 2 n d]. Given to a call for ``query=`` the result has the same
        bits on a CPU from three candidates on, made of however many; the product of one or two is another one's order of sums.

        Example::

            >>> import torch, longclock as lc
            >>> lic, items, now = lc.LongTermInterestClock(8, 8, k=2), torch.randn(50, 8), torch.tensor([0])
            >>> table, candidates = lic.project_query(items), torch.tensor([4, 2, 31])
            >>> history = lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None])
            >>> stored = lic(items[candidates][None], history, now, query=table[candidates][None])
            >>> torch.allclose(stored, lic(items[candidates][None], history, now))
            True
        """
        of_attention = nn.functional.linear(candidate, self.w_q.flatten(0, 1))
        if self.w_s is None:
            return of_attention
        of_search = nn.functional.linear(candidate, (self.w_q + self.w_s).flatten(0, 1))
        return torch.cat([of_attention, of_search], -1)

    def _given(self, candidate: Tensor, query: Tensor, stage: int) -> Tensor:
        """A stage's part of what :meth:`project_query` made; stage 0 is the attention.

        Raises:
            ValueError: it is something else.
        """
        width, parts = self.heads * self.head_dim, 1 if self.w_s is None else 2
        wanted = [*candidate.shape[:-1], parts * width]
        if list(query.shape) != wanted or query.dtype != self.w_q.dtype:
            raise ValueError(
                f"{type(self).__name__}: query must be project_query(candidate), {self.w_q.dtype} {wanted}, got "
                f"{query.dtype} {list(query.shape)}"
            )
        return query.unflatten(-1, (parts, width))[..., stage, :]

    def _attention_query(
        self, candidate: Tensor, query: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The candidates' projections and u, or those of a query that was stored."""
        if query is None:
            return self._folded(candidate, self.w_q, self.w_b)
        return self._fold(self._given(candidate, query, 0), self.w_b)

    def _folded(self, candidate: Tensor, w_q: Tensor, w_b: Tensor) -> tuple[Tensor, Tensor]:
        return self._fold(nn.functional.linear(candidate, w_q.flatten(0, 1)), w_b)

    def _fold(self, projected: Tensor, w_b: Tensor) -> tuple[Tensor, Tensor]:
        """The candidates' projections, [..., n d], and these folded into the rows' width: u, [Q, n, L]."""
        return projected, torch.bmm(self._of_heads(projected), w_b).transpose(0, 1)

    def _of_heads(self, projected: Tensor) -> Tensor:
        """The candidates' projections at their scale, head by head, [n, Q, d]."""
        scaled = projected / math.sqrt(self.head_dim)  # where it is narrower than u
        return scaled.reshape(-1, self.heads, self.head_dim).transpose(0, 1)

    def _search_query(
        self, candidate: Tensor, query: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same for the search."""
        if query is not None:
            stage = 0 if self.w_s is None else 1
            return self._fold(self._given(candidate, query, stage), self.w_b)
        w_q = self.w_q if self.w_s is None else self.w_q + self.w_s
        return self._folded(candidate, w_q, self.w_b)
