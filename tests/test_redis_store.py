# SPDX-License-Identifier: Apache-2.0
"""What only the store in Redis has: a server that may not be durable, may forbid questions, and may go away."""

from __future__ import annotations

import pickle
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest
from stores import NO_REDIS, REDIS_SERVER, RedisProcess

from longclock.store import RedisStore, open_store
from longclock.store.redis_server import RedisServer
from longclock.store.redis_store import SCRIPT_NAME

pytestmark = pytest.mark.skipif(REDIS_SERVER is None, reason=NO_REDIS)
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def server():
    """Starts servers with other settings than the shared one's."""
    started = []

    def start(*words):
        started.append(RedisProcess(*words))
        return started[-1]

    yield start
    for process in started:
        process.stop()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--appendonly", "no"), "appendonly no and appendfsync everysec"),
        (("--appendonly", "yes"), "appendfsync everysec"),
        ((*ALWAYS, "--no-appendfsync-on-rewrite", "yes"), "no-appendfsync-on-rewrite yes"),
        ((*ALWAYS, "--maxmemory-policy", "allkeys-lru"), "maxmemory-policy allkeys-lru"),
    ],
)
def test_a_server_that_may_lose_what_it_acknowledged_is_refused(server, words, said):
    url = server(*words).url
    for durability in ("verified", "trusted"):
        with pytest.raises(ValueError, match=f"RedisStore: durability must be 'weak' for .* which has {said} and may lose") as raised:  # fmt: skip
            open_store(url, durability=durability)
        assert f"got '{durability}'" in str(raised.value)
    with open_store(url, durability="weak") as store:
        assert store.durable is False
        assert store.append(1, 2, 3)


def test_a_server_that_writes_scripts_as_transactions_is_refused(server, monkeypatch):
    asked = RedisServer._asked

    def of_an_older(self, connection, *words):
        return re.sub(rb"redis_version:[.0-9]+", b"redis_version:6.2.14", asked(self, connection, *words)) if words[0] == "INFO" else asked(self, connection, *words)  # fmt: skip

    monkeypatch.setattr(RedisServer, "_asked", of_an_older)
    url = server(*ALWAYS).url
    with pytest.raises(ValueError, match=r"which has version 6\.2\.14 and may lose .* have version 7 or later"):  # fmt: skip
        open_store(url, durability="trusted")
    with open_store(url, durability="weak") as store:
        assert store.durable is False


@pytest.mark.parametrize(
    ("forbidden", "weak"),
    [(("--rename-command", "CONFIG", ""), False), (("--user", "default", "on", "nopass", "~*", "&*", "+@all", "-config"), False),
     (("--rename-command", "CONFIG", ""), True)],
)  # fmt: skip
def test_a_server_that_does_not_tell(server, forbidden, weak):
    url = server(*(("--appendonly", "no") if weak else ALWAYS), *forbidden).url
    if weak:  # INFO tells
        with pytest.raises(ValueError, match="which has appendonly no and may lose"):
            open_store(url, durability="trusted")
        return
    with pytest.raises(ValueError, match=r"durability must be 'trusted' or 'weak' for .* which does not tell its settings"):  # fmt: skip
        open_store(url)
    with open_store(url, durability="trusted") as store:
        assert store.durable is None
        assert store.append(1, 2, 3)


def test_every_connection_asks(server):
    """A server that comes back with weaker settings gets nothing."""
    process = server(*ALWAYS)
    with open_store(process.url) as store:
        assert store.append(1, 2, 3)
        process.kill()
        process.words = ("--appendonly", "yes", "--appendfsync", "no")
        process.start()
        with pytest.raises(ValueError, match="which has appendfsync no and may lose"):
            store.append(1, 2, 4)


