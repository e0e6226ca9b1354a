# SPDX-License-Identifier: Apache-2.0
"""Events of Kafka and of Redis streams: each once, over a restart by others, and what is gone is said."""

from __future__ import annotations

import json
import threading
import time

import pytest
from stores import NO_REDIS, REDIS_SERVER, RedisProcess

from longclock.data import EventFileError
from longclock.data.sources import KafkaSource, RedisStreamSource

kafka = pytest.importorskip(
    "confluent_kafka", reason="confluent-kafka is missing: pip install confluent-kafka"
)
PARTITIONS = 4  # of the mock cluster's topics
EVENTS = 5_000


def made(number, **changes):
    """The number-th event."""
    return {
        "user": number % 37,
        "item": number,
        "time": 1_700_000_000 + number,
        "label": number % 2,
        **changes,
    }


class Topic:
    """A topic of librdkafka's mock cluster, a broker within this process."""

    def __init__(self, name):
        self.name = name
        self.producer = kafka.Producer({"test.mock.num.brokers": 1, "linger.ms": 5})
        brokers = self.producer.list_topics(timeout=10).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def put(self, values):
        for value in values:
            user = json.loads(value)["user"] if value.startswith(b"{") else 0
            self.producer.produce(self.name, value, partition=user % PARTITIONS)
            self.producer.poll(0)
        assert self.producer.flush(30) == 0

    def source(self, **options):
        return KafkaSource(
            self.servers, self.name, **{"columns": ["label"], "wait_seconds": 10.0, **options}
        )


class Stream:
    """A stream of a Redis server."""

    def __init__(self, server, name):
        self.server, self.name, self.client = server, name, server.client()

    def put(self, values):
        many = self.client.pipeline(transaction=False)
        for value in values:
            fields = json.loads(value) if value.startswith(b"{") else {"text": value}
            many.xadd(self.name, fields)
        many.execute()

    def source(self, **options):
        return RedisStreamSource(self.server.url, self.name, **{"columns": ["label"], **options})


@pytest.fixture(scope="module")
def server():
    if REDIS_SERVER is None:
        pytest.skip(NO_REDIS)
    made = RedisProcess()
    yield made
    made.stop()


@pytest.fixture(params=["kafka", "redis"])
def live(request, server):
    name = f"plays-{time.monotonic_ns()}"
    return Topic(name) if request.param == "kafka" else Stream(server, name)


@pytest.fixture
def topic():
    return Topic("plays")


def encoded(numbers, **changes):
    return [json.dumps(made(number, **changes)).encode() for number in numbers]


def items_of(reads):
    return [item for read in reads for item in read.events.item.tolist()]


def test_every_event_once(live):
    live.put(encoded(range(EVENTS)))
    reads = list(live.source().read(batch=700))
    assert sorted(items_of(reads)) == list(range(EVENTS))
    by_item = {i: (u, t, y) for r in reads for i, u, t, y in zip(
        r.events.item.tolist(), r.events.user.tolist(), r.events.order_time.tolist(), r.events.label.tolist(), strict=True)}  # fmt: skip
    assert by_item == {n: (n % 37, 1_700_000_000 + n, n % 2) for n in range(EVENTS)}
    of_user = {}
    for read in reads:
        for user, item in zip(read.events.user.tolist(), read.events.item.tolist(), strict=True):
            assert of_user.get(user, -1) < item  # a user's events come in their order
            of_user[user] = item


def test_others_go_on_from_a_cursor(live):
    """One reader stops in the middle; two others, each with a half of the users, read exactly the rest, and what comes later."""
    live.put(encoded(range(EVENTS)))
    done, cursor = [], None
    for read in live.source().read(batch=300):
        done += read.events.item.tolist()
        cursor = json.loads(json.dumps(read.cursor))
        if len(done) >= EVENTS // 2:
            break
    live.put(encoded(range(EVENTS, EVENTS + 100)))
    halves = [
        items_of(live.source().read(cursor, batch=500, shard=(place, 2))) for place in range(2)
    ]
    assert all(halves)
    assert sorted(done + halves[0] + halves[1]) == list(range(EVENTS + 100))
    *_, last = live.source().read(cursor)
    assert list(live.source().read(last.cursor)) == []


def test_following(live):
    """A reader that follows waits where the stream ends, and sees what comes then."""
    live.put(encoded(range(10)))
    found, seen = [], threading.Event()

    def follow():
        for read in live.source(follow=True).read():
            found.extend(read.events.item.tolist())
            if len(found) >= 10:
                seen.set()
            if len(found) >= 20:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    assert seen.wait(30)
    live.put(encoded(range(10, 20)))
    thread.join(30)
    assert sorted(found) == list(range(20))


BAD = [
    (b"no JSON", "cannot be decoded"),
    (b'{"user": 1, "item": 2, "label": 0}', "column 'time': must not be empty"),
    (b'{"user": 1, "item": 2, "time": 3, "label": 7}', "column 'label': must be 0 or 1, got 7"),
    (b'{"user": 1, "time": 3, "label": 0}', "column 'item': must not be empty"),
]


