# SPDX-License-Identifier: Apache-2.0
"""A store by its URL."""

from __future__ import annotations

import os
import re
from typing import Any

from longclock.store.behaviour_store import BehaviourStore
from longclock.store.redis_store import RedisStore
from longclock.store.sqlite_store import SQLiteStore

REDIS = ("redis", "rediss", "unix")


def open_store(url: str | os.PathLike[str], **settings: Any) -> BehaviourStore:
    """The store of histories at a URL, made where there is none.

    Args:
        url: ``sqlite:///histories.db`` (a path from here; ``sqlite:////var/histories.db`` an absolute one) or a plain path for
            :class:`SQLiteStore`; ``redis://``, ``rediss://`` or ``unix://`` for :class:`RedisStore`.
        settings: of the store's class: capacity, columns, on_damage, and those of Redis.
    Raises:
        ValueError: another URL; and what the classes raise.

    Example::

        >>> from longclock.store import open_store
        >>> with open_store("sqlite:///histories.db", capacity=5000) as store:
        ...     store.append_many(["ada", "bob", "ada"], items=[3, 3, 8], times=[20, 10, 10])
        ...     store.get("ada").item
        3
        tensor([8, 3])
    """
    text = os.fspath(url)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if scheme is None:
        return SQLiteStore(text, **settings)
    if scheme[1] in REDIS:
        return RedisStore(text, **settings)
    if scheme[1] == "sqlite" and len(text) > len("sqlite:///") and text.startswith("sqlite:///"):
        return SQLiteStore(text[len("sqlite:///") :], **settings)
    raise ValueError(
        f"open_store: url must be sqlite:///path, a plain path, redis://, rediss:// or unix://, got {text!r}"
    )
