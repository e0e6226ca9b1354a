# SPDX-License-Identifier: Apache-2.0
"""What a store refuses, and how it says so: op, argument, what it must be, what it got."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from longclock._extras import SERVE_EXTRA
from longclock.store import RedisStore, SQLiteStore, open_store

APPENDS = [
    ({"user": 1.5}, "user must be an int of 64 bits or a text, got 1.5 of type float"),
    ({"user": True}, "user must be an int of 64 bits or a text, got True of type bool"),
    ({"user": 2**63}, "user must be an int of 64 bits or a text, got 9223372036854775808 of type int"),
    ({"user": b"ada"}, "user must be an int of 64 bits or a text, got b'ada' of type bytes"),
    ({"user": "\ud800"}, "user must be a text of Unicode, got '\\ud800'"),
    ({"item": 1.0}, "item must be integers of 64 bits, got [1.0]"),
    ({"item": 2**63}, "item must be integers of 64 bits, got [9223372036854775808]"),
    ({"time": None}, "time must be integers of 64 bits, got [None]"),
    ({"time": "now"}, "time must be integers of 64 bits, got ['now']"),
    ({"seconds": 3_000}, "column 'seconds' must be int8, got 3000, which that does not hold"),
    ({"seconds": 0.5}, "column 'seconds' must be int8, got 0.5, which that does not hold"),
    ({"seconds": float("nan")}, "column 'seconds' must be int8, got nan, which that does not hold"),
    ({"seconds": "x"}, "column 'seconds' must be int8, got ['x']"),
    ({"action": 1}, "columns must be those of the store, seconds, got seconds, action"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "said"), APPENDS)
def test_append(stores, wrong, said):
    store = stores(columns={"seconds": "int8"})
    with pytest.raises(ValueError) as raised:
        store.append(**{"user": 1, "item": 2, "time": 3, "seconds": 4, **wrong})
    assert str(raised.value).startswith(f"{type(store).__name__}.append: {said}")
    assert list(store.users()) == []


def test_append_many(stores):
    store = stores()
    name = type(store).__name__
    for items, times in ([1], [1, 2]), ([1, 2], [[1, 2]]):
        with pytest.raises(ValueError, match=f"{name}.append: .* must have one value for each of 2 behaviours, got shape"):  # fmt: skip
            store.append_many([7, 8], items, times)
    with pytest.raises(ValueError, match="user must be"):
        store.append_many([7, None], [1, 2], [1, 2])
    with pytest.raises(ValueError, match="item must be integers"):
        store.append_many([7], torch.ones(1), [1])
    with pytest.raises(ValueError, match="item must be integers"):
        store.append_many([7], np.array([2**63], np.uint64), [1])
    with pytest.raises(ValueError, match="columns must be those of the store, none, got x"):
        store.append_many([7], [1], [1], x=[1])
    assert list(store.users()) == []
    assert store.append_many(np.array([7]), np.array([1], np.uint8), torch.tensor([1])) == 1
    assert store.append(np.int32(7), np.int64(2), np.int16(1))


def test_reading(stores):
    store = stores()
    name = type(store).__name__
    for before in (1.5, "now", True, [None]):
        with pytest.raises(ValueError, match=f"{name}.get: before must be a time in whole seconds, got"):  # fmt: skip
            store.get(1, before)
    with pytest.raises(ValueError, match=f"{name}.read_many: before must be one time, or one for each of 2 users, got 3"):  # fmt: skip
        store.read_many([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=f"{name}.get_many: tables must be a tensor"):
        store.get_many([1], torch.randn(3))
    with pytest.raises(ValueError, match=f"{name}.read_many: user must be"):
        store.read_many([1, 2.5])
    for users in ("ada", 7, None):
        with pytest.raises(ValueError, match=f"{name}.read_many: users must be a list of users, got"):  # fmt: skip
            store.read_many(users)
    assert store.read_many(torch.tensor([1, 2]))[2].tolist() == [0, 0, 0]
    for method in ("trim", "delete", "repair"):
        with pytest.raises(ValueError, match=f"{name}.{method}: user must be"):
            getattr(store, method)(None)
    with pytest.raises(ValueError, match=f"{name}.trim: keep must be at least 0, got -1"):
        store.trim(1, keep=-1)
    with pytest.raises(ValueError, match=f"{name}.trim: before must be a time in whole seconds"):
        store.trim(1, before=1.0)


SETTINGS = [
    ({"capacity": 0}, "capacity must be at least 1, got 0"),
    ({"capacity": 1.0}, "capacity must be an int, got float"),
    ({"on_damage": "ignore"}, "on_damage must be 'raise' or 'skip', got 'ignore'"),
    ({"columns": ["x"]}, r"columns must be a dict from names to dtypes, got \['x'\]"),
    ({"columns": {"item": "int8"}}, "columns must have names that are identifiers other than user, item and time, got 'item'"),
    ({"columns": {"a b": "int8"}}, "columns must have names that are identifiers"),
    ({"columns": {"a": "uint8"}}, "column 'a' must be one of int8, int16, int32, int64, float32, float64, got 'uint8'"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "said"), SETTINGS)
def test_settings(stores, wrong, said):
    with pytest.raises(ValueError, match=said):
        stores(**wrong)


REDIS = [
    ({"durability": "yes"}, "durability must be 'verified', 'trusted' or 'weak', got 'yes'"),
    ({"retry_seconds": -1}, "retry_seconds must be at least 0, got -1"),
    ({"retry_seconds": "1"}, "retry_seconds must be at least 0, got '1'"),
    ({"name": "a{b}"}, "name must be a text without braces, got 'a{b}'"),
]


@pytest.mark.parametrize(("wrong", "said"), REDIS)
def test_settings_of_redis(wrong, said):
    pytest.importorskip("redis", reason="redis is missing: pip install redis")
    with pytest.raises(ValueError, match=f"RedisStore: {said}"):
        RedisStore("redis://localhost", **wrong)


def test_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url, path in (
        ("sqlite:///a.db", "a.db"),
        (f"sqlite:///{tmp_path}/b.db", "b.db"),
        ("c.db", "c.db"),
        (tmp_path / "d.db", "d.db"),
    ):
        with open_store(url) as store:
            assert isinstance(store, SQLiteStore)
            assert store.path == tmp_path / path
    for url in ("mysql://localhost/x", "sqlite://a.db", "sqlite:///"):
        with pytest.raises(ValueError, match="open_store: url must be sqlite:///path, a plain path, redis://"):  # fmt: skip
            open_store(url)


def test_without_the_package_redis():
    program = """
import sys
sys.modules["redis"] = None
from longclock.store import open_store
open_store("redis://localhost")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        f"ModuleNotFoundError: longclock.store.RedisStore needs redis: {SERVE_EXTRA}"
    )
