# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from longclock._backend import Backend, check_backend
from longclock._checks import dtype_of
from longclock._clocks import resolve_clocks
from longclock._constants import DEFAULT_PERIOD, DENSE_SHARE
from longclock._keywords import named_keywords
from longclock._sizes import check_size
from longclock.history.checks import check_candidate
from longclock.history.history import History, require_history
from longclock.history.windows import everything
from longclock.nn.checks import check_behaviours, check_time_per, check_width
from longclock.nn.head_similarities import HeadSimilarities
from longclock.nn.keys import as_query, project_tables, query_of_projections
from longclock.nn.parameter_groups import parameter_groups
from longclock.nn.time_similarity import MlpWeights, TimeSimilarity, farthest_x
from longclock.nn.two_stages import TwoStages
from longclock.ops._errors import named_method
from longclock.quantize import LARGEST
from longclock.types import Clocks, QuantizedRows, TopK


def _each_head(x: Tensor, weight: Tensor) -> Tensor:
    """Every head's own product: [Q, n, a] with [n, a, b] is [Q, n, b]."""
    return torch.bmm(x.transpose(0, 1), weight).transpose(0, 1)


class LongTermInterestClock(TwoStages):
    """A candidate's interest vector from a long behaviour history, aware of the time of day.

    Clock-GSU keeps the ``k`` behaviours with the best ``W_b b . W_q q / sqrt(d) + s(delta)`` (the
    mean over heads), Clock-ESU attends to them per head and a two-layer network makes v_cur.
    The search runs without gradient; every parameter is trained through the attention, or, for a search that has weights of
    its own, by :meth:`search_loss`.

    Args:
        behaviour_dim: L, width of a behaviour.
        candidate_dim: H, width of a candidate.
        head_dim, heads: d and n.
        k: behaviours kept, up to 2048; None attends to the whole sequence without a search.
        out_dim, hidden_dim: sizes of the two-layer network.
        clocks: a period in seconds, ``ELAPSED``, or a tuple of up to 4 of them, seen in one pass: s is the sum of theirs.
        unit: the seconds of one x, one number or one for each clock (None: 3600, and 60 of ``ELAPSED``).
        time_hidden: hidden width of each clock's s.
        time_falls: s never rises with the difference of times, one bool or one for each clock, see :class:`TimeSimilarity`.
        time_per: whose each s is. "module": search and attention share one. "head": the attention's heads have one each, which
            takes a call for every head (3 times the time of one for all), and the search takes their mean. "stage": the search, which must be its own, has
            one that :meth:`search_loss` alone teaches.
        scoring: "folded" scores the behaviours themselves with sum_i W_b^i^T W_q^i q, so that
            nothing is stored and nothing goes stale; "precomputed" scores their projections
            (``project``), which a server may store ahead of time. The same selection.
        literal_scale: 1 / sqrt(d), as the source writes it, in place of 1 / (n sqrt(d)).
        exclude_future: a behaviour at or after its query's time does not count.
        own_search: the search's W_q is ``w_q + w_s``, for which :meth:`search_loss` is the only teacher. w_s starts from 0, the
            shared search, and costs nothing where candidates are served.
        backend: "compiled", or "reference": plain PyTorch, for any float dtype.

    Parameters: w_b [n, d, L], w_q [n, d, H], w_v [n, L + 4 C, d] for C clocks, time.{w1, b1, w2, b2}, or time.of_head.i of head i,
    and head; with own_search w_s [n, d, H] and t_s [1], and time_s where each stage has its s.
    Source: Long-term Interest Clock, arXiv 2501.15817.

    Example::

        >>> import torch, longclock as lc
        >>> items, played = torch.nn.Embedding(1_000, 16), torch.tensor([[7, 3, 7]])
        >>> when, now = 3600 * torch.tensor([[8, 20, 9]]), torch.tensor([32 * 3600])
        >>> history = lc.History.dense(lc.Lookup(items.weight, played), when)
        >>> lic = lc.LongTermInterestClock(behaviour_dim=16, candidate_dim=16, out_dim=64)
        >>> lic(items(torch.tensor([3])), history, now).shape
        torch.Size([1, 64])
    """

    takes_quantized_keys = True  # whether the search compares keys by their dot products
    # What ablations turn off: a stage that sees no time has a clock of one second, on which all times are the same.
    search_sees_time = True
    attention_sees_time = True

    @named_keywords()
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
        clocks: Clocks = DEFAULT_PERIOD,
        unit: float | tuple[float, ...] | None = None,
        time_hidden: int = 8,
        time_falls: bool | tuple[bool, ...] = True,
        time_per: Literal["module", "stage", "head"] = "module",
        scoring: Literal["folded", "precomputed"] = "folded",
        literal_scale: bool = False,
        exclude_future: bool = False,
        own_search: bool = False,
        backend: Backend = "compiled",
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
                "LongTermInterestClock",
                "k",
                k,
                0,
                2048,
                "; k=None attends to the whole sequence, found= of a call to what searches of its parts found",
            )
        for name, value in (("exclude_future", exclude_future), ("own_search", own_search)):
            if not isinstance(value, bool):
                raise ValueError(f"LongTermInterestClock: {name} must be a bool, got {value!r}")
        if own_search and k is None:
            raise ValueError(
                "LongTermInterestClock: own_search must be False for k=None, which does not search"
            )
        self.behaviour_dim, self.candidate_dim = behaviour_dim, candidate_dim
        self.head_dim, self.heads, self.k, self.out_dim = head_dim, heads, k, out_dim
        self.clocks = resolve_clocks("LongTermInterestClock", clocks)
        self.scoring = scoring
        self.literal_scale = literal_scale
        self.scale = 1 / math.sqrt(head_dim) / (1 if literal_scale else heads)
        self.exclude_future = exclude_future
        self.backend = check_backend("LongTermInterestClock", backend)
        self.time_per = time_per
        check_time_per(time_per, own_search, k is not None, heads * time_hidden * len(self.clocks))
        similarity = partial(TimeSimilarity, time_hidden, unit, clocks=self.clocks, falls=time_falls, backend=backend)  # fmt: skip
        self.time = HeadSimilarities(heads, similarity) if time_per == "head" else similarity()
        self.time_s = similarity() if time_per == "stage" else None
        self.w_b = nn.Parameter(torch.empty(heads, head_dim, behaviour_dim))
        self.w_q = nn.Parameter(torch.empty(heads, head_dim, candidate_dim))
        width = behaviour_dim + 4 * len(self.clocks)
        self.w_v = nn.Parameter(torch.empty(heads, width, head_dim))
        own = torch.zeros(heads, head_dim, candidate_dim) if own_search else None
        self.w_s = None if own is None else nn.Parameter(own)
        self.t_s = None if own is None else nn.Parameter(torch.zeros(1))
        self.head = nn.Sequential(
            nn.Linear(heads * head_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim)
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        for weight, fan_in in (
            (self.w_b, self.behaviour_dim),
            (self.w_q, self.candidate_dim),
            (self.w_v, self.w_v.shape[1]),
        ):
            bound = math.sqrt(3 / max(fan_in, 1))
            nn.init.uniform_(weight, -bound, bound)
        for own in (self.w_s, self.t_s):
            if own is not None:
                own.zero_()
        # The time features reach 144 on a daily clock in hours: brought to the size of the others.
        reached = [farthest_x(*clock) for clock in zip(self.clocks, self.time.units, strict=True)]
        largest = torch.tensor([[x, math.sqrt(x), x * x, math.log1p(x)] for x in reached])
        self.w_v[:, self.behaviour_dim :] /= largest.flatten().clamp(min=1).to(self.w_v)[:, None]
        for similarity in (self.time, self.time_s):
            if similarity is not None:
                similarity.reset_parameters()
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()

    def parameter_groups(self, lr: float, dense_share: float = DENSE_SHARE) -> list[dict[str, Any]]:
        """The module's weights for an optimizer whose embeddings learn at ``lr``: all of them at ``dense_share`` of it.

        The same as :func:`longclock.parameter_groups` of the whole model, where the rest has groups of its own.

        Example::

            >>> import torch, longclock as lc
            >>> items, clock = torch.nn.Embedding(1_000, 16), lc.LongTermInterestClock(16, 16)
            >>> embeddings = {"params": items.parameters(), "lr": 2e-2}
            >>> optimizer = torch.optim.Adam([embeddings, *clock.parameter_groups(lr=2e-2)])
            >>> [group["lr"] for group in optimizer.param_groups]
            [0.02, 0.002]
        """
        return parameter_groups(self, lr, dense_share)

    def project(self, rows: Any) -> Any:
        """Keys of precomputed scoring, the heads' projections side by side: [..., L] -> [..., n d].

        Of a tuple of tables, a tuple: each table's share of every projection.
        """
        return project_tables(rows, self.w_b.flatten(0, 1))

    @named_method(
        {
            "key_time": "history.time",
            "key_time's": "history.time's",
            "z_time": "history.time",
            "query": "candidate",
            "keys": "history.rows",
            "z's ids": "history.rows.ids",
            "z": "history.rows",
        }
    )
    def forward(
        self,
        candidate: Tensor,
        history: History,
        query_time: Tensor,
        *,
        keys: Tensor | QuantizedRows | tuple[Tensor, ...] | None = None,
        query: Tensor | None = None,
        query_dtype: str | None = None,
        found: Tensor | None = None,
        longest: int | None = None,
        return_context: bool = False,
    ) -> Any:
        """v_cur, and with ``return_context`` the pair of v_cur and c.

        Args:
            candidate: [S, H], or [S, C, H] for C candidates of one dense sequence; [Q, H] for ragged histories and
                windows.
            history: rows of width L, or a Lookup of them, with their times; only the k selected rows get gradient.
            query_time: integer seconds, [S], one for each sequence or window.
            keys: ``project(history.rows)`` (of the table, or tables, of a Lookup), stored ahead of time; or rows in bytes that the
                search reads in place of these, or, of folded scoring, in place of the history's own.
            query: ``project_query(candidate)``, stored ahead of time.
            query_dtype: of keys in bytes: "float32", "bfloat16" or "int8", see :func:`longclock.clock_gsu`.
            found: int64 [..., K], what a search made elsewhere found, as indices of ``clock_gsu``: counted from
                the start of the sequence or window, -1 for nothing. Nothing is searched then; a mask and
                exclude_future hold for them as well. What lies outside its query's history is an error on the CPU,
                and nothing on CUDA.
            longest: for ``k=None`` with windows or ragged histories, the most behaviours that a query has. None: it is
                counted, on the CPU and outside graphs only.
        Returns:
            v_cur [S, out_dim], [S, C, out_dim] or [Q, out_dim]; c has [n, L + 4 C] in its last place. Both have the
            weights' dtype.
        Raises:
            ValueError: an argument that does not fit; the message names it and the remedy.
        """
        self._check(candidate, history, keys, longest)
        queries = candidate.shape[:-1]
        projected, u = self._attention_query(candidate, query)
        mlps = self._attention_mlps()
        with torch.no_grad():
            if found is None and self.k is not None:
                asked = (projected, u) if self.w_s is None else self._search_query(candidate, query)
                mlp = self._search_mlp(mlps)
                found = self._search(
                    candidate, *asked, history, query_time, keys, mlp, query_dtype
                ).indices
            elif found is None:
                found = everything("LongTermInterestClock", history, candidate, query_time, longest)
        v_cur, context = self._attended(u, mlps, history, query_time, found, queries)
        return (v_cur, context) if return_context else v_cur

    def _attended(
        self, u: Tensor, mlps: list[MlpWeights], history: History, query_time: Tensor, found: Tensor, queries: torch.Size
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """v_cur and c of an attention to what was found."""
        context = self._by_head(
            self.ops.esu_attention, as_query(u, history.table), mlps, z=history.rows, z_time=history.time,
            query_time=query_time, found=found, **history.layout(),
        ).to(self.w_v.dtype)  # fmt: skip
        v_cur = self.head(_each_head(context, self.w_v).flatten(1))
        return v_cur.unflatten(0, queries), context.unflatten(0, queries)

    def _check(self, candidate: Tensor, history: History, keys: Any, longest: int | None) -> None:
        """What PyTorch's own operations would take although the ops refuse it, or refuse in their own words."""
        op = "LongTermInterestClock"
        if (
            keys is not None
            and self.scoring != "precomputed"
            and not isinstance(keys, QuantizedRows)
        ):
            raise ValueError(
                f"{op}: keys must be None for folded scoring; build the module with scoring='precomputed', or give QuantizedRows"
            )
        if longest is not None:
            check_size(op, "longest", longest, 0)
        require_history(op, history)
        check_width("candidate", candidate, self.candidate_dim, "candidate_dim")
        if candidate.dim() == 1:
            raise ValueError(
                f"{op}: candidate must have shape [S, {self.candidate_dim}] or [S, C, {self.candidate_dim}], got "
                f"{list(candidate.shape)}; for one use candidate[None]"
            )
        check_candidate(op, history, candidate, self.candidate_dim)
        check_behaviours(history, self.behaviour_dim)
        if history.table.dtype in LARGEST:
            raise ValueError(
                f"{op}: history.rows must be floating, got {dtype_of(history.table)}; the attention reads them: give rows in bytes as "
                "keys, beside these"
            )
        own = self.w_q.dtype
        if self.backend == "reference" and not history.table.is_floating_point():
            raise ValueError(
                f"{op}: history.rows must be floating, got {dtype_of(history.table)}; convert it with .float()"
            )
        if self.backend == "compiled":
            for name, dtype in (("the module", own), ("history.rows", history.table.dtype)):
                if dtype == torch.float64:
                    raise ValueError(
                        f"{op}: {name} must be float32, float16 or bfloat16, got float64; backend='reference' takes float64"
                    )
        if candidate.layout is not torch.strided:
            raise ValueError(
                f"{op}: candidate must be a strided tensor, got one of layout {candidate.layout}; make it one with .to_dense()"
            )
        if candidate.device != self.w_q.device:
            raise ValueError(
                f"{op}: candidate must be on the device of the weights, {self.w_q.device}, got {candidate.device}; move one "
                "of them with .to()"
            )
        if candidate.dtype != own and not torch.is_autocast_enabled(candidate.device.type):
            raise ValueError(
                f"{op}: candidate must be {own} to match the weights, got {candidate.dtype}; convert one of them with .to(), "
                "or run under torch.autocast"
            )

    def _search(
        self,
        candidate: Tensor,
        projected: Tensor,
        u: Tensor,
        history: History,
        query_time: Tensor,
        keys: Any,
        mlp: MlpWeights,
        query_dtype: str | None = None,
    ) -> TopK:
        """The k behaviours that each query's search finds.

        Args:
            candidate, history, query_time, keys, query_dtype: as given to forward.
            projected: the candidates' projections, [..., n d]; u: these folded into the rows' width, [Q, n, L]; both
                of the search.
            mlp: its s.
        """
        query, searched, options = self._asks(candidate, projected, u, history, keys, mlp)
        found: TopK = self.ops.clock_gsu(
            query, query_time=query_time, query_dtype=query_dtype, **searched.arguments(), **options
        )
        return found

    def _search_by(
        self, candidate: Tensor, projected: Tensor, u: Tensor, rows: Any, keys: Any
    ) -> tuple[Tensor, Any, float]:
        """The queries and the keys whose dot products the search compares, and their scale.

        Args:
            rows: of the history, or its table, or a tuple of its tables, as are the keys.
        """
        if self.scoring == "folded":
            query = u.sum(-2).unflatten(0, candidate.shape[:-1])
            return query, rows if keys is None else keys, self.scale * math.sqrt(self.head_dim)
        keys = self.project(rows) if keys is None else keys
        return query_of_projections(projected, keys), keys, self.scale

    def _taught_by(self, candidate: Tensor, rows: Any) -> tuple[Tensor, Any, float]:
        """Folded, whatever the scoring: it is the same selection."""
        w_q, w_b = self.w_q, self.w_b
        if self.w_s is not None:
            w_q, w_b = w_q.detach() + self.w_s, w_b.detach()
        _, u = self._folded(candidate, w_q, w_b)
        query = u.sum(-2).unflatten(0, candidate.shape[:-1])
        return query, rows, self.scale * math.sqrt(self.head_dim)

    def extra_repr(self) -> str:
        return (
            f"behaviour_dim={self.behaviour_dim}, candidate_dim={self.candidate_dim}, "
            f"head_dim={self.head_dim}, heads={self.heads}, k={self.k}, "
            f"out_dim={self.out_dim}, clocks={self.clocks}, unit={', '.join(f'{unit:g}' for unit in self.time.units)}, time_per={self.time_per!r}, "
            f"scoring={self.scoring!r}, literal_scale={self.literal_scale}, "
            f"exclude_future={self.exclude_future}, own_search={self.w_s is not None}, backend={self.backend!r}"
        )
