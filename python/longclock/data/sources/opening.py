# SPDX-License-Identifier: Apache-2.0
"""A source by its address."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit

from longclock._keywords import named_keywords
from longclock.data.sources.folder import FolderSource
from longclock.data.sources.kafka import KafkaSource
from longclock.data.sources.redis_stream import RedisStreamSource
from longclock.data.sources.source import EventSource

REDIS = ("redis", "rediss", "unix")


@named_keywords("open_source")
def open_source(
    address: str,
    *,
    columns: Sequence[str] = (),
    categories: Sequence[str] = (),
    follow: bool = False,
) -> EventSource:
    """The source of events at an address.

    Args:
        address: ``folder:plays``, or the plain path, for :class:`FolderSource`; ``kafka://host:9092,host:9092/topic`` for
            :class:`KafkaSource`; ``redis://host:6379?stream=key``, also ``rediss://`` and ``unix://``, for :class:`RedisStreamSource`.
        columns: of "order_time", "utc_offset" and "label", those that every message or entry has; files say themselves.
        categories: attribute columns.
        follow: whether to wait for more where a topic or a stream ends.
    Raises:
        ValueError: another address, or ``columns`` or ``follow`` of files; and what the classes raise.

    Example::

        >>> import pandas as pd
        >>> from longclock.data.sources import open_source
        >>> plays = pd.DataFrame({"user": [1, 2], "item": [5, 6], "time": [100, 200]})
        >>> plays.to_parquet("plays.parquet")
        >>> len(open_source("folder:plays.parquet"))
        2
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", address)
    if scheme is None:
        for argument, given in (("columns", columns), ("follow", follow)):
            if given:
                raise ValueError(
                    f"open_source: {argument} is of Kafka and Redis, got the path {address!r}; leave it out"
                )
        return FolderSource(address.removeprefix("folder:"), categories)
    parts = urlsplit(address)
    if scheme[1] == "kafka" and parts.netloc and parts.path.strip("/"):
        topic = parts.path.strip("/")
        return KafkaSource(
            parts.netloc, topic, columns=columns, categories=categories, follow=follow
        )
    query = dict(parse_qsl(parts.query))
    if scheme[1] in REDIS and query.get("stream"):
        stream = query.pop("stream")
        url = address.split("?")[0] + ("?" + urlencode(query) if query else "")
        return RedisStreamSource(url, stream, columns=columns, categories=categories, follow=follow)
    raise ValueError(
        "open_source: address must be folder:path, a plain path, kafka://host:port/topic or redis://host:port?stream=key, "
        f"got {address!r}"
    )
