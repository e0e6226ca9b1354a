# SPDX-License-Identifier: Apache-2.0
"""Interest Clock: what a user likes at each hour of the day, weighted by how near that hour is to now."""

from __future__ import annotations

import collections
import heapq
from collections.abc import Sequence
from operator import index as whole
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock.baselines.layout import (
    LAYOUT,
    check_call,
    check_floats,
    check_ids,
    check_integers,
    check_sizes,
    check_whole_days,
    kind_of,
    require_dense,
    sequences_of,
)
from longclock.baselines.recent import NoTime, hour_of
from longclock.data.stream import DAY
from longclock.types import Lookup

HOURS, TOP, DAYS = 24, 3, 30


class HourlyInterests:
    """Every user's most frequent categories at each hour of the day, kept up as events come.

    ``clock`` gives, for each of the 24 hours and each field of categories, the ``top`` that most of the user's behaviours of
    the last ``days`` had at that hour, the most frequent first, among equals the smaller id; 0 fills what is
    left, and a behaviour whose category is 0 (unknown) does not count in that field. An event costs its own hour only: nothing
    is counted again.

    Args:
        fields: categories of a behaviour.
        top, days: how many categories of an hour, and of how many days.

    Raises:
        ValueError: a size, a time or a category that does not fit; what was kept stays as it was.
    """

    def __init__(self, fields: int, top: int = TOP, days: int = DAYS) -> None:
        check_sizes("HourlyInterests", fields=fields, top=top, days=days)
        self.fields, self.top, self.days = fields, top, days
        self._users: dict[int, _Clock] = {}

    def add(self, user: int, time: int, local_time: int, categories: Sequence[int]) -> None:
        """A behaviour at ``time``, seconds, never before the user's last one; ``local_time`` tells its hour;
        ``categories``: an id of each field, from 0 to 2^63 - 1."""
        user, time = _whole("user", user), _whole("time", time)
        hour = _whole("local_time", local_time) % DAY // 3600
        known = tuple(_whole("categories", category) for category in categories)
        if len(known) != self.fields:
            raise ValueError(
                f"HourlyInterests: categories must be {self.fields}, one a field, got {len(known)}"
            )
        for category in known:
            if not 0 <= category < 1 << 63:
                raise ValueError(
                    f"HourlyInterests: categories must be from 0 (unknown) to 2^63 - 1, got {category}"
                )
        clock = self._users.get(user)
        if clock is None:
            clock = self._users[user] = _Clock(self.fields, self.top)
        clock.add(time, hour, known)

    def clock(self, user: int, time: int) -> np.ndarray:
        """Categories by hour at ``time``, behaviours at it or later left out: int64 [24, fields, top].

        ``time`` is never before that of the user's last call: what has been counted is not taken back.
        """
        user, time = _whole("user", user), _whole("time", time)
        clock = self._users.get(user)
        if clock is None:
            return np.zeros((HOURS, self.fields, self.top), np.int64)
        return clock.at(time, time - self.days * DAY)


def _whole(name: str, value: int) -> int:
    try:
        return whole(value)
    except TypeError:
        raise ValueError(
            f"HourlyInterests: {name} must be an int, got {type(value).__name__}"
        ) from None


class _Clock:
    """One user's."""

    def __init__(self, fields: int, top: int) -> None:
        self.found = np.zeros((HOURS, fields, top), np.int64)
        self.counts = [[collections.Counter[int]() for _ in range(fields)] for _ in range(HOURS)]
        self.last: int | None = None
        self.asked: int | None = None
        self.coming: collections.deque[tuple[int, int, tuple[int, ...]]] = collections.deque()
        self.counted: collections.deque[tuple[int, int, tuple[int, ...]]] = collections.deque()

    def add(self, time: int, hour: int, categories: tuple[int, ...]) -> None:
        if self.last is not None and time < self.last:
            raise ValueError(
                f"HourlyInterests: time must not be before the user's last one = {self.last}, got {time}"
            )
        self.last = time
        self.coming.append((time, hour, categories))

    def at(self, time: int, oldest: int) -> np.ndarray:
        if self.asked is not None and time < self.asked:
            raise ValueError(
                f"HourlyInterests: time must not be before that of the user's last call = {self.asked}, got {time}"
            )
        self.asked = time
        while self.coming and self.coming[0][0] < time:
            self.counted.append(self.coming.popleft())
            self._count(*self.counted[-1][1:], 1)
        while self.counted and self.counted[0][0] < oldest:
            self._count(*self.counted.popleft()[1:], -1)
        return self.found.copy()

    def _count(self, hour: int, categories: tuple[int, ...], step: int) -> None:
        for field, category in enumerate(categories):
            if category == 0:
                continue
            counts = self.counts[hour][field]
            counts[category] += step
            if counts[category] == 0:
                del counts[category]
            top = self.found.shape[2]
            best = heapq.nsmallest(top, counts.items(), key=lambda item: (-item[1], item[0]))
            self.found[hour, field] = [item[0] for item in best] + [0] * (top - len(best))


