# SPDX-License-Identifier: Apache-2.0
"""SIM: search by category (hard) or by a dot product that has its own loss (soft), attention by content."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock.baselines.pooled import different_windows, rows_of, windows_of
from longclock.baselines.twin import TWIN
from longclock.types import Lookup


class SIMHard(TWIN):
    """The last ``k`` behaviours of the candidate's category, then :class:`TWIN`'s attention.

    Call: as :class:`longclock.LongTermInterestClock`, and

    - ``candidate_category``: int64, the candidates' shape without its last place;
    - ``behaviour_category``: int64, shape of behaviour_time. Equal numbers are the same category. The order of
      the last tensor that was given is kept: pass the same one again and it is not sorted again.

    Source: SIM, arXiv 2006.05639, hard search; its attention, without time intervals.

    Raises:
        ValueError: ``k`` is None: the whole of a category is not kept.
    """

    reads = ("candidate_category", "behaviour_category")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.k is None:
            raise ValueError(
                "SIMHard: k must be an int, got None; give the most that a query keeps"
            )
        self._sorted: tuple[Tensor, int, Tensor, Tensor] | None = None

    def forward(  # type: ignore[override]  # it reads categories as well
        self,
        candidate: Tensor,
        behaviours: Tensor | Lookup,
        behaviour_time: Tensor,
        query_time: Tensor,
        lengths: Tensor | None = None,
        *,
        candidate_category: Tensor,
        behaviour_category: Tensor,
        mask: Tensor | None = None,
        **layout: Any,
    ) -> Any:
        if behaviour_category.shape != behaviour_time.shape:
            raise ValueError(
                f"SIMHard: behaviour_category must have the shape of behaviour_time = {list(behaviour_time.shape)}, "
                f"got {list(behaviour_category.shape)}"
            )
        if candidate_category.shape != candidate.shape[:-1]:
            raise ValueError(
                f"SIMHard: candidate_category must have shape {list(candidate.shape[:-1])}, one a candidate, "
                f"got {list(candidate_category.shape)}"
            )
        starts, ends = windows_of(candidate, behaviour_time, lengths, **layout)
        found = self._last_of_category(
            candidate_category.flatten(), behaviour_category, mask, starts, ends
        )
        return super().forward(
            candidate, behaviours, behaviour_time, query_time, lengths, mask=mask,
            found=found.unflatten(0, candidate.shape[:-1]), **layout,
        )  # fmt: skip

    @torch.no_grad()
    def _last_of_category(
        self,
        wanted: Tensor,
        category: Tensor,
        mask: Tensor | None,
        starts: Tensor,
        ends: Tensor,
    ) -> Tensor:
        """Places from the start of each window, the latest first, -1 where there is none: [Q, k]."""
        places = max(category.numel(), 1)
        keys, order = self._by_category(category, mask)
        low = torch.searchsorted(keys, wanted * places + starts)
        high = torch.searchsorted(keys, wanted * places + ends)
        assert self.k is not None
        at = high[:, None] - 1 - torch.arange(self.k, device=keys.device)
        if not len(order):
            return torch.full_like(at, -1)
        return torch.where(at >= low[:, None], order[at.clamp(min=0)] - starts[:, None], -1)

    def _by_category(self, category: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Behaviours that count, by category and then by place: category * places + place, and the places."""
        if mask is None and self._sorted is not None:
            of, version, *known = self._sorted
            if of is category and version == category._version:
                return known[0], known[1]
        places = category.numel()
        keys = category.flatten().long() * places + torch.arange(places, device=category.device)
        keys = (keys if mask is None else keys[mask.flatten()]).sort().values
        order = keys % max(places, 1)
        if mask is None:
            self._sorted = category, category._version, keys, order
        return keys, order


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
    """

    def __init__(self, *args: Any, search_dim: int = 32, **kwargs: Any) -> None:
        if "scoring" in kwargs:
            raise ValueError(
                "SIMSoft: scoring must be left out: the search has its own projections"
            )
        super().__init__(*args, scoring="precomputed", **kwargs)
        self.search_dim = search_dim
        self.search_b = nn.Parameter(torch.empty(search_dim, self.behaviour_dim))
        self.search_q = nn.Parameter(torch.empty(search_dim, self.candidate_dim))
        for weight in (self.search_b, self.search_q):
            bound = math.sqrt(3 / weight.shape[1])
            nn.init.uniform_(weight, -bound, bound)
        width = self.behaviour_dim + self.candidate_dim
        self.auxiliary = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 1))

    def project(self, behaviours: Tensor) -> Tensor:
        """Keys of the search: [..., L] -> [..., search_dim]."""
        return behaviours @ self.search_b.to(behaviours.dtype).T

    def _search_by(
        self, candidate: Tensor, projected: Tensor, u: Tensor, rows: Tensor, keys: Tensor | None
    ) -> tuple[Tensor, Tensor, float]:
        query = F.linear(candidate, self.search_q)
        return query, self.project(rows) if keys is None else keys, 1 / math.sqrt(self.search_dim)

    def auxiliary_logits(
        self,
        candidate: Tensor,
        behaviours: Tensor | Lookup,
        behaviour_time: Tensor,
        query_time: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        **layout: Any,
    ) -> Tensor:
        """Logits of the candidates, their shape without its last place. Arguments: as of a call."""
        starts, ends = windows_of(candidate, behaviour_time, lengths, **layout)
        windows, window = different_windows(starts, ends)
        moments = torch.stack([self._moment(rows) for rows in rows_of(behaviours, windows, mask)])
        queries = candidate.flatten(0, -2)
        pooled = torch.einsum("qld,qd->ql", moments[window], F.linear(queries, self.search_q))
        logits: Tensor = self.auxiliary(
            torch.cat([queries, pooled / math.sqrt(self.search_dim)], 1)
        )
        return logits.view(candidate.shape[:-1])

    def _moment(self, rows: Tensor) -> Tensor:
        """Mean of ``b (W_b b)^T`` over a window's rows: [P, L] -> [L, search_dim]."""
        return rows.T @ self.project(rows) / max(len(rows), 1)
