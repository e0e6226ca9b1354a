# SPDX-License-Identifier: Apache-2.0
"""Damage of single histories: reported with user and piece, skipped where asked, dropped by repair()."""

from __future__ import annotations

import logging
import pickle
import random
import sqlite3

import pytest
import torch

from longclock.store import DamagedHistoryError


def pairs(behaviours):
    return list(zip(behaviours.time.tolist(), behaviours.item.tolist(), strict=True))


def fill(store):
    """Two users with several pieces each; behaviours at 0, 1, ..."""
    for user in ("ada", "bob"):
        store.append_many([user] * 2000, [7] * 2000, range(2000))
    return [(time, 7) for time in range(2000)]


of_sqlite = pytest.mark.parametrize("stores", ["sqlite"], indirect=True)
of_redis = pytest.mark.parametrize("stores", ["redis"], indirect=True)
SQL = {
    "a bit": ("update chunk set records = cast(? || substr(records, 2) as blob) where user = 'ada' and first = ?", "the piece that begins with the behaviour at 480: its checksum is wrong"),
    "no bytes": ("update chunk set records = 'abc' where ? is not null and user = 'ada' and first = ?", "at 480: it is not bytes"),
    "cut off": ("update chunk set records = substr(?, 1, 1) where user = 'ada' and first = ?", "at 480: it is cut off"),
    "within": ("update chunk set records = cast(substr(records, 1, length(records) - 8) || x'00000064' || substr(records, -4) as blob) where ? is not null and user = 'ada' and first = ?", "at 480: it ends within a behaviour"),
    "another's": ("update chunk set records = (select records from chunk where user = 'bob' and first = ?2) where ?1 is not null and user = 'ada' and first = ?2", "at 480: its checksum is wrong"),
    "another place": ("update chunk set records = (select records from chunk where user = 'ada' and first > ?2) where ?1 is not null and user = 'ada' and first = ?2", "at 480: it lies where another piece belongs"),
    "gone": ("delete from chunk where ? is not null and user = 'ada' and first = ?", "4 pieces are there where 5 were written"),
    "uncounted": ("delete from history where user = 'ada' and ? is not null and ? is not null", "5 pieces are there where 0 were written"),
}  # fmt: skip


@of_sqlite
@pytest.mark.parametrize("kind", SQL)
def test_a_chunk_of_sqlite(stores, kind, caplog):
    store, skips = stores(), stores(on_damage="skip")
    right = fill(store)
    statement, said = SQL[kind]
    other = sqlite3.connect(store.path)
    first = other.execute("select first from chunk where user = 'ada' order by first").fetchall()[1][0]  # fmt: skip
    other.execute(statement, (b"\xff", first))
    other.commit()
    other.close()
    with pytest.raises(DamagedHistoryError, match=f"SQLiteStore: the history of user 'ada' is damaged.*{said}.*repair") as raised:  # fmt: skip
        store.get("ada")
    assert (raised.value.user, raised.value.chunk) == ("ada", 480 if "at 480" in said else None)
    copied = pickle.loads(pickle.dumps(raised.value))
    assert (str(copied), copied.user, copied.chunk) == (
        str(raised.value),
        "ada",
        raised.value.chunk,
    )
    with pytest.raises(DamagedHistoryError):
        store.read_many(["bob", "ada"])
    with pytest.raises(DamagedHistoryError):
        store.trim("ada", keep=10)
    assert pairs(store.get("bob")) == right
    left = right if kind == "uncounted" else right[:480] + right[960:]
    assert pairs(skips.get("ada")) == left
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert said in caplog.text
    if "at 480" in said:
        for damaged in (store, skips):  # nothing is appended to what cannot be read
            with pytest.raises(DamagedHistoryError):
                damaged.append_many(["bob", "ada"], [1, 1], [600, 600])
        assert pairs(store.get("bob")) == right
    assert store.append("ada", 7, 2000)
    assert store.repair("ada") == 1
    assert pairs(store.get("ada")) == [*left, (2000, 7)]
    assert store.repair("ada") == store.repair("nobody") == 0


def values(store, server):
    client = server.client()
    body, tail = store._keys("ada")
    return client, body, tail


REDIS = {
    "a bit": "the checks of 1 of 512 behaviours from the 513. on are wrong",
    "noise": "behaviours from the 513. on are wrong",
    "cut off": "behaviours are there where 2000 were written",
    "within": "a value ends within a behaviour",
    "another's": "behaviours from the 1. on are wrong",
    "twice": "2001 behaviours are there where 2000 were written",
    "order": "its behaviours are not in their order",
    "no tail": "were written",
    "no body": "were written",
    "short tail": "were written",
}


