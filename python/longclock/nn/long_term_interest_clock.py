# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from longclock import ops
from longclock._mlp import DEFAULT_PERIOD, DEFAULT_UNIT, resolve_period
from longclock.nn.parameter_groups import DENSE_SHARE, parameter_groups
from longclock.nn.time_similarity import TimeSimilarity
from longclock.ops._call import reads_values
from longclock.ops._errors import check_size, named_method
from longclock.types import Lookup


def _check_width(name: str, rows: Tensor, width: int, argument: str) -> None:
    if rows.dim() == 0 or rows.shape[-1] != width:
        raise ValueError(
            f"LongTermInterestClock: {name} must have {argument} = {width} in the last dimension, "
            f"got {list(rows.shape)}; build the module with the {argument} of your data"
        )


def _within_history(
    found: Tensor, queries: torch.Size, behaviour_time: Tensor, counts: Tensor | int
) -> Tensor:
    """The indices, those outside their query's history taken for nothing (-1), or refused where values are read."""
    if found.dtype != torch.int64 or found.shape[:-1] != queries:
        raise ValueError(
            f"LongTermInterestClock: found must be int64 {[*queries, 'K']}, a row of indices a query, got "
            f"{str(found.dtype).removeprefix('torch.')} {list(found.shape)}; pass the indices of clock_gsu"
        )
    if found.device != behaviour_time.device:
        raise ValueError(
            f"LongTermInterestClock: found must be on the device of behaviour_time, {behaviour_time.device}, got "
            f"{found.device}; move it there with .to()"
        )
    outside = (found < -1) | (found >= counts)
    if reads_values(found) and outside.any():
        place = outside.nonzero()[0].tolist()
        raise ValueError(
            f"LongTermInterestClock: found must hold places in each query's own history, from its start, or -1, got "
            f"{int(found[tuple(place)])} at {place}; an index of other behaviours may be stale"
        )
    return torch.where(outside, -1, found)


def _as_query(query: Tensor, rows: Tensor) -> Tensor:
    """In the rows' dtype, or at least fp32 (autocast hands over 16-bit queries of fp32 rows)."""
    if query.dtype == rows.dtype:
        return query
    return query.to(torch.promote_types(rows.dtype, torch.float32))


def _counts(
    queries: torch.Size,
    behaviour_time: Tensor,
    lengths: Tensor | None,
    starts: Tensor | None,
    ends: Tensor | None,
    offsets: Tensor | None,
    query_offsets: Tensor | None,
) -> Tensor | int:
    """How many behaviours each query's history has, to be compared with [*queries, K]."""
    counts = lengths
    if starts is not None and ends is not None:
        counts = ends - starts
    elif offsets is not None:
        counts = offsets.diff()
        if query_offsets is not None:
            counts = counts.repeat_interleave(query_offsets.diff(), output_size=queries.numel())
    return behaviour_time.shape[-1] if counts is None else counts.view(-1, *(1,) * len(queries))


def _whole(
    queries: torch.Size, behaviour_time: Tensor, counts: Tensor | int, longest: int | None
) -> Tensor:
    """Every behaviour of each query, as a search for all of them would find: [*queries, longest]."""
    if behaviour_time.dim() == 2:
        longest = behaviour_time.shape[-1]
    elif isinstance(counts, int):
        raise ValueError(
            "LongTermInterestClock: behaviour_time of shape [T] needs offsets, or starts and ends"
        )
    elif longest is None:
        if not reads_values(counts):
            raise ValueError(
                "LongTermInterestClock: longest must be given on CUDA and in graphs for windows and ragged histories "
                "with k=None, got None; nothing is read on the host there: take it where starts and ends, or offsets, "
                "are made"
            )
        longest = int(counts.max()) if counts.numel() > 0 else 0
    elif reads_values(counts) and (counts > longest).any():
        raise ValueError(
            f"LongTermInterestClock: longest must be at least the most behaviours of a query = {int(counts.max())}, "
            f"got {longest}"
        )
    place = torch.arange(longest, device=behaviour_time.device)
    return torch.where(place < counts, place, -1).expand(*queries, longest)


def _each_head(x: Tensor, weight: Tensor) -> Tensor:
    """Every head's own product: [Q, n, a] with [n, a, b] is [Q, n, b]."""
    return torch.bmm(x.transpose(0, 1), weight).transpose(0, 1)


