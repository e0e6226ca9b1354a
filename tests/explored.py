# SPDX-License-Identifier: Apache-2.0
"""A small model with histories to explore, what its page says at a second of the day, and what the ops say."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from streams import stream
from test_serve import SMALL, distinct, stored, trained

import longclock as lc
from longclock.data import EventStream
from longclock.data.stream import DAY
from longclock.explore.explorer import Explorer
from longclock.explore.view import STEP
from longclock.export import export
from longclock.serve import Recommender, Request
from longclock.serve.asked import Asked


def events_of(labels: bool = False) -> EventStream:
    """Two hours of whose local time lie on different days of UTC."""
    named = {"category": ["", "tea", "jazz & <b>", "folk"]}
    return dataclasses.replace(distinct(stream(labels=labels)), category_names=named)


def put_in_place(folder: Path, events: EventStream, name: str = "lic", **config: Any) -> str:
    """A model, trained, as the current version of ``folder / "model"``; the version's name."""
    path = trained(folder, events, name, dataclasses.replace(SMALL, **config))[2]
    return export(path, folder / "model")


def explorer_of(folder: Path, name: str = "lic", labels: bool = False, **config: Any) -> Explorer:
    """Of a trained model."""
    events = events_of(labels)
    put_in_place(folder, events, name, **config)
    store = stored(folder / "histories.db", events)
    return Explorer(Recommender(folder / "model", store), events, "histories.db")


def numbers(packed: str, kind: str) -> Any:
    return np.frombuffer(base64.b64decode(packed), kind)


class Shown:
    """What the page shows of a user, by the page's own numbers."""

    def __init__(self, model: dict[str, Any], user: dict[str, Any]) -> None:
        self.model, self.rows, self.items = model, len(user["rows"]), [each["item"] for each in user["candidates"]]  # fmt: skip
        self.tables = [numbers(table, "<f4") for table in model["tables"]]
        self.content = numbers(user["content"], "<f4").reshape(-1, self.rows)
        self.heads = numbers(user["heads"], "<f4").reshape(len(self.content), -1, self.rows)
        self.row, self.leaving = numbers(user["row"], "<i4"), user["leaving"]
        self.clock = (numbers(user["time"], "<f8") % DAY).astype(np.int64)
        self.ranking = numbers(user["ranking"], "<f4").reshape(DAY // STEP, -1)

    def _s(self, table: int, second: int) -> Any:
        apart = np.abs(self.clock - second)
        return self.tables[table][np.minimum(apart, DAY - apart)]

    def picks(self, candidate: int, second: int) -> tuple[Any, Any]:
        """Indices into what is shown, and fp32 scores, best first."""
        score = self.content[candidate][self.row] + self._s(self.model["search"], second)
        assert score.dtype == np.float32
        first = sum(leaves < second for leaves in self.leaving)
        score[:first] = -np.inf
        best = np.argsort(-score, kind="stable")[: min(self.model["k"], len(score) - first)]
        return best, score[best]

    def attention(self, candidate: int, second: int, picks: Any) -> Any:
        """Of each head, [n, K]."""
        s = np.stack([self._s(table, second)[picks] for table in self.model["heads"]])
        alpha = self.heads[candidate][:, self.row[picks]].astype(np.float64) + s
        weight = np.exp(alpha - alpha.max(1, keepdims=True))
        return weight / weight.sum(1, keepdims=True)


class Right:
    """What the ops say of the same user and candidates at a second of the same day."""

    def __init__(self, explorer: Explorer, user: dict[str, Any], second: int) -> None:
        served, store = explorer.recommender.served, explorer.recommender.store
        offset = int(store.get(user["user"]).columns["utc_offset"][-1])
        now, candidates = user["midnight"] + second - offset, torch.tensor([each["item"] for each in user["candidates"]])  # fmt: skip
        self.request = Request(user["user"], candidates, now, offset)
        asked = Asked(served, store, self.request)
        self.clock, self.table = served.model.interest, served.model.behaviours
        self.behaviours, self.candidates = asked.behaviour, served.model.items[candidates][None]
        self.now = torch.tensor([asked.time])
        rows = lc.Lookup(self.table, asked.behaviour[None])
        self.history = lc.History.dense(rows, asked.behaviour_time[None])

    @torch.inference_mode()
    def search(self) -> lc.TopK:
        query, searched, options = self.clock.search_arguments(self.candidates, self.history)
        return lc.clock_gsu(query, query_time=self.now, **searched.arguments(), **options)

    @torch.inference_mode()
    def contexts(self, found: torch.Tensor) -> torch.Tensor:
        """[C, n, L], of the attention to what was found."""
        _, context = self.clock(self.candidates, self.history, self.now, found=found, return_context=True)  # fmt: skip
        return context[0, ..., : self.table.shape[1]]
