# SPDX-License-Identifier: Apache-2.0
"""How earlier events ended, in numbers: what predicts the label of the next one best where labels are real."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from longclock.data._checks import check_count
from longclock.data.by_user import ByUser
from longclock.data.stream import (
    EventStream,
    IntArray,
    check_stream,
    order_of,
    pair_ids,
    run_starts,
)

FloatArray = npt.NDArray[np.float32]
LAST = (1, 3, 10, 50)  # of the user's own events
PRIOR = 4.0  # events of the mean outcome that a rate starts from


def outcome_columns(attributes: int) -> int:
    """How many numbers :func:`past_outcomes` gives for items with that many attributes."""
    attributes = check_count("outcome_columns", "attributes", attributes)
    return 4 * (1 + attributes) + len(LAST) + 1


def past_outcomes(stream: EventStream) -> FloatArray:
    """Of every event, from labels before its ``order_time`` alone: float32 [E, features].

    - For the item, each of its attributes, and each of these within the user's own events: how often it came,
      ``log(1 + n) / 4``, and how often with label 1, as a logit, drawn to the mean so far.
    - The share of label 1 in the user's last 1, 3, 10 and 50 events.
    - ``log(1 + seconds) / 8`` since the user's last event. (Divided so that all are of about the same size.)

    Raises:
        ValueError: the stream has no labels.

    Example::

        >>> import numpy as np
        >>> from longclock.data import EventStream, past_outcomes
        >>> user, item, time, label = np.array([[0, 0, 0], [5, 6, 5], [100, 200, 300], [1, 0, 1]])
        >>> columns = past_outcomes(EventStream("plays", user, item, time, time, label))
        >>> columns.shape, columns[:, 4].tolist()  # column 4: the user's last event, 0.5 if none
        ((3, 9), [0.5, 1.0, 0.0])
    """
    check_stream("past_outcomes", stream)
    if stream.label is None:
        raise ValueError(f"past_outcomes: {stream.name} has no labels; without them nothing ended")
    rows = ByUser.of(stream)
    fields = (stream.item, *stream.categories.values())
    return outcomes_of(
        rows, stream.label, stream.order_time, fields, [rows.sorted(ids) for ids in fields]
    )


def outcomes_of(
    rows: ByUser,
    label: IntArray,
    order_time: IntArray,
    fields: Sequence[IntArray],
    of_rows: Sequence[IntArray],
    counts: OutcomeCounts | None = None,
) -> FloatArray:
    """:func:`past_outcomes` of ``E`` events whose users' histories are known.

    Args:
        rows: the histories, with the events.
        label, order_time: of the events, [E].
        fields: item, then the id of each attribute: of the events, [E] each.
        of_rows: the same of the histories' rows, [T] each.
        counts: how the events before these ended; None: there are none.
    """
    count, positive = _before(np.zeros_like(label), order_time, label)
    if counts is not None:
        count, positive = count + counts.count[0].sum(), positive + counts.positive[0].sum()
    mean = _mean(count, positive)
    columns = []
    for number, (ids, ids_of_rows) in enumerate(zip(fields, of_rows, strict=True)):
        count, positive = _before(ids, order_time, label)
        if counts is not None:
            count = count + counts.count[number][ids]
            positive = positive + counts.positive[number][ids]
        columns += _of_group(count, positive, mean)
        own = _before(pair_ids(rows.user, ids_of_rows), rows.order_time, rows.label)
        columns += _of_group(own[0][rows.row], own[1][rows.row], mean)
    first, moment = rows.first[rows.row], rows.moment[rows.row]
    total = np.concatenate([[0], np.cumsum(rows.label)])
    for last in LAST:
        begin = np.maximum(first, moment - last)
        columns.append(_share(moment - begin, total[moment] - total[begin]))
    since = order_time - rows.order_time[np.maximum(moment - 1, 0)]
    columns.append(_since(np.where(moment > first, since, 0)))
    return np.stack(columns, 1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class OutcomeCounts:
    """How the events of all users ended so far: what :func:`past_outcomes` of a request takes besides the user's own history.

    Args:
        count, positive: int64, of each item, then of each id of each attribute: events, and those with label 1.

    Example::

        >>> import numpy as np
        >>> from longclock.data import EventStream, OutcomeCounts, past_outcomes
        >>> user, item, time, label = np.array([[0, 0, 0], [5, 6, 5], [100, 200, 300], [1, 0, 1]])
        >>> stream = EventStream("plays", user, item, time, time, label)
        >>> counts = OutcomeCounts.of(stream.head(max_events=2))
        >>> of_request = counts.columns([item[2:]], [item[:2]], label[:2], time[:2], now=300)
        >>> np.array_equal(of_request, past_outcomes(stream)[2:])
        True
    """

    count: tuple[IntArray, ...]
    positive: tuple[IntArray, ...]

    @classmethod
    def of(cls, stream: EventStream) -> OutcomeCounts:
        """Of all events of a stream.

        Raises:
            ValueError: it has no labels.
        """
        check_stream("OutcomeCounts.of", stream)
        if stream.label is None:
            raise ValueError(
                f"OutcomeCounts.of: {stream.name} has no labels; without them nothing ended"
            )
        taken = stream.label == 1
        fields = [(stream.item, stream.items)]
        fields += [(ids, stream.category_sizes[name]) for name, ids in stream.categories.items()]
        return cls(
            tuple(np.bincount(ids, minlength=size) for ids, size in fields),
            tuple(np.bincount(ids[taken], minlength=size) for ids, size in fields),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, IntArray], attributes: int) -> OutcomeCounts:
        """Those whose :meth:`arrays` these are, perhaps among others, of items with so many attributes.

        Raises:
            KeyError: an array that is missing.
        """
        fields = range(1 + attributes)
        return cls(
            tuple(arrays[f"count.{i}"] for i in fields),
            tuple(arrays[f"positive.{i}"] for i in fields),
        )

    def arrays(self) -> dict[str, IntArray]:
        """Each by a name of its own, as files have them."""
        kinds = (("count", self.count), ("positive", self.positive))
        return {f"{kind}.{i}": array for kind, fields in kinds for i, array in enumerate(fields)}

    def columns(
        self,
        candidates: Sequence[IntArray],
        own: Sequence[IntArray],
        label: IntArray,
        time: IntArray,
        now: int,
    ) -> FloatArray:
        """What :func:`past_outcomes` says of an event with each of these candidates: float32 [C, features].

        Args:
            candidates: items [C], then the id of each of their attributes.
            own: the same of the user's behaviours, oldest first, [M] each.
            label, time: of the behaviours, [M].
        """
        mean = _mean(self.count[0].sum(), self.positive[0].sum())
        columns = []
        for ids, of_user, count, positive in zip(
            candidates, own, self.count, self.positive, strict=True
        ):
            columns += _of_group(count[ids], positive[ids], mean)
            columns += _of_group(*_same(ids, of_user, label), mean)
        ended = [label[max(len(label) - last, 0) :] for last in LAST]
        of_request = [_share(np.array(len(each)), each.sum()) for each in ended]
        of_request.append(_since(np.array(now - time[-1] if len(time) else 0)))
        rows = len(candidates[0])
        return np.stack(
            [*columns, *(np.broadcast_to(each, rows) for each in of_request)], 1
        ).astype(np.float32)


def _same(ids: IntArray, of_user: IntArray, label: IntArray) -> tuple[IntArray, IntArray]:
    """How many of a user's behaviours have each of these ids, and how many of those ended with label 1."""
    order = np.argsort(of_user, kind="stable")
    first, last = (np.searchsorted(of_user[order], ids, side) for side in ("left", "right"))
    total = np.concatenate([[0], np.cumsum(label[order])])
    return last - first, total[last] - total[first]


