# SPDX-License-Identifier: Apache-2.0
"""SIM: search by category (hard) or by a dot product that has its own loss (soft), attention by content."""

from __future__ import annotations

import math
from typing import Any, NoReturn, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock.baselines._checks import (
    check_integers,
    check_model_call,
    check_no_own_search,
    check_sizes,
)
from longclock.baselines.pooled import different_windows, rows_of
from longclock.baselines.twin import TWIN
from longclock.history import History
from longclock.history.windows import edges_of, windows_of
from longclock.nn.keys import project_tables, query_of_projections

Categories: TypeAlias = "tuple[Tensor, Tensor, Tensor]"


class SIMHard(TWIN):
    """The last ``k`` behaviours of the candidate's category, then :class:`TWIN`'s attention.

    Call: as :class:`longclock.LongTermInterestClock`, and

    - ``candidate_category``: int32 or int64, the candidates' shape without its last place;
    - ``behaviour_category``: int32 or int64, the shape of history.time. Equal numbers, of any sign and size, are the same
      category. The order of the last ones is kept, and used as long as they are the same: comparing is cheaper
      than sorting.

    Source: SIM, arXiv 2006.05639, hard search; its attention, without time intervals.

    Raises:
        ValueError: ``k`` is None: the whole of a category is not kept. An argument that does not fit.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import SIMHard
        >>> history = lc.History.dense(torch.eye(4)[None], torch.zeros(1, 4, dtype=torch.int64))
        >>> genre = {"behaviour_category": torch.tensor([[1, 2, 1, 2]])}
        >>> asked = {"candidate_category": torch.tensor([2]), "return_context": True}
        >>> model, now = SIMHard(4, 4, k=1), torch.tensor([60])
        >>> _, c = model(torch.randn(1, 4), history, now, **genre, **asked)
        >>> c[0, 0, :4].detach().round(decimals=3)  # the last of genre 2
        tensor([0., 0., 0., 1.])
    """

    reads = ("candidate_category", "behaviour_category")
    takes_quantized_keys = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_no_own_search("SIMHard", kwargs, "the search is by categories")
        super().__init__(*args, **kwargs)
        if self.k is None:
            raise ValueError(
                "SIMHard: k must be an int, got None; give the most that a query keeps"
            )
        # A copy of the categories that were sorted, and what _by_category made of them.
        self._sorted: tuple[Tensor, Categories] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the users' categories, which are no part of the model."""
        return {**self.__dict__, "_sorted": None}

    def forward(  # type: ignore[override]  # it reads categories as well
        self,
        candidate: Tensor,
        history: History,
        query_time: Tensor,
        *,
        candidate_category: Tensor,
        behaviour_category: Tensor,
        **options: Any,
    ) -> Any:
        asked = {"candidate_category": candidate_category, "behaviour_category": behaviour_category}
        found = self.search(candidate, history, query_time, **asked)
        return super().forward(candidate, history, query_time, found=found, **options)

    def search(  # type: ignore[override]  # it reads categories, and no keys
        self,
        candidate: Tensor,
        history: History,
        query_time: Tensor,
        *,
        candidate_category: Tensor,
        behaviour_category: Tensor,
    ) -> Tensor:
        """The last ``k`` of the candidate's category, the latest first. Arguments: as of a call."""
        op = type(self).__name__
        check_model_call(op, candidate, self.candidate_dim, self.behaviour_dim, history, query_time)
        queries = candidate.shape[:-1]
        for name, ids, shape, what in (
            ("behaviour_category", behaviour_category, history.time.shape, "the shape of history.time = {}"),
            ("candidate_category", candidate_category, queries, "shape {}, one a candidate"),
        ):  # fmt: skip
            check_integers(op, name, ids, shape, what, history.time)
        windows = windows_of(op, history, queries)
        found = self._last_of_category(
            candidate_category.flatten().long(), behaviour_category, windows
        )
        return found.unflatten(0, queries)

    def search_arguments(self, *call: Any, **keys: Any) -> NoReturn:
        """Not of clock_gsu."""
        raise NotImplementedError("SIMHard: it searches by categories, and not with clock_gsu")

    def search_loss(self, *call: Any, **reads: Any) -> None:
        """None: categories are not learned."""

    @torch.no_grad()
    def _last_of_category(self, wanted: Tensor, category: Tensor, windows: History) -> Tensor:
        """Places from the start of each window, the latest first, -1 where there is none: [Q, k]."""
        starts, ends = edges_of(windows)
        values, keys, order = self._by_category(category, windows.mask)
        assert self.k is not None
        nothing = torch.full((len(wanted), self.k), -1, device=wanted.device)
        if not len(values):
            return nothing
        places = category.numel()
        number = torch.searchsorted(values, wanted).clamp(max=len(values) - 1)
        low, high = (torch.searchsorted(keys, number * places + bound) for bound in (starts, ends))
        at = high[:, None] - 1 - torch.arange(self.k, device=keys.device)
        there = (at >= low[:, None]) & (values[number] == wanted)[:, None]
        return torch.where(there, order[at.clamp(min=0)] - starts[:, None], nothing)

    def _by_category(self, category: Tensor, mask: Tensor | None) -> Categories:
        """Of the behaviours that count: the different categories, in order; number of the category * places + place, in
        order; and these places. The number keeps the product small, whatever the categories are."""
        if mask is None and self._sorted is not None:
            of, known = self._sorted
            if (
                of.device == category.device
                and of.dtype == category.dtype
                and torch.equal(of, category)
            ):
                return known
        flat, order = category.flatten().long(), None
        if mask is not None:
            order = mask.nonzero().flatten()
            flat = flat[order]
        ordered, by = flat.sort(stable=True)
        order = by if order is None else order[by]
        values, number = ordered.unique_consecutive(return_inverse=True)
        found = values, number * category.numel() + order, order
        if mask is None:
            # Compared by value: an identity or a version does not tell of what NumPy writes into shared memory.
            self._sorted = category.clone(), found
        return found


