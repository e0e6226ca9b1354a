# SPDX-License-Identifier: Apache-2.0
"""Histories in Redis: what several machines share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import Any, Literal

from longclock._keywords import named_keywords
from longclock.store.arguments import check_settings, check_trim, user_of
from longclock.store.behaviour_store import CAPACITY, Appended, BehaviourStore, OnDamage
from longclock.store.group_commit import GroupCommit
from longclock.store.records import Array, Columns, DamagedHistoryError, User, user_key
from longclock.store.redis_layout import CheckedRecords
from longclock.store.redis_server import DURABILITIES, Durability, RedisServer

FORMAT = 2
TAIL_BYTES = 512 * 20  # of a tail's records, at most: a full one is merged into the body
USERS_AT_A_TIME = 1000
SCRIPT = resources.files("longclock.store").joinpath("append.lua").read_text(encoding="utf-8")
SCRIPT_NAME = hashlib.sha1(SCRIPT.encode()).hexdigest()  # as the server names it


class RedisStore(BehaviourStore):
    """Histories in a Redis server of version 7 or later, or one that speaks as it does.

    A history is two values, whose keys have one hash tag: the body, and a tail of up to 512 behaviours that is merged into it.
    One script appends, puts late behaviours in their place, drops those that are there and trims: of each user of a call, all or
    none. Every behaviour has a check of 32 bits, and the history their number and sum. Threads that append at one time share a
    round trip. After a lost connection a call is tried again, which changes nothing where the first was heard; what it stored
    does then not count as new.

    What is appended is durable if the server writes it to its disk before it answers. Every new connection asks whether it does
    (``CONFIG GET``: appendonly yes, appendfsync always, no-appendfsync-on-rewrite no, a maxmemory-policy that evicts nothing).
    Every change is one command, which the server's log has whole or not at all; servers before version 7 write each script as
    a transaction there, and do not count as durable. A replica that takes over may lack what the server before it had
    acknowledged: replication does not wait.

    Args:
        url: redis://[user:password@]host[:port][/db], rediss:// with TLS, or unix:///path; what the package redis takes as
            parameters of a URL may follow (?ssl_ca_certs=ca.pem).
        capacity, columns, on_damage: as of :class:`SQLiteStore`. With "skip" only the behaviours that are damaged are left out.
        username, password: where the URL has none.
        durability: "verified": a server that does not say that it is durable is refused. "trusted": one that says nothing, since
            it forbids CONFIG GET as managed ones do, is taken. "weak": any server is. :attr:`durable` is what it said: True,
            False, or None where it does not tell.
        retry_seconds: how long a call goes on where the server cannot be reached.
        name: keys begin with it; stores of several names share a database.
    Raises:
        ValueError: an argument that does not fit, a server that is refused, or a store that was made with other settings.
        OSError: a server that cannot be reached (ConnectionError), refuses (PermissionError), or cannot write.
        ModuleNotFoundError: the package redis is missing.

    Example::

        >>> from longclock.store import RedisStore
        >>> with RedisStore("redis://localhost:6379") as store:  # doctest: +SKIP
        ...     store.append(user="ada", item=7, time=1_700_000_000)
        ...     store.get("ada").item
        True
        tensor([7])
    """

    @named_keywords()
    def __init__(
        self,
        url: str,
        *,
        capacity: int | None = None,
        columns: Columns | None = None,
        on_damage: OnDamage = "raise",
        username: str | None = None,
        password: str | None = None,
        durability: Durability = "verified",
        retry_seconds: float = 30.0,
        name: str = "longclock",
    ) -> None:
        check_settings("RedisStore", capacity, columns, on_damage)
        _check(url, durability, retry_seconds, name)
        self.on_damage, self.name = on_damage, name
        self._server = RedisServer("RedisStore", url, username, password, durability, retry_seconds)
        try:
            found = self._server.call(lambda client: self._settings(client, capacity, columns))
            self._settle(found, capacity, columns)
        except BaseException:
            self._server.close()
            raise
        self._records: CheckedRecords = CheckedRecords(found["columns"])
        self._commits: GroupCommit[Appended, int] = GroupCommit(self._commit)

    @property
    def durable(self) -> bool | None:
        """Whether the server said that it has on its disk what it acknowledges; None: it does not tell."""
        return self._server.durable

    def __reduce__(self) -> Any:
        server = self._server
        settings = {
            "on_damage": self.on_damage, "username": server.username, "password": server.password,
            "durability": server.durability, "retry_seconds": server.retry_seconds, "name": self.name,
        }  # fmt: skip
        return _reopened, (server.url, settings)

    def close(self) -> None:
        self._server.close()

    def _settings(
        self, client: Any, capacity: int | None, columns: Columns | None
    ) -> dict[str, Any]:
        """What the store was made with; makes it where there is none."""
        settings = {
            "format": FORMAT, "capacity": capacity or CAPACITY, "columns": dict(columns or {})
        }  # fmt: skip
        key = f"{self.name}:settings"
        with client.pipeline(transaction=False) as together:
            together.set(key, json.dumps(settings), nx=True)
            together.get(key)
            found = together.execute()[-1]
        try:
            made_with = json.loads(found)
            format_ = made_with["format"]
            check_settings("RedisStore", made_with["capacity"], made_with["columns"], "raise")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"RedisStore: {self._server.shown} must have the settings of a store in {key}, got something else or damaged ones "
                f"({error}); give another name, or put a backup in its place"
            ) from error
        if format_ != FORMAT:
            raise ValueError(
                f"RedisStore: {key} must have format {FORMAT}, which this version reads, got {format_}"
            )
        return made_with

    def _keys(self, user: User) -> tuple[bytes, bytes]:
        tag = self.name.encode() + b":{" + user_key(user) + b"}:"
        return tag + b"body", tag + b"tail"

    # Reading.

    def _read(self, users: Sequence[User]) -> list[Array]:
        def values(client: Any) -> list[Any]:
            if len(users) == 1:
                return [client.mget(self._keys(users[0]))]
            with client.pipeline(transaction=False) as together:
                for user in users:
                    together.mget(self._keys(user))
                found: list[Any] = together.execute()
                return found

        found = self._server.call(values)
        return [
            self._all(user, *pair)[-self.capacity :]
            for user, pair in zip(users, found, strict=True)
        ]

    def _all(self, user: User, body: bytes | None, tail: bytes | None) -> Array:
        """Also those beyond the capacity."""
        records, damaged = self._records.found(user, body, tail)
        for chunk, reason in damaged:
            self._damaged(user, chunk, reason)
        return records

    def users(self) -> Iterator[User]:
        begin = f"{self.name}:{{"
        escaped = "".join(f"\\{letter}" if letter in "*?[]^-\\" else letter for letter in begin)
        cursor, seen = 0, set[bytes]()
        while True:
            at = cursor
            cursor, keys = self._server.call(
                lambda client: client.scan(at, match=f"{escaped}*", count=USERS_AT_A_TIME)  # noqa: B023
            )
            for key in keys:
                name = key[len(begin.encode()) : -len(b"}:body")]
                if name not in seen:
                    seen.add(name)
                    yield int(name[1:]) if name[:1] == b"i" else name[1:].decode()
            if cursor == 0:
                return

    # Writing.

    @property
    def atomic(self) -> Literal["call", "user"]:
        return "user"

    def _append(self, appended: Appended) -> int:
        return self._commits.submit(appended)

    def _commit(self, calls: Sequence[Appended]) -> list[int | BaseException]:
        users = [(n, user) for n, call in enumerate(calls) for user in call.users]
        records = [records for call in calls for records in call.records]
        commands = [
            ("EVALSHA", SCRIPT_NAME, 2, *self._keys(user), self._records.size, TAIL_BYTES, self.capacity,
             self._records.stamped(user, new))
            for (_, user), new in zip(users, records, strict=True)
        ]  # fmt: skip
        replies = self._server.call(lambda client: _replies(client, commands))
        results: list[int | BaseException] = [0] * len(calls)
        for (number, user), reply in zip(users, replies, strict=True):
            before = results[number]
            if isinstance(before, BaseException):
                continue
            results[number] = (
                self._error_of(user, reply) if isinstance(reply, Exception) else before + reply
            )
        return results

    def _error_of(self, user: User, reply: Exception) -> Exception:
        kind, _, text = str(reply).partition(" ")
        if kind == "DAMAGED":
            return DamagedHistoryError(self._name, user, None, text)
        if kind == "WRONGTYPE":
            return DamagedHistoryError(self._name, user, None, "something else lies at its keys")
        return OSError(f"{self._name}: {self._server.shown}: {reply}")

    def trim(self, user: User, *, keep: int | None = None, before: int | None = None) -> int:
        user = user_of(f"{self._name}.trim", user)
        check_trim(f"{self._name}.trim", keep, before)

        def trimmed(body: bytes | None, tail: bytes | None) -> tuple[Array | None, int]:
            records = self._all(user, body, tail)
            kept = self._records.trimmed(records, keep, before)
            return (kept if len(kept) < len(records) else None), len(records) - len(kept)

        return self._changed(user, trimmed)

    def repair(self, user: User) -> int:
        user = user_of(f"{self._name}.repair", user)

        def repaired(body: bytes | None, tail: bytes | None) -> tuple[Array | None, int]:
            records, damaged = self._records.found(user, body, tail)
            return (records if damaged else None), len(damaged)

        return self._changed(user, repaired)

    def _changed(
        self, user: User, change: Callable[[bytes | None, bytes | None], tuple[Array | None, int]]
    ) -> int:
        """Puts other records in the place of a user's, unless they are None, as they were when nobody else wrote."""
        body_key, tail_key = self._keys(user)

        def tried(client: Any) -> int:
            with client.pipeline() as together:
                together.watch(body_key, tail_key)
                records, count = change(*together.mget(body_key, tail_key))
                together.multi()
                if records is not None and len(records):
                    totals = self._records.totals(records)
                    together.mset({body_key: records.tobytes(), tail_key: totals})
                elif records is not None:
                    together.delete(body_key, tail_key)
                together.execute()
                return count

        def unless_others_write(client: Any) -> int:
            while True:
                try:
                    return tried(client)
                except self._server.errors.WatchError:
                    continue

        return self._server.call(unless_others_write)

    def delete(self, user: User) -> bool:
        user = user_of(f"{self._name}.delete", user)
        return bool(self._server.call(lambda client: client.delete(*self._keys(user))))