def _mean(count: IntArray, positive: IntArray) -> npt.NDArray[np.float64]:
    return (positive + 1) / (count + 2)


def _of_group(
    count: IntArray, positive: IntArray, mean: npt.NDArray[np.float64]
) -> list[npt.NDArray[np.float64]]:
    rate = (positive + PRIOR * mean) / (count + PRIOR)
    return [np.log1p(count) / 4, np.log(rate / (1 - rate))]


def _share(number: IntArray, positive: IntArray) -> npt.NDArray[np.float64]:
    return np.where(number > 0, positive / np.maximum(number, 1), 0.5)


def _since(seconds: IntArray) -> npt.NDArray[np.float64]:
    return np.log1p(seconds) / 8


def _before(group: IntArray, order_time: IntArray, label: IntArray) -> tuple[IntArray, IntArray]:
    """Events of the same group at an earlier ``order_time``, and those of them with label 1, both [E]; a group's are in order of time."""
    order = order_of(group)
    sorted_group = group[order]
    first, moment = run_starts(sorted_group), run_starts(sorted_group, order_time[order])
    total = np.concatenate([[0], np.cumsum(label[order])])
    count, positive = np.empty_like(order), np.empty_like(order)
    count[order] = moment - first
    positive[order] = total[moment] - total[first]
    return count, positive
