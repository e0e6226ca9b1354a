# SPDX-License-Identifier: Apache-2.0
"""What is scored at every event: its own item, and sampled negatives where a stream has no labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from longclock._constants import NEGATIVES_FROM
from longclock._keywords import named_keywords
from longclock.data._checks import check_column, check_count, check_ids, check_label
from longclock.data.by_user import ByUser
from longclock.data.stream import EventStream, IntArray, check_stream, pair_ids, stretches

TRIES = 16


@dataclasses.dataclass(frozen=True)
class Candidates:
    """``R`` rows to score, in the order of their events.

    Args:
        event, item, label: int64 ``[R]``; ``event`` never decreases.
        first_row: int64 ``[E + 1]``: event ``e`` has rows ``first_row[e]`` to ``first_row[e + 1] - 1``.
    Raises:
        ValueError: names the column that does not fit.

    Example::

        >>> import numpy as np
        >>> from longclock.data import Candidates
        >>> event, item, label = np.array([[0, 0, 1], [5, 6, 7], [1, 0, 1]])
        >>> rows = Candidates(event, item, label, first_row=np.array([0, 2, 3]))
        >>> rows.rows(np.array([1, 0])).tolist()  # of event 1, then of event 0
        [2, 0, 1]
    """

    event: IntArray
    item: IntArray
    label: IntArray
    first_row: IntArray

    def __post_init__(self) -> None:
        check_column("Candidates", "event", self.event)
        for name in ("item", "label"):
            check_column("Candidates", name, getattr(self, name), self.event.shape)
        check_ids("Candidates", "item", self.item)
        check_label("Candidates", "label", self.label)
        check_column("Candidates", "first_row", self.first_row)
        counts = np.diff(self.first_row)
        if (
            self.first_row[:1].tolist() != [0]
            or (counts < 0).any()
            or self.first_row[-1] != len(self.event)
            or not np.array_equal(self.event, np.repeat(np.arange(len(counts)), counts))
        ):
            raise ValueError(
                f"Candidates: column 'first_row' must lead from 0 to {len(self.event)} rows, and the "
                "rows of event e, from first_row[e] to first_row[e + 1] - 1, must have e in column 'event'"
            )

    def rows(self, events: IntArray) -> IntArray:
        """Rows of the given events, event after event.

        Args:
            events: integers, one dimension, any order.
        Raises:
            ValueError: another type or shape, or an event that there is not.
        """
        count = len(self.first_row) - 1
        if not isinstance(events, np.ndarray) or events.dtype.kind not in "iu" or events.ndim != 1:
            got = getattr(events, "dtype", type(events).__name__)
            raise ValueError(
                "Candidates.rows: events must be a NumPy array of integers, one dimension, "
                f"got {got} of shape {np.shape(events)}"
            )
        outside = (events < 0) | (events >= count)
        if outside.any():
            raise ValueError(
                f"Candidates.rows: events must be from 0 to {count - 1}, got {events[outside][0]}"
            )
        first = self.first_row[events]
        return stretches(first, self.first_row[events + 1] - first)

    def behind(self, events: int) -> Candidates:
        """The same where so many events without candidates come before these."""
        none = np.zeros(events, np.int64)
        return Candidates(
            self.event + events, self.item, self.label, np.concatenate([none, self.first_row])
        )

    def repeated(self) -> float:
        """Share of the rows of label 0 whose item stands in an earlier row of the same event; 0 where there are none."""
        row = np.flatnonzero(self.label == 0)
        pairs = np.sort(pair_ids(self.event[row], self.item[row]))
        return float((pairs[1:] == pairs[:-1]).sum() / len(row)) if len(row) else 0.0


Candidates.__init__ = named_keywords("Candidates")(Candidates.__init__)  # type: ignore[method-assign]


def labelled_candidates(stream: EventStream) -> Candidates:
    """One row an event: its item with its real label.

    Raises:
        ValueError: the stream has no labels.

    Example::

        >>> from longclock.data import labelled_candidates, music
        >>> rows = labelled_candidates(music().head(max_events=5))
        >>> rows.event.tolist(), rows.label.tolist()
        ([0, 1, 2, 3, 4], [1, 1, 0, 1, 1])
    """
    check_stream("labelled_candidates", stream)
    if stream.label is None:
        raise ValueError(f"labelled_candidates: {stream.name} has no labels; sample negatives")
    event = np.arange(len(stream))
    return Candidates(event, stream.item, stream.label, np.arange(len(stream) + 1))


@named_keywords("sampled_candidates")
def sampled_candidates(
    stream: EventStream, negatives: int = 4, seed: int = 0, negatives_from: str = "both"
) -> Candidates:
    """The event's item as the positive, and ``negatives`` items from the past.

    A draw by popularity is uniform over all events of earlier ``order_time``; an own one takes one of the items that the user
    has taken before, each equally likely. A draw that hits the positive is repeated, up to 32 times; a
    negative that still hits it is left out, as are all of the first moment, which has no past. Each
    draw depends on the seed, the event and the negative alone: the same for every model, and later
    events cannot change it. An event may draw the same negative twice (:meth:`Candidates.repeated`).

    As all come from the past, an item's first event can only be a positive, and with ``"own"`` a user's first event of an
    item too: a model that tells new rows from old ones wins these without knowing anything. Measure on
    :meth:`EventStream.item_seen`.

    Args:
        negatives: drawn for each event, 0 or more.
        seed: from 0 to 2^64 - 1.
        negatives_from: "popularity", "own", or "both": even ones by popularity, odd ones own, by popularity where
            16 draws found no own one.
    Raises:
        ValueError: an argument that is not so, or more negatives than memory holds.

    Example::

        >>> import numpy as np
        >>> from longclock.data import EventStream, sampled_candidates
        >>> user, item, time = np.array([[0, 1, 0], [5, 6, 7], [100, 200, 300]])
        >>> rows = sampled_candidates(EventStream("plays", user, item, time, time), negatives=1)
        >>> rows.event.tolist(), rows.label.tolist()  # the first event has no past
        ([0, 1, 1, 2, 2], [1, 1, 0, 1, 0])
    """
    check_stream("sampled_candidates", stream)
    negatives = check_count("sampled_candidates", "negatives", negatives)
    seed = check_count("sampled_candidates", "seed", seed)
    if seed >= 2**64:
        raise ValueError(f"sampled_candidates: seed must be below 2^64, got {seed}")
    if negatives_from not in NEGATIVES_FROM:
        raise ValueError(
            f"sampled_candidates: negatives_from must be one of {', '.join(NEGATIVES_FROM)}, got {negatives_from!r}"
        )
    return sampled(Past.of(stream), negatives, seed, negatives_from)


@dataclasses.dataclass(frozen=True)
class Past:
    """What happened before each of ``E`` events, to draw from.

    Args:
        item: int64 ``[E]``, of the events.
        number: int64 ``[E]``, their places in the stream: a draw depends on them.
        items: int64 ``[P]``, those of all users' events, in order.
        first, count: int64 ``[E]``: an event draws from so many of these, from there on.
        own_items, own_first, own_count: the same of items that its user took, each once.
    """

    item: IntArray
    number: IntArray
    items: IntArray
    first: IntArray
    count: IntArray
    own_items: IntArray
    own_first: IntArray
    own_count: IntArray

    @classmethod
    def of(cls, stream: EventStream) -> Past:
        """All that a stream has."""
        count = np.searchsorted(stream.order_time, stream.order_time)
        number = np.arange(len(stream))
        own = own_items(ByUser.of(stream))
        return cls(stream.item, number, stream.item, np.zeros_like(count), count, *own)

    def drawn(self, seed: int, column: int, own_tries: int) -> IntArray:
        """An item for every event, its own item where none other was drawn: the first tries take the user's own items."""
        drawn = self.item.copy()  # equal to the positive: not found yet
        left = np.arange(len(drawn))
        for attempt in range(2 * TRIES):
            own = attempt < own_tries
            items, first, count = (
                (self.own_items, self.own_first, self.own_count)
                if own
                else (self.items, self.first, self.count)
            )
            todo = left[count[left] > 0]
            u = _uniform(seed, self.number[todo], column * 2 * TRIES + attempt)
            drawn[todo] = items[first[todo] + (u * count[todo]).astype(np.int64)]
            left = left[drawn[left] == self.item[left]]
        return drawn


