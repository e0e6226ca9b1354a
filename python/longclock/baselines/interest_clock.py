# SPDX-License-Identifier: Apache-2.0
"""Interest Clock: what a user likes at each hour of the day, weighted by how near that hour is to now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock._checks import check_ids
from longclock.baselines._checks import (
    check_floats,
    check_integers,
    check_model_call,
    check_sizes,
    check_whole_days,
    kind_of,
    require_dense,
)
from longclock.baselines.recent import NoTime, hour_of
from longclock.data.hourly_interests import DAYS, HOURS, TOP
from longclock.data.stream import DAY
from longclock.history import History
from longclock.history.windows import bounds_of, edges_of, flattened


@torch.no_grad()
def hourly_interests(
    categories: Tensor,
    windows: History,
    query_time: Tensor,
    top: int = TOP,
    days: int = DAYS,
    *,
    scores: Tensor | None = None,
    op: str = "hourly_interests",
    sizes: Sequence[int] | None = None,
) -> Tensor:
    """What :class:`longclock.data.HourlyInterests` keeps up, counted anew from windows of behaviours.

    Args:
        categories: int32 or int64 [fields, T], at least 0.
        windows: ``time`` [T], ``starts`` and ``ends`` [Q]; its rows are not read. query_time: [Q].
        scores: int64 [T], what each behaviour adds to the score of its categories; None: 1.
        op, sizes: who asks, for messages, and rows of each field's table; None: of any size.
    Returns:
        int64 [Q, 24, fields, top].
    Raises:
        ValueError: a category in a window is negative, or outside its table.
    """
    (starts, ends), mask = edges_of(windows), windows.mask
    counts = ends - starts
    device = counts.device
    query = torch.arange(len(counts), device=device).repeat_interleave(counts)
    index = torch.arange(len(query), device=device)
    index += (starts - counts.cumsum(0) + counts)[query]
    if mask is not None:
        query, index = query[mask[index]], index[mask[index]]
    time, now = windows.time[index], query_time[query]
    counted = (time < now) & (time >= now - days * DAY)
    group = query * HOURS + time % DAY // 3600
    result = torch.zeros(
        len(counts) * HOURS, len(categories), top, dtype=torch.int64, device=device
    )
    for field, of_field in enumerate(categories):
        ids = of_field[index].long()
        end = None if sizes is None else sizes[field]
        check_ids(op, "behaviour_categories", ids, end, f"in field {field}; 0 is unknown")
        known = counted & (ids != 0)
        # By hour, then by category, whose number keeps the product small, whatever the ids are.
        values, number = ids[known].unique(return_inverse=True)
        size = max(len(values), 1)
        place, which = (group[known] * size + number).unique(return_inverse=True)
        added = torch.ones_like(which) if scores is None else scores[index[known]]
        score = torch.zeros_like(place).index_add_(0, which, added)
        place, score = place[score > 0], score[score > 0]
        order = score.argsort(descending=True, stable=True)
        order = order[(place[order] // size).argsort(stable=True)]
        at, number = place[order] // size, place[order] % size
        rank = torch.arange(len(order), device=device) - torch.searchsorted(at, at)
        best = rank < top
        result[at[best], field, rank[best]] = values[number[best]]
    return result.unflatten(0, (len(counts), HOURS))


class InterestClock(NoTime):
    """Beside the last ``k`` behaviours, what the user likes at each hour, weighted around now.

    ``v_cur = h([mean_m b_m ; sum_hour w(hour, now) e_hour])``; ``e_hour`` is, field by field, the sum of the
    vectors of the user's preferred categories at that hour. The weights w by ``mode``:

    - "gaussian": the normal density, sigma 1 hour, of the circular distance of the two hours: 0.399, 0.242, 0.054
      and 0.004 at 0 to 3 hours, 0 beyond;
    - "naive": 1 for the hour of now, else 0;
    - "adaptive": a softmax over the hours of a network's score of ``[e_hour ; vector of the hour of now]``.

    Call: as :class:`longclock.LongTermInterestClock`, and

    - ``category_tables``: the fields' embeddings, each [ids, category_dim];
    - ``interests``: [S, 24, fields, 3], one a query_time, from :class:`longclock.data.HourlyInterests`;
    - or ``behaviour_categories``: int64 [fields, *shape of history.time], from which they are counted anew. Times are
      then seconds that grow, not times of day. And beside them, where there are labels,
    - ``behaviour_labels``: int32 or int64, the shape of history.time, 1 for a behaviour that the user liked and 0 for one that
      they did not; None: all were liked.

    A category is preferred by its score, how many behaviours of it were liked less how many were not (``preference="net"``, as
    published), or by how many were liked alone ("positives"). Without labels both are the same. Interests that are
    given have it in them: :class:`longclock.data.HourlyInterests` is told whether a behaviour was liked.

    Source: Interest Clock, arXiv 2404.19357, of whose score HourlyInterests says what is kept.

    Raises:
        ValueError: an unknown mode or preference, behaviour_labels without behaviour_categories, neither interests nor behaviour_categories or both, ids outside the tables, a period
            that is not of whole days, and as :class:`longclock.baselines.Pooled`.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import InterestClock
        >>> genres, time = torch.nn.Embedding(4, 2), 3600 * torch.tensor([[8, 20]])
        >>> history = lc.History.dense(torch.randn(1, 2, 8), time)
        >>> model = InterestClock(8, 8, out_dim=3, category_dim=2)
        >>> tables, genre = [genres.weight], torch.tensor([[[1, 3]]])  # of each behaviour
        >>> now = torch.tensor([32 * 3600])
        >>> reads = {"category_tables": tables, "behaviour_categories": genre}
        >>> model(torch.randn(1, 8), history, now, **reads).shape
        torch.Size([1, 3])
    """

    reads = ("category_tables", "interests")
    weight: Tensor

    def __init__(
        self,
        *args: Any,
        category_dim: int,
        fields: int = 1,
        mode: Literal["gaussian", "naive", "adaptive"] = "gaussian",
        preference: Literal["net", "positives"] = "net",
        **kwargs: Any,
    ) -> None:
        if preference not in ("net", "positives"):
            raise ValueError(
                f"InterestClock: preference must be 'net' or 'positives', got {preference!r}"
            )
        if mode not in ("gaussian", "naive", "adaptive"):
            raise ValueError(
                f"InterestClock: mode must be 'gaussian', 'naive' or 'adaptive', got {mode!r}"
            )
        check_sizes(type(self).__name__, category_dim=category_dim, fields=fields)
        width = category_dim * fields
        super().__init__(*args, extra_dim=width, **kwargs)
        check_whole_days(type(self).__name__, self.period)
        self.mode, self.category_dim, self.fields = mode, category_dim, fields
        self.preference = preference
        if mode == "adaptive":
            self.hour = nn.Embedding(HOURS, width)
            self.attention = nn.Sequential(nn.Linear(2 * width, 32), nn.ReLU(), nn.Linear(32, 1))
        hours = torch.arange(HOURS)
        apart = (hours[:, None] - hours).abs()
        apart = torch.minimum(apart, HOURS - apart)
        weight = torch.exp(-apart.float().square() / 2) / (2 * torch.pi) ** 0.5 * (apart <= 3)
        self.register_buffer("weight", torch.eye(HOURS) if mode == "naive" else weight, False)

    def forward(  # type: ignore[override]  # it reads categories as well
        self,
        candidate: Tensor,
        history: History,
        query_time: Tensor,
        *,
        category_tables: Sequence[Tensor],
        interests: Tensor | None = None,
        behaviour_categories: Tensor | None = None,
        behaviour_labels: Tensor | None = None,
        return_context: bool = False,
        **unknown: Any,
    ) -> Any:
        if (interests is None) == (behaviour_categories is None):
            given = "none" if interests is None else "both"
            raise ValueError(
                f"{type(self).__name__}: interests must be given, from HourlyInterests, or behaviour_categories in their "
                f"place, got {given}"
            )
        if behaviour_categories is not None:
            interests = self._counted_anew(
                behaviour_categories, behaviour_labels, category_tables, candidate, history, query_time
            )  # fmt: skip
        elif behaviour_labels is not None:
            raise ValueError(
                f"{type(self).__name__}: behaviour_labels must come with behaviour_categories, got interests, which have the "
                "labels in them"
            )
        return super().forward(
            candidate, history, query_time, interests=interests, category_tables=category_tables,
            return_context=return_context, **unknown,
        )  # fmt: skip

    def _counted_anew(
        self,
        categories: Tensor,
        labels: Tensor | None,
        tables: Sequence[Tensor],
        candidate: Tensor,
        history: History,
        query_time: Tensor,
    ) -> Tensor:
        """Interests from the categories of the behaviours of a call."""
        op = type(self).__name__
        check_model_call(op, candidate, self.candidate_dim, self.behaviour_dim, history, query_time)
        self._check_tables(tables)
        check_integers(
            op, "behaviour_categories", categories, (self.fields, *history.time.shape),
            "shape {}, the fields of every history.time", history.time,
        )  # fmt: skip
        scores = None
        if labels is not None:
            check_integers(
                op, "behaviour_labels", labels, tuple(history.time.shape), "the shape of history.time = {}", history.time
            )  # fmt: skip
            check_ids(op, "behaviour_labels", labels, 2, "1 is liked, 0 is not")
            scores = labels.flatten().long()
            if self.preference == "net":
                scores = 2 * scores - 1
        starts, ends = bounds_of(op, history)
        windows = flattened(history)._replace(starts=starts, ends=ends)
        sizes = [len(table) for table in tables]
        return hourly_interests(
            categories.flatten(1), windows, query_time, scores=scores, op=op, sizes=sizes
        )

    def _check_tables(self, tables: Sequence[Tensor]) -> None:
        op = type(self).__name__
        several = hasattr(tables, "__len__") and not isinstance(tables, Tensor)
        if not several or len(tables) != self.fields:
            got = len(tables) if several else kind_of(tables)
            raise ValueError(
                f"{op}: category_tables must be {self.fields} tensors, one a field, got {got}"
            )
        for field, table in enumerate(tables):
            name = f"category_tables[{field}]"
            check_floats(op, name, table, self.category_dim, "category_dim")
            if table.dim() != 2 or len(table) == 0:
                raise ValueError(
                    f"{op}: {name} must have shape [ids, {self.category_dim}], a row for 0 (unknown) at least, got "
                    f"{list(table.shape)}"
                )

    def beside(  # type: ignore[override]  # it reads more than the time
        self, query_time: Tensor, interests: Tensor, category_tables: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """The hours' vectors, weighted around the hour of now: [Q, fields * category_dim]."""
        op = type(self).__name__
        self._check_tables(category_tables)
        require_dense(op, interests=interests)
        shape = (len(query_time), HOURS, self.fields, interests.shape[-1] if interests.dim() else 0)
        check_integers(
            op, "interests", interests, shape, "shape {}, of HourlyInterests", query_time
        )
        for field, table in enumerate(category_tables):
            hint = f"field {field} of category_tables has {len(table)} rows"
            check_ids(op, "interests", interests[:, :, field], len(table), hint)
        now = hour_of(query_time, DAY, HOURS)
        weights = self.weight.dtype
        if self.mode == "adaptive":
            hours = _vectors(interests, category_tables).to(weights)
            asked = self.hour(now).unsqueeze(1).expand_as(hours)
            score: Tensor = self.attention(torch.cat([hours, asked], -1)).squeeze(-1)
            return (torch.einsum("qt,qtw->qw", score.softmax(-1), hours),)
        hour = self.weight.nonzero()[:, 1].view(HOURS, -1)[now]  # those that count, [Q, 7 or 1]
        query = torch.arange(len(now), device=now.device).unsqueeze(1)
        weight = self.weight[now[:, None], hour]
        near = _vectors(interests[query, hour], category_tables).to(weights)
        return (torch.einsum("qt,qtw->qw", weight, near),)


def _vectors(interests: Tensor, tables: Sequence[Tensor]) -> Tensor:
    """Sums of the known categories of every hour, field by field: [Q, hours, fields, 3] -> [Q, hours, widths]."""
    parts = []
    for ids, table in zip(interests.long().unbind(2), tables, strict=True):
        vectors = F.embedding_bag(ids.flatten(0, 1), table, mode="sum", padding_idx=0)
        parts.append(vectors.unflatten(0, ids.shape[:2]))
    return torch.cat(parts, -1)
