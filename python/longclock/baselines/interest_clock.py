# SPDX-License-Identifier: Apache-2.0
"""Interest Clock: what a user likes at each hour of the day, weighted by how near that hour is to now."""

from __future__ import annotations

import collections
import heapq
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock.baselines.pooled import windows_of
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
    """

    def __init__(self, fields: int, top: int = TOP, days: int = DAYS) -> None:
        self.fields, self.top, self.days = fields, top, days
        self._users: dict[int, _Clock] = {}

    def add(self, user: int, time: int, local_time: int, categories: Sequence[int]) -> None:
        """A behaviour at ``time``, seconds, never before the user's last one; ``local_time`` tells its hour."""
        clock = self._users.get(user)
        if clock is None:
            clock = self._users[user] = _Clock(self.fields, self.top)
        clock.add(time, local_time % DAY // 3600, tuple(categories))

    def clock(self, user: int, time: int) -> np.ndarray:
        """Categories by hour at ``time``, behaviours at it or later left out: int64 [24, fields, top]."""
        clock = self._users.get(user)
        if clock is None:
            return np.zeros((HOURS, self.fields, self.top), np.int64)
        return clock.at(time, time - self.days * DAY)


class _Clock:
    """One user's."""

    def __init__(self, fields: int, top: int) -> None:
        self.found = np.zeros((HOURS, fields, top), np.int64)
        self.counts = [[collections.Counter[int]() for _ in range(fields)] for _ in range(HOURS)]
        self.last: int | None = None
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
) -> Tensor:
    """What :class:`HourlyInterests` keeps up, counted anew from windows of behaviours.

    Args:
        categories: int64 [fields, T]. behaviour_time: [T]. mask: bool [T].
        query_time, starts, ends: [Q].
    Returns:
        int64 [Q, 24, fields, top].
    """
    counts = ends - starts
    query = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    index = torch.arange(len(query), device=counts.device)
    index += (starts - counts.cumsum(0) + counts)[query]
    time, now = behaviour_time[index], query_time[query]
    counted = (time < now) & (time >= now - days * DAY)
    if mask is not None:
        counted &= mask[index]
    query, index, hour = query[counted], index[counted], (time % DAY // 3600)[counted]
    result = torch.zeros(len(counts), HOURS, len(categories), top, dtype=torch.int64)
    for field, ids in enumerate(categories):
        known = ids[index] != 0
        size = int(ids.max()) + 1 if len(ids) else 1
        place = (query[known] * HOURS + hour[known]) * size + ids[index[known]]
        place, number = place.unique(return_counts=True)  # by hour, then by category
        order = number.argsort(descending=True, stable=True)
        order = order[(place[order] // size).argsort(stable=True)]
        group = place[order] // size
        rank = torch.arange(len(order)) - torch.searchsorted(group, group)
        best = rank < top
        flat = result[:, :, field].flatten(0, 1)
        flat[group[best], rank[best]] = (place[order] % size)[best]
        result[:, :, field] = flat.unflatten(0, (len(counts), HOURS))
    return result


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
        ValueError: an unknown mode, or neither interests nor behaviour_categories.
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
        width = category_dim * fields
        super().__init__(*args, extra_dim=width, **kwargs)
        self.mode = mode
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
        mask: Tensor | None = None,
        **layout: Any,
    ) -> Any:
        if interests is None:
            if behaviour_categories is None:
                raise ValueError(
                    "InterestClock: interests must be given, from HourlyInterests, or behaviour_categories"
                )
            of_sequences = {**layout, "query_offsets": None}
            starts, ends = windows_of(query_time, behaviour_time, lengths, **of_sequences)
            interests = hourly_interests(
                behaviour_categories.flatten(1), behaviour_time.flatten(), query_time, starts, ends,
                None if mask is None else mask.flatten(),
            )  # fmt: skip
        return super().forward(
            candidate, behaviours, behaviour_time, query_time, lengths, mask=mask,
            interests=interests, category_tables=category_tables, **layout,
        )  # fmt: skip

    def beside(  # type: ignore[override]  # it reads more than the time
        self, query_time: Tensor, interests: Tensor, category_tables: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """The hours' vectors, weighted around the hour of now: [Q, fields * category_dim]."""
        now = hour_of(query_time, DAY, HOURS)
        if self.mode == "adaptive":
            hours = _vectors(interests, category_tables)
            asked = self.hour(now).unsqueeze(1).expand_as(hours)
            score: Tensor = self.attention(torch.cat([hours, asked], -1)).squeeze(-1)
            return (torch.einsum("qt,qtw->qw", score.softmax(-1), hours),)
        hour = self.weight.nonzero()[:, 1].view(HOURS, -1)[now]  # those that count, [Q, 7 or 1]
        query = torch.arange(len(now), device=now.device).unsqueeze(1)
        weight = self.weight[now[:, None], hour]
        near = _vectors(interests[query, hour], category_tables)
        return (torch.einsum("qt,qtw->qw", weight, near),)


def _vectors(interests: Tensor, tables: Sequence[Tensor]) -> Tensor:
    """Sums of the known categories of every hour, field by field: [Q, hours, fields, 3] -> [Q, hours, widths]."""
    parts = []
    for ids, table in zip(interests.long().unbind(2), tables, strict=True):
        known = (ids != 0).to(table.dtype).flatten(0, 1)
        vectors = F.embedding_bag(ids.flatten(0, 1), table, mode="sum", per_sample_weights=known)
        parts.append(vectors.unflatten(0, ids.shape[:2]))
    return torch.cat(parts, -1)
