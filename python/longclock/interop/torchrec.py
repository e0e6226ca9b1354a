# SPDX-License-Identifier: Apache-2.0
"""TorchRec's KeyedJaggedTensor as a history, by what it offers: ``keys()``, ``values()``, ``weights()``, ``offsets()`` and ``stride()``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from longclock._checks import INTEGERS, dtype_of
from longclock._keywords import named_keywords
from longclock.history.history import History
from longclock.types import Lookup

__all__ = ["history"]
NAME = "interop.torchrec.history"


@named_keywords(NAME)
def history(
    features: Any,
    key: str,
    time: Tensor | None = None,
    *,
    table: Tensor | None = None,
    query_offsets: Tensor | None = None,
    mask: Tensor | None = None,
) -> History:
    """One feature of a KeyedJaggedTensor as windows of the values of all of them: nothing is split, copied or read.

    A JaggedTensor, as ``features[key]`` is, goes into :meth:`longclock.History.ragged` by itself.

    Args:
        features: a KeyedJaggedTensor of ids, or, without ``table``, of anything with its methods and rows [T, L] as values.
        key: the feature's name, whose bags are the sequences.
        time: int32 or int64, as many as there are values of all features; None: its weights, which must be integers, since float32 loses
            seconds.
        table: [N, L], whose rows the ids are.
        query_offsets, mask: as of :meth:`longclock.History.windows`.
    Raises:
        ValueError: no such key, times that are no integers, or another argument that does not fit; the message names it.

    Example::

        >>> import torch, longclock as lc
        >>> class Features:  # as torchrec.KeyedJaggedTensor of two users
        ...     keys = lambda self: ["candidate", "history"]
        ...     values = lambda self: torch.tensor([3, 4, 7, 8, 9])
        ...     weights = lambda self: 3600 * torch.tensor([0, 0, 8, 20, 9])
        ...     offsets = lambda self: torch.tensor([0, 1, 2, 4, 5])
        ...     stride = lambda self: 2
        >>> items = torch.nn.Embedding(10, 8)
        >>> played = lc.interop.torchrec.history(Features(), "history", table=items.weight)
        >>> played.starts.tolist(), played.ends.tolist()
        ([2, 4], [4, 5])
    """
    for name in ("keys", "values", "offsets", "stride"):
        if not callable(getattr(features, name, None)):
            raise ValueError(
                f"{NAME}: features must be a KeyedJaggedTensor, got {type(features).__name__}, which has no {name}()"
            )
    keys = list(features.keys())
    if key not in keys:
        raise ValueError(f"{NAME}: key must be one of {', '.join(map(repr, keys))}, got {key!r}")
    if time is None:
        time = _times_of(features)
    bags = features.stride()
    first = keys.index(key) * bags
    bounds = features.offsets()[first : first + bags + 1]
    values = features.values()
    rows = values if table is None else Lookup(table, values)
    return History.windows(rows, time, bounds[:-1], bounds[1:], query_offsets, mask)


def _times_of(features: Any) -> Tensor:
    weights = getattr(features, "weights_or_none", features.weights)()
    if weights is None or weights.dtype not in INTEGERS:
        has = (
            "there are no weights"
            if weights is None
            else f"weights are {dtype_of(weights)}, which loses seconds"
        )
        raise ValueError(f"{NAME}: time must be given where {has}, got None")
    times: Tensor = weights
    return times
