# SPDX-License-Identifier: Apache-2.0
"""Events that need not fit into memory, each read once, from wherever they come."""

from longclock.data.sources.arrow import ArrowSource
from longclock.data.sources.events import Events, text_ids
from longclock.data.sources.folder import FolderSource
from longclock.data.sources.kafka import KafkaSource
from longclock.data.sources.messages import json_message
from longclock.data.sources.opening import open_source
from longclock.data.sources.redis_stream import RedisStreamSource
from longclock.data.sources.source import Cursor, EventSource, Read

__all__ = [
    "ArrowSource",
    "Cursor",
    "EventSource",
    "Events",
    "FolderSource",
    "KafkaSource",
    "Read",
    "RedisStreamSource",
    "json_message",
    "open_source",
    "text_ids",
]
