# SPDX-License-Identifier: Apache-2.0
"""What the arguments of :class:`longclock.LongTermInterestClock` must be."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from longclock.history.history import History


def check_width(name: str, rows: Tensor, width: int, argument: str) -> None:
    """argument: of the constructor, which says the width."""
    if rows.dim() == 0 or rows.shape[-1] != width:
        raise ValueError(
            f"LongTermInterestClock: {name} must have {argument} = {width} in the last dimension, "
            f"got {list(rows.shape)}; build the module with the {argument} of your data"
        )


def check_behaviours(history: History, width: int) -> None:
    """That all tables of a history together have this width."""
    if len(history.tables) == 1:
        check_width("history.rows", history.table, width, "behaviour_dim")
    elif history.width != width:
        raise ValueError(
            f"LongTermInterestClock: history.rows must have behaviour_dim = {width} columns in all, got "
            f"{' + '.join(str(table.shape[-1]) for table in history.tables)}; build the module with the behaviour_dim of your data"
        )


def check_time_per(time_per: Any, own_search: bool, searches: bool, units: int) -> None:
    """units: of the hidden layers of all heads and clocks together."""
    op = "LongTermInterestClock"
    if time_per not in ("module", "stage", "head"):
        raise ValueError(f"{op}: time_per must be 'module', 'stage' or 'head', got {time_per!r}")
    if time_per == "stage" and not own_search:
        raise ValueError(
            f"{op}: time_per must be 'module' or 'head' without own_search, got 'stage'; nothing but search_loss would teach "
            "the search's s"
        )
    if time_per == "head" and searches and units > 64:
        raise ValueError(
            f"{op}: heads * time_hidden, of all clocks, must be at most 64 for time_per='head' with a search, got {units}; "
            "make time_hidden smaller"
        )
