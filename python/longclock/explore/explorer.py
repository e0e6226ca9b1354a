# SPDX-License-Identifier: Apache-2.0
"""What a page shows of a model and its users' histories, as plain numbers.

A score is ``content + s``: the first is of a candidate and a behaviour's row, the second of a difference of times. Both are given
as the ops make them, in fp32, the second for every second of half a day. Their sum is what the search adds up, so whoever sorts it has
the search's choice at any second of the day. The ranking is no such sum, and is given on a grid of hours.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longclock import ops
from longclock._colours import GREY, HAND, colours_of_groups
from longclock.data.item_names import ItemNames
from longclock.data.stream import DAY, EventStream
from longclock.explore.settings import CANDIDATES, USERS
from longclock.history import History
from longclock.nn import LongTermInterestClock
from longclock.nn.time_similarity import MlpWeights
from longclock.serve import Recommender, Request
from longclock.serve.asked import OFFSET, Asked
from longclock.store import Behaviours
from longclock.store.records import User

STEP = 900  # seconds between two rankings
LOOKED_AT = 10_000  # users of a store, for those with the longest histories


class Explorer:
    """A recommender's model and histories, with names for what they hold.

    Args:
        recommender: of a model that searches by content and one clock of a day.
        stream: the events behind it, for names of items and groups; None: they have numbers.
        source: what messages call the histories.
    Raises:
        ValueError: another model; no histories.
    """

    def __init__(
        self, recommender: Recommender, stream: EventStream | None = None, source: str = "the store"
    ) -> None:
        self.recommender, self.source = recommender, source
        self._clock = _clock_of(recommender)
        self._names = None if stream is None else ItemNames(stream)
        tables = recommender.served.catalogue.category_sizes
        self._field = min(tables, key=lambda name: tables[name], default="")
        self._group_names = [] if stream is None else stream.category_names.get(self._field, [])
        if next(iter(recommender.store.users()), None) is None:
            raise ValueError(f"{source} has no histories; fill it: python -m longclock.store")

    def users(self, count: int = USERS) -> list[User]:
        """Those with the longest histories of the first LOOKED_AT that the store names, longest first."""
        store = self.recommender.store
        found = list(itertools.islice(store.users(), LOOKED_AT))
        lengths = {user: len(store.get(user).item) for user in found}
        return sorted(found, key=lambda user: (-lengths[user], str(user)))[:count]

    @torch.inference_mode()
    def of_model(self) -> dict[str, Any]:
        """What all users share. ``tables`` are s at every second from 0 to half a day: ``search`` names that of the search,
        ``heads`` that of each head of the attention."""
        clock = self._clock
        of_attention = clock._attention_mlps()
        mlps = [(clock._search_mlp(of_attention), clock.search_sees_time)]
        mlps += [(mlp, clock.attention_sees_time) for mlp in of_attention]
        tables = [_packed(_s(mlp, clock.time.units[0], sees)) for mlp, sees in mlps]
        different = list(dict.fromkeys(tables))
        places = [different.index(table) for table in tables]
        return {
            "version": self.recommender.version, "k": clock.k, "step": STEP, "tables": different, "search": places[0],
            "heads": (places[1:] * clock.heads)[: clock.heads], "hand": HAND, "grey": GREY,
        }  # fmt: skip

    @torch.inference_mode()
    def of_user(
        self, user: User, items: Sequence[int] | None = None, count: int = CANDIDATES
    ) -> dict[str, Any]:
        """A user's behaviours, and candidates compared with them, over the day after the user's last behaviour.

        Args:
            items: the candidates, as rows of the model's table; None: the ``count`` items that the user took most often.
        Raises:
            ValueError: a user without behaviours that the model knows, an item that it does not know.
        """
        store, served = self.recommender.store, self.recommender.served
        stored = store.get(user)
        midnight, offset = _next_midnight(stored, served.config.history_delay)
        asked = Asked(served, store, Request(user, torch.tensor([0]), midnight - offset, offset))
        if not len(asked.seen.item):
            raise ValueError(f"user {user!r} has no behaviours in {self.source} that the model knows; name one that has")  # fmt: skip
        taken, times = asked.seen.item.unique(return_counts=True)
        if items is None:
            items = taken[times.argsort(descending=True, stable=True)][:count].tolist()
        self._check(items)
        candidates = list(dict.fromkeys(items))
        row, place = asked.behaviour.unique(return_inverse=True)
        content, heads = self._products(torch.tensor(candidates), row)
        item, labelled = row % served.catalogue.items, served.catalogue.labelled
        label = [f", label {each}" if labelled else "" for each in (row // served.catalogue.items).tolist()]  # fmt: skip
        return {
            "user": user,
            "candidates": [{"item": each, "name": self.name(each)} for each in candidates],
            "ranking": _packed(self._ranking(user, candidates, midnight - offset, offset)),
            "content": _packed(content),
            "heads": _packed(heads),
            "rows": [self.name(each) + of for each, of in zip(item.tolist(), label, strict=True)],
            **self._groups(item.numpy(), place.numpy()),
            "row": _packed(place.int()),
            "time": _packed(asked.behaviour_time),
            "ago": _packed(midnight - offset - asked.seen.time),
            "midnight": midnight,
            "leaving": self._leaving(asked.seen, midnight - offset),
        }

    def name(self, item: int) -> str:
        return f"item {item}" if self._names is None else self._names(item)

    def _check(self, items: Sequence[int]) -> None:
        if not items:
            raise ValueError("there must be at least one candidate")
        for item in items:
            if not 0 <= item < self.recommender.items:
                raise ValueError(f"candidates must be from 0 to {self.recommender.items - 1}, the model's items, got {item}")  # fmt: skip

    def _products(self, candidates: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """What the search has of each candidate and row without their times, [C, R]; and what each head of the attention has, [C, n, R]."""
        model, clock = self.recommender.served.model, self._clock
        vectors = model.items[candidates.to(model.items.device)]
        rows = model.behaviours[row.to(model.items.device)]
        none = torch.zeros(1, len(row), dtype=torch.int64, device=rows.device)
        history = History.dense(rows[None], none)
        query, searched, options = clock.search_arguments(vectors[None], history)
        w1, b1, w2, b2 = options["mlp"]
        nothing = w1, b1, torch.zeros_like(w2), torch.zeros_like(b2)
        content = ops.gsu_score(query, query_time=none[:, 0], mlp=nothing, scale=options["scale"], **searched.arguments())  # fmt: skip
        _, u = clock._attention_query(vectors)
        return content[0], torch.einsum("cnl,rl->cnr", u, rows)

    def _ranking(self, user: User, candidates: list[int], midnight: int, offset: int) -> Tensor:
        """Scores of the candidates by time of day, [DAY / STEP, C]."""
        given = self.recommender.served.ids("items", torch.tensor(candidates))
        moments = range(midnight, midnight + DAY, STEP)
        rankings = [self.recommender.rank(user, given, now, utc_offset=offset) for now in moments]
        order = given.argsort()  # items differ, so that both orders name the same
        scores = torch.empty(len(rankings), len(given))
        for of_hour, ranking in zip(scores, rankings, strict=True):
            of_hour[order] = ranking.scores[ranking.items.argsort()]
        return scores

    def _groups(self, item: Any, place: Any) -> dict[str, Any]:
        """The group of every row, and colours and names of the most frequent among the behaviours."""
        categories = self.recommender.served.catalogue.categories
        group = categories[self._field][item] if self._field else np.zeros(len(item), np.int64)
        colours = colours_of_groups(group[place])
        names = self._group_names
        shown = [
            {"group": each, "colour": colour, "name": names[each] if each < len(names) else f"{self._field} {each}".strip()}
            for each, colour in colours.items()
        ]  # fmt: skip
        return {"group": group.tolist(), "groups": shown if self._field else []}

    def _leaving(self, seen: Behaviours, midnight: int) -> list[int]:
        """The second of the day behind which each of the oldest behaviours is forgotten; of most models nothing is."""
        days = self.recommender.served.config.history_days
        if not days:
            return []
        seconds = seen.time + days * DAY - midnight
        return [int(second) for second in seconds[seconds < DAY]]


def _clock_of(recommender: Recommender) -> LongTermInterestClock:
    """The model's interest module.

    Raises:
        ValueError: its scores are no sums of content and one table over the day.
    """
    clock = recommender.served.model.interest
    what = type(clock).__name__
    if not isinstance(clock, LongTermInterestClock) or not clock.takes_quantized_keys:
        raise ValueError(f"the model must search by products and a clock, as lic and twin do, got {what}")  # fmt: skip
    if clock.clocks != (DAY,) or clock.exclude_future:
        raise ValueError(f"the model must have one clock of a day, {DAY} seconds, got {what} with clocks {clock.clocks}")  # fmt: skip
    return clock


def _s(mlp: MlpWeights, unit: float, sees_time: bool) -> Tensor:
    delta = torch.arange(DAY // 2 + 1, device=mlp[0].device)
    return ops.time_similarity(delta if sees_time else torch.zeros_like(delta), *mlp, unit=unit)


def _next_midnight(stored: Behaviours, delay: int) -> tuple[int, int]:
    """Of the user's place, behind all behaviours, in local seconds; and how far that place's clock is ahead."""
    if not len(stored.time):
        return DAY, 0
    offset = int(stored.columns[OFFSET][-1]) if OFFSET in stored.columns else 0
    return ((int(stored.time[-1]) + delay + offset) // DAY + 1) * DAY, offset


def _packed(values: Tensor) -> str:
    """The bytes of fp32, int32 or int64, little-endian, as text."""
    array = values.cpu().numpy()
    kind = "<f4" if array.dtype.kind == "f" else "<i4" if array.dtype.itemsize == 4 else "<f8"
    return base64.b64encode(array.astype(kind).tobytes()).decode()
