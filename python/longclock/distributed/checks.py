# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

from longclock._checks import check, shape_of
from longclock._mlp import require_tensor
from longclock.history.checks import Words, check_history, check_queries
from longclock.history.history import History, not_a_history


def check_search_of(op: str, name: str, query: Any, history: Any, query_time: Any) -> None:
    """Shapes and dtypes of a rank's queries and its history, before other ranks are waited for; nothing is read.

    Args:
        name: what the caller calls its history.
    """
    words = Words(f"{name}.rows", f"{name}.time", "D")
    check(op, isinstance(history, History), lambda: f"{name} {not_a_history(history)}")
    for argument, value in (("query", query), ("query_time", query_time), (words.time, history.time)):  # fmt: skip
        require_tensor(op, argument, value)
    dense = history.is_dense
    check(op, query.dim() == 2 or (dense and query.dim() == 3), lambda: f"query must have shape {'[S, D] or [S, C, D]' if dense else '[Q, D]'}, "
          f"got {shape_of(query)}")  # fmt: skip
    check_history(op, history, words)
    check_queries(op, history, query.shape[:-1], query_time, "query", words, query.shape)
