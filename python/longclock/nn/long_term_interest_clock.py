# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from longclock import ops
from longclock._mlp import DEFAULT_PERIOD, resolve_period
from longclock.nn.time_similarity import TimeSimilarity
from longclock.types import Lookup


def _as_query(query: Tensor, rows: Tensor) -> Tensor:
    """In the rows' dtype, or at least fp32 (autocast hands over 16-bit queries of fp32 rows)."""
    if query.dtype == rows.dtype:
        return query
    return query.to(torch.promote_types(rows.dtype, torch.float32))


def _places(
    found: Tensor,
    behaviour_time: Tensor,
    query_time: Tensor,
    starts: Tensor | None,
    offsets: Tensor | None,
    query_offsets: Tensor | None,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Where what was found lies in the storage, an index a dimension of behaviour_time (0 where
    padded), [Q, K] each; and the query's time, [Q]."""
    valid, place = found >= 0, found.clamp(min=0)
    if behaviour_time.dim() == 2:  # [S, K] or [S, C, K]
        row = torch.arange(found.shape[0], device=found.device)
        if found.dim() == 3:
            row = row[:, None].expand(found.shape[:2]).flatten()
            place = place.flatten(0, 1)
        return (row[:, None], place), query_time[row]
    if starts is not None:
        return (torch.where(valid, place + starts[:, None], 0),), query_time
    if offsets is None:
        raise ValueError(
            "LongTermInterestClock: behaviour_time of shape [T] needs offsets, or starts and ends"
        )
    if query_offsets is not None:
        query = torch.arange(found.shape[0], device=found.device, dtype=query_offsets.dtype)
        sequence = torch.searchsorted(query_offsets[1:].contiguous(), query, right=True)
        query_time, offsets = query_time[sequence], offsets[sequence]
    else:
        offsets = offsets[:-1]
    return (torch.where(valid, place + offsets[:, None], 0),), query_time


def _pick(values: Tensor, at: tuple[Tensor, ...]) -> Tensor:
    if values.numel() == 0:  # nothing was found, so nothing of it is read
        return values.new_zeros(at[-1].shape)
    return values[at]


def _selected(behaviours: Tensor | Lookup, at: tuple[Tensor, ...]) -> Tensor | Lookup:
    """The K rows of each query, as a lookup: a history is never copied."""
    if isinstance(behaviours, Lookup):
        return Lookup(behaviours.table, _pick(behaviours.ids, at), behaviours.sparse)
    if len(at) == 1:
        return Lookup(behaviours, at[0])
    if behaviours.is_contiguous():
        return Lookup(behaviours.flatten(0, 1), at[0] * behaviours.shape[1] + at[1])
    return behaviours[at]


class LongTermInterestClock(nn.Module):
    """A candidate's interest vector from a long behaviour history, aware of the time of day.

    Clock-GSU keeps the ``k`` behaviours with the best ``W_b b . W_q q / sqrt(d) + s(delta)`` (the
    mean over heads), Clock-ESU attends to them per head and a two-layer network makes v_cur.
    The search runs without gradient; every parameter is trained through the attention.

    Args:
        behaviour_dim: L, width of a behaviour.
        candidate_dim: H, width of a candidate.
        head_dim, heads: d and n.
        k: behaviours kept, up to 2048.
        out_dim, hidden_dim: sizes of the two-layer network.
        period, unit: the clock in seconds and the seconds of one x (None: 3600).
        time_hidden: hidden width of s.
        scoring: "folded" scores the behaviours themselves with sum_i W_b^i^T W_q^i q, so that
            nothing is stored and nothing goes stale; "precomputed" scores their projections
            (``project``), which a server may store ahead of time. The same selection.
        literal_scale: 1 / sqrt(d), as the source writes it, in place of 1 / (n sqrt(d)).
        exclude_future: a behaviour at or after its query's time does not count.

    Parameters: w_b [n, d, L], w_q [n, d, H], w_v [n, L + 4, d], time.{w1, b1, w2, b2} and head.
    Source: Long-term Interest Clock, arXiv 2501.15817.
    """

    ops: ModuleType = ops
    time_similarity: type[TimeSimilarity] = TimeSimilarity

    def __init__(
        self,
        behaviour_dim: int,
        candidate_dim: int,
        head_dim: int = 32,
        heads: int = 4,
        k: int = 100,
        out_dim: int = 64,
        hidden_dim: int = 128,
        *,
        period: int = DEFAULT_PERIOD,
        unit: float | None = None,
        time_hidden: int = 8,
        scoring: Literal["folded", "precomputed"] = "folded",
        literal_scale: bool = False,
        exclude_future: bool = False,
    ) -> None:
        super().__init__()
        if scoring not in ("folded", "precomputed"):
            raise ValueError(
                f"LongTermInterestClock: scoring must be 'folded' or 'precomputed', got {scoring!r}"
            )
        self.behaviour_dim, self.candidate_dim = behaviour_dim, candidate_dim
        self.head_dim, self.heads, self.k = head_dim, heads, k
        self.period = resolve_period("LongTermInterestClock", period)
        self.scoring = scoring
        self.scale = 1 / math.sqrt(head_dim) / (1 if literal_scale else heads)
        self.exclude_future = exclude_future
        unit_options = {} if unit is None else {"unit": unit}
        self.time = self.time_similarity(time_hidden, period=period, **unit_options)
        self.w_b = nn.Parameter(torch.empty(heads, head_dim, behaviour_dim))
        self.w_q = nn.Parameter(torch.empty(heads, head_dim, candidate_dim))
        self.w_v = nn.Parameter(torch.empty(heads, behaviour_dim + 4, head_dim))
        self.head = nn.Sequential(
            nn.Linear(heads * head_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim)
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        for weight, fan_in in (
            (self.w_b, self.behaviour_dim),
            (self.w_q, self.candidate_dim),
            (self.w_v, self.behaviour_dim + 4),
        ):
            bound = math.sqrt(3 / max(fan_in, 1))
            nn.init.uniform_(weight, -bound, bound)
        # The time features reach 144 on a daily clock in hours: brought to the size of the others.
        x = max(self.period / 2 / self.time.unit, 1e-6)
        largest = torch.tensor([x, math.sqrt(x), x * x, math.log1p(x)])
        self.w_v[:, self.behaviour_dim :] /= largest.clamp(min=1).to(self.w_v)[:, None]
        self.time.reset_parameters()
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()

    def project(self, behaviours: Tensor) -> Tensor:
        """Keys of precomputed scoring, the heads' projections side by side: [..., L] -> [..., n d]."""
        return behaviours @ self.w_b.flatten(0, 1).to(behaviours.dtype).T

    def forward(
        self,
        candidate: Tensor,
        behaviours: Tensor | Lookup,
        behaviour_time: Tensor,
        query_time: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        starts: Tensor | None = None,
        ends: Tensor | None = None,
        offsets: Tensor | None = None,
        query_offsets: Tensor | None = None,
        keys: Tensor | None = None,
        return_context: bool = False,
    ) -> Any:
        """v_cur, and with ``return_context`` the pair of v_cur and c.

        Args:
            candidate: [S, H], or [S, C, H] for C candidates of one request; [Q, H] for windows and
                ragged histories.
            behaviours: [S, M, L] or Lookup(table [N, L], ids [S, M]); for windows and ragged
                histories [T, L] or Lookup(table [N, L], ids [T]). Only the k selected rows get
                gradient.
            behaviour_time: integer seconds, [S, M] or [T].
            query_time: integer seconds, [S]; [Q] for windows.
            lengths: [S], how many behaviours of each dense row count.
            mask: bool, shape of behaviour_time; False is as if the behaviour were not there.
            starts, ends: [Q]; query q sees rows starts[q] to ends[q] - 1 of a shared history.
            offsets, query_offsets: [S + 1], where each sequence's rows and queries begin.
            keys: ``project(behaviours)`` (of the table, for a Lookup), stored ahead of time.
        Returns:
            v_cur [S, out_dim], [S, C, out_dim] or [Q, out_dim]; c has [n, L + 4] in its last place.
        """
        if keys is not None and self.scoring != "precomputed":
            raise ValueError(
                "LongTermInterestClock: keys must be None for folded scoring; "
                "build the module with scoring='precomputed'"
            )
        projected = torch.einsum("...h,ndh->...nd", candidate, self.w_q)
        u = torch.einsum("...nd,ndl->...nl", projected, self.w_b) / math.sqrt(self.head_dim)
        mlp = self.time.mlp()
        options = {"period": self.period, "unit": self.time.unit}
        with torch.no_grad():
            rows = behaviours.table if isinstance(behaviours, Lookup) else behaviours
            if self.scoring == "folded":
                query, keys, scale = u.sum(-2), rows, self.scale * math.sqrt(self.head_dim)
            else:
                query, scale = projected.flatten(-2), self.scale
                keys = self.project(rows) if keys is None else keys
            found = self.ops.clock_gsu(
                _as_query(query, keys), keys, behaviour_time, query_time, mlp, self.k, scale=scale,
                ids=behaviours.ids if isinstance(behaviours, Lookup) else None,
                lengths=lengths, mask=mask, starts=starts, ends=ends,
                offsets=offsets, query_offsets=query_offsets,
                exclude_future=self.exclude_future, **options,
            ).indices  # fmt: skip
            at, now = _places(found, behaviour_time, query_time, starts, offsets, query_offsets)
        z = _selected(behaviours, at)
        u = _as_query(u.flatten(0, -3), z.table if isinstance(z, Lookup) else z)
        valid = (found >= 0).flatten(0, -2)
        context = self.ops.esu_attention(
            u, z, _pick(behaviour_time, at), now, mlp, valid, **options
        )
        mixed = torch.einsum("qnl,nld->qnd", context.to(self.w_v.dtype), self.w_v)
        v_cur = self.head(mixed.flatten(1)).unflatten(0, found.shape[:-1])
        if not return_context:
            return v_cur
        return v_cur, context.unflatten(0, found.shape[:-1])

    def extra_repr(self) -> str:
        return (
            f"behaviour_dim={self.behaviour_dim}, candidate_dim={self.candidate_dim}, "
            f"head_dim={self.head_dim}, heads={self.heads}, k={self.k}, period={self.period}, "
            f"scoring={self.scoring!r}, exclude_future={self.exclude_future}"
        )
