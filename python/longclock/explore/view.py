# SPDX-License-Identifier: Apache-2.0
"""What a page shows of one version of a model, as plain numbers.

A score is ``content + s``: the first is of a candidate and a behaviour's row, the second of a difference of times. Both are given
as the ops make them, in fp32, the second for every second of half a day. Their sum is what the search adds up, so whoever sorts it has
the search's choice at any second of the day. The ranking is no such sum, and is given on a grid of hours.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from longclock import ops
from longclock._colours import GREY, HAND, colours_of_groups
from longclock.data.ids import ids_of
from longclock.data.stream import DAY
from longclock.explore.names import Names, plain
from longclock.history import History
from longclock.nn import LongTermInterestClock
from longclock.nn.time_similarity import MlpWeights
from longclock.serve import Request
from longclock.serve.asked import OFFSET, Asked
from longclock.serve.ranking_model import Served
from longclock.serve.recommender import ranked
from longclock.store import Behaviours, BehaviourStore
from longclock.store.records import User

STEP = 900  # seconds between two rankings
EXAMPLES = 3  # of items that the model knows, in messages


class View:
    """One version and the histories in a store; nothing of the version changes.

    Args:
        served: a model that searches by content and one clock of a day.
        source: what messages call the histories.
    Raises:
        ValueError: another model.
    """

    def __init__(self, served: Served, store: BehaviourStore, names: Names, source: str) -> None:
        self._served, self._store, self._names, self._source = served, store, names, source
        self._clock = _clock_of(served)
        tables = served.catalogue.category_sizes
        self._field = min(tables, key=lambda name: tables[name], default="")

    @property
    def version(self) -> str:
        return self._served.version

    @torch.inference_mode()
    def of_model(self) -> dict[str, Any]:
        """See :meth:`Explorer.of_model`."""
        clock = self._clock
        of_attention = clock._attention_mlps()
        mlps = [(clock._search_mlp(of_attention), clock.search_sees_time)]
        mlps += [(mlp, clock.attention_sees_time) for mlp in of_attention]
        tables = [_packed(_s(mlp, clock.time.units[0], sees)) for mlp, sees in mlps]
        different = list(dict.fromkeys(tables))
        places = [different.index(table) for table in tables]
        return {
            "version": self.version, "k": clock.k, "step": STEP, "tables": different, "search": places[0],
            "heads": (places[1:] * clock.heads)[: clock.heads], "hand": HAND, "grey": GREY,
        }  # fmt: skip

    @torch.inference_mode()
    def of_user(self, user: User, items: Sequence[int | str] | None, count: int) -> dict[str, Any]:
        """See :meth:`Explorer.of_user`."""
        served = self._served
        stored = self._store.get(user)
        midnight, offset = _next_midnight(stored, served.config.history_delay)
        asked = Asked(
            served, self._store, Request(user, torch.tensor([0]), midnight - offset, offset)
        )
        ids = asked.seen.item
        if not len(ids):
            raise ValueError(f"user {user!r} has no behaviours in {self._source} that the model knows; name one that has")  # fmt: skip
        candidates = self._most_taken(ids, count) if items is None else self._given(items)
        chosen = torch.tensor([*candidates])
        pairs, place = torch.stack([asked.behaviour, ids]).unique(dim=1, return_inverse=True)
        row, item = pairs
        content, heads = self._products(served.numbers("items", chosen), row)
        labelled = served.catalogue.labelled
        label = [f", label {each}" if labelled else "" for each in (row // served.catalogue.items).tolist()]  # fmt: skip
        return {
            "version": self.version,
            "user": plain(user),
            "candidates": [{"item": plain(called), "name": self._names(each)} for each, called in candidates.items()],
            "ranking": _packed(self._ranking(user, chosen, midnight - offset, offset)),
            "content": _packed(content),
            "heads": _packed(heads),
            "rows": [self._names(each) + of for each, of in zip(item.tolist(), label, strict=True)],
            **self._groups(item.tolist(), row, place),
            "row": _packed(place.int()),
            "time": _packed(asked.behaviour_time),
            "ago": _packed(midnight - offset - asked.seen.time),
            "midnight": midnight,
            "leaving": self._leaving(asked.seen, midnight - offset),
        }  # fmt: skip

    def _most_taken(self, ids: Tensor, count: int) -> dict[int, int | str]:
        """The candidates where none are given, by their ids: what the events call them."""
        taken, times = ids.unique(return_counts=True)
        most = taken[times.argsort(descending=True, stable=True)][:count].tolist()
        return {each: self._names.called(each) for each in most}

    def _given(self, items: Sequence[int | str]) -> dict[int, int | str]:
        """Those that are given, as they were given.

        Raises:
            ValueError: names one that the model does not know, and what it knows.
        """
        if not items:
            raise ValueError("there must be at least one candidate")
        ids = ids_of(items)
        rows = self._served.numbers("items", torch.from_numpy(ids)).tolist()
        for item, row in zip(items, rows, strict=True):
            if row < 0:
                raise ValueError(f"candidates must be {self._known()}, got {item!r}")
        return dict(zip(ids.tolist(), items, strict=True))

    def _known(self) -> str:
        """Which items the model knows."""
        if "items" not in self._served.numberings:
            return f"from 0 to {self._served.catalogue.items - 1}, the model's items"
        ids, rows = self._served.numberings["items"].pairs
        some = [repr(self._names.called(each)) for each in ids[rows.argsort()[:EXAMPLES]].tolist()]
        return f"among the model's {len(ids):,} items, such as {', '.join(some)}"

    def _products(self, candidates: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """What the search has of each candidate and row without their times, [C, R]; and what each head of the attention has, [C, n, R]."""
        model, clock = self._served.model, self._clock
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

    def _ranking(self, user: User, candidates: Tensor, midnight: int, offset: int) -> Tensor:
        """Scores of the candidates by time of day, [DAY / STEP, C]."""
        order = candidates.argsort()  # they differ, so that both orders name the same
        moments = range(midnight, midnight + DAY, STEP)
        scores = torch.empty(len(moments), len(candidates))
        for of_hour, now in zip(scores, moments, strict=True):
            [ranking] = ranked(self._served, self._store, [Request(user, candidates, now, offset)])
            of_hour[order] = ranking.scores[ranking.items.argsort()]
        return scores

    def _groups(self, items: Sequence[int], row: Tensor, place: Tensor) -> dict[str, Any]:
        """The group of every pair of an item and its row, and colours and names of the most frequent among the behaviours."""
        if not self._field:
            return {"group": [0] * len(items), "groups": []}
        catalogue = self._served.catalogue
        group = catalogue.categories[self._field][(row % catalogue.items).numpy()]
        names = self._names.of_groups(self._field, items, group.tolist())
        names[0] = "unknown"
        shown = [
            {"group": each, "colour": colour, "name": names.get(each) or f"{self._field} {each}"}
            for each, colour in colours_of_groups(group[place.numpy()]).items()
        ]
        return {"group": group.tolist(), "groups": shown}

    def _leaving(self, seen: Behaviours, midnight: int) -> list[int]:
        """The second of the day behind which each of the oldest behaviours is forgotten; of most models nothing is."""
        days = self._served.config.history_days
        if not days:
            return []
        seconds = seen.time + days * DAY - midnight
        return [int(second) for second in seconds[seconds < DAY]]


def _clock_of(served: Served) -> LongTermInterestClock:
    """The model's interest module.

    Raises:
        ValueError: its scores are no sums of content and one table over the day.
    """
    clock = served.model.interest
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
