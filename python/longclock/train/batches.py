# SPDX-License-Identifier: Apache-2.0
"""From an event stream to batches of tensors."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longclock.data import (
    Candidates,
    Catalogue,
    EventStream,
    Histories,
    HourlyInterests,
    past_outcomes,
)
from longclock.data.candidates import labelled_candidates, sampled_candidates
from longclock.data.ids import ids_of
from longclock.data.numbering import Numbering
from longclock.data.stream import IntArray, stretches
from longclock.train.config import Config
from longclock.train.touched import Places, Touched, touched

CPU = torch.device("cpu")


class Batch(NamedTuple):
    """``R`` candidates of ``E`` events, on the CPU until :meth:`to`. Windows are rows of the histories, see :class:`Histories`."""

    number: Tensor  # [E], of the events in their stream
    user: Tensor  # [E]
    time: Tensor  # [E] int32, on the clock
    starts: Tensor  # [E]
    ends: Tensor  # [E]
    event: Tensor  # [R], the row's event in this batch
    query_offsets: Tensor  # [E + 1], where each event's rows begin
    item: Tensor  # [R]
    label: Tensor  # [R] float32

    def to(self, device: torch.device) -> Batch:
        """The same elsewhere."""
        return Batch(*(column.to(device) for column in self))


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """A stream, its histories and its candidates, ready to be cut into batches.

    Args:
        behaviour: ``[T]``, every behaviour's row in the ranker's behaviour table of all items.
        behaviour_time: ``[T]`` int32, on the clock.
        device: where the models run, and all that they read of behaviours, items and events lies. Batches are cut on the CPU.
        before: how many events of all came before the stream, where it is a stretch of them.
    """

    stream: EventStream
    histories: Histories
    candidates: Candidates
    period: int
    behaviour: Tensor
    behaviour_time: Tensor
    device: torch.device = CPU
    before: int = 0

    @classmethod
    def of(
        cls,
        stream: EventStream,
        config: Config,
        shuffled_times: bool = False,
        device: torch.device = CPU,
    ) -> TrainingData:
        """Histories and candidates as ``config`` says; the candidates are the same for every model."""
        histories = Histories.of(stream, config.history, config.history_delay, config.history_days)
        if stream.label is None:
            candidates = sampled_candidates(
                stream, config.negatives, config.seed, config.negatives_from
            )
            behaviour = histories.item
        else:
            candidates = labelled_candidates(stream)
            behaviour = histories.item + stream.items * histories.label
        if shuffled_times:
            histories = histories.with_shuffled_times(stream, config.seed)
        return cls(
            stream,
            histories,
            candidates,
            config.period,
            torch.from_numpy(behaviour).to(device),
            on_clock(histories.time, config.period).to(device),
            device,
        )

    @functools.cached_property
    def catalogue(self) -> Catalogue:
        """What a model of this stream has rows for."""
        return Catalogue.of(self.stream)

    @functools.cached_property
    def numberings(self) -> dict[str, Numbering]:
        """Which ids the numbers of users and items stand for; those that are left out are ids themselves."""
        names = {"users": self.stream.user_names, "items": self.stream.item_names}
        return {kind: Numbering.known_as(ids_of(given)) for kind, given in names.items() if given is not None}  # fmt: skip

    @functools.cached_property
    def seen(self) -> npt.NDArray[np.bool_]:
        """Whether the item of every candidate's event occurred before, [R]: see :func:`longclock.data.sampled_candidates`."""
        return self.stream.item_seen()[self.candidates.event]

    @functools.cached_property
    def rows_by_item(self) -> tuple[IntArray, IntArray]:
        """The different items; and the histories' rows item by item: ``place * T + row`` with the item's place among them, [T].

        Ascending, so what a window holds of an item is a stretch of it.
        """
        items, place = np.unique(self.histories.item, return_inverse=True)
        return items, np.sort(place * len(place) + np.arange(len(place)))

    @functools.cached_property
    def item_category(self) -> Tensor:
        """The finest attribute of every item, the one with the most ids; an item without any is its own: [items]."""
        tables, sizes = self.catalogue.categories, self.catalogue.category_sizes
        if not tables:
            return torch.arange(self.stream.items, device=self.device)
        return self._there(tables[max(tables, key=lambda name: sizes[name])])

    @functools.cached_property
    def behaviour_category(self) -> Tensor:
        """The same of every behaviour, [T]."""
        return self.item_category[self._there(self.histories.item)]

    @functools.cached_property
    def behaviour_label(self) -> Tensor:
        """How every behaviour ended, [T]."""
        return self._there(self.histories.label)

    @functools.cached_property
    def behaviour_seconds(self) -> Tensor:
        """Local seconds of every behaviour, [T]."""
        return self._there(self.histories.time)

    @functools.cached_property
    def seconds(self) -> Tensor:
        """Local seconds of every event, [E]."""
        return self._there(self.stream.time)

    @functools.cached_property
    def outcomes(self) -> Tensor:
        """:func:`longclock.data.past_outcomes` of every event, [E, features]."""
        return self._there(past_outcomes(self.stream))

    @functools.cached_property
    def interests(self) -> Tensor:
        """What each user's :class:`longclock.data.HourlyInterests` held right before every event: int32
        [E, 24, fields, 3], so 288 bytes an event and field. Fields are the attributes; without any, the item plus 1. Labels
        tell whether a behaviour was liked."""
        return self._interests(negatives=True)

    @functools.cached_property
    def positive_interests(self) -> Tensor:
        """The same of positive behaviours alone."""
        return self._interests(negatives=False)

    def _interests(self, negatives: bool) -> Tensor:
        stream = self.stream
        tables = list(self.catalogue.categories.values()) or [np.arange(1, stream.items + 1)]
        fields = np.stack([table[stream.item] for table in tables], 1).tolist()
        liked = np.ones(len(stream), bool) if stream.label is None else stream.label == 1
        hourly = HourlyInterests(len(tables))
        result = np.empty((len(stream), 24, len(tables), hourly.top), np.int32)
        columns = (stream.user, stream.order_time, stream.time, liked)
        for event, (user, time, local, like) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        ):
            result[event] = hourly.clock(user, time)
            if like or negatives:
                hourly.add(user, time, local, fields[event], like)
        return self._there(result)

    def _there(self, values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    @functools.cached_property
    def _places(self) -> tuple[Places, Places | None]:
        """Of items, and of items by label."""
        items = self.stream.items
        return Places(items), None if self.stream.label is None else Places(2 * items)

    def touched(self, batch: Batch) -> Touched | None:
        """What a batch touches of items and histories; None where that may be all items."""
        return self._touched(batch)

    def _touched(self, batch: Batch, always: bool = False) -> Touched | None:
        starts, ends, items = (x.numpy() for x in (batch.starts, batch.ends, batch.item))
        return touched(self.histories, *self._places, starts, ends, items, always)

    def batch(self, events: IntArray) -> Batch:
        """All candidates of the given events, in that order."""
        first = self.candidates.first_row[events]
        counts = self.candidates.first_row[events + 1] - first
        rows = stretches(first, counts)
        return Batch(
            number=torch.from_numpy(events),
            user=torch.from_numpy(self.stream.user[events]),
            time=on_clock(self.stream.time[events], self.period),
            starts=torch.from_numpy(self.histories.starts[events]),
            ends=torch.from_numpy(self.histories.ends[events]),
            event=torch.from_numpy(np.repeat(np.arange(len(events)), counts)),
            query_offsets=torch.from_numpy(np.concatenate([[0], counts.cumsum()])),
            item=torch.from_numpy(self.candidates.item[rows]),
            label=torch.from_numpy(self.candidates.label[rows].astype(np.float32)),
        )


def on_clock(time: IntArray, period: int) -> Tensor:
    """Seconds as the clock reads them, int32."""
    return torch.from_numpy((time % period).astype(np.int32))