@pytest.mark.parametrize(("value", "said"), BAD)
def test_a_message_that_is_no_event_is_named(topic, value, said):
    topic.put([*encoded([0, 37 * 4]), value])  # both of partition 0
    with pytest.raises(EventFileError) as error:
        list(topic.source().read())
    assert said in str(error.value)
    assert "plays, partition " in str(error.value)
    assert f"offset {2 if value == b'no JSON' else 0}" in str(error.value)


def test_messages_that_are_no_events_are_left_out_where_asked(live, caplog):
    live.put([*encoded(range(5)), *(value for value, _ in BAD), *encoded(range(5, 12))])
    source = live.source(on_damage="skip")
    assert sorted(items_of(source.read())) == list(range(12))
    assert source.messages.skipped == len(BAD)
    assert len([text for text in caplog.messages if "left out" in text]) == len(BAD)


def test_a_decoder_of_ones_own(topic):
    topic.put([b"1,2,3", b"4,5,6"])

    def decode(value):
        return dict(zip(("user", "item", "time"), map(int, value.split(b",")), strict=True))

    source = topic.source(columns=[], decode=decode)
    assert sorted(items_of(source.read())) == [2, 5]
    with pytest.raises(
        EventFileError, match="cannot be decoded: it must hold columns by name, got 7"
    ):
        list(topic.source(decode=lambda value: 7).read())


def test_offsets_that_the_topic_does_not_have(topic):
    topic.put(encoded(range(8)))
    *_, last = topic.source().read()
    ahead = {
        **last.cursor,
        "offsets": {one: at + 5 for one, at in last.cursor["offsets"].items()},
    }
    with pytest.raises(
        OSError, match="plays, partition 0: the cursor is offset 7, but the topic has 0 to 1"
    ):
        list(topic.source().read(ahead))


def test_partitions_that_a_cursor_does_not_know(topic):
    """As those that were added to the topic later: from their beginning."""
    topic.put(encoded(range(40)))
    *_, last = topic.source().read()
    offsets = {one: at for one, at in last.cursor["offsets"].items() if one != "3"}
    found = items_of(topic.source().read({**last.cursor, "offsets": offsets}))
    assert sorted(found) == [n for n in range(40) if n % 37 % 4 == 3]


def test_no_server(server):
    with pytest.raises(OSError, match="KafkaSource: plays: "):
        list(KafkaSource("127.0.0.1:1", "plays", wait_seconds=0.5).read())
    source = RedisStreamSource("redis://127.0.0.1:1", "plays", retry_seconds=0.1)
    with pytest.raises(ConnectionError, match=r"RedisStreamSource: redis://127\.0\.0\.1:1"):
        list(source.read())


def test_a_follower_that_is_overrun(server):
    stream = Stream(server, "overrun")
    stream.put(encoded(range(10)))
    reads = stream.source(follow=True).read(batch=5)
    assert next(reads).events.item.tolist() == [0, 1, 2, 3, 4]
    stream.put(encoded(range(10, 30)))
    stream.client.xtrim("overrun", maxlen=25, approximate=False)
    assert next(reads).events.item.tolist() == [5, 6, 7, 8, 9]
    stream.client.xtrim("overrun", maxlen=19, approximate=False)
    with pytest.raises(OSError, match="entries after it are gone"):
        next(reads)


def test_entries_that_were_deleted(server):
    """Those that were read may be deleted; one that was not is missed."""
    stream = Stream(server, "deleted")
    stream.put(encoded(range(10)))
    reads = list(stream.source().read(batch=5))
    ids = [one for one, _ in stream.client.xrange("deleted")]
    stream.client.xdel("deleted", *ids[:5])
    assert items_of(stream.source().read(reads[0].cursor)) == [5, 6, 7, 8, 9]
    stream.client.xdel("deleted", ids[7])
    with pytest.raises(OSError, match="entries after it are gone"):
        list(stream.source().read(reads[0].cursor))


def test_entries_that_were_trimmed(server):
    stream = Stream(server, "trimmed")
    stream.put(encoded(range(100)))
    reads = list(stream.source().read(batch=10))
    stream.client.xtrim("trimmed", maxlen=50, approximate=False)
    assert items_of(stream.source().read(reads[4].cursor)) == list(range(50, 100))
    with pytest.raises(
        OSError, match=r"trimmed: the cursor is entry .* but entries after it are gone"
    ):
        list(stream.source().read(reads[3].cursor))
    stream.client.delete("trimmed")
    with pytest.raises(OSError, match="but there is no such stream"):
        list(stream.source().read(reads[4].cursor))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"columns": ["user"]}, "columns must be some of order_time, utc_offset, label, got"),
        (
            {"columns": "label"},
            "columns must be some of order_time, utc_offset, label, got 'label'",
        ),
        ({"on_damage": "ignore"}, "on_damage must be 'raise' or 'skip', got 'ignore'"),
        ({"categories": "genre"}, "categories must be a list of names, got 'genre'"),
    ],
)
def test_bad_arguments(options, said):
    with pytest.raises(ValueError) as error:
        KafkaSource("localhost:9092", "plays", **options)
    assert str(error.value).startswith(f"KafkaSource: {said}")
    with pytest.raises(ValueError) as error:
        RedisStreamSource("redis://localhost", "plays", **options)
    assert str(error.value).startswith(f"RedisStreamSource: {said}")