def _places(
    found: Tensor,
    valid: Tensor,
    behaviour_time: Tensor,
    query_time: Tensor,
    starts: Tensor | None,
    offsets: Tensor | None,
    query_offsets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Where what was found lies (0 where not ``valid``), in found's shape: in the sequence, for the dense layout,
    else in [T]; and the time of each query, [Q]."""
    place = found.clamp(min=0)
    if behaviour_time.dim() == 2:  # found is [S, K] or [S, C, K]
        if found.dim() == 3:
            query_time = query_time[:, None].expand(found.shape[:2]).flatten()
        return place, query_time
    if starts is not None:
        return _inside(torch.where(valid, place + starts[:, None], 0), behaviour_time), query_time
    if offsets is None:
        raise ValueError(
            "LongTermInterestClock: behaviour_time of shape [T] needs offsets, or starts and ends"
        )
    if query_offsets is not None:
        query = torch.arange(found.shape[0], device=found.device, dtype=query_offsets.dtype)
        sequence = torch.searchsorted(query_offsets[1:].contiguous(), query, right=True)
        sequence = _inside(sequence, query_time)
        query_time, offsets = query_time[sequence], offsets[sequence]
    else:
        offsets = offsets[:-1]
    return _inside(torch.where(valid, place + offsets[:, None], 0), behaviour_time), query_time


def _inside(place: Tensor, values: Tensor) -> Tensor:
    """Places that can be read whatever the bounds say, which have been checked only where values are read."""
    return place if reads_values(place) else place.clamp(0, max(values.shape[0] - 1, 0))


def _pick(values: Tensor, place: Tensor) -> Tensor:
    """Those of ``values``, [S, M] or [T], that lie there: [Q, K]."""
    if values.numel() == 0:  # nothing was found, so nothing of it is read
        picked = values.new_zeros(place.shape)
    elif values.dim() == 2:
        picked = values.gather(1, place.flatten(1)).view(place.shape)
    else:
        picked = values[place]
    return picked.flatten(0, -2)


def _selected(behaviours: Tensor | Lookup, place: Tensor) -> Tensor | Lookup:
    """The K rows of each query, as a lookup: a history is never copied."""
    if isinstance(behaviours, Lookup):
        return Lookup(behaviours.table, _pick(behaviours.ids, place), behaviours.sparse)
    if behaviours.dim() == 2:
        return Lookup(behaviours, place)
    sequence = torch.arange(behaviours.shape[0], device=place.device)
    sequence = sequence.view(-1, *(1,) * (place.dim() - 1))
    if behaviours.is_contiguous():
        ids = sequence * behaviours.shape[1] + place
        return Lookup(behaviours.flatten(0, 1), ids.flatten(0, -2))
    return behaviours[sequence, place].flatten(0, -3)


class LongTermInterestClock(nn.Module):
    """A candidate's interest vector from a long behaviour history, aware of the time of day.

    Clock-GSU keeps the ``k`` behaviours with the best ``W_b b . W_q q / sqrt(d) + s(delta)`` (the
    mean over heads), Clock-ESU attends to them per head and a two-layer network makes v_cur.
    The search runs without gradient; every parameter is trained through the attention.

    Args:
        behaviour_dim: L, width of a behaviour.
        candidate_dim: H, width of a candidate.
        head_dim, heads: d and n.
        k: behaviours kept, up to 2048; None attends to the whole sequence without a search.
        out_dim, hidden_dim: sizes of the two-layer network.
        period, unit: the clock in seconds, and the seconds of one x (None: 3600).
        time_hidden: hidden width of s.
        time_falls: s never rises with the difference of times, see :class:`TimeSimilarity`.
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
    # What ablations turn off: a stage that sees no time is given 0 for every time.
    search_sees_time = True
    attention_sees_time = True

    def __init__(
        self,
        behaviour_dim: int,
        candidate_dim: int,
        head_dim: int = 32,
        heads: int = 4,
        k: int | None = 100,
        out_dim: int = 64,
        hidden_dim: int = 128,
        *,
        period: int = DEFAULT_PERIOD,
        unit: float | None = None,
        time_hidden: int = 8,
        time_falls: bool = True,
        scoring: Literal["folded", "precomputed"] = "folded",
        literal_scale: bool = False,
        exclude_future: bool = False,
    ) -> None:
        super().__init__()
        if scoring not in ("folded", "precomputed"):
            raise ValueError(
                f"LongTermInterestClock: scoring must be 'folded' or 'precomputed', got {scoring!r}"
            )
        for name, size in (
            ("behaviour_dim", behaviour_dim), ("candidate_dim", candidate_dim),
            ("head_dim", head_dim), ("heads", heads), ("out_dim", out_dim),
            ("hidden_dim", hidden_dim),
        ):  # fmt: skip
            check_size("LongTermInterestClock", name, size, 1)
        if k is not None:
            check_size(
                "LongTermInterestClock", "k", k, 0, 2048, "; k=None attends to the whole sequence"
            )
        if not isinstance(exclude_future, bool):
            raise ValueError(
                f"LongTermInterestClock: exclude_future must be a bool, got {exclude_future!r}"
            )
        if exclude_future and not self.search_sees_time:
            raise ValueError(
                f"{type(self).__name__}: exclude_future needs times; pass windows instead"
            )
        self.behaviour_dim, self.candidate_dim = behaviour_dim, candidate_dim
        self.head_dim, self.heads, self.k, self.out_dim = head_dim, heads, k, out_dim
        self.period = resolve_period("LongTermInterestClock", period)
        self.scoring = scoring
        self.literal_scale = literal_scale
        self.scale = 1 / math.sqrt(head_dim) / (1 if literal_scale else heads)
        self.exclude_future = exclude_future
        unit = DEFAULT_UNIT if unit is None else unit
        self.time = self.time_similarity(time_hidden, unit, period=period, falls=time_falls)
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

    def parameter_groups(self, lr: float, dense_share: float = DENSE_SHARE) -> list[dict[str, Any]]:
        """The module's weights for an optimizer whose embeddings learn at ``lr``: all of them at ``dense_share`` of it.

        The same as :func:`longclock.parameter_groups` of the whole model, where the rest has groups of its own.

        Example::

            embeddings = {"params": table.parameters(), "lr": 2e-2}
            optimizer = torch.optim.Adam([embeddings, *clock.parameter_groups(lr=2e-2)])
        """
        return parameter_groups(self, lr, dense_share)

    def project(self, behaviours: Tensor) -> Tensor:
        """Keys of precomputed scoring, the heads' projections side by side: [..., L] -> [..., n d]."""
        return behaviours @ self.w_b.flatten(0, 1).to(behaviours.dtype).T

    @named_method(
        {
            "key_time": "behaviour_time",
            "z_time": "behaviour_time",
            "query": "candidate",
            "keys": "behaviours",
            "z": "behaviours",
        }
    )
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
        found: Tensor | None = None,
        longest: int | None = None,
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
            found: int64 [..., K], what a search made elsewhere found, as indices of ``clock_gsu``: counted from
                the start of the sequence or window, -1 for nothing. Nothing is searched then; a mask and
                exclude_future hold for them as well. What lies outside its query's history is an error on the CPU,
                and nothing on CUDA and in graphs.
            longest: for ``k=None`` with windows or ragged histories, the most behaviours that a query has. None: it is
                counted, on the CPU and outside graphs only.
        Returns:
            v_cur [S, out_dim], [S, C, out_dim] or [Q, out_dim]; c has [n, L + 4] in its last place. Both have the
            weights' dtype.
        Raises:
            ValueError: an argument that does not fit; the message names it and the remedy.
        """
        if keys is not None and self.scoring != "precomputed":
            raise ValueError(
                "LongTermInterestClock: keys must be None for folded scoring; "
                "build the module with scoring='precomputed'"
            )
        if longest is not None:
            check_size("LongTermInterestClock", "longest", longest, 0)
        rows = behaviours.table if isinstance(behaviours, Lookup) else behaviours
        _check_width("candidate", candidate, self.candidate_dim, "candidate_dim")
        if candidate.dim() == 1:
            raise ValueError(
                f"LongTermInterestClock: candidate must have shape [S, {self.candidate_dim}] or "
                f"[S, C, {self.candidate_dim}], got {list(candidate.shape)}; for one use candidate[None]"
            )
        _check_width("behaviours", rows, self.behaviour_dim, "behaviour_dim")
        self._check_dtypes(candidate, rows)
        projected = nn.functional.linear(candidate, self.w_q.flatten(0, 1))  # [..., n d]
        u = _each_head(projected.view(-1, self.heads, self.head_dim), self.w_b)
        u = u / math.sqrt(self.head_dim)
        mlp = self.time.mlp()
        options = {"period": self.period, "unit": self.time.unit}
        layout = {
            "ids": behaviours.ids if isinstance(behaviours, Lookup) else None,
            "lengths": lengths, "mask": mask, "starts": starts, "ends": ends, "offsets": offsets,
            "query_offsets": query_offsets, "exclude_future": self.exclude_future,
        }  # fmt: skip
        with torch.no_grad():
            searched = found is None and self.k is not None
            times = (behaviour_time, query_time)
            if not self.search_sees_time:
                times = (torch.zeros_like(behaviour_time), torch.zeros_like(query_time))
            if searched:
                none_or_best = self._search(candidate, projected, u, rows, keys, times, layout)
            else:  # the search for none checks the arguments
                query = _as_query(u.sum(-2).unflatten(0, candidate.shape[:-1]), rows)
                none_or_best = self.ops.clock_gsu(
                    query, rows, *times, mlp, 0, **layout, **options
                ).indices
            queries = none_or_best.shape[:-1]
            if searched:
                found = none_or_best
            else:
                counts = _counts(
                    queries, behaviour_time, lengths, starts, ends, offsets, query_offsets
                )
                if found is None:
                    found = _whole(queries, behaviour_time, counts, longest)
                else:
                    found = _within_history(found, queries, behaviour_time, counts)
            valid = found >= 0
            place, now = _places(
                found, valid, behaviour_time, query_time, starts, offsets, query_offsets
            )
            valid, time = valid.flatten(0, -2), _pick(behaviour_time, place)
            if not searched and mask is not None:
                valid = valid & _pick(mask, place)
            if not searched and self.exclude_future:
                valid = valid & (time < now[:, None])
            if not self.attention_sees_time:
                time, now = torch.zeros_like(time), torch.zeros_like(now)
        z = _selected(behaviours, place)
        u = _as_query(u, z.table if isinstance(z, Lookup) else z)
        context = self.ops.esu_attention(u, z, time, now, mlp, valid, **options).to(self.w_v.dtype)
        mixed = _each_head(context, self.w_v)
        v_cur = self.head(mixed.flatten(1)).unflatten(0, queries)
        if not return_context:
            return v_cur
        return v_cur, context.unflatten(0, queries)

    def _check_dtypes(self, candidate: Tensor, rows: Tensor) -> None:
        """Before PyTorch's own operations take what the ops would have refused, or fail in their own words."""
        own = self.w_q.dtype
        if self.ops is ops:
            for name, dtype in (("the module", own), ("behaviours", rows.dtype)):
                if dtype == torch.float64:
                    raise ValueError(
                        f"LongTermInterestClock: {name} must be float32, float16 or bfloat16, got float64; "
                        "longclock.reference.LongTermInterestClock takes float64"
                    )
        if candidate.layout is not torch.strided:
            raise ValueError(
                f"LongTermInterestClock: candidate must be a strided tensor, got one of layout {candidate.layout}; "
                "make it one with .to_dense()"
            )
        if candidate.device != self.w_q.device:
            raise ValueError(
                f"LongTermInterestClock: candidate must be on the device of the weights, {self.w_q.device}, got "
                f"{candidate.device}; move one of them with .to()"
            )
        if candidate.dtype != own and not torch.is_autocast_enabled(candidate.device.type):
            raise ValueError(
                f"LongTermInterestClock: candidate must be {own} to match the weights, got {candidate.dtype}; convert "
                "one of them with .to(), or run under torch.autocast"
            )

    def _search(
        self,
        candidate: Tensor,
        projected: Tensor,
        u: Tensor,
        rows: Tensor,
        keys: Tensor | None,
        times: tuple[Tensor, Tensor],
        layout: dict[str, Any],
    ) -> Tensor:
        """Indices of the k behaviours that each query's search finds.

        Args:
            candidate: as given to forward; projected: its projections, [..., n d]; u: these folded into
                rows' width, [Q, n, L].
            rows: behaviours, or the table of a Lookup. keys: as given to forward.
            times, layout: of the search op.
        """
        query, scored, scale = self._search_by(candidate, projected, u, rows, keys)
        found: Tensor = self.ops.clock_gsu(
            _as_query(query, scored), scored, *times, self.time.mlp(), self.k, scale=scale,
            period=self.period, unit=self.time.unit, **layout,
        ).indices  # fmt: skip
        return found

    def _search_by(
        self, candidate: Tensor, projected: Tensor, u: Tensor, rows: Tensor, keys: Tensor | None
    ) -> tuple[Tensor, Tensor, float]:
        """Whose dot products the search compares: queries, keys (a row a behaviour), and the scale."""
        if self.scoring == "folded":
            query = u.sum(-2).unflatten(0, candidate.shape[:-1])
            return query, rows, self.scale * math.sqrt(self.head_dim)
        return projected, self.project(rows) if keys is None else keys, self.scale

    def extra_repr(self) -> str:
        return (
            f"behaviour_dim={self.behaviour_dim}, candidate_dim={self.candidate_dim}, "
            f"head_dim={self.head_dim}, heads={self.heads}, k={self.k}, "
            f"out_dim={self.out_dim}, period={self.period}, unit={self.time.unit:g}, "
            f"scoring={self.scoring!r}, literal_scale={self.literal_scale}, "
            f"exclude_future={self.exclude_future}"
        )
