# SPDX-License-Identifier: Apache-2.0
"""Events of a Kafka topic, by the offsets of its partitions."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from longclock._extras import STREAM_EXTRA, imported_for
from longclock._keywords import named_keywords
from longclock.data.sources.events import Events
from longclock.data.sources.messages import Decode, Messages, OnDamage, json_message
from longclock.data.sources.source import Cursor, EventSource

log = logging.getLogger("longclock.data")

WAIT = 1.0  # seconds for messages, before it is looked whether the reader was closed


class KafkaSource(EventSource):
    """The events of a Kafka topic, one a message, as they arrive.

    Messages of one partition come in their order; give all of a user one key, so that they lie in one. A cursor is the next
    offset of every partition. It belongs to the reader's checkpoint: nothing is committed to the server, and what it holds for
    consumer groups does not matter. Where retention has taken away what comes after a cursor, ``read`` says so.

    Args:
        servers: ``host:port``, several after commas.
        topic: its name.
        columns: of "order_time", "utc_offset" and "label", those that every message has besides user, item
            and time.
        categories: attributes that every message has.
        decode: the columns of a message's value, by name; None: :func:`json_message`.
        follow: whether to wait for more where the topic ends.
        on_damage: "raise", or "skip": a message that is no event is left out and logged.
        options: settings of librdkafka besides, such as ``{"security.protocol": "SSL"}``.
        wait_seconds: for a server to answer.
    Raises:
        ValueError: an argument that does not fit.
        ModuleNotFoundError: the package confluent-kafka is missing.
        OSError: in ``read``, no server answers, there is no such topic, or messages after the cursor are gone.
        EventFileError: in ``read``, a message that is no event, by topic, partition and offset.

    Example::

        >>> from longclock.data.sources import KafkaSource
        >>> source = KafkaSource("localhost:9092", "plays", columns=["label"], follow=True)
        >>> for events, cursor in source.read():  # doctest: +SKIP
        ...     learn(events)
        ...     keep(cursor)
    """

    kind = "kafka"

    @named_keywords()
    def __init__(
        self,
        servers: str,
        topic: str,
        *,
        columns: Sequence[str] = (),
        categories: Sequence[str] = (),
        decode: Decode | None = None,
        follow: bool = False,
        on_damage: OnDamage = "raise",
        options: Mapping[str, Any] | None = None,
        wait_seconds: float = 30.0,
    ) -> None:
        super().__init__(categories)
        with imported_for(self.op, STREAM_EXTRA):
            import confluent_kafka
        self._kafka = confluent_kafka
        self.topic, self.follow, self.wait_seconds = topic, follow, wait_seconds
        self.messages = Messages(
            self.op, topic, columns, self.categories, decode or json_message, on_damage
        )
        self._settings = {
            "group.id": "longclock",  # asked for, though no group is joined
            **(options or {}),
            "bootstrap.servers": servers,
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
        }

    def _read(self, cursor: Cursor | None, batch: int) -> Iterator[tuple[Events, Cursor]]:
        consumer = self._kafka.Consumer(self._settings, logger=log)
        try:
            offsets = self._begin(consumer, cursor)
            ended: set[Any] = set()
            while self.follow or len(ended) < len(offsets):
                found = []
                message: Any
                for message in consumer.consume(batch, WAIT):
                    fault = message.error()
                    if fault is None:
                        found.append(message)
                        offsets[message.partition()] = message.offset() + 1
                    elif fault.code() == self._kafka.KafkaError._PARTITION_EOF:
                        ended.add(message.partition())
                    else:
                        raise OSError(f"{self.op}: {self.topic}: {fault.str()}")
                if found:
                    values = [message.value() for message in found]
                    events = self.messages.events(values, functools.partial(self._place, found))
                    yield events, {"offsets": {str(one): offsets[one] for one in sorted(offsets)}}
        except self._kafka.KafkaException as error:
            raise OSError(f"{self.op}: {self.topic}: {error.args[0].str()}") from error
        finally:
            consumer.close()

    def _place(self, found: list[Any], i: int) -> str:
        message = found[i]
        return f"{self.topic}, partition {message.partition()}, offset {message.offset()}"

    def _begin(self, consumer: Any, cursor: Cursor | None) -> dict[int, int]:
        """Every partition's first offset to be read."""
        known = consumer.list_topics(self.topic, self.wait_seconds).topics[self.topic]
        if known.error is not None or not known.partitions:
            reason = "it has no partitions" if known.error is None else known.error.str()
            raise FileNotFoundError(f"{self.op}: {self.topic}: {reason}")
        given = {} if cursor is None else {int(one): at for one, at in cursor["offsets"].items()}
        offsets, places = {}, []
        for partition in sorted({*known.partitions, *given}):
            place = self._kafka.TopicPartition(self.topic, partition)
            low, high = consumer.get_watermark_offsets(place, self.wait_seconds)
            offset = given.get(partition, low)
            if not low <= offset <= high:
                raise OSError(
                    f"{self.op}: {self.topic}, partition {partition}: the cursor is offset {offset}, but the topic has {low} to "
                    f"{high - 1}; read from the beginning, and keep messages longer than a reader may be away (retention.ms)"
                )
            place.offset = offset
            offsets[partition] = offset
            places.append(place)
        consumer.assign(places)
        return offsets