def _replies(client: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Of each command, or its error. The script goes to a server that does not have it, as one that was started anew."""
    replies: dict[int, Any] = {}
    waiting = list(range(len(commands)))
    while waiting:
        with client.pipeline(transaction=False) as together:
            for place in waiting:
                together.execute_command(*commands[place])
            replies.update(zip(waiting, together.execute(raise_on_error=False), strict=True))
        waiting = [place for place in waiting if type(replies[place]).__name__ == "NoScriptError"]
        if waiting:
            client.script_load(SCRIPT)
    return [replies[place] for place in range(len(commands))]


def _check(url: Any, durability: Any, retry_seconds: Any, name: Any) -> None:
    if not isinstance(url, str):
        raise ValueError(f"RedisStore: url must be a text, got {url!r}")
    if durability not in DURABILITIES:
        raise ValueError(
            f"RedisStore: durability must be 'verified', 'trusted' or 'weak', got {durability!r}"
        )
    if isinstance(retry_seconds, bool) or not isinstance(retry_seconds, int | float) or not retry_seconds >= 0:  # fmt: skip
        raise ValueError(f"RedisStore: retry_seconds must be at least 0, got {retry_seconds!r}")
    if not isinstance(name, str) or not name or set(name) & set("{}"):
        raise ValueError(f"RedisStore: name must be a text without braces, got {name!r}")


def _reopened(url: str, settings: dict[str, Any]) -> RedisStore:
    return RedisStore(url, **settings)
