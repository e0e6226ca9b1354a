# SPDX-License-Identifier: Apache-2.0
"""The connections of one process to a Redis server, and whether that keeps what it says that it has."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from longclock._extras import SERVE_EXTRA, imported_for
from longclock.store.forks import heed_forks

Durability = Literal["verified", "trusted", "weak"]
DURABILITIES = ("verified", "trusted", "weak")
# What makes a server wait for its disk before it answers, and forget nothing by itself.
DURABLE: dict[str, Callable[[str], bool]] = {
    "appendonly": lambda value: value == "yes",
    "appendfsync": lambda value: value == "always",
    "no-appendfsync-on-rewrite": lambda value: value == "no",
    "maxmemory-policy": lambda value: value == "noeviction" or value.startswith("volatile-"),
}
# Before it, each script that writes is a transaction in the log, which a kill may leave open: what follows is then lost.
FIRST_VERSION = 7
VERSION = re.compile(rb"\bredis_version:((\d+)[.\d]*)")
FIRST_WAIT, LONGEST_WAIT = 0.01, 1.0  # seconds between two tries
ANSWER_SECONDS = 30.0  # for a server to answer
READ_BYTES = 1 << 18  # at a time: a history
Result = TypeVar("Result")


def redis_module() -> Any:
    with imported_for("longclock.store.RedisStore", SERVE_EXTRA):
        import redis
    return redis


class RedisServer:
    """Redis at a URL.

    Every new connection asks the server for its settings, since one that was started anew may have others.
    """

    def __init__(
        self,
        op: str,
        url: str,
        username: str | None,
        password: str | None,
        durability: Durability,
        retry_seconds: float,
    ) -> None:
        self._redis = redis_module()
        self.errors = self._redis.exceptions
        self.op, self.url, self.durability = op, url, durability
        self.retry_seconds = retry_seconds
        self.username, self.password = username, password
        self.durable: bool | None = None  # None: it does not tell
        self.shown = without_password(url)
        self._closed = False
        self._start()
        heed_forks(self)

    def _start(self) -> None:
        given = {"username": self.username, "password": self.password}
        try:
            self._client = self._redis.Redis.from_url(
                self.url,
                protocol=2,
                retry=self._redis.retry.Retry(
                    self._redis.backoff.NoBackoff(), 0
                ),  # call() tries again
                redis_connect_func=self._connected,
                socket_read_size=READ_BYTES,
                **{"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS},
                **{name: value for name, value in given.items() if value is not None},
            )
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self.op}: url must be redis://[user:password@]host[:port][/db], rediss://... or unix:///path, got "
                f"{self.shown!r} ({error})"
            ) from None

    def before_fork(self) -> None:
        """Other threads may go on: nothing is shared but sockets, which the child does not use."""

    def after_fork(self, in_child: bool) -> None:
        if in_child:
            self._start()

    def close(self) -> None:
        self._closed = True
        self._client.close()

    def call(self, work: Callable[[Any], Result]) -> Result:
        """Does it, again where the connection was lost: work must come to the same if it is done twice.

        Raises:
            OSError: the server cannot be reached for ``retry_seconds``, or refuses; PermissionError, ConnectionError if so.
        """
        if self._closed:
            raise ValueError(f"{self.op}: {self.shown} is closed; open it again")
        errors = self.errors
        until, wait = time.monotonic() + self.retry_seconds, FIRST_WAIT
        while True:
            try:
                return work(self._client)
            except (errors.AuthenticationError, errors.NoPermissionError) as error:
                raise PermissionError(f"{self.op}: {self.shown}: {error}") from error
            except (errors.ConnectionError, errors.TimeoutError, errors.ReadOnlyError) as error:
                if isinstance(error.__cause__, _Weak):
                    raise error.__cause__.refusal from None
                if time.monotonic() + wait > until:
                    raise ConnectionError(
                        f"{self.op}: {self.shown}: {error}; tried for {self.retry_seconds:g} seconds"
                    ) from error
            except errors.ResponseError as error:
                raise OSError(f"{self.op}: {self.shown}: {error}") from error
            time.sleep(wait * random.uniform(0.5, 1))
            wait = min(2 * wait, LONGEST_WAIT)

    # Settings of the server.

    def _connected(self, connection: Any) -> None:
        connection.on_connect()
        self.durable, reason = self._tells(connection)
        accepted = {"verified": (True,), "trusted": (True, None), "weak": (True, None, False)}
        if self.durable not in accepted[self.durability]:
            refusal = ValueError(self._refusal(reason))
            raise self.errors.ConnectionError(str(refusal)) from _Weak(refusal)

    def _refusal(self, reason: str) -> str:
        head = f"{self.op}: durability must be"
        if self.durable is None:
            return (
                f"{head} 'trusted' or 'weak' for {self.shown}, which does not tell its settings ({reason}), got {self.durability!r}; "
                "give 'trusted' if whoever runs it says that it writes to its disk before it answers (appendonly yes, "
                "appendfsync always)"
            )
        return (
            f"{head} 'weak' for {self.shown}, which has {reason} and may lose what it has acknowledged, got {self.durability!r}; "
            f"have version {FIRST_VERSION} or later started with appendonly yes, appendfsync always, no-appendfsync-on-rewrite no and "
            "maxmemory-policy noeviction, or give 'weak'"
        )

    def _tells(self, connection: Any) -> tuple[bool | None, str]:
        """Whether what the server acknowledges is on its disk; and what speaks against it, or why it does not tell."""
        weak = []
        try:
            for name, is_durable in DURABLE.items():
                found = self._asked(connection, "CONFIG", "GET", name)
                value = found[1].decode() if len(found) == 2 else None
                if value is None and name != "no-appendfsync-on-rewrite":
                    return None, f"CONFIG GET {name} is empty"
                if value is not None and not is_durable(value):
                    weak.append(f"{name} {value}")
            version = VERSION.search(self._asked(connection, "INFO", "server"))
            if version is not None and int(version[2]) < FIRST_VERSION:
                weak.append(f"version {version[1].decode()}")
        except self.errors.ResponseError as error:
            reason = f"CONFIG GET and INFO: {error}"
            try:
                if b"aof_enabled:0" in self._asked(connection, "INFO", "persistence"):
                    return False, "appendonly no"
            except self.errors.ResponseError:
                pass
            return None, reason
        return not weak, " and ".join(weak)

    def _asked(self, connection: Any, *words: str) -> Any:
        connection.send_command(*words)
        return connection.read_response()


class _Weak(Exception):
    """The settings of a server are not what is asked for."""

    def __init__(self, refusal: ValueError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def without_password(url: str) -> str:
    """For messages."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
