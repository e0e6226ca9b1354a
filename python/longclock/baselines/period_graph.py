# SPDX-License-Identifier: Apache-2.0
"""A graph of users and items for each part of the day, and LightGCN over the current one."""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from longclock._checks import check_ids
from longclock._keywords import named_keywords
from longclock._mlp import resolve_period
from longclock._sizes import check_size
from longclock.baselines._checks import (
    check_device,
    check_floats,
    check_integers,
    check_model_call,
    check_sizes,
    check_whole_days,
    require_dense,
)
from longclock.baselines.recent import hour_of
from longclock.data.stream import DAY
from longclock.history import History
from longclock.history.windows import bounds_of, each_query
from longclock.nn.interest_module import InterestModule

_Links: TypeAlias = "tuple[tuple[int, torch.dtype, torch.device], Tensor, Tensor]"


class PeriodGraph(InterestModule):
    """``v_cur = h([e_user ; e_item])``, both propagated in the graph of the current part of the day.

    The day has ``periods`` equal parts (4: night, morning, afternoon, evening); an edge of a part's graph says that the
    user took the item in it. LightGCN: ``e^(l+1) = D^-1/2 A D^-1/2 e^(l)``, and e is the mean of
    ``e^(0)`` to ``e^(layers)``. ``e^(0)`` of a user is a parameter, that of an item its vector, so that users lie among the items that
    they took. Graphs start empty and grow by ``observe``; they are not in the state_dict: observe again what they held.

    Call: as :class:`longclock.LongTermInterestClock`, and

    - ``user``: int32 or int64, [S], one a query_time; ``item``: the same, the candidates' shape without its last place;
    - ``item_vectors``: [items, H], a row for every item that is asked for or was observed.

    The behaviours are not read, nor is ``k``. The context is [..., 1, H], ``e_user``.
    Source: LightGCN, arXiv 2002.02126; graphs of four parts of the day as a rival of arXiv 2501.15817.

    Args:
        users: how many.
        periods, layers: see above.
        period: of the clock, seconds: whole days, of which each is cut into parts.

    Raises:
        ValueError: a size or an id that does not fit; the message names it.

    Parameters: user.weight [users, H] and head.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import PeriodGraph
        >>> model, items = PeriodGraph(8, 8, out_dim=3, users=2), torch.randn(5, 8)
        >>> morning = torch.tensor([9 * 3600])
        >>> model.observe(user=torch.tensor([0]), item=torch.tensor([4]), time=morning)
        >>> history = lc.History.dense(torch.randn(1, 2, 8), torch.zeros(1, 2, dtype=torch.int64))
        >>> asked = {"user": torch.tensor([0]), "item": torch.tensor([4]), "item_vectors": items}
        >>> model(items[4:], history, morning, **asked).shape
        torch.Size([1, 3])
    """

    reads = ("user", "item", "item_vectors")

    @named_keywords()
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
        check_sizes(
            "PeriodGraph", behaviour_dim=behaviour_dim, candidate_dim=candidate_dim, out_dim=out_dim,
            hidden_dim=hidden_dim, users=users, periods=periods,
        )  # fmt: skip
        check_size("PeriodGraph", "layers", layers, 0)
        check_whole_days("PeriodGraph", resolve_period("PeriodGraph", period))
        self.behaviour_dim, self.candidate_dim = behaviour_dim, candidate_dim
        self.layers = layers
        self.user = nn.Embedding(users, candidate_dim)
        nn.init.normal_(self.user.weight, std=0.1)
        self.head = nn.Sequential(
            nn.Linear(2 * candidate_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim)
        )
        # Of every part, user * 2^32 + item in ascending order, and what propagation takes, made when needed.
        self._edges = [torch.empty(0, dtype=torch.int64) for _ in range(periods)]
        self._links: list[_Links | None] = [None] * periods
        self._items = 0  # one more than the largest item observed

    def __getstate__(self) -> dict[str, Any]:
        """With the edges, without what is made of them."""
        return {**self.__dict__, "_links": [None] * len(self._links)}

    @torch.no_grad()
    def observe(self, user: Tensor, item: Tensor, time: Tensor) -> None:
        """Users took items: int32 or int64 [E] each, ``time`` in local seconds. The same edge twice is one edge.

        Raises:
            ValueError: an argument that does not fit; nothing is kept then.
        """
        op = type(self).__name__
        require_dense(op, user=user)
        shape = (user.numel(),)
        for name, values in (("user", user), ("item", item), ("time", time)):
            check_integers(op, name, values, shape, "shape [E] = {}, one an edge", user)
        check_ids(op, "user", user, self.user.num_embeddings, "build the module with more users")
        check_ids(op, "item", item, 1 << 31, "number the items from 0 on")
        user, item, time = (
            values.to(self._edges[0].device).long() for values in (user, item, time)
        )
        part, edge = hour_of(time, DAY, len(self._edges)), (user << 32) + item
        for number in part.unique().tolist():
            known = torch.cat([self._edges[number], edge[part == number]])
            self._edges[number] = known.unique()
            self._links[number] = None
        if item.numel():
            self._items = max(self._items, int(item.max()) + 1)

    def forward(
        self,
        candidate: Tensor,
        history: History,
        query_time: Tensor,
        *,
        user: Tensor,
        item: Tensor,
        item_vectors: Tensor,
        return_context: bool = False,
    ) -> Any:
        op = type(self).__name__
        check_model_call(op, candidate, self.candidate_dim, self.behaviour_dim, history, query_time)
        queries = candidate.shape[:-1]
        bounds_of(op, history)  # checks the values of the layout
        self._check_ids(candidate, query_time, user, item, item_vectors)
        time, of_user = each_query(op, history, queries, query_time, user.long())
        part, item = hour_of(time, DAY, len(self._edges)), item.flatten().long()
        vectors = item_vectors.to(torch.promote_types(self.user.weight.dtype, torch.float32))
        e_user = vectors.new_empty(len(of_user), self.candidate_dim)
        e_item = torch.empty_like(e_user)
        for number in part.unique().tolist():
            here = (part == number).nonzero().flatten()
            users, items = self._propagate(number, vectors)
            e_user = e_user.index_copy(0, here, users[of_user[here]])
            e_item = e_item.index_copy(0, here, items[item[here]])
        e_user, e_item = e_user.to(self.user.weight.dtype), e_item.to(self.user.weight.dtype)
        v = self.head(torch.cat([e_user, e_item], -1)).unflatten(0, queries)
        return (v, e_user.unsqueeze(-2).unflatten(0, queries)) if return_context else v

    def _check_ids(
        self, candidate: Tensor, query_time: Tensor, user: Tensor, item: Tensor, vectors: Tensor
    ) -> None:
        """Of a call, whose layout has been checked."""
        op, queries = type(self).__name__, candidate.shape[:-1]
        check_integers(op, "item", item, queries, "shape {}, one a candidate", candidate)
        check_integers(op, "user", user, query_time.shape, "shape {}, one a query_time", candidate)
        check_floats(op, "item_vectors", vectors, self.candidate_dim, "candidate_dim")
        if vectors.dim() != 2 or len(vectors) < self._items:
            raise ValueError(
                f"{op}: item_vectors must have shape [items, {self.candidate_dim}] with a row for every item observed, at "
                f"least {self._items}, got {list(vectors.shape)}"
            )
        check_device(op, candidate, item_vectors=vectors)
        check_ids(op, "user", user, self.user.num_embeddings, "build the module with more users")
        check_ids(op, "item", item, len(vectors), "item_vectors has a row for every item")

    def _propagate(self, number: int, items: Tensor) -> tuple[Tensor, Tensor]:
        """All users' and items' vectors in the graph of one part of the day, in the dtype of ``items``."""
        users = self.user.weight.to(items.dtype)
        like = (len(items), items.dtype, items.device)
        links = self._links[number]
        if links is None or links[0] != like:
            links = self._links[number] = (like, *self._normalised(number, items))
        _, to_users, to_items = links
        user_sum, item_sum = users, items
        with torch.autocast(items.device.type, enabled=False):  # sparse products have no 16 bits
            for _ in range(self.layers):
                users, items = (
                    _Product.apply(to_users, to_items, items),
                    _Product.apply(to_items, to_users, users),
                )
                user_sum, item_sum = user_sum + users, item_sum + items
        return user_sum / (self.layers + 1), item_sum / (self.layers + 1)

    def _normalised(self, number: int, items: Tensor) -> tuple[Tensor, Tensor]:
        """D^-1/2 A D^-1/2 from items to users, CSR [users, items], and its transpose."""
        edges = self._edges[number].to(items.device)
        user, item = edges >> 32, edges & (1 << 32) - 1
        shape = (self.user.num_embeddings, len(items))
        degree = [
            torch.bincount(ids, minlength=size)
            for ids, size in zip((user, item), shape, strict=True)
        ]
        weight = (degree[0][user] * degree[1][item]).to(items.dtype).rsqrt()
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
