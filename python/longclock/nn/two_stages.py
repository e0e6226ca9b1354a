# SPDX-License-Identifier: Apache-2.0
"""A search, then an attention to what it found: what can be asked of the two, and what teaches the one what the other needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from longclock._backend import Backend, backend_ops
from longclock._sizes import check_size
from longclock.history.history import History
from longclock.history.windows import check_call, each_query, everything, windows_of
from longclock.nn.candidate_queries import CandidateQueries
from longclock.nn.head_similarities import HeadSimilarities, mean_of
from longclock.nn.interest_module import InterestModule
from longclock.nn.keys import as_query, detached
from longclock.nn.search_loss import Sampled, divergence, mass, sample_of, sampled, whole
from longclock.nn.time_similarity import MlpWeights, TimeSimilarity
from longclock.ops._errors import named_method
from longclock.ops.esu_attention import check_found
from longclock.types import Clock, Lookup, TopK

SAMPLE = 256  # behaviours drawn beside those that were found
WORDS = {
    "key_time": "history.time",
    "z_time": "history.time",
    "z": "history.rows",
    "query": "candidate",
    "keys": "history.rows",
}


class TwoStages(CandidateQueries, InterestModule):
    """What modules that search offer beside a call; :class:`longclock.LongTermInterestClock` is one."""

    backend: Backend
    k: int | None
    clocks: tuple[Clock, ...]
    exclude_future: bool
    time: TimeSimilarity | HeadSimilarities
    time_s: TimeSimilarity | None
    t_s: Tensor | None
    search_sees_time: bool
    attention_sees_time: bool

    @property
    def ops(self) -> ModuleType:
        """The functions that the module runs."""
        return backend_ops(self.backend)

    @property
    def searches_itself(self) -> bool:
        """Whether the search has weights that the attention does not use."""
        return self.w_s is not None

    @named_method(WORDS)
    @torch.no_grad()
    def search(  # type: ignore[override]  # keys in place of what others read
        self,
        candidate: Tensor,
        history: History,
        query_time: Tensor,
        *,
        keys: Any = None,
        query: Tensor | None = None,
        query_dtype: str | None = None,
        return_scores: bool = False,
    ) -> Any:
        """What the search finds, best first, as a call takes it for ``found``. None: the module attends to everything.

        Args:
            candidate, history, query_time, keys, query, query_dtype: as of a call.
        Returns:
            int64 [S, k], [S, C, k] or [Q, k]: indices from the start of the sequence or window, -1 for nothing; with
            ``return_scores`` the :class:`longclock.TopK` of them and their scores.

        Example::

            >>> import torch, longclock as lc
            >>> lic, candidate, now = lc.LongTermInterestClock(8, 8, k=2), torch.randn(1, 8), torch.tensor([0])
            >>> history = lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None])
            >>> found = lic.search(candidate, history, now)
            >>> found.shape, torch.equal(lic(candidate, history, now, found=found), lic(candidate, history, now))
            (torch.Size([1, 2]), True)
        """
        self._check(candidate, history, keys, None)
        if self.k is None:
            return None
        projected, u = self._search_query(candidate, query)
        mlp = self._search_mlp(self._attention_mlps())
        found = self._search(candidate, projected, u, history, query_time, keys, mlp, query_dtype)
        return found if return_scores else found.indices

    @named_method(WORDS)
    @torch.no_grad()
    def search_arguments(
        self, candidate: Tensor, history: History, *, keys: Any = None
    ) -> tuple[Tensor, History, dict[str, Any]]:
        """What the search is asked of ``clock_gsu``: for one of a part of a history, or where its rows lie (:mod:`longclock.distributed`).

        Args:
            candidate, history, keys: as of a call.
        Returns:
            The queries, the history with what is scored as its rows, and mlp, k, scale, clocks, unit and exclude_future by name.

        Example::

            >>> import torch, longclock as lc
            >>> lic, candidate, now = lc.LongTermInterestClock(8, 8, k=2), torch.randn(1, 8), torch.tensor([0])
            >>> history = lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None])
            >>> query, searched, options = lic.search_arguments(candidate, history)
            >>> found = lc.distributed.clock_gsu(query, searched, now, **options)
            >>> torch.equal(found.indices, lic.search(candidate, history, now))
            True
        """
        self._check(candidate, history, keys, None)
        projected, u = self._search_query(candidate)
        mlp = self._search_mlp(self._attention_mlps())
        return self._asks(candidate, projected, u, history, keys, mlp)

    @named_method(WORDS)
    def attend(
        self,
        candidate: Tensor,
        history: History,
        query_time: Tensor,
        *,
        longest: int | None = None,
        return_context: bool = False,
    ) -> Any:
        """v_cur of an attention to all of a history, without a search, as of a call with ``k=None``.

        So the winners of a search are attended to where their rows come from a second look-up, with the gradient that the first, of whole
        histories, does without: by :func:`longclock.jagged.select`, as a ragged history with a sequence for each query.

        Args:
            candidate, query_time, longest, return_context: as of a call.
            history: the winners.
        Returns:
            v_cur, and with ``return_context`` the pair of v_cur and c, as of a call.

        Example::

            >>> import torch, longclock as lc
            >>> lic, items = lc.LongTermInterestClock(8, 8, k=2), torch.nn.Embedding(50, 8)
            >>> ids, when, offsets = torch.tensor([3, 1, 4, 1]), 3600 * torch.arange(4), torch.tensor([0, 3, 4])
            >>> candidate, now = torch.randn(2, 8), torch.tensor([4 * 3600, 5 * 3600])
            >>> with torch.no_grad():
            ...     found = lic.search(candidate, lc.History.ragged(items(ids), when, offsets), now)
            >>> chosen, times, lengths = lc.jagged.select(found, offsets, ids, when)
            >>> v_cur = lic.attend(candidate, lc.History.ragged(items(chosen), times, lengths=lengths), now)
            >>> v_cur.shape
            torch.Size([2, 64])
        """
        self._check(candidate, history, None, longest)
        _, u = self._folded(candidate, self.w_q, self.w_b)
        found = everything(type(self).__name__, history, candidate, query_time, longest)
        v_cur, context = self._attended(u, self._attention_mlps(), history, query_time, found, candidate.shape[:-1])  # fmt: skip
        return (v_cur, context) if return_context else v_cur

    @named_method(WORDS)
    @torch.no_grad()
    def attention_mass(  # type: ignore[override]
        self, candidate: Tensor, history: History, query_time: Tensor
    ) -> Tensor:
        """How much the attention would look at each behaviour if it saw all: ``mean_i softmax_m(u_i . b_m + s(delta_m))``.

        Args:
            candidate, history, query_time: as of a call.
        Returns:
            float32 [S, M], [S, C, M] or [Q, M], M the most behaviours of a query, which is read on the host; a query's sum is 1,
            or 0 where nothing is valid. O(Q n M) memory: for a look at a model, not for serving.

        Example::

            >>> import torch, longclock as lc
            >>> lic, candidate, now = lc.LongTermInterestClock(8, 8, k=2), torch.randn(1, 8), torch.tensor([0])
            >>> history = lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None])
            >>> mass = lic.attention_mass(candidate, history, now)
            >>> mass.shape, round(mass.sum().item(), 3)
            (torch.Size([1, 5]), 1.0)
        """
        windows, query_time = self._asked(candidate, history, query_time)
        _, u = self._attention_query(candidate)
        logits = self._attention_logits(u, sampled(windows, whole(windows)), query_time)
        return mass(logits).unflatten(0, candidate.shape[:-1])

    @named_method(WORDS)
    def search_loss(  # type: ignore[override]
        self,
        candidate: Tensor,
        history: History,
        query_time: Tensor,
        *,
        sample: int = SAMPLE,
        found: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor | None:
        """How far the search is from what the attention needs: a loss that teaches it, to be added to the model's.

        ``KL(p || q)``, mean over queries, of p, the attention's mass (:meth:`attention_mass`, without gradient), and
        ``q = softmax(exp(t_s) score)`` of the search's scores. Behaviours with the K largest p are the best that a search can
        find, and at 0 the search finds them. A query without behaviours counts as 0.

        Both are taken over a sample: what the search finds, and ``sample`` draws that stand for all else. A draw among M
        behaviours counts ``M / sample`` times, so that the sums of both softmaxes, and the loss for given sums, have those
        over the whole history as their expectations; the loss itself, of ratios of these sums, comes out smaller, by less the
        larger the sample is. Histories of up to ``sample`` behaviours are taken whole.

        With ``own_search`` the gradient reaches w_s, t_s and time_s alone. Without, it reaches what search and attention share, which
        flattens the attention: see docs/training.md for what both were measured to do.

        Args:
            candidate, history, query_time: as of a call.
            sample: draws a query, at least 1.
            found: int64 [..., K], what the search found for this call; None: it is searched for. An index outside its query's
                history is an error on the CPU, and nothing on CUDA.
            generator: of the draws, on the history's device.
        Returns:
            A scalar. None where the search has nothing to be taught: there is none, or it is by hashes or categories.
        Raises:
            ValueError: an argument that does not fit; the message names it and the remedy.

        Example::

            >>> import torch, longclock as lc
            >>> lic = lc.LongTermInterestClock(8, 8, k=2, own_search=True)
            >>> history = lc.History.dense(torch.randn(1, 500, 8), 3600 * torch.arange(500)[None])
            >>> lic.search_loss(torch.randn(1, 8), history, torch.tensor([0])).backward()
            >>> [name for name, weight in lic.named_parameters() if weight.grad is not None]
            ['w_s', 't_s']
        """
        check_size(type(self).__name__, "sample", sample, 1)
        if self.k is None:
            return None
        windows, times = self._asked(candidate, history, query_time)
        if found is None:
            projected, u = self._search_query(candidate)
            with torch.no_grad():
                mlp = self._search_mlp(self._attention_mlps())
                found = self._search(
                    candidate, projected, u, history, query_time, None, mlp
                ).indices
        with torch.no_grad():
            _, u = self._attention_query(candidate)
            check_found(u, history, query_time, found)
            drawn = sample_of(windows, found.flatten(0, -2), sample, generator)
        asked = sampled(windows, drawn)
        with torch.no_grad():
            teacher = mass(self._attention_logits(u, asked, times))
        return divergence(teacher, self._search_logits(candidate, asked, times))

    def _check(self, candidate: Tensor, history: History, keys: Any, longest: int | None) -> None:
        raise NotImplementedError

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
        raise NotImplementedError

    def _search_by(
        self, candidate: Tensor, projected: Tensor, u: Tensor, rows: Any, keys: Any
    ) -> tuple[Tensor, Any, float]:
        raise NotImplementedError

    def _attended(
        self, u: Tensor, mlps: list[MlpWeights], history: History, query_time: Tensor, found: Tensor, queries: torch.Size
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        raise NotImplementedError

    def _asks(
        self, candidate: Tensor, projected: Tensor, u: Tensor, history: History, keys: Any, mlp: MlpWeights
    ) -> tuple[Tensor, History, dict[str, Any]]:  # fmt: skip
        """As :meth:`search_arguments`, of projections that were made."""
        rows = history.rows
        of_rows = rows.table if isinstance(rows, Lookup) else rows
        query, scored, scale = self._search_by(candidate, projected, u, of_rows, keys)
        scored_rows = rows._replace(table=scored) if isinstance(rows, Lookup) else scored
        options = {
            "mlp": mlp, "k": self.k, "scale": scale, "clocks": self._clocks_of(self.search_sees_time), "unit": self.time.units,
            "exclude_future": self.exclude_future,
        }  # fmt: skip
        return as_query(query, scored), history._replace(rows=scored_rows), options

    def _taught_by(self, candidate: Tensor, rows: Any) -> tuple[Tensor, Any, float]:
        """Queries, keys and scale of the search's scores, with a gradient to the weights that :meth:`search_loss` teaches."""
        raise NotImplementedError

    def _clocks_of(self, sees_time: bool) -> tuple[Clock, ...]:
        return self.clocks if sees_time else (1,) * len(self.clocks)

    def _asked(
        self, candidate: Tensor, history: History, query_time: Tensor
    ) -> tuple[History, Tensor]:
        """A call as windows, one a query, and the time of each query."""
        self._check(candidate, history, None, None)
        op, queries = type(self).__name__, candidate.shape[:-1]
        check_call(op, history, queries, query_time, candidate.shape)
        (query_time,) = each_query(op, history, queries, query_time)
        return windows_of(op, history, queries), query_time

    def _attention_logits(self, u: Tensor, asked: Sampled, query_time: Tensor) -> Tensor:
        """[Q, n, P], each behaviour's with the log of its weight."""
        history = asked.history.arguments()
        query = as_query(u, history["keys"])
        logits = self._by_head(
            self.ops.gsu_score, query, self._attention_mlps(), query_time=query_time, scale=1.0, **history
        )  # fmt: skip
        return logits + asked.log_weight[:, None]

    def _attention_mlps(self) -> list[MlpWeights]:
        """The s of the attention: one that all heads share, or one a head."""
        if isinstance(self.time, TimeSimilarity):
            return [self.time.mlp()]
        return [s.mlp() for s in self.time.each()]

    def _search_mlp(self, of_attention: list[MlpWeights]) -> MlpWeights:
        """The s of the search: its own, or what it has of the attention's."""
        if self.time_s is not None:
            return self.time_s.mlp()
        return of_attention[0] if isinstance(self.time, TimeSimilarity) else mean_of(of_attention)

    def _by_head(
        self, op: Callable[..., Tensor], query: Tensor, mlps: list[MlpWeights], **given: Any
    ) -> Tensor:
        """What an op makes of [Q, n, L] with the attention's time term: in a call of its own for each head that has its own s."""
        call = partial(
            op, clocks=self._clocks_of(self.attention_sees_time), unit=self.time.units, exclude_future=self.exclude_future, **given
        )  # fmt: skip
        if len(mlps) == 1:
            return call(query, mlp=mlps[0])
        each = zip(query.split(1, 1), mlps, strict=True)
        return torch.cat([call(of_head, mlp=mlp) for of_head, mlp in each], 1)

    def _search_logits(self, candidate: Tensor, asked: Sampled, query_time: Tensor) -> Tensor:
        """The same of the search, [Q, P], with a gradient to what it is taught by."""
        history, mlp = asked.history.arguments(), self._search_mlp(self._attention_mlps())
        rows = history.pop("keys")
        if self.searches_itself:
            candidate, rows = candidate.detach(), detached(rows)
            if self.time_s is None:
                w1, b1, w2, b2 = mlp
                mlp = (w1.detach(), b1.detach(), w2.detach(), b2.detach())
        query, keys, scale = self._taught_by(candidate, rows)
        scores: Tensor = self.ops.gsu_score(
            as_query(query.flatten(0, -2), keys), keys, query_time=query_time, mlp=mlp, scale=scale,
            clocks=self._clocks_of(self.search_sees_time), unit=self.time.units, exclude_future=self.exclude_future,
            **history,
        )  # fmt: skip
        if self.t_s is not None:  # 0 times -inf has no gradient
            nothing = scores == -math.inf
            scores = (scores.masked_fill(nothing, 0) * self.t_s.exp()).masked_fill(
                nothing, -math.inf
            )
        return scores + asked.log_weight
