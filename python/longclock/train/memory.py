# SPDX-License-Identifier: Apache-2.0
"""What a run over a source keeps of the events that it has seen, so that the events themselves need not stay."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from longclock.data import Candidates, Catalogue, EventStream, Histories, OutcomeCounts
from longclock.data.by_user import ByUser
from longclock.data.candidates import Past, own_items, sampled
from longclock.data.kept_histories import COLUMNS, KeptHistories
from longclock.data.numbering import NEVER, Numbering
from longclock.data.sources import Events
from longclock.data.sources.source import Cursor, Read
from longclock.data.stream import DAY, IntArray, stretches
from longclock.train import tables
from longclock.train.batches import on_clock
from longclock.train.checkpoint import of_kind
from longclock.train.config import Bounds, Config
from longclock.train.excerpt import Excerpt, of_all_ranks
from longclock.train.loop import chunk_ends
from longclock.train.team import Team

if TYPE_CHECKING:
    from longclock.train.stored_histories import StoredHistories


def capacity(numbering: Numbering) -> int:
    """Rows of a table for these numbers: a power of two, or what they are hashed to."""
    return numbering.rows or max(tables.LEAST_ROWS, 1 << max(numbering.size - 1, 0).bit_length())


class Memory:
    """Histories, popular items, outcomes, numbers of ids, and the place in the source.

    Args:
        categories: attributes of the source's events.
        kept: what holds the histories; None: this process.
        team: the processes among which histories in a store are divided, user by user; None: this one alone.
    Attributes:
        recent: items of the latest events, for negatives by popularity.
        counts: how all events but the tail ended, in a labelled source.
        tail: events of the latest moment, with numbers for ids: what comes next does not see them.
        waiting: events that were read and not trained on.
        before: how many events came before the tail.
        latest: second of the last event that was read.
        swept: day on which rows were last taken from ids; ``forgotten``: of users and of items, for the last excerpt.
    Raises:
        ValueError: settings that do not bound what is kept.
    """

    def __init__(
        self,
        config: Config,
        bounds: Bounds,
        categories: Sequence[str],
        kept: StoredHistories | None = None,
        team: Team | None = None,
    ) -> None:
        if config.history is None:
            raise ValueError(
                "a run over a source keeps the latest behaviours of a user: give --history"
            )
        if bounds.forget_days and not 0 < config.history_days <= bounds.forget_days:
            raise ValueError(
                f"--history-days must be from 1 to --forget-days = {bounds.forget_days}, got {config.history_days}: rows are "
                "given to others that histories would still show"
            )
        self.config, self.bounds = config, bounds
        self.users, self.items = Numbering(bounds.user_rows), Numbering(bounds.item_rows)
        self.attributes = {name: Numbering() for name in categories}
        for attribute in self.attributes.values():
            attribute.of(np.zeros(1, np.int64), np.zeros(1, np.int64))  # 0 is unknown, everywhere
        self.kept: KeptHistories | StoredHistories = KeptHistories() if kept is None else kept
        self.team = Team() if kept is None or team is None else team
        self.recent: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        self.counts: OutcomeCounts | None = None
        self.tail: Events | None = None
        self.waiting: Events | None = None
        self.cursor: Cursor | None = None
        self.before, self.latest, self.swept = 0, NEVER, NEVER
        self.forgotten = self._nothing = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._item_attributes = np.zeros((len(categories), capacity(self.items)), np.int64)

    @property
    def trained(self) -> int:
        """Events that the run has seen."""
        return self.before + (0 if self.tail is None else len(self.tail))

    @property
    def catalogue(self) -> Catalogue:
        """What tables have rows for by now."""
        sizes = {name: capacity(numbers) for name, numbers in self.attributes.items()}
        of_items = dict(zip(sizes, self._item_attributes, strict=True))
        return Catalogue(capacity(self.users), capacity(self.items), of_items, sizes, self.labelled)

    @property
    def labelled(self) -> bool:
        """Whether events say how they ended."""
        one = self.waiting if self.tail is None else self.tail
        return one is not None and one.label is not None

    def take(self, read: Read) -> None:
        """Events that come next. One that is late counts as of the moment at which it came."""
        events, self.cursor = read
        if not len(events):
            return
        order_time = np.maximum.accumulate(np.maximum(events.order_time, self.latest))
        self.latest = int(order_time[-1])
        events = dataclasses.replace(events, order_time=order_time)
        self.waiting = events if self.waiting is None else Events.joined([self.waiting, events])

    def excerpt(self, ended: bool = False) -> Excerpt | None:
        """The next one, of whole chunks of the waiting events; None where there is no whole chunk.

        Args:
            ended: whether nothing comes behind them, so that the last chunk is whole as well.
        """
        count = 0 if self.waiting is None else self._due(self.waiting, ended)
        if self.waiting is None or not count:
            return None
        events = self.waiting.take(slice(count))
        self.waiting = self.waiting.take(slice(count, None))
        return self._excerpt(events)

    def _due(self, waiting: Events, ended: bool) -> int:
        """How many events the next excerpt has: as many whole chunks as its bounds allow, but one at least."""
        ends = chunk_ends(waiting.order_time, self.config)
        if ended and len(waiting):
            ends = np.append(ends, len(waiting))
        if not len(ends):
            return 0
        ends = ends[: max(int((ends <= self.bounds.events).sum()), 1)]
        users, first = np.unique(self.users.find(waiting.user[: ends[-1]]), return_index=True)
        kept = np.zeros(int(ends[-1]), np.int64)
        kept[first[users >= 0]] = self.kept.counts(users[users >= 0])
        fits = np.cumsum(kept + 1)[ends - 1] <= self.bounds.rows
        return int(ends[max(int(fits.sum()) - 1, 0)])

    def _excerpt(self, events: Events) -> Excerpt:
        self._forget(int(events.order_time[0]))
        user = self.users.of(events.user, events.order_time)
        item = self._numbered_items(events)
        seen = events.order_time > self.items.born[item]
        events = Events(user, item, events.time, events.order_time, events.label)
        local, first = events, 0
        if self.tail is not None:
            local, first = Events.joined([self.tail, events]), len(self.tail)
        config, rows = self.config, self._rows(local, first)
        windows = rows.windows(config.history, config.history_delay, config.history_days)
        histories = Histories(rows.item, rows.time, rows.label, *windows)
        found = self._candidates(local, first, rows)
        width = 1 + config.negatives if local.label is None else 0
        candidates, lengths, pair_seen = of_all_ranks(
            self.team, local.user, width, found, histories.lengths, rows.pair_seen()
        )
        catalogue = self.catalogue
        columns = (local.user, local.item, local.time, local.order_time, local.label)
        return Excerpt(
            EventStream("excerpt", *columns, users=catalogue.users, items=catalogue.items),
            histories,
            candidates,
            config.period,
            torch.from_numpy(histories.item),
            on_clock(histories.time, config.period),
            before=self.before,
            first=first,
            known=catalogue,
            rows=rows,
            item_seen=np.concatenate([np.zeros(first, bool), seen]),
            counts=self._counted(),
            lengths=lengths,
            pair_seen=pair_seen,
        )

    def _numbered_items(self, events: Events) -> IntArray:
        """The items' numbers; the attributes of new ones are those of their first event."""
        item, born = self.items.of_events(events.item, events.order_time)
        more = capacity(self.items) - self._item_attributes.shape[1]
        self._item_attributes = np.pad(self._item_attributes, ((0, 0), (0, more)))
        for of_items, (name, numbers) in zip(
            self._item_attributes, self.attributes.items(), strict=True
        ):
            of_items[item[born]] = numbers.of(
                events.categories[name][born], events.order_time[born]
            )
        return item

    def _rows(self, local: Events, first: int) -> ByUser:
        """What is kept of the users' past, as far as events from ``first`` on see it, and the events."""
        users, owner = np.unique(local.user, return_inverse=True)
        counts, mine = np.zeros_like(users), self.team.has(users)
        counts[mine], kept = self.kept.of(users[mine])
        if self.config.history_days:
            young = kept["order_time"] >= local.order_time[first] - self.config.history_days * DAY
            counts = np.bincount(np.repeat(np.arange(len(users)), counts)[young], minlength=len(users))  # fmt: skip
            kept = {name: column[young] for name, column in kept.items()}
        new = np.bincount(owner, minlength=len(users))
        begin = np.cumsum(counts + new) - counts - new
        old = stretches(begin, counts)
        row = np.empty(len(local), np.int64)
        row[np.argsort(owner, kind="stable")] = stretches(begin + counts, new)
        label = np.ones(len(local), np.int64) if local.label is None else local.label
        columns = []
        for name, events in zip(COLUMNS, (local.item, local.time, local.order_time, label), strict=True):  # fmt: skip
            column = np.empty(len(old) + len(row), np.int64)
            column[old], column[row] = kept[name], events
            columns.append(column)
        item, time, order_time, ended = columns
        return ByUser(np.repeat(users, counts + new), item, time, order_time, ended, row)

    def _candidates(self, local: Events, first: int, rows: ByUser) -> Candidates:
        """Of the events from ``first`` on."""
        item = local.item[first:]
        if local.label is not None:
            event = np.arange(len(item))
            found = Candidates(event, item, local.label[first:], np.arange(len(item) + 1))
            return found.behind(first)
        upto = len(self.recent) + np.searchsorted(local.order_time, local.order_time[first:])
        count = np.minimum(upto, self.bounds.popular)
        items = np.concatenate([self.recent, local.item]).astype(np.int64)
        own, own_first, own_count = own_items(rows)
        number = self.before + first + np.arange(len(item))
        past = Past(item, number, items, upto - count, count, own, own_first[first:], own_count[first:])  # fmt: skip
        config = self.config
        return sampled(past, config.negatives, config.seed, config.negatives_from).behind(first)

    def _counted(self) -> OutcomeCounts | None:
        """The counts so far, with room for what is new."""
        if not self.labelled:
            return None
        catalogue = self.catalogue
        sizes = [catalogue.items, *catalogue.category_sizes.values()]
        old = self.counts or OutcomeCounts(*(tuple(np.zeros(0, np.int64) for _ in sizes),) * 2)
        self.counts = OutcomeCounts(
            *(
                tuple(np.pad(x, (0, size - len(x))) for x, size in zip(fields, sizes, strict=True))
                for fields in (old.count, old.positive)
            )
        )
        return self.counts

    def keep(self, excerpt: Excerpt) -> None:
        """What the next excerpts need of this one, which was trained on; its last moment is not over yet."""
        local, rows, config = excerpt.stream, excerpt.rows, self.config
        latest = int(local.order_time[-1])
        done = int(np.searchsorted(local.order_time, latest))
        label = None if local.label is None else local.label[done:]
        self.tail = Events(local.user[done:], local.item[done:], local.time[done:], local.order_time[done:], label)  # fmt: skip
        self.before += done
        self.recent = np.concatenate([self.recent, local.item[:done].astype(np.int32)])[-self.bounds.popular :]  # fmt: skip

        begin = np.flatnonzero(rows.first == np.arange(len(rows.first)))

        def older(second: int) -> IntArray:
            """How many rows of every user are."""
            return np.add.reduceat((rows.order_time < second).astype(np.int64), begin)

        past = older(latest)
        left = np.maximum(older(latest - config.history_delay) - _longest(config), 0)
        if config.history_days:
            left = np.maximum(left, older(latest - config.history_days * DAY))
        # What is kept already stays where it lies, and the events that are over come behind it.
        order = rows.row[:done].argsort()
        over = rows.row[:done][order]
        size = np.diff(begin, append=len(rows.user))
        new = np.bincount(np.repeat(np.arange(len(begin)), size)[over], minlength=len(begin))
        columns = {name: getattr(rows, name)[over] for name in COLUMNS}
        self._add(rows.user[begin], past - left, new, columns, excerpt.before + order)
        self._count(excerpt, done)

    def _add(self, users: IntArray, counts: IntArray, new: IntArray, rows: dict[str, IntArray], number: IntArray) -> None:  # fmt: skip
        """What came of the histories of this rank's users, and how long all are by now; then all ranks are done."""
        mine = self.team.has(users)
        come = np.repeat(mine, new)
        own = {name: column[come] for name, column in rows.items()}
        self.kept.add(users[mine], counts[mine], new[mine], own, number[come])
        if self.team.world > 1:
            assert not isinstance(self.kept, KeptHistories)
            of_all = torch.from_numpy(counts)
            self.team.exchange(of_all, self.team.places_of(users))
            self.kept.count(users, of_all.numpy())

    def _count(self, excerpt: Excerpt, done: int) -> None:
        """How the first events of an excerpt ended."""
        counts = excerpt.counts
        if counts is None or excerpt.stream.label is None:
            return
        item, taken = excerpt.stream.item[:done], excerpt.stream.label[:done] == 1
        fields = [item, *(table[item] for table in excerpt.known.categories.values())]

        def more(old: tuple[IntArray, ...], which: IntArray) -> tuple[IntArray, ...]:
            return tuple(
                x + np.bincount(ids[which], minlength=len(x))
                for x, ids in zip(old, fields, strict=True)
            )

        self.counts = OutcomeCounts(
            more(counts.count, np.arange(done)), more(counts.positive, np.flatnonzero(taken))
        )

    def _forget(self, now: int) -> None:
        """Once a day, the users and items without events for so long."""
        day, days = now // DAY, self.bounds.forget_days
        self.forgotten = self._nothing
        if not days or day == self.swept:
            return
        self.swept = day
        before = now - days * DAY
        if self.tail is not None:
            before = min(before, int(self.tail.order_time[0]))
        self.forgotten = users, items = self.users.forget(before), self.items.forget(before)
        self.kept.forget(users)
        self.recent = self.recent[~np.isin(self.recent, items)]
        if self.counts is not None:
            self.counts.count[0][items] = self.counts.positive[0][items] = 0

    def arrays(self) -> dict[str, Tensor]:
        """Everything, by names as files have them."""
        kinds = {"users": self.users, "items": self.items}
        kinds |= {f"attribute.{name}": numbers for name, numbers in self.attributes.items()}
        found: dict[str, Any] = {f"{kind}.{key}": x for kind, numbers in kinds.items() for key, x in numbers.arrays().items()}  # fmt: skip
        found |= {f"kept.{key}": x for key, x in self.kept.arrays().items()}
        found |= {f"category.{name}": x for name, x in self.catalogue.categories.items()}
        found["recent"] = self.recent
        found["place"] = np.array([self.before, self.latest, self.swept])
        if self.counts is not None:
            found |= self.counts.arrays()
        for name, events in (("tail", self.tail), ("waiting", self.waiting)):
            if events is not None:
                found |= {f"{name}.{key}": x for key, x in _columns(events).items()}
        return {key: torch.from_numpy(np.ascontiguousarray(x)) for key, x in found.items()}

    def put_back(self, tensors: Mapping[str, Tensor], cursor: Cursor | None) -> None:
        """Make this what :meth:`arrays` was asked of.

        Raises:
            KeyError: something is missing.
        """
        arrays = {key: x.numpy() for key, x in tensors.items()}

        of = functools.partial(of_kind, arrays)
        self.users = Numbering.from_arrays(of("users"), self.bounds.user_rows)
        self.items = Numbering.from_arrays(of("items"), self.bounds.item_rows)
        for name in self.attributes:
            self.attributes[name] = Numbering.from_arrays(of(f"attribute.{name}"), 0)
        categories = of("category")
        self._item_attributes = np.zeros((len(self.attributes), capacity(self.items)), np.int64)
        for row, name in zip(self._item_attributes, self.attributes, strict=True):
            row[:] = categories[name]
        self.recent = arrays["recent"].astype(np.int32)
        self.before, self.latest, self.swept = arrays["place"].tolist()
        self.kept.put_back(of("kept"), self.before)
        self.tail, self.waiting = _events(of("tail")), _events(of("waiting"))
        if self.labelled and "count.0" in arrays:
            self.counts = OutcomeCounts.from_arrays(arrays, len(self.attributes))
        self.cursor = cursor


def _longest(config: Config) -> int:
    assert config.history is not None
    return config.history


def _columns(events: Events) -> dict[str, IntArray]:
    found = {"user": events.user, "item": events.item, "time": events.time, "order_time": events.order_time}  # fmt: skip
    if events.label is not None:
        found["label"] = events.label
    return found | {f"category.{name}": ids for name, ids in events.categories.items()}


def _events(columns: dict[str, IntArray]) -> Events | None:
    if not columns:
        return None
    user, item, time, order_time = (
        columns[name] for name in ("user", "item", "time", "order_time")
    )
    return Events(user, item, time, order_time, columns.get("label"), of_kind(columns, "category"))
