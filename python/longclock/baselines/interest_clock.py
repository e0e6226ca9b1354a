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

HOURS, TOP, DAYS = 24, 3, 30
DAY = 86400


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


class InterestClock(nn.Module):
    """``v_cur = h(sum_hour w(hour, now) e_hour)``: what the user likes at each hour, weighted around now.

    ``e_hour`` is, field by field, the mean of the vectors of the user's most frequent categories at
    that hour. The weights w by ``mode``:

    - "gaussian": the normal density, sigma 1 hour, of the circular distance of the two hours: 0.399, 0.242, 0.054
      and 0.004 at 0 to 3 hours, 0 beyond;
    - "naive": the hour of now alone;
    - "adaptive": a softmax over the hours of a network's score of ``[e_hour ; vector of the hour of now]``.

    Call: as :class:`longclock.LongTermInterestClock`, and

    - ``category_tables``: the fields' embeddings, each [ids, width];
    - ``interests``: [Q, 24, fields, 3], or [S, ...] for dense and ragged histories, from :class:`HourlyInterests`;
    - or ``behaviour_categories``: int64 [fields, *shape of behaviour_time], from which they are counted anew. Times are then
      seconds that grow, not times of day.

    The behaviours' vectors are not read, nor is ``k``. The context is [..., 1, H]: the weighted sum in the last columns, so that it meets a
    candidate whose last columns are the vectors of the same fields, and 0 before them.
    Source: Interest Clock, arXiv 2404.19357.

    Raises:
        ValueError: an unknown mode, fewer columns than the categories take, or neither interests nor
            behaviour_categories.
    """

    reads = ("category_tables", "interests")

    def __init__(
        self,
        behaviour_dim: int,
        candidate_dim: int,
        k: int | None = None,
        out_dim: int = 64,
        hidden_dim: int = 128,
        *,
        period: int = DAY,
        category_dim: int = 8,
        fields: int = 1,
        mode: Literal["gaussian", "naive", "adaptive"] = "gaussian",
    ) -> None:
        super().__init__()
        if mode not in ("gaussian", "naive", "adaptive"):
            raise ValueError(
                f"InterestClock: mode must be 'gaussian', 'naive' or 'adaptive', got {mode!r}"
            )
        self.candidate_dim, self.mode = candidate_dim, mode
        width = category_dim * fields
        if width > candidate_dim:
            raise ValueError(
                f"InterestClock: candidate_dim must be at least fields * category_dim = {width}, got "
                f"{candidate_dim}: a candidate ends with the vectors of its categories"
            )
        self.head = nn.Sequential(
            nn.Linear(width, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim)
        )
        if mode == "adaptive":
            self.hour = nn.Embedding(HOURS, width)
            self.attention = nn.Sequential(nn.Linear(2 * width, 32), nn.ReLU(), nn.Linear(32, 1))
        hours = torch.arange(HOURS)
        apart = (hours[:, None] - hours).abs()
        apart = torch.minimum(apart, HOURS - apart)
        weight = torch.exp(-apart.float().square() / 2) / (2 * torch.pi) ** 0.5 * (apart <= 3)
        self.register_buffer("weight", torch.eye(HOURS) if mode == "naive" else weight, False)

    weight: Tensor

    def forward(
        self,
        candidate: Tensor,
        behaviours: Any,
        behaviour_time: Tensor,
        query_time: Tensor,
        lengths: Tensor | None = None,
        *,
        category_tables: Sequence[Tensor],
        interests: Tensor | None = None,
        behaviour_categories: Tensor | None = None,
        mask: Tensor | None = None,
        starts: Tensor | None = None,
        ends: Tensor | None = None,
        offsets: Tensor | None = None,
        query_offsets: Tensor | None = None,
        return_context: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        windows = (behaviour_time, lengths, starts, ends, offsets, query_offsets, query_time)
        one_each = candidate.flatten(1) if candidate.dim() == 3 else candidate
        if interests is not None:
            *_, query_time, interests = windows_of(one_each, *windows, interests)
        elif behaviour_categories is not None:
            starts, ends, query_time = windows_of(one_each, *windows)
            interests = hourly_interests(
                behaviour_categories.flatten(1), behaviour_time.flatten(), query_time, starts, ends,
                None if mask is None else mask.flatten(),
            )  # fmt: skip
        else:
            raise ValueError(
                "InterestClock: interests must be given, from HourlyInterests, or behaviour_categories"
            )
        now = query_time.long() % DAY // 3600
        clock = self._around(now, interests, category_tables)
        v, context = self.head(clock), F.pad(clock, (self.candidate_dim - clock.shape[-1], 0))
        context = context.unsqueeze(-2)
        if candidate.dim() == 3:
            many = candidate.shape[1]
            v, context = (x.unsqueeze(1).expand(-1, many, *x.shape[1:]) for x in (v, context))
        return (v, context) if return_context else v

    def _around(self, now: Tensor, interests: Tensor, tables: Sequence[Tensor]) -> Tensor:
        """The hours' vectors, weighted around the hour of now: [Q, widths of all fields]."""
        weight = self.weight[now]
        if self.mode == "adaptive":
            hours = self._hours(interests, tables)
            asked = self.hour(now).unsqueeze(1).expand_as(hours)
            weight = self.attention(torch.cat([hours, asked], -1)).squeeze(-1).softmax(-1)
            return torch.einsum("qt,qtw->qw", weight, hours)
        hours = self.weight.nonzero()[:, 1].view(HOURS, -1)[now]  # those that count
        at = torch.arange(len(now), device=now.device).unsqueeze(1)
        return torch.einsum(
            "qt,qtw->qw", weight[at, hours], self._hours(interests[at, hours], tables)
        )

    def _hours(self, interests: Tensor, tables: Sequence[Tensor]) -> Tensor:
        """Mean vectors of the known categories of every hour, field by field: [Q, hours, widths]."""
        parts = []
        for field, table in enumerate(tables):
            ids = interests[:, :, field].long()
            known = (ids != 0).to(table.dtype)
            share = known / known.sum(-1, keepdim=True).clamp(min=1)
            vectors = F.embedding_bag(
                ids.flatten(0, 1), table, mode="sum", per_sample_weights=share.flatten(0, 1)
            )
            parts.append(vectors.unflatten(0, ids.shape[:2]))
        return torch.cat(parts, -1)