@of_redis
@pytest.mark.parametrize("kind", REDIS)
def test_a_value_of_redis(stores, kind, caplog):
    store, skips = stores(), stores(on_damage="skip")
    right = fill(store)
    for time in range(2000, 2010):
        store.append("ada", 7, time)
        right.append((time, 7))
    client, body, tail = values(store, stores.server)
    assert store.trim("ada", keep=2000) == 10  # all of it is in the body now
    right = right[10:]
    size, content = store._records.size, client.get(body)
    record = content[600 * size : 601 * size]
    if kind == "a bit":
        client.setrange(body, 600 * size + 3, bytes([record[3] ^ 16]))
    elif kind == "noise":
        client.setrange(body, 600 * size, random.Random(0).randbytes(100 * size))
    elif kind == "cut off":
        client.set(body, content[: -100 * size])
    elif kind == "within":
        client.set(body, content[:-5])
    elif kind == "another's":
        client.copy(store._keys("bob")[0], body, replace=True)
    elif kind == "twice":
        client.set(body, content[: 601 * size] + record + content[601 * size :])
    elif kind == "order":
        client.set(body, content[: 600 * size] + content[601 * size : 602 * size] + record + content[602 * size :])  # fmt: skip
    elif kind == "no tail":
        client.delete(tail)
    elif kind == "no body":
        client.delete(body)
    else:
        client.set(tail, b"abc")
    with pytest.raises(DamagedHistoryError, match=f"RedisStore: the history of user 'ada' is damaged.*{REDIS[kind]}") as raised:  # fmt: skip
        store.get("ada")
    assert raised.value.user == "ada"
    assert raised.value.chunk == (10 + 512 if kind in ("a bit", "noise") else None)
    assert pairs(store.get("bob")) == [(time, 7) for time in range(2000)]
    found = pairs(skips.get("ada"))
    lost = {"a bit": 1, "noise": 100, "cut off": 100, "within": 1, "another's": 2000, "no body": 2000}  # fmt: skip
    assert set(found) <= set(right)
    assert found == sorted(set(found))
    assert len(found) == 2000 - lost.get(kind, 0)
    assert REDIS[kind] in caplog.text
    if kind not in ("a bit", "noise", "order", "another's"):
        with pytest.raises(DamagedHistoryError, match="'ada'"):
            store.append_many(["ada"], [1], [600])
    assert store.repair("ada") >= 1
    assert pairs(store.get("ada")) == found
    assert store.append("ada", 7, 2010)
    assert pairs(store.get("ada")) == [*found, (2010, 7)]
    assert store.repair("ada") == store.repair("nobody") == 0


@of_redis
def test_random_damage_in_redis(stores):
    """Bits anywhere in body or tail: found, or nothing has changed. What is skipped is no more than what was hit."""
    store = stores(columns={"seconds": "int16", "share": "float32"})
    skips = stores(on_damage="skip")
    draw = random.Random(0)
    times = [draw.randrange(10**6) for _ in range(1700)]
    for begin in range(0, 1700, 100):  # late ones in the tail as well
        part = times[begin : begin + 100]
        store.append_many([1] * 100, part, part, seconds=[3] * 100, share=[0.5] * 100)
    right = store.get(1)
    client = stores.server.client()
    keys = store._keys(1)
    contents = client.mget(keys)
    assert all(contents)
    logging.getLogger("longclock.store").setLevel(logging.CRITICAL)
    for _ in range(200):
        changed = [bytearray(content) for content in contents]
        hits = draw.choice([1, 1, 5])
        for _ in range(hits):
            value = draw.choice(changed)
            value[draw.randrange(len(value))] ^= 1 << draw.randrange(8)
        client.mset(dict(zip(keys, map(bytes, changed), strict=True)))
        with pytest.raises(DamagedHistoryError):
            store.get(1)
        left = skips.get(1)
        assert set(pairs(left)) <= set(pairs(right))
        assert len(left.item) >= len(right.item) - hits
        assert torch.equal(left.columns["share"], torch.full((len(left.item),), 0.5))
    logging.getLogger("longclock.store").setLevel(logging.NOTSET)
    client.mset(dict(zip(keys, contents, strict=True)))
    assert pairs(store.get(1)) == pairs(right)


@of_redis
def test_something_else_at_the_keys(stores):
    store = stores()
    client = stores.server.client()
    client.rpush(store._keys("ada")[0], "x")
    with pytest.raises(DamagedHistoryError, match="something else lies at its keys"):
        store.append("ada", 1, 1)