@torch.no_grad()
def hourly_interests(
    categories: Tensor,
    behaviour_time: Tensor,
    query_time: Tensor,
    starts: Tensor,
    ends: Tensor,
    mask: Tensor | None = None,
    top: int = TOP,
    days: int = DAYS,
    *,
    op: str = "hourly_interests",
    sizes: Sequence[int] | None = None,
) -> Tensor:
    """What :class:`HourlyInterests` keeps up, counted anew from windows of behaviours.

    Args:
        categories: int32 or int64 [fields, T], at least 0. behaviour_time: [T]. mask: bool [T].
        query_time, starts, ends: [Q].
        op, sizes: who asks, for messages, and rows of each field's table; None: of any size.
    Returns:
        int64 [Q, 24, fields, top].
    Raises:
        ValueError: a category in a window is negative, or outside its table.
    """
    counts = ends - starts
    device = counts.device
    query = torch.arange(len(counts), device=device).repeat_interleave(counts)
    index = torch.arange(len(query), device=device)
    index += (starts - counts.cumsum(0) + counts)[query]
    if mask is not None:
        query, index = query[mask[index]], index[mask[index]]
    time, now = behaviour_time[index], query_time[query]
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
        place, count = (group[known] * size + number).unique(return_counts=True)
        order = count.argsort(descending=True, stable=True)
        order = order[(place[order] // size).argsort(stable=True)]
        at, number = place[order] // size, place[order] % size
        rank = torch.arange(len(order), device=device) - torch.searchsorted(at, at)
        best = rank < top
        result[at[best], field, rank[best]] = values[number[best]]
    return result.unflatten(0, (len(counts), HOURS))


class InterestClock(NoTime):
    """Beside the last ``k`` behaviours, what the user likes at each hour, weighted around now.

    ``v_cur = h([mean_m b_m ; sum_hour w(hour, now) e_hour])``; ``e_hour`` is, field by field, the sum of the
    vectors of the user's most frequent categories at that hour. The weights w by ``mode``:

    - "gaussian": the normal density, sigma 1 hour, of the circular distance of the two hours: 0.399, 0.242, 0.054
      and 0.004 at 0 to 3 hours, 0 beyond;
    - "naive": 1 for the hour of now, else 0;
    - "adaptive": a softmax over the hours of a network's score of ``[e_hour ; vector of the hour of now]``.

    Call: as :class:`longclock.LongTermInterestClock`, and

    - ``category_tables``: the fields' embeddings, each [ids, category_dim];
    - ``interests``: [S, 24, fields, 3], for windows [Q, ...], from :class:`HourlyInterests`;
    - or ``behaviour_categories``: int64 [fields, *shape of behaviour_time], from which they are counted anew. Times are
      then seconds that grow, not times of day.

    Source: Interest Clock, arXiv 2404.19357.

    Raises:
        ValueError: an unknown mode, neither interests nor behaviour_categories or both, ids outside the tables, a period
            that is not of whole days, and as :class:`longclock.baselines.Pooled`.
    """

    reads = ("category_tables", "interests")
    weight: Tensor

    def __init__(
        self,
        *args: Any,
        category_dim: int,
        fields: int = 1,
        mode: Literal["gaussian", "naive", "adaptive"] = "gaussian",
        **kwargs: Any,
    ) -> None:
        if mode not in ("gaussian", "naive", "adaptive"):
            raise ValueError(
                f"InterestClock: mode must be 'gaussian', 'naive' or 'adaptive', got {mode!r}"
            )
        check_sizes(type(self).__name__, category_dim=category_dim, fields=fields)
        width = category_dim * fields
        super().__init__(*args, extra_dim=width, **kwargs)
        check_whole_days(type(self).__name__, self.period)
        self.mode, self.category_dim, self.fields = mode, category_dim, fields
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
        behaviours: Tensor | Lookup,
        behaviour_time: Tensor,
        query_time: Tensor,
        lengths: Tensor | None = None,
        *,
        category_tables: Sequence[Tensor],
        interests: Tensor | None = None,
        behaviour_categories: Tensor | None = None,
        **layout: Any,
    ) -> Any:
        if (interests is None) == (behaviour_categories is None):
            given = "none" if interests is None else "both"
            raise ValueError(
                f"{type(self).__name__}: interests must be given, from HourlyInterests, or behaviour_categories in their "
                f"place, got {given}"
            )
        if behaviour_categories is not None:
            interests = self._counted_anew(
                behaviour_categories, category_tables, candidate, behaviour_time, query_time, lengths,
                **{name: layout.get(name) for name in LAYOUT},
            )  # fmt: skip
        return super().forward(
            candidate, behaviours, behaviour_time, query_time, lengths,
            interests=interests, category_tables=category_tables, **layout,
        )  # fmt: skip

    def _counted_anew(
        self,
        categories: Tensor,
        tables: Sequence[Tensor],
        candidate: Tensor,
        behaviour_time: Tensor,
        query_time: Tensor,
        lengths: Tensor | None,
        *,
        mask: Tensor | None,
        query_offsets: Tensor | None,
        **bounds: Tensor | None,
    ) -> Tensor:
        """Interests from the categories of the behaviours of a call."""
        op = type(self).__name__
        check_call(
            op, candidate, self.candidate_dim, behaviour_time, query_time, lengths, mask=mask,
            query_offsets=query_offsets, **bounds,
        )  # fmt: skip
        self._check_tables(tables)
        check_integers(
            op, "behaviour_categories", categories, (self.fields, *behaviour_time.shape),
            "shape {}, the fields of every behaviour_time", behaviour_time,
        )  # fmt: skip
        starts, ends = sequences_of(op, behaviour_time, lengths, **bounds)
        return hourly_interests(
            categories.flatten(1), behaviour_time.flatten(), query_time, starts, ends,
            None if mask is None else mask.flatten(), op=op, sizes=[len(table) for table in tables],
        )  # fmt: skip

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
