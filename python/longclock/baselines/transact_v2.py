# SPDX-License-Identifier: Apache-2.0
"""TransAct V2: the candidate's nearest neighbours of the whole history and the last behaviours, through a transformer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock._backend import Backend, backend_ops, check_backend
from longclock._sizes import check_size
from longclock.baselines._checks import check_sizes, dtype_of
from longclock.baselines.pooled import Pooled, check_item_columns
from longclock.history import History
from longclock.history.windows import edges_of
from longclock.nn.pooling import last_of, table_of
from longclock.ops._errors import named_method


class TransActV2(Pooled):
    """A search by dot product, without projections and without time, then a transformer over what it found and the latest.

    Of the whole history the ``k`` behaviours with the largest ``q . b[:H]`` are kept: a behaviour begins with its item's vector.
    Before them come the ``recent`` latest ones, which may be the same again. Each is a token ``[b ; q] + p``, joined with the
    candidate early, p a learned vector of its place; ``layers`` transformer layers see all tokens, and
    ``c = W_o max(tokens)``, the maximum of each column. ``v_cur = h(c)``. A token has L + H columns, and zeros up to a multiple of
    ``heads``.

    Source: TransAct V2, arXiv 2506.02267: the search of the candidate's nearest neighbours in the lifelong sequence, the latest
    beside them, early fusion, the transformer. Left out are the sequence of impressions and the surface of an action, which a
    history does not have, the time of an action, its loss of the next action, and int8 vectors; the kind of an action is what
    a row says of it. Every token sees every other.

    Args:
        k: nearest neighbours, from 0 to 2048. recent: latest behaviours.
        heads, layers: of the transformer, each layer with a network of twice a token's width.
        backend: "compiled", or "reference", of the search.
        The others: as of :class:`longclock.baselines.Pooled`, whose call it has.

    Raises:
        ValueError: candidate_dim is larger than behaviour_dim, or a size that does not fit.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import TransActV2
        >>> history = lc.History.dense(torch.randn(1, 500, 8), 3600 * torch.arange(500)[None])
        >>> model, now = TransActV2(8, 8, k=20, recent=5), torch.tensor([500 * 3600])
        >>> model(torch.randn(1, 3, 8), history, now).shape  # three candidates of one request
        torch.Size([1, 3, 64])
    """

    def __init__(
        self,
        *args: Any,
        recent: int = 20,
        heads: int = 4,
        layers: int = 2,
        backend: Backend = "compiled",
        **kwargs: Any,
    ) -> None:
        op = type(self).__name__
        check_size(op, "recent", recent, 0)
        check_sizes(op, heads=heads, layers=layers)
        super().__init__(*args, **kwargs)
        check_size(op, "k", self.k, 0, 2048)
        check_item_columns(self)
        self.recent, self.backend = recent, check_backend(op, backend)
        width = -(-(self.behaviour_dim + self.candidate_dim) // heads) * heads
        self.place = nn.Parameter(0.02 * torch.randn(recent + int(self.k or 0), width))
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True)
            for _ in range(layers)
        )
        self.out = nn.Linear(width, self.behaviour_dim)

    @named_method({"query": "candidate", "key_time": "history.time", "keys": "history.rows"})
    def forward(  # type: ignore[override]  # it reads nothing else
        self,
        candidate: Tensor,
        history: History,
        query_time: Tensor,
        *,
        return_context: bool = False,
    ) -> Any:
        return super().forward(candidate, history, query_time, return_context=return_context)

    def pool(self, candidate: Tensor, windows: History, query_time: Tensor) -> Tensor:
        index, there = self._found(candidate, windows, query_time)
        queries, tokens = index.shape
        if 0 in (queries, tokens, len(windows.time)):
            return self.out.weight.new_zeros(queries, self.behaviour_dim)
        table, ids, sparse = table_of(type(self).__name__, windows, index[there])
        own = dtype_of(self.out)
        met = torch.cat(
            [F.embedding(ids, table, sparse=sparse).to(own), candidate.to(own).repeat_interleave(there.sum(1), 0)], -1
        )  # fmt: skip
        met = F.pad(met, (0, self.place.shape[1] - met.shape[1]))
        x = met.new_zeros(queries, tokens, met.shape[1]).masked_scatter(there.unsqueeze(-1), met)
        x = x + self.place
        nothing = ~there.any(1)
        hidden = ~there
        hidden[nothing, 0] = False  # a softmax of nothing is NaN
        for layer in self.encoder:
            x = layer(x, src_key_padding_mask=hidden)
        best = x.masked_fill(hidden.unsqueeze(-1), -torch.inf).amax(1)
        pooled: Tensor = self.out(best)
        return pooled.masked_fill(nothing[:, None], 0)

    @torch.no_grad()
    def _found(
        self, candidate: Tensor, windows: History, query_time: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Positions of the latest behaviours, then of the nearest neighbours, and which of them exist: [Q, recent + k]."""
        starts, _ = edges_of(windows)
        latest, counts = last_of(self.recent, windows)
        there = torch.arange(self.recent, device=starts.device) < counts[:, None]
        recent = there.new_zeros(there.shape, dtype=torch.int64).masked_scatter(there, latest)
        wide = self.behaviour_dim - self.candidate_dim
        query = F.pad(candidate, (0, wide))
        query = query.to(torch.promote_types(windows.table.dtype, torch.float32))
        # All times are the same on a clock of one second, and s of no weights is 0.
        shapes = ((1, 4), (1,), (1,), (1,))
        no_time = tuple(query.new_zeros(shape) for shape in shapes)
        near = backend_ops(self.backend).clock_gsu(
            query, query_time=query_time, mlp=no_time, k=self.k, clocks=1, **windows.arguments()
        ).indices  # fmt: skip
        position = (near + starts[:, None]).clamp(min=0)
        return torch.cat([recent, position], 1), torch.cat([there, near >= 0], 1)
