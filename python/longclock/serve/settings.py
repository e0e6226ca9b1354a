# SPDX-License-Identifier: Apache-2.0
"""What a server can be told, read before PyTorch is imported."""

from __future__ import annotations

import dataclasses

# Of rows, and to what a search of int8 rows rounds its queries: the names that searches have for them.
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What protects a server from more than it can do.

    Args:
        threads: requests that are ranked at one time. Each takes one core.
        queue: requests that wait for one of them; more are answered with 429.
        deadline: seconds that a request may wait before it is answered with 504 and not begun. A request may ask for less by
            the protocol's parameter ``timeout``, in microseconds.
        body: bytes of a request, else 413.
        appending: calls that append at one time. They wait for the disk together.
        refresh: seconds between two looks for a new version of the model.
    """

    threads: int = 1
    queue: int = 64
    deadline: float = 1.0
    body: int = 1 << 20
    appending: int = 64
    refresh: float = 1.0