def test_passwords(server):
    process = server(
        *ALWAYS, "--requirepass", "se:cret", "--user", "ann", "on", ">word", "~*", "&*", "+@all"
    )
    for url, settings in (
        (process.url, {"password": "se:cret"}),
        (process.url.replace("unix://", "unix://:se%3Acret@"), {}),
        (process.url, {"username": "ann", "password": "word"}),
        (process.url.replace("unix://", "unix://ann:word@"), {}),
    ):
        with open_store(url, **settings) as store, pickle.loads(pickle.dumps(store)) as other:
            store.append(1, 2, 3)
            assert other.get(1).time.tolist() == [3]
    for settings in ({}, {"password": "hidden"}):
        with pytest.raises(PermissionError, match="RedisStore: unix:") as raised:
            open_store(process.url.replace("unix://", "unix://:hidden@"), **settings)
        assert "hidden" not in str(raised.value)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is missing")
def test_tls(server, tmp_path):
    key, certificate, port = tmp_path / "key.pem", tmp_path / "certificate.pem", free_port()
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
               "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    server(*ALWAYS, "--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key),
           "--tls-auth-clients", "no", "--requirepass", "x")  # fmt: skip
    url = f"rediss://:x@localhost:{port}"
    with open_store(f"{url}/1?ssl_ca_certs={certificate}") as store:
        assert store.append(1, 2, 3)
        assert store.get(1).time.tolist() == [3]
    with pytest.raises(ConnectionError, match="certificate"):
        open_store(url, retry_seconds=0)


def test_a_call_goes_on_when_the_server_comes_back(server):
    process = server(*ALWAYS)
    with open_store(process.url) as store:
        store.append(1, 2, 3)
        process.kill()
        back = threading.Timer(0.5, process.start)
        back.start()
        assert store.append(1, 2, 4)  # a new server has no script
        back.join()
        assert store.get(1).time.tolist() == [3, 4]


def test_a_server_that_stays_away(tmp_path):
    url = f"redis://:secret@127.0.0.1:{free_port()}/3"
    began = time.monotonic()
    with pytest.raises(ConnectionError, match=r"RedisStore: redis://127.0.0.1:\d+/3: .*refused.*; tried for 0.2 seconds"):  # fmt: skip
        open_store(url, retry_seconds=0.2)
    assert time.monotonic() - began < 10
    with pytest.raises(ValueError, match="RedisStore: url must be redis://"):
        RedisStore("http://localhost")


def test_a_call_whose_answer_is_lost_is_tried_again(redis_server, tmp_path):
    """The first was heard: nothing is there twice, and it does not count as new."""
    with open_store(redis_server.url, name=tmp_path.name) as store:
        store.append(3, 5, 1)  # the server has the script now
        client, lost = store._server._client, []

        def pipeline(*words, **options):
            made = type(client).pipeline(client, *words, **options)
            execute = made.execute

            def once(*arguments, **named):
                found = execute(*arguments, **named)
                if not lost:
                    lost.append(found)
                    raise store._server.errors.ConnectionError("lost")
                return found

            made.execute = once
            return made

        client.pipeline = pipeline
        assert store.append_many([1, 1, 2], [5, 6, 7], [1, 2, 3]) == 0
        assert lost
        assert store.get(1).item.tolist() == [5, 6]
        assert store.get(2).item.tolist() == [7]


def test_the_script_is_loaded_again(redis_server, tmp_path):
    with open_store(redis_server.url, name=tmp_path.name) as store:
        client = redis_server.client()
        for turn in range(3):
            client.script_flush()
            assert store.append_many(range(5), [turn] * 5, [turn] * 5) == 5
        assert client.script_exists(SCRIPT_NAME) == [True]


def test_two_stores_of_one_server(redis_server, tmp_path):
    first = open_store(redis_server.url, name=f"{tmp_path.name}*", capacity=5)
    second = open_store(redis_server.url, name=f"{tmp_path.name}*x", columns={"a": "int8"})
    first.append(1, 2, 3)
    second.append(7, 2, 3, a=1)
    assert (list(first.users()), list(second.users())) == ([1], [7])
    first.close()
    second.close()


