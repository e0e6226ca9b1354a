# SPDX-License-Identifier: Apache-2.0
"""How earlier events ended, in numbers: what predicts the label of the next one best where labels are real."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from longclock.data._checks import check_count
from longclock.data.stream import EventStream, IntArray, check_stream, pair_ids

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
    every = np.zeros(len(stream), np.int64)
    count, positive = _before(stream, every)
    mean = (positive + 1) / (count + 2)
    columns = []
    for ids in (stream.item, *stream.categories.values()):
        for group in (ids, pair_ids(stream.user, ids)):
            count, positive = _before(stream, group)
            rate = (positive + PRIOR * mean) / (count + PRIOR)
            columns += [np.log1p(count) / 4, np.log(rate / (1 - rate))]
    order, moment = stream.by_user()
    first = np.searchsorted(stream.user[order], stream.user[order])
    total = np.concatenate([[0], np.cumsum(stream.label[order])])
    own = []
    for last in LAST:
        begin = np.maximum(first, moment - last)
        number = moment - begin
        own.append(
            np.where(number > 0, (total[moment] - total[begin]) / np.maximum(number, 1), 0.5)
        )
    time = stream.order_time[order]
    since = np.where(moment > first, time - time[np.maximum(moment - 1, 0)], 0)
    own.append(np.log1p(since) / 8)
    by_event = np.empty((len(own), len(stream)))
    by_event[:, order] = own
    return np.stack([*columns, *by_event], 1).astype(np.float32)


def _before(stream: EventStream, group: IntArray) -> tuple[IntArray, IntArray]:
    """Events of the same group at an earlier ``order_time``, and those of them with label 1; both [E]."""
    assert stream.label is not None
    order = np.argsort(group, kind="stable")
    sorted_group, time = group[order], stream.order_time[order]
    place = np.arange(len(order))
    new = np.ones(len(order), bool)
    new[1:] = (sorted_group[1:] != sorted_group[:-1]) | (time[1:] != time[:-1])
    moment = np.maximum.accumulate(np.where(new, place, 0))
    first = np.searchsorted(sorted_group, sorted_group)
    total = np.concatenate([[0], np.cumsum(stream.label[order])])
    count, positive = np.empty_like(order), np.empty_like(order)
    count[order] = moment - first
    positive[order] = total[moment] - total[first]
    return count, positive
