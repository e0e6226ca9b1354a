# SPDX-License-Identifier: Apache-2.0
"""Stores for tests: an SQLite file, and a Redis server of their own."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from longclock.store import BehaviourStore, open_store

REDIS_SERVER = shutil.which("redis-server")
NO_REDIS = "redis-server is missing: apt-get install redis-server"
START_SECONDS = 30.0


class RedisProcess:
    """A server on a Unix socket, whose data stay when it is killed."""

    def __init__(self, *words: str) -> None:
        # A socket's name may have 107 bytes, fewer than pytest's folders.
        self.folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self.socket = self.folder / "socket"
        self.words = words or ("--appendonly", "yes", "--appendfsync", "always")
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        assert REDIS_SERVER is not None, NO_REDIS
        self.socket.unlink(missing_ok=True)
        log = (self.folder / "log").open("ab")
        words = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", *self.words]
        self.process = subprocess.Popen(
            [REDIS_SERVER, "--dir", str(self.folder), *words], stdout=log, stderr=log
        )
        log.close()
        until = time.monotonic() + START_SECONDS
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, "redis-server does not start"
            time.sleep(0.005)

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
                probe.sendall(b"PING\r\n")
                return bool(probe.recv(1))
            except OSError:
                return False

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def client(self) -> Any:
        import redis

        return redis.Redis(unix_socket_path=str(self.socket))


class Stores:
    """Makes stores of one kind, each empty unless it has the name of one before it."""

    def __init__(self, kind: str, folder: Path, server: RedisProcess | None) -> None:
        self.kind, self.folder, self.server = kind, folder, server
        self.made: list[BehaviourStore] = []

    def __call__(self, name: str = "histories", **settings: Any) -> Any:
        if self.kind == "redis":
            assert self.server is not None
            settings = {"name": f"{self.folder.name}-{name}", **settings}
            store = open_store(self.server.url, **settings)
        else:
            store = open_store(self.folder / f"{name}.db", **settings)
        self.made.append(store)
        return store

    def close(self) -> None:
        for store in self.made:
            store.close()
