# SPDX-License-Identifier: Apache-2.0
"""How histories lie in an SQLite file."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np

from longclock.store.records import KEY, TAIL, Array, User, key_of, time_of

FORMAT = 2
CHUNK_BYTES = 512 * 16  # of records, at most
# Behaviours that come in order fill a chunk so far: late ones then find room before it must be split.
FULL_BYTES = CHUNK_BYTES * 15 // 16
# A chunk has room for more than it holds. While its size stays the same, SQLite writes the pages alone in which bytes have
# changed, in their places: those from the new behaviour on, and the last, which has the checksum.
ROOM_STEP = 64  # behaviours
# A history's number of chunks lies in a table of its own, in other pages: it tells that some, or all, have been lost.
SCHEMA = """
create table setting (name text primary key, value) without rowid;
create table chunk (user, first blob, records blob, primary key (user, first)) without rowid;
create table history (user primary key, chunks integer) without rowid
"""
HISTORY = (
    "select * from (select first, records from chunk where user = ?1 order by first) "
    "union all select null, chunks from history where user = ?1"
)
CHUNK_OF = (
    "select first, records from chunk where user = ? and first <= ? order by first desc limit 1"
)
FIRST_CHUNK = "select first, records from chunk where user = ? order by first limit 1"
LAST_FIRST = "select max(first) from chunk where user = ?"
WRITE_CHUNK = "insert into chunk values (?, ?, ?) on conflict (user, first) do update set records = excluded.records"
TAILS = f"select first, substr(records, -{TAIL.size}) from chunk where user = ? order by first"
COUNT_CHUNKS = "insert into history values (?, ?) on conflict (user) do update set chunks = chunks + excluded.chunks"
USER_BEHIND = (
    "select min(user) from (select min(user) as user from history where user > ?1 "
    "union all select min(user) from chunk where user > ?1)"
)
BEFORE_ALL = float("-inf")  # of users


def outside_of_damage(connection: sqlite3.Connection, user: User) -> list[tuple[Any, Any]]:
    """Chunks that lie before a page that cannot be read, and behind it."""
    found: list[list[tuple[Any, Any]]] = [[], []]
    for part, direction in zip(found, ("", "desc"), strict=True):
        try:
            part.extend(
                connection.execute(
                    f"select first, records from chunk where user = ? order by first {direction}",
                    (user,),
                )
            )
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError):
                raise
    forward, backward = found
    known = {first for first, _ in forward}
    return forward + [each for each in reversed(backward) if each[0] not in known]


def time_of_chunk(first: Any) -> int | None:
    return time_of(first) if isinstance(first, bytes) and len(first) >= KEY else None


def end_in(connection: sqlite3.Connection, user: User, row: Any, new: Array, at: int) -> int:
    """Where, from ``at`` on, those that belong into a chunk end, and those that belong behind it begin."""
    if row is None or at + 1 == len(new):
        return len(new)
    key = max(row[0], key_of(new[at]))
    next_first = connection.execute(
        "select min(first) from chunk where user = ? and first > ?", (user, key)
    ).fetchone()[0]
    if next_first is None:
        return len(new)
    return at + sum(key_of(record) < next_first for record in new[at:])


def parts_of(records: Array, behind_all: bool) -> list[Array]:
    """Chunks of records that may be too many for one: full ones where nothing comes after them, else of equal size."""
    size = records.dtype.itemsize
    if behind_all:
        full = FULL_BYTES // size
        return [records[at : at + full] for at in range(0, len(records), full)]
    most = CHUNK_BYTES // size
    if len(records) <= most:
        return [records]
    return np.array_split(records, -(-len(records) // (most * 3 // 4)))


def room_of(records: Array) -> int:
    """Bytes of the records of a chunk with its room: steps of powers of two, then of so many behaviours."""
    count, size = len(records), records.dtype.itemsize
    step = ROOM_STEP if count > ROOM_STEP else max(4, 1 << (count - 1).bit_length())
    return min(-(-count // step) * step * size, CHUNK_BYTES // size * size)
