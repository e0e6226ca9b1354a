# SPDX-License-Identifier: Apache-2.0
"""Any model with a learned embedding of the hour beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock._mlp import resolve_period
from longclock.baselines._checks import check_model_call, check_sizes
from longclock.baselines.recent import hour_of
from longclock.history import History
from longclock.history.windows import each_query
from longclock.nn.interest_module import InterestModule


class WithHour(InterestModule):
    """An interest module that also knows the hour of the request, as production systems tell it.

    One of ``hours`` vectors is joined to the candidate before the module, and to ``v_cur`` behind it, where a two-layer network
    reads both. Call: as the module's. What else the module offers (``observe``, ``project``) is offered as it is;
    ``auxiliary_logits`` takes the candidate as a call does and joins the hour to it.

    Args:
        interest: the module's class, or what builds it.
        period, hours, hour_dim: the seconds of the clock that the hour is read from, how many parts it is cut into, and the
            width of their vectors.
        The others: the module's.

    Raises:
        ValueError: an argument that does not fit; the message names it, and the class that found it.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import TWIN, WithHour
        >>> model, candidate = WithHour(TWIN, 8, 8), torch.randn(1, 8)
        >>> history = lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None])
        >>> hours = (torch.tensor([hour * 3600]) for hour in (8, 20))
        >>> morning, evening = (model(candidate, history, hour) for hour in hours)
        >>> torch.equal(morning, evening)
        False
    """

    def __init__(
        self,
        interest: Callable[..., InterestModule],
        behaviour_dim: int,
        candidate_dim: int,
        *args: Any,
        out_dim: int = 64,
        hidden_dim: int = 128,
        period: int = 86400,
        hours: int = 24,
        hour_dim: int = 16,
        **options: Any,
    ) -> None:
        super().__init__()
        check_sizes(
            "WithHour", behaviour_dim=behaviour_dim, candidate_dim=candidate_dim, out_dim=out_dim,
            hidden_dim=hidden_dim, hours=hours, hour_dim=hour_dim,
        )  # fmt: skip
        self.behaviour_dim, self.candidate_dim = behaviour_dim, candidate_dim
        self.period = resolve_period("WithHour", period)
        self.hour = nn.Embedding(hours, hour_dim)
        self.interest = interest(
            behaviour_dim, candidate_dim + hour_dim, *args,
            out_dim=out_dim, hidden_dim=hidden_dim, **options,
        )  # fmt: skip
        self.reads = self.interest.reads
        self.head = nn.Sequential(
            nn.Linear(out_dim + hour_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim)
        )

    def forward(
        self,
        candidate: Tensor,
        history: History,
        query_time: Tensor,
        *,
        return_context: bool = False,
        **options: Any,
    ) -> Any:
        candidate, hour = self._joined(candidate, history, query_time)
        if "item_vectors" in options:
            options["item_vectors"] = self._without_hour(options["item_vectors"])
        v, context = self.interest(candidate, history, query_time, return_context=True, **options)
        v = self.head(torch.cat([v, hour], -1))
        return (v, context) if return_context else v

    def _joined(
        self, candidate: Tensor, history: History, query_time: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The candidate with the hour of its request, and this hour, [..., hour_dim], of a checked call."""
        check_model_call(
            "WithHour", candidate, self.candidate_dim, self.behaviour_dim, history, query_time
        )
        queries = candidate.shape[:-1]
        hour = self.hour(hour_of(query_time, self.period, self.hour.num_embeddings))
        (hour,) = each_query("WithHour", history, queries, hour, wait=False)
        hour = hour.unflatten(0, queries)
        return torch.cat([candidate, hour.to(candidate.dtype)], -1), hour

    def _without_hour(self, vectors: Tensor) -> Tensor:
        """Items in the width of a joined candidate: an item alone has no hour, so its columns are 0."""
        narrow = isinstance(vectors, Tensor) and vectors.shape[-1:] == (self.candidate_dim,)
        return F.pad(vectors, (0, self.hour.embedding_dim)) if narrow else vectors

    def observe(self, user: Tensor, item: Tensor, time: Tensor) -> None:
        self.interest.observe(user, item, time)

    def auxiliary_logits(
        self, candidate: Tensor, history: History, query_time: Tensor
    ) -> Tensor | None:
        joined, _ = self._joined(candidate, history, query_time)
        return self.interest.auxiliary_logits(joined, history, query_time)

    def search(
        self, candidate: Tensor, history: History, query_time: Tensor, **reads: Any
    ) -> Tensor | None:
        joined, _ = self._joined(candidate, history, query_time)
        return self.interest.search(joined, history, query_time, **reads)

    def attention_mass(
        self, candidate: Tensor, history: History, query_time: Tensor, **reads: Any
    ) -> Tensor:
        joined, _ = self._joined(candidate, history, query_time)
        return self.interest.attention_mass(joined, history, query_time, **reads)

    def search_loss(
        self, candidate: Tensor, history: History, query_time: Tensor, **reads: Any
    ) -> Tensor | None:
        joined, _ = self._joined(candidate, history, query_time)
        return self.interest.search_loss(joined, history, query_time, **reads)

    def project(self, rows: Tensor) -> Tensor:
        return self.interest.project(rows)

    def __getattr__(self, name: str) -> Any:
        """What the module offers beside a call."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or name == "interest":
                raise
            return getattr(super().__getattr__("interest"), name)
