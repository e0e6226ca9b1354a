# SPDX-License-Identifier: Apache-2.0
"""Any model with a learned embedding of the hour beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock._mlp import resolve_period
from longclock.baselines.layout import LAYOUT, check_call, check_sizes, each_candidate
from longclock.baselines.recent import hour_of
from longclock.types import Lookup


class WithHour(nn.Module):
    """An interest module that also knows the hour of the request, as production systems tell it.

    One of ``hours`` vectors is joined to the candidate before the module, and to ``v_cur`` behind it, where a two-layer network
    reads both. Call: as the module's. What else the module offers (``observe``, ``project``) is offered as it is;
    ``auxiliary_logits`` takes the candidate as a call does and joins the hour to it.

    Args:
        interest: the module's class, or what builds it.
        hours, hour_dim: how many parts the clock is cut into, and the width of their vectors.
        The others: the module's.

    Raises:
        ValueError: an argument that does not fit; the message names it, and the class that found it.
    """

    def __init__(
        self,
        interest: Callable[..., nn.Module],
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
        self.candidate_dim, self.period = candidate_dim, resolve_period("WithHour", period)
        self.hour = nn.Embedding(hours, hour_dim)
        self.interest = interest(
            behaviour_dim, candidate_dim + hour_dim, *args,
            out_dim=out_dim, hidden_dim=hidden_dim, period=period, **options,
        )  # fmt: skip
        self.reads: tuple[str, ...] = getattr(self.interest, "reads", ())
        self.head = nn.Sequential(
            nn.Linear(out_dim + hour_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim)
        )

    def forward(
        self,
        candidate: Tensor,
        behaviours: Tensor | Lookup,
        behaviour_time: Tensor,
        query_time: Tensor,
        lengths: Tensor | None = None,
        *,
        return_context: bool = False,
        **layout: Any,
    ) -> Any:
        call = (candidate, behaviours, behaviour_time, query_time, lengths)
        candidate, hour = self._joined(*call, **layout)
        if "item_vectors" in layout:
            layout["item_vectors"] = self._without_hour(layout["item_vectors"])
        v, context = self.interest(candidate, *call[1:], return_context=True, **layout)
        v = self.head(torch.cat([v, hour], -1))
        return (v, context) if return_context else v

    def _joined(
        self,
        candidate: Tensor,
        behaviours: Tensor | Lookup,
        behaviour_time: Tensor,
        query_time: Tensor,
        lengths: Tensor | None = None,
        **layout: Any,
    ) -> tuple[Tensor, Tensor]:
        """The candidate with the hour of its request, and this hour, [..., hour_dim], of a checked call."""
        given = {name: layout.get(name) for name in LAYOUT}
        check_call(
            "WithHour", candidate, self.candidate_dim, behaviour_time, query_time, lengths, **given
        )
        hour = self.hour(hour_of(query_time, self.period, self.hour.num_embeddings))
        (hour,) = each_candidate("WithHour", candidate, given["query_offsets"], hour)
        hour = hour.unflatten(0, candidate.shape[:-1])
        return torch.cat([candidate, hour.to(candidate.dtype)], -1), hour

    def _without_hour(self, vectors: Tensor) -> Tensor:
        """Items in the width of a joined candidate: an item alone has no hour, so its columns are 0."""
        narrow = isinstance(vectors, Tensor) and vectors.shape[-1:] == (self.candidate_dim,)
        return F.pad(vectors, (0, self.hour.embedding_dim)) if narrow else vectors

    @property
    def auxiliary_logits(self) -> Callable[..., Tensor]:
        """The module's, where it has one."""
        of_module: Any = self.interest.auxiliary_logits
        return functools.partial(self._auxiliary_logits, of_module)

    def _auxiliary_logits(
        self, of_module: Callable[..., Tensor], candidate: Tensor, *call: Any, **layout: Any
    ) -> Tensor:
        return of_module(self._joined(candidate, *call, **layout)[0], *call, **layout)

    def __getattr__(self, name: str) -> Any:
        """What the module offers beside a call."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or name == "interest":
                raise
            return getattr(super().__getattr__("interest"), name)
