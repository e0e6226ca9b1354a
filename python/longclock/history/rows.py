# SPDX-License-Identifier: Apache-2.0
"""Rows of behaviours by their positions, whatever they are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from longclock._checks import OUTSIDE, check_ids
from longclock._torch_state import reads_values
from longclock.history.history import History
from longclock.types import Lookup, QuantizedRows


def floating_rows(op: str, history: History, name: str = "history.rows") -> Tensor | Lookup:
    """The rows of a history, for all that read them but searches, which alone take int8.

    Args:
        op, name: who asks, and what it calls the rows, for the error.
    """
    rows = history.rows
    in_bytes = isinstance(rows, Lookup) and isinstance(rows.table, QuantizedRows)
    if isinstance(rows, QuantizedRows) or in_bytes:
        raise ValueError(
            f"{op}: {name} must be floating, got QuantizedRows, which searches alone read; give the rows that they were made of"
        )
    return rows


def rows_at(
    op: str, name: str, rows: Tensor | Lookup, index: Tensor, valid: Tensor | None = None
) -> Tensor:
    """Copies of the rows of flattened behaviours, [*index, L]; each table gets one gradient.

    Args:
        op, name: who asks, and what it calls the ids, for an id in no table: an error where ids can be read, else NaN.
        index: integers, any shape; where not ``valid`` its ids are not read, and the row is some other, or zeros.
    """
    if not isinstance(rows, Lookup):
        return F.embedding(index, rows)
    several = rows.has_several
    pieces = [
        _looked_up(op, f"{name}[{i}]" if several else name, table, ids, index, valid, rows.sparse)
        for i, (table, ids) in enumerate(rows.parts())
    ]
    return torch.cat(pieces, -1) if several else pieces[0]


def _looked_up(
    op: str,
    name: str,
    table: Tensor,
    ids: Tensor | None,
    index: Tensor,
    valid: Tensor | None,
    sparse: bool,
) -> Tensor:
    if ids is not None:
        index = ids[index].long()
    if valid is not None:
        index = index.masked_fill(~valid, 0)
    if table.shape[0] == 0:
        return table.new_zeros(*index.shape, table.shape[1])
    check_ids(op, name, index, table.shape[0], OUTSIDE)
    sparse = sparse and ids is not None
    if reads_values(index):
        return F.embedding(index, table, sparse=sparse)
    known = (index >= 0) & (index < table.shape[0])
    found = F.embedding(index.clamp(0, table.shape[0] - 1), table, sparse=sparse)
    return found.masked_fill(~known[..., None], torch.nan) if table.is_floating_point() else found
