# SPDX-License-Identifier: Apache-2.0
"""What a server can be told, read before PyTorch is imported."""

from __future__ import annotations

import dataclasses
import os

# Of rows, and to what a search of int8 rows rounds its queries: the names that searches have for them.
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}


def is_missing(url: str) -> bool:
    """Whether the file of a store is not there; a server is not asked."""
    path = url.removeprefix("sqlite:///")
    return "://" not in path and not os.path.exists(path)


def check_there(url: str, otherwise: str = "") -> None:
    """Opening a store makes one where there is none, which whoever reads histories does not mean.

    Args:
        otherwise: what else can be done than to fill it.
    Raises:
        FileNotFoundError: the file of the store is not there. (Of Redis a server knows.)
    """
    if is_missing(url):
        raise FileNotFoundError(
            f"--store: {url} does not exist; fill it: python -m longclock.store --store {url}{otherwise}"
        )


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
