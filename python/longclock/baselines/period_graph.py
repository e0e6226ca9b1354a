# SPDX-License-Identifier: Apache-2.0
"""A graph of users and items for each part of the day, and LightGCN over the current one."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from longclock.baselines.pooled import windows_of
from longclock.baselines.recent import hour_of
from longclock.data.stream import DAY
from longclock.types import Lookup


class PeriodGraph(nn.Module):
    """``v_cur = h([e_user ; e_item])``, both propagated in the graph of the current part of the day.

    The day has ``periods`` equal parts (4: night, morning, afternoon, evening); an edge of a part's graph says that the
    user took the item in it. LightGCN: ``e^(l+1) = D^-1/2 A D^-1/2 e^(l)``, and e is the mean of
    ``e^(0)`` to ``e^(layers)``. ``e^(0)`` of a user is a parameter, that of an item its vector, so that users lie among the items that
    they took. Graphs start empty and grow by ``observe``; they are not in the state_dict: observe again what they held.

    Call: as :class:`longclock.LongTermInterestClock`, and

    - ``user``: int64, [S], for windows [Q]; ``item``: int64, the candidates' shape without its last place;
    - ``item_vectors``: [items, H].

    The behaviours are not read, nor is ``k``. The context is [..., 1, H], ``e_user``.
    Source: LightGCN, arXiv 2002.02126; graphs of four parts of the day as a rival of arXiv 2501.15817.

    Args:
        users: how many.
        periods, layers: see above.
        period: of the clock, seconds: whole days, of which each is cut into parts.

    Raises:
        ValueError: a size or an id that does not fit; the message names it.

    Parameters: user [users, H] and head.
    """

    reads = ("user", "item", "item_vectors")

    def __init__(
        self,
        behaviour_dim: int,
        candidate_dim: int,
        k: int | None = None,
        out_dim: int = 64,
        hidden_dim: int = 128,
        *,
        users: int,
        periods: int = 4,
        layers: int = 2,
        period: int = DAY,
    ) -> None:
        super().__init__()
        if period % DAY:
            raise ValueError(
                f"PeriodGraph: period must be whole days, a multiple of {DAY}, got {period}: times tell the time of day"
            )
        for name, size in (("users", users), ("periods", periods)):
            if size < 1:
                raise ValueError(f"PeriodGraph: {name} must be at least 1, got {size}")
        if layers < 0:
            raise ValueError(f"PeriodGraph: layers must be at least 0, got {layers}")
        self.candidate_dim, self.layers = candidate_dim, layers
        self.user = nn.Parameter(torch.randn(users, candidate_dim) * 0.1)
        self.head = nn.Sequential(
            nn.Linear(2 * candidate_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim)
        )
        # Of every part, user * 2^32 + item in ascending order, and what propagation takes, made when needed.
        self._edges = [torch.empty(0, dtype=torch.int64) for _ in range(periods)]
        self._links: list[tuple[int, Tensor, Tensor] | None] = [None] * periods

    @torch.no_grad()
    def observe(self, user: Tensor, item: Tensor, time: Tensor) -> None:
        """Users took items: int64 [E] each, ``time`` in local seconds. The same edge twice is one edge."""
        for name, ids, end in (("user", user, len(self.user)), ("item", item, 1 << 31)):
            if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < end:
                raise ValueError(
                    f"PeriodGraph: {name} must be from 0 to {end - 1}, got {int(ids.min())} to {int(ids.max())}"
                )
        part, edge = hour_of(time, DAY, len(self._edges)), (user << 32) + item
        for number in part.unique().tolist():
            known = torch.cat([self._edges[number], edge[part == number]])
            self._edges[number] = known.unique()
            self._links[number] = None

    def forward(
        self,
        candidate: Tensor,
        behaviours: Tensor | Lookup | None,
        behaviour_time: Tensor,
        query_time: Tensor,
        lengths: Tensor | None = None,
        *,
        user: Tensor,
        item: Tensor,
        item_vectors: Tensor,
        return_context: bool = False,
        **layout: Any,
    ) -> Any:
        if item.shape != candidate.shape[:-1]:
            raise ValueError(
                f"PeriodGraph: item must have shape {list(candidate.shape[:-1])}, one a candidate, got {list(item.shape)}"
            )
        *_, query_time, user = windows_of(
            candidate, behaviour_time, lengths, query_time, user, **layout
        )
        part, item = hour_of(query_time, DAY, len(self._edges)), item.flatten()
        e_user = item_vectors.new_empty(len(user), self.candidate_dim)
        e_item = torch.empty_like(e_user)
        for number in part.unique().tolist():
            here = (part == number).nonzero().flatten()
            users, items = self._propagate(number, item_vectors)
            e_user = e_user.index_copy(0, here, users[user[here]])
            e_item = e_item.index_copy(0, here, items[item[here]])
        queries = candidate.shape[:-1]
        v = self.head(torch.cat([e_user, e_item], -1)).unflatten(0, queries)
        return (v, e_user.unsqueeze(-2).unflatten(0, queries)) if return_context else v

    def _propagate(self, number: int, items: Tensor) -> tuple[Tensor, Tensor]:
        """All users' and items' vectors in the graph of one part of the day."""
        users: Tensor = self.user
        links = self._links[number]
        if links is None or links[0] != len(items):
            links = self._links[number] = (len(items), *self._normalised(number, len(items)))
        _, to_users, to_items = links
        user_sum, item_sum = users, items
        for _ in range(self.layers):
            users, items = (
                _Product.apply(to_users, to_items, items),
                _Product.apply(to_items, to_users, users),
            )
            user_sum, item_sum = user_sum + users, item_sum + items
        return user_sum / (self.layers + 1), item_sum / (self.layers + 1)

    def _normalised(self, number: int, items: int) -> tuple[Tensor, Tensor]:
        """D^-1/2 A D^-1/2 from items to users, CSR [users, items], and its transpose."""
        edges = self._edges[number].to(self.user.device)
        user, item = edges >> 32, edges & (1 << 32) - 1
        shape = (len(self.user), items)
        degree = [
            torch.bincount(ids, minlength=size)
            for ids, size in zip((user, item), shape, strict=True)
        ]
        weight = (degree[0][user] * degree[1][item]).to(self.user.dtype).rsqrt()
        # Edges are in the order of users, then items: the columns of a CSR matrix.
        to_users = _csr(degree[0], item, weight, shape)
        order = item.argsort(stable=True)
        return to_users, _csr(degree[1], user[order], weight[order], shape[::-1])


def _csr(degree: Tensor, columns: Tensor, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    begin = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(begin, columns, weight, shape, check_invariants=False)


class _Product(torch.autograd.Function):
    """A sparse matrix times a dense one; the gradient takes the transpose, which is at hand."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transpose: Tensor, dense: Tensor) -> Tensor:
        ctx.transpose = transpose
        return matrix @ dense

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.transpose @ grads[0]
