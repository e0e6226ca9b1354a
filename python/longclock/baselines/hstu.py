# SPDX-License-Identifier: Apache-2.0
"""HSTU: pointwise self-attention over the latest behaviours, by content, distance and elapsed time, the candidate last."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock._sizes import check_size
from longclock.baselines._checks import (
    check_integers,
    check_model_call,
    check_sizes,
    dtype_of,
)
from longclock.baselines.pooled import Pooled
from longclock.history import History
from longclock.history.windows import edges_of
from longclock.nn.pooling import last_of, table_of

BUCKETS, PER_BUCKET = 128, 0.301  # of elapsed time, and the width of one in ln(seconds)


class _Layer(nn.Module):
    """The weights of a layer: U, V, Q and K of a token, and what becomes of the attention."""

    def __init__(self, width: int, longest: int) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width, eps=1e-6)
        self.uvqk = nn.Linear(width, 4 * width)
        self.after = nn.LayerNorm(width, eps=1e-6)
        self.out = nn.Linear(width, width)
        self.by_distance = nn.Parameter(0.02 * torch.randn(longest + 1))
        self.by_time = nn.Parameter(0.02 * torch.randn(BUCKETS))

    def split(self, x: Tensor, heads: int) -> tuple[Tensor, ...]:
        """U [..., D]; V, Q and K [..., heads, d]."""
        u, *vqk = F.silu(self.uvqk(self.before(x))).chunk(4, -1)
        return u, *(part.unflatten(-1, (heads, -1)) for part in vqk)

    def joined(self, x: Tensor, u: Tensor, attended: Tensor) -> Tensor:
        """The token after the layer, of what its heads attended to, [..., heads, d]."""
        y: Tensor = x + self.out(self.after(attended.flatten(-2)) * u)
        return y

    def bias(self, distance: Tensor, seconds: Tensor) -> Tensor:
        """Of two tokens so far apart in the sequence and in time."""
        bucket = seconds.abs().clamp(min=1).float().log() / PER_BUCKET
        return self.by_distance[distance] + self.by_time[bucket.long().clamp(max=BUCKETS - 1)]


class HSTU(Pooled):
    """The last ``k`` behaviours and the candidate behind them, through layers of pointwise attention.

    With ``[U ; V ; Q ; K] = silu(W norm(x))`` of every token, ``A_ij = silu(Q_i . K_j + p[i - j] + r[bucket(t_i - t_j)]) / (k + 1)``
    for j up to i, else 0, in place of a softmax; ``x_i += W_o (norm(sum_j A_ij V_j) * U_i)``. p and r are learned in each layer,
    ``bucket(t) = floor(ln(max(1, |t|)) / 0.301)``, 127 at most, t in seconds. Tokens are ``W_b b`` and ``W_q q``. ``c`` is the
    candidate's token after the last layer, brought to width L; 0 without a behaviour. ``v_cur = h(c)``.

    No behaviour attends to the candidate, so each window's are computed once, for all candidates of a request that follow each
    other. Attention among behaviours is quadratic in ``k``, hence the bound.

    Source: HSTU, arXiv 2402.17152, with its buckets of elapsed time. There items and actions are tokens in turn, a token's time
    is that of the next one, and sequences have thousands of tokens; here a behaviour is one token, with how it ended in its row.

    Call: as of :class:`longclock.baselines.Pooled`. Times are seconds that grow; where those of the call are times of day, give

    - ``behaviour_seconds``: int32 or int64, the shape of history.time;
    - ``query_seconds``: the shape of query_time.

    Args:
        k: latest behaviours, from 0.
        heads, head_dim: their product is the width of a token. layers: from 1.
        The others: as of :class:`longclock.baselines.Pooled`.

    Raises:
        ValueError: a size or an argument that does not fit; one of the two kinds of seconds without the other.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import HSTU
        >>> history = lc.History.dense(torch.randn(1, 5, 8), 86400 * torch.arange(5)[None])
        >>> model, candidate = HSTU(8, 8, k=3), torch.randn(1, 8)
        >>> soon, later = (model(candidate, history, torch.tensor([days * 86400])) for days in (5, 50))
        >>> torch.equal(soon, later)  # it is told how long ago, not at which time of day
        False
    """

    reads = ("behaviour_seconds", "query_seconds")

    def __init__(
        self,
        *args: Any,
        heads: int = 4,
        head_dim: int = 16,
        layers: int = 2,
        **kwargs: Any,
    ) -> None:
        op = type(self).__name__
        check_sizes(op, heads=heads, head_dim=head_dim, layers=layers)
        super().__init__(*args, **kwargs)
        check_size(op, "k", self.k, 0)
        self.longest, self.heads = int(self.k or 0), heads
        width = heads * head_dim
        self.behaviour = nn.Linear(self.behaviour_dim, width)
        self.candidate = nn.Linear(self.candidate_dim, width)
        self.layers = nn.ModuleList(_Layer(width, self.longest) for _ in range(layers))
        self.out = nn.Linear(width, self.behaviour_dim)

    def forward(
        self,
        candidate: Tensor,
        history: History,
        query_time: Tensor,
        *,
        behaviour_seconds: Tensor | None = None,
        query_seconds: Tensor | None = None,
        **options: Any,
    ) -> Any:
        op = type(self).__name__
        given = {"behaviour_seconds": behaviour_seconds, "query_seconds": query_seconds}
        missing = [name for name, value in given.items() if value is None]
        if len(missing) == 1:
            (present,) = given.keys() - missing
            raise ValueError(f"{op}: {present} must come with {missing[0]}, got {missing[0]}=None")
        if not missing:
            check_model_call(
                op, candidate, self.candidate_dim, self.behaviour_dim, history, query_time
            )
            for name, like, of in (
                ("behaviour_seconds", history.time, "history.time"),
                ("query_seconds", query_time, "query_time"),
            ):
                check_integers(
                    op, name, given[name], tuple(like.shape), f"the shape of {of} = {{}}", like
                )
            history, query_time = history._replace(time=behaviour_seconds), query_seconds  # type: ignore[arg-type, assignment]
        return super().forward(candidate, history, query_time, **options)

    def pool(self, candidate: Tensor, windows: History, query_time: Tensor) -> Tensor:
        bounds, window = torch.unique_consecutive(
            torch.stack(edges_of(windows)), dim=1, return_inverse=True
        )
        index, counts = last_of(self.longest, windows._replace(starts=bounds[0], ends=bounds[1]))
        tokens = int(counts.max()) if len(counts) else 0
        if 0 in (len(window), tokens):
            return self.out.weight.new_zeros(len(window), self.behaviour_dim)
        there = torch.arange(tokens, device=index.device) < counts[:, None]
        table, ids, sparse = table_of(type(self).__name__, windows, index)
        own = dtype_of(self.behaviour)
        x = self.behaviour(F.embedding(ids, table, sparse=sparse).to(own))
        x = x.new_zeros(*there.shape, x.shape[-1]).masked_scatter(there.unsqueeze(-1), x)
        time = torch.zeros_like(there, dtype=torch.int64)
        time = time.masked_scatter(there, windows.time[index].long())
        target = self.candidate(candidate.to(own))
        since = query_time.long()[:, None] - time[window]
        place = torch.arange(tokens, device=index.device)  # from the latest on
        older = place - place[:, None]
        sees = (older >= 0) & there[:, None]
        apart = time[:, :, None] - time[:, None]
        layer: Any
        for layer in self.layers:
            bias = layer.bias(older.clamp(min=0), apart)
            u, v, q, k = layer.split(x, self.heads)
            score = torch.einsum("wihd,wjhd->wijh", q, k) + bias.unsqueeze(-1)
            weight = (F.silu(score) / (self.longest + 1)).masked_fill(~sees.unsqueeze(-1), 0)
            attended = torch.einsum("wijh,wjhd->wihd", weight, v)
            target = self._last_token(layer, target, v[window], k[window], since, there[window])
            x = layer.joined(x, u, attended)
        pooled: Tensor = self.out(target)
        return pooled.masked_fill((counts == 0)[window, None], 0)

    def _last_token(
        self, layer: Any, x: Tensor, v: Tensor, k: Tensor, since: Tensor, there: Tensor
    ) -> Tensor:
        """The candidates' tokens after a layer, [Q, D].

        Args:
            v, k: of the behaviours, latest first, [Q, N, heads, d]; since: seconds, and there: which exist, [Q, N].
        """
        u, own_v, q, own_k = layer.split(x, self.heads)
        distance = torch.arange(1, since.shape[1] + 1, device=x.device)
        bias = layer.bias(distance, since).unsqueeze(-1)
        score = torch.einsum("qhd,qjhd->qjh", q, k) + bias
        weight = F.silu(score).masked_fill(~there.unsqueeze(-1), 0)
        attended = torch.einsum("qjh,qjhd->qhd", weight, v)
        itself = (q * own_k).sum(-1) + layer.bias(distance[:1] - 1, since.new_zeros(1))
        attended = (attended + F.silu(itself).unsqueeze(-1) * own_v) / (self.longest + 1)
        joined: Tensor = layer.joined(x, u, attended)
        return joined