def sampled(past: Past, negatives: int, seed: int, negatives_from: str) -> Candidates:
    """:func:`sampled_candidates` of events whose past is known."""
    positive = past.item
    try:
        items = np.empty((len(positive), 1 + negatives), np.int64)
    except (MemoryError, ValueError):
        raise ValueError(
            f"sampled_candidates: negatives = {negatives} for each of {len(positive)} events do not fit "
            "into memory; give fewer"
        ) from None
    items[:, 0] = positive
    for column in range(negatives):
        by_popularity = negatives_from == "popularity" or (
            negatives_from == "both" and column % 2 == 0
        )
        own_tries = 0 if by_popularity else 2 * TRIES if negatives_from == "own" else TRIES
        items[:, 1 + column] = past.drawn(seed, column, own_tries)
    keep = items != positive[:, None]
    keep[:, 0] = True
    label = np.zeros_like(items)
    label[:, 0] = 1
    first_row = np.concatenate([[0], np.cumsum(keep.sum(1))])
    return Candidates(np.nonzero(keep)[0], items[keep], label[keep], first_row)


def own_items(rows: ByUser) -> tuple[IntArray, IntArray, IntArray]:
    """Each user's different items in order of first event; where an event's user begins in it, and how
    many of the user's items came before the event's moment, both ``[E]``."""
    new = rows.first_of_pair == np.arange(len(rows.user))
    before = np.cumsum(new) - new  # new items in earlier rows, users one by one
    begin, so_far = (before[place[rows.row]] for place in (rows.first, rows.moment))
    return rows.item[new], begin, so_far - begin


def _uniform(seed: int, events: IntArray, draw: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for every event: splitmix64 of (seed, draw, event)."""
    above = (seed >> 32) * 0xD6E8FEB86659FD93  # what the product below loses of a seed
    begin = ((seed * 0x9E3779B1 + draw + 1) << 32) + above
    x = events.astype(np.uint64) + np.uint64(begin % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53
