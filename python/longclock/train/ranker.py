# SPDX-License-Identifier: Apache-2.0
"""The ranking model around an interest module: embeddings below it, a tower above it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock.data import Catalogue
from longclock.data.outcomes import outcome_columns
from longclock.data.shards import hashed
from longclock.history import History
from longclock.nn import ClockAttentionStack, LongTermInterestClock
from longclock.nn.pooling import mean_of_last
from longclock.train.batches import Batch, TrainingData
from longclock.train.config import CATEGORY_DIM, ITEM_DIM, USER_DIM, Config, Model
from longclock.train.touched import Touched
from longclock.types import Lookup

SMALLEST = torch.finfo(torch.float32).eps  # mean square of a vector


class Ranker(nn.Module):
    """Scores candidates: everything but ``interest`` is the same for every model of a comparison.

    An item's vector is its embedding beside those of its attributes, brought to one root mean square
    (``Config.item_scale``), so that its direction counts and not how often it was updated; a behaviour's is its item's vector, in a labelled stream beside an embedding of how it ended. The tower reads user, candidate, mean of the
    last behaviours, ``v_cur``, ``candidate * v_cur`` and ``candidate * (context meaned over heads)``; in a labelled stream also how
    earlier events ended (:func:`longclock.data.past_outcomes`).
    """

    categories: Tensor
    buckets: Tensor | None  # every item's row, where the table has not one for each
    clock_step: Any = None  # a ClockStep, made when the first is wanted; False: it takes autograd

    def __init__(self, catalogue: Catalogue, model: Model, config: Config) -> None:
        super().__init__()
        self.recent, self.item_scale = config.recent, config.item_scale
        self.search_loss = config.search_loss
        self.sparse = bool(
            config.embedding_optimizer
        )  # gradients of the large tables: of the rows that were read
        self.user = nn.Embedding(catalogue.users, USER_DIM, sparse=self.sparse)
        self.item = nn.Embedding(config.item_buckets or catalogue.items, ITEM_DIM)
        tables = catalogue.categories
        self.category = nn.ModuleList(
            nn.Embedding(catalogue.category_sizes[name], CATEGORY_DIM) for name in tables
        )
        ids = [torch.from_numpy(table) for table in tables.values()]
        none = torch.empty(0, catalogue.items, dtype=torch.int64)
        buckets = hashed(torch.arange(catalogue.items), config.item_buckets)
        self.register_buffer("buckets", buckets if config.item_buckets else None, persistent=False)
        self.register_buffer("categories", torch.stack(ids) if ids else none, persistent=False)
        self.outcome = nn.Embedding(2, CATEGORY_DIM) if catalogue.labelled else None
        for embedding in self.modules():
            if isinstance(embedding, nn.Embedding):
                nn.init.normal_(embedding.weight, std=config.spread)

        self.candidate_dim = ITEM_DIM + CATEGORY_DIM * len(ids)
        behaviour_dim = self.candidate_dim + (CATEGORY_DIM if self.outcome is not None else 0)
        self.reads_outcomes = config.outcomes and catalogue.labelled
        width = USER_DIM + behaviour_dim + 4 * self.candidate_dim
        if self.reads_outcomes:
            width += outcome_columns(len(ids))
        self.tower = new_tower(width)
        self.interest = model.build(
            config, behaviour_dim, self.candidate_dim, categories=len(ids), users=catalogue.users
        )

    @property
    def reads_all_items(self) -> bool:
        """Whether the interest module asks for items that are not in the batch."""
        reads = self.interest.reads
        return "item_vectors" in reads or ("category_tables" in reads and not len(self.category))

    def item_rows(self, items: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """Where the vectors of some items, or of all, come from: rows of the item table, None for each its own, and of every attribute's."""
        if items is None:
            return self.buckets, self.categories
        rows = items if self.buckets is None else self.buckets[items]
        return rows, self.categories.index_select(1, items)

    def item_table(self, items: Tensor | None = None) -> Tensor:
        """The vectors of some items, or of all, at their scale, ``[items, candidate_dim]``."""
        rows, categories = self.item_rows(items)
        parts = [table(ids) for table, ids in zip(self.category, categories, strict=True)]
        own = (
            self.item.weight
            if rows is None
            else F.embedding(rows, self.item.weight, sparse=self.sparse)
        )
        vectors = torch.cat([own, *parts], 1)
        if not self.item_scale:
            return vectors
        return vectors * inverse_size(vectors) * self.item_scale

    def behaviour_table(self, items: Tensor) -> Tensor:
        """Every behaviour's vector: items; in a labelled stream items by label, label 0 first."""
        if self.outcome is None:
            return items
        ended = self.outcome.weight.repeat_interleave(len(items), 0)
        return torch.cat([items.repeat(2, 1), ended], 1)

    def behaviour_rows(self, items: Tensor, item: Tensor | None, label: Tensor | None) -> Tensor:
        """The vectors of some behaviours: of some items' vectors each, in a labelled stream by its label."""
        if self.outcome is None or item is None or label is None:
            return items
        return torch.cat([F.embedding(item, items), self.outcome(label)], 1)

    def forward(self, batch: Batch, data: TrainingData) -> Tensor:
        """Logit of every candidate, ``[R]``."""
        return self.with_auxiliary(batch, data, wanted=False)[0]

    def with_auxiliary(
        self, batch: Batch, data: TrainingData, wanted: bool = True
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The same; where the interest module has them, the logits of a second loss; and the loss of its search, weighted."""
        inputs = Inputs(self, batch, data)
        batch, candidate = inputs.batch, inputs.candidate
        recent = mean_of_last("Ranker", self.recent, inputs.history)
        call, reads = inputs.call, inputs.reads
        v, context = self.interest(*call, **reads, **inputs.longest, return_context=True)
        of_user, recent = (x.index_select(0, batch.event) for x in (self.user(batch.user), recent))
        features = tower_features(of_user, candidate, recent, v, met_by(candidate, context))
        if self.reads_outcomes:
            features.append(data.outcomes[batch.number[batch.event]])
        logits = self.tower(torch.cat(features, 1)).squeeze(1)
        if not wanted:
            return logits, None, None
        search = self.interest.search_loss(*call, **reads) if self.search_loss else None
        weighted = None if search is None else self.search_loss * search
        return logits, self.interest.auxiliary_logits(*call), weighted


def inverse_size(vectors: Tensor) -> Tensor:
    """1 over the root mean square of each, as ``torch.nn.functional.rms_norm`` multiplies by it, [items, 1]."""
    return vectors.pow(2).mean(1, keepdim=True).add_(SMALLEST).rsqrt()


def new_tower(width: int) -> nn.Sequential:
    """A score of so many numbers."""
    return nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 1))


def met_by(candidate: Tensor, context: Tensor) -> Tensor:
    """What the attention found, meaned over heads, in the candidate's width: without outcome and time features."""
    return context[..., : candidate.shape[1]].mean(-2)


def tower_features(
    user: Tensor, candidate: Tensor, recent: Tensor, v: Tensor, met: Tensor
) -> list[Tensor]:
    """What the tower reads of every candidate, [R, ...] each; ``met`` is that of :func:`met_by`."""
    return [user, candidate, recent, v, candidate * v, candidate * met]


class Whereabouts(NamedTuple):
    """Where a batch's candidates and behaviours lie."""

    candidate: Tensor  # [R], among the items whose vectors are made
    behaviour: Tensor  # [B], rows of the table of behaviours
    time: Tensor  # [B]
    starts: Tensor  # [E], windows of these behaviours
    ends: Tensor  # [E]

    def history(self, table: Tensor, batch: Batch) -> History:
        """The history of a call; nobody else made its parts, and nothing is checked."""
        rows = Lookup(table, self.behaviour)
        return History(rows, self.time, query_offsets=batch.query_offsets, starts=self.starts, ends=self.ends)  # fmt: skip


def whereabouts(batch: Batch, data: TrainingData, touched: Touched | None) -> Whereabouts:
    """Of all items and behaviours, or of those that are touched."""
    if touched is None:
        return Whereabouts(
            batch.item, data.behaviour, data.behaviour_time, batch.starts, batch.ends
        )
    time = data.behaviour_time.index_select(0, touched.position)
    return Whereabouts(touched.candidate, touched.behaviour, time, touched.starts, touched.ends)


class Inputs:
    """What an interest module may read of a batch, where the data lies; what it asks for is made then."""

    def __init__(self, ranker: Ranker, batch: Batch, data: TrainingData) -> None:
        self._ranker, self._data = ranker, data
        found = None if ranker.reads_all_items else data.touched(batch)
        self.touched = touched = None if found is None else found.to(data.device)
        lengths = batch.ends - batch.starts
        self._longest = int(lengths.max()) if len(lengths) else 0
        self.batch = batch = batch.to(data.device)
        self.item_vectors = ranker.item_table(None if touched is None else touched.items)
        there = whereabouts(batch, data, touched)
        self.candidate = F.embedding(there.candidate, self.item_vectors)
        if touched is None:
            table = ranker.behaviour_table(self.item_vectors)
        else:
            table = ranker.behaviour_rows(self.item_vectors, touched.kind_item, touched.kind_label)
        self.history = there.history(table, batch)

    def _of_behaviours(self, values: Tensor) -> Tensor:
        """Of [T] what the batch's behaviours have, in the order of the history."""
        return values if self.touched is None else values[self.touched.position]

    @property
    def call(self) -> tuple[Tensor, History, Tensor]:
        """What every interest module is called with: candidate, history, query_time."""
        return self.candidate, self.history, self.batch.time

    @property
    def reads(self) -> dict[str, Any]:
        """What this one reads besides."""
        return {name: getattr(self, name) for name in self._ranker.interest.reads}

    @property
    def longest(self) -> dict[str, int]:
        """For a module that attends to everything: the most behaviours of a window, which nobody counts on a GPU."""
        interest = self._ranker.interest
        clock = isinstance(interest, LongTermInterestClock) and interest.k is None
        if clock or isinstance(interest, ClockAttentionStack):
            return {"longest": self._longest}
        return {}

    @property
    def user(self) -> Tensor:
        """[E]."""
        return self.batch.user

    @property
    def item(self) -> Tensor:
        """[R]."""
        return self.batch.item

    @property
    def candidate_category(self) -> Tensor:
        """[R]."""
        return self._data.item_category[self.batch.item]

    @property
    def behaviour_category(self) -> Tensor:
        """[T]."""
        return self._of_behaviours(self._data.behaviour_category)

    @property
    def behaviour_seconds(self) -> Tensor:
        """[T]."""
        return self._of_behaviours(self._data.behaviour_seconds)

    @property
    def query_seconds(self) -> Tensor:
        """[E]: the batch's time of day, on the day of the event."""
        seconds, period = self._data.seconds[self.batch.number], self._data.period
        return seconds // period * period + self.batch.time

    @property
    def interests(self) -> Tensor:
        """[E, 24, fields, 3], as the Interest Clock that asks prefers."""
        positives = getattr(self._ranker.interest, "preference", "net") == "positives"
        interests = self._data.positive_interests if positives else self._data.interests
        return interests[self.batch.number]

    @property
    def category_tables(self) -> list[Tensor]:
        """[ids, width] of each field; without any, of the items, which count from 1, see TrainingData.interests."""
        tables: list[Any] = [table.weight for table in self._ranker.category]
        return tables or [F.pad(self.item_vectors, (0, 0, 1, 0))]
