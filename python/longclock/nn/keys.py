# SPDX-License-Identifier: Apache-2.0
"""Queries, and the rows that they are compared with: a tensor, or a tuple of tables side by side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longclock.types import QuantizedRows


def project_tables(rows: Any, weight: Tensor) -> Any:
    """``rows W^T``, [..., L] with [D, L]; of a tuple of tables, each with its columns of W."""
    if isinstance(rows, Tensor):
        return rows @ weight.to(rows.dtype).T
    columns = weight.split([table.shape[-1] for table in rows], 1)
    return tuple(table @ part.to(table.dtype).T for table, part in zip(rows, columns, strict=True))


def query_of_projections(query: Tensor, keys: Any) -> Tensor:
    """The query of keys that are projections: of several tables, the same for each table's share."""
    return (
        query if isinstance(keys, (Tensor, QuantizedRows)) else torch.cat([query] * len(keys), -1)
    )


def detached(rows: Any) -> Any:
    return rows.detach() if isinstance(rows, Tensor) else tuple(table.detach() for table in rows)


def as_query(query: Tensor, rows: Any) -> Tensor:
    """In the rows' dtype, or at least fp32 (autocast hands over 16-bit queries of fp32 rows)."""
    rows = rows if isinstance(rows, Tensor) else rows[0]
    if query.dtype == rows.dtype or not rows.is_floating_point():
        return query
    return query.to(torch.promote_types(rows.dtype, torch.float32))