class SIMSoft(TWIN):
    """Search by ``W_b b . W_q q`` with weights of its own, which a loss of their own trains; then :class:`TWIN`'s attention.

    A search passes no gradient on, so the search's weights are trained by ``auxiliary_logits``: a network's
    guess at the label from the candidate and ``U = sum_m (W_b b_m . W_q q) b_m / (M sqrt(search_dim))`` over all M behaviours.
    Add their loss to that of the model. Arguments and call: as :class:`longclock.LongTermInterestClock`,
    without ``scoring``.
    Source: SIM, arXiv 2006.05639, soft search; its sum is a mean here, so that long histories are no larger. (FuxiCTR 2.3's SIM gives
    masked behaviours the score 0 in place of none, so that they are found before all with negative scores.)

    Args:
        search_dim: width of the search's projections.

    Parameters: as TWIN's; search_b [search_dim, L], search_q [search_dim, H] and auxiliary.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import SIMSoft
        >>> model, candidate, now = SIMSoft(8, 8), torch.randn(1, 8), torch.tensor([5 * 3600])
        >>> history = lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None])
        >>> call = candidate, history, now
        >>> model(*call).shape, model.auxiliary_logits(*call).shape
        (torch.Size([1, 64]), torch.Size([1]))
    """

    def __init__(self, *args: Any, search_dim: int = 32, **kwargs: Any) -> None:
        if "scoring" in kwargs:
            raise ValueError(
                "SIMSoft: scoring must be left out: the search has its own projections"
            )
        check_no_own_search("SIMSoft", kwargs, "the search has its own projections")
        check_sizes(type(self).__name__, search_dim=search_dim)
        super().__init__(*args, scoring="precomputed", **kwargs)
        self.search_dim = search_dim
        self.search_b = nn.Parameter(torch.empty(search_dim, self.behaviour_dim))
        self.search_q = nn.Parameter(torch.empty(search_dim, self.candidate_dim))
        for weight in (self.search_b, self.search_q):
            bound = math.sqrt(3 / weight.shape[1])
            nn.init.uniform_(weight, -bound, bound)
        width = self.behaviour_dim + self.candidate_dim
        self.auxiliary = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 1))

    @property
    def searches_itself(self) -> bool:
        return True

    def project(self, rows: Any) -> Any:
        """Keys of the search: [..., L] -> [..., search_dim]; of a tuple of tables, a tuple."""
        return project_tables(rows, self.search_b)

    def _search_by(
        self, candidate: Tensor, projected: Tensor, u: Tensor, rows: Any, keys: Any
    ) -> tuple[Tensor, Any, float]:
        query = F.linear(candidate, self.search_q)
        keys = self.project(rows) if keys is None else keys
        return query_of_projections(query, keys), keys, 1 / math.sqrt(self.search_dim)

    def _taught_by(self, candidate: Tensor, rows: Any) -> tuple[Tensor, Any, float]:
        return self._search_by(candidate, candidate, candidate, rows, None)

    def auxiliary_logits(self, candidate: Tensor, history: History, query_time: Tensor) -> Tensor:
        """Logits of the candidates, their shape without its last place. Arguments: as of a call."""
        op = type(self).__name__
        check_model_call(op, candidate, self.candidate_dim, self.behaviour_dim, history, query_time)
        windows = windows_of(op, history, candidate.shape[:-1])
        bounds, window = different_windows(windows)
        rows = rows_of(op, windows, bounds)
        none = self.search_q.new_zeros(0, self.behaviour_dim, self.search_dim)
        moments = torch.cat([none, *(self._moment(some)[None] for some in rows)])
        queries = candidate.flatten(0, -2).to(self.search_q.dtype)
        pooled = torch.einsum("qld,qd->ql", moments[window], F.linear(queries, self.search_q))
        logits: Tensor = self.auxiliary(
            torch.cat([queries, pooled / math.sqrt(self.search_dim)], 1)
        )
        return logits.view(candidate.shape[:-1])

    def _moment(self, rows: Tensor) -> Tensor:
        """Mean of ``b (W_b b)^T`` over a window's rows: [P, L] -> [L, search_dim]."""
        rows = rows.to(self.search_b.dtype)
        return rows.T @ self.project(rows) / max(len(rows), 1)