def test_settings_that_are_none(redis_server, tmp_path):
    client = redis_server.client()
    key = f"{tmp_path.name}:settings"
    for other in ("x", "[]", '{"capacity": 5, "columns": {}}', '{"format": 2, "capacity": "5", "columns": {}}'):  # fmt: skip
        client.set(key, other)
        with pytest.raises(ValueError, match=r"must have the settings of a store in .*:settings, got something else"):  # fmt: skip
            open_store(redis_server.url, name=tmp_path.name)
    client.set(key, '{"format": 3, "capacity": 5, "columns": {}}')
    with pytest.raises(ValueError, match="must have format 2, which this version reads, got 3"):
        open_store(redis_server.url, name=tmp_path.name)
    client.delete(key)
    client.hset(key, mapping={"format": "1", "capacity": "5", "columns": "{}"})
    with pytest.raises(OSError, match=r"settings.*WRONGTYPE"):
        open_store(redis_server.url, name=tmp_path.name)


def test_a_server_without_memory(server):
    process = server(*ALWAYS)
    with open_store(process.url) as store:
        assert store.append(1, 2, 3)
        client = process.client()
        client.config_set("maxmemory", "1")
        with pytest.raises(OSError, match="maxmemory"):
            store.append(1, 2, 4)
        client.config_set("maxmemory", "0")
        assert store.append(1, 2, 4)
        assert store.get(1).time.tolist() == [3, 4]
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(OSError, match="read only replica"), RedisStore(process.url, retry_seconds=0.1) as other:  # fmt: skip
            other.append(1, 2, 5)


def test_an_append_writes_little(server):
    """At any length, and however late."""
    process = server(*ALWAYS)

    def written():
        return sum(path.stat().st_size for path in process.folder.glob("appendonlydir/*"))

    with open_store(process.url, capacity=10_000) as store:
        store.append_many([1] * 12_000, [0] * 12_000, range(0, 24_000, 2))
        before = written()
        for turn in range(600):
            store.append(1, 0, 30_000 + turn)
        assert (written() - before) / 600 < 2_000
        before = written()
        for turn in range(600):
            store.append(1, 0, 29_001 - 2 * turn)
        assert (written() - before) / 600 < 12_000
        assert len(store.get(1).item) == 10_000


def test_no_change_is_a_transaction_in_the_log(server):
    """A server that is killed while it writes one may keep half of it, and then loses all that follows."""
    process = server(*ALWAYS)
    with open_store(process.url, capacity=1000) as store:
        store.append(1, 2, 10**6)
        store.append(1, 2, 10**6 + 1)
        store.append(1, 2, 5)  # late
        for turn in range(3):  # full tails, and more than the capacity
            store.append_many([1] * 700, range(700), [2 * 10**6 + turn] * 700)
        store.append_many([1, 2, 3], [1, 1, 1], [9, 9, 9])
        store.trim(1, keep=50)
        store.trim(2, keep=0)
        process.client().setrange(store._keys(1)[0], 40, b"damage")
        assert store.repair(1)
        store.delete(3)
    log = b"".join(path.read_bytes() for path in process.folder.glob("appendonlydir/*.incr.aof"))
    assert all(command in log for command in (b"SETRANGE", b"MSET", b"DEL"))
    assert b"MULTI" not in log


def test_a_log_that_ends_anywhere(server):
    """As a kill leaves it: what was acknowledged before is there, what comes afterwards is kept."""
    process = server(*ALWAYS)
    with open_store(process.url, capacity=1000) as store:
        store.append_many([1] * 600, range(600), [5] * 600)
        for time_ in (10, 11, 7):
            store.append(1, 2, time_)
        process.kill()
        (log,) = process.folder.glob("appendonlydir/*.incr.aof")
        whole = log.read_bytes()
        begin = whole.rindex(b"*4")
        for end in range(begin, len(whole), 7):
            log.write_bytes(whole[:end])
            process.start()
            assert store.get(1).time.tolist() == [5] * 600 + [10, 11]
            store.append(2, 1, end)
            store.append(1, 3, 12)
            process.kill()
            process.start()
            assert store.get(1).time.tolist() == [5] * 600 + [10, 11, 12]
            assert store.get(2).time.tolist() == [end]
            process.kill()
