# SPDX-License-Identifier: Apache-2.0
"""Stores in several threads and processes, however these came to be."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sqlite3
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

SECONDS = 60


def times(store, user):
    return store.get(user).time.tolist()


def append_hundred(store, number):
    """What a process does; whether all was new."""
    new = [store.append(number % 2, number, time) for time in range(100)]
    return all(new) and set(range(100)) <= set(times(store, number % 2))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_processes(stores, method):
    store = stores()
    store.append(0, -1, 5)  # connections are open
    processes = 4 if method == "fork" else 2
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        done = [pool.submit(append_hundred, store, number) for number in range(processes)]
        assert all(future.result(SECONDS) for future in done)
    assert sorted(len(store.get(user).item) for user in (0, 1)) == [
        50 * processes,
        50 * processes + 1,
    ]
    assert store.append(0, -1, 6)


def test_threads(stores):
    store = stores()

    def work(number):
        new = sum(store.append(turn % 3, number % 5, turn) for turn in range(30))
        return new, [len(times(store, user)) for user in range(3)]

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(work, range(20)))
    assert sum(new for new, _ in results) == 5 * 30  # four threads appended each behaviour
    assert [len(times(store, user)) for user in range(3)] == [50] * 3


def test_a_reader_beside_writers_sees_whole_calls_in_order(stores):
    store = stores()
    stop = threading.Event()

    def write(number):
        turn = 0
        while not stop.is_set():
            at = 4 * turn + number
            store.append_many([number] * 3 + [9], [1, 2, 3, number], [at, at, at - 30, at])
            turn += 1
        return turn

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, number) for number in range(2)]
        until = time.monotonic() + 2
        while time.monotonic() < until:
            item, when, offsets = store.read_many([0, 1, 9])
            begins = offsets.tolist()
            both = []
            for user in range(2):
                at = slice(begins[user], begins[user + 1])
                assert len(item[at]) % 3 == 0  # of each user all or none
                assert (when[at].diff() >= 0).all()
                both += when[at][item[at] == 1].tolist()
            if store.atomic == "call":
                assert sorted(both) == sorted(when[begins[2] :].tolist())
        stop.set()
        turns = [writer.result() for writer in writers]
    assert min(turns) > 3
    assert len(store.get(9).item) == sum(turns)


def fork(work):
    child = os.fork()
    if child == 0:
        status = 70
        try:
            signal.alarm(SECONDS)
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return child


def status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_forks_amid_appends(stores):
    """While threads append, and each child appends and reads as well."""
    store = stores()
    stop = threading.Event()

    def write(number):
        turn = 0
        while not stop.is_set():
            assert store.append(number, number, turn)
            turn += 1
        return turn

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, number) for number in range(4)]
        children = []
        for number in range(12):
            children.append(fork(lambda: store.append("child", number, number) and times(store, 0) is not None))  # noqa: B023  # fmt: skip
            time.sleep(0.02)
        assert [status(child) for child in children] == [0] * 12
        stop.set()
        turns = [writer.result(SECONDS) for writer in writers]
    assert [len(times(store, number)) for number in range(4)] == turns
    assert times(store, "child") == list(range(12))


def test_processes_that_make_a_store_at_once(stores):
    for turn in range(8):
        begin = time.time() + 0.03

        def work(number):
            while time.time() < begin:  # noqa: B023
                pass
            return stores(f"{turn}", capacity=50).append(number, 1, 1)  # noqa: B023

        children = [fork(lambda: work(number)) for number in range(6)]  # noqa: B023
        assert [status(child) for child in children] == [0] * 6
        assert sorted(stores(f"{turn}").users()) == list(range(6))


@pytest.mark.parametrize("stores", ["sqlite"], indirect=True)
def test_a_child_keeps_what_it_appends_when_its_parent_closes(stores):
    """The parent's last connection takes the log away, unless the child really has the file open."""
    store = stores()
    store.append(1, 0, 0)
    ready, done = os.pipe(), os.pipe()

    def work():
        store.append(1, 1, 1)
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        return store.append(1, 2, 2)

    child = fork(work)
    os.read(ready[0], 1)
    store.close()
    other = sqlite3.connect(store.path)  # the last but for the child's
    other.execute("select count(*) from chunk").fetchone()
    other.close()
    os.write(done[1], b"x")
    assert status(child) == 0
    for end in (*ready, *done):
        os.close(end)
    assert times(stores(), 1) == [0, 1, 2]


class Histories(Dataset):
    def __init__(self, store):
        self.store = store

    def __len__(self):
        return 8

    def __getitem__(self, user):
        return self.store.get(user).item.sum()


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_data_loader_s_workers(stores, method):
    store = stores()
    store.append_many(list(range(8)) * 2, [*range(8)] * 2, [1] * 8 + [2] * 8)
    loader = DataLoader(Histories(store), batch_size=2, num_workers=2, multiprocessing_context=method)  # fmt: skip
    assert torch.cat(list(loader)).tolist() == [2 * user for user in range(8)]


def test_a_pickle_is_the_same_store(stores):
    store = stores(capacity=50, columns={"a": "int8"}, on_damage="skip")
    store.append(1, 2, 3, a=4)
    other = pickle.loads(pickle.dumps(store))
    with other:
        assert (other.capacity, other.columns, other.on_damage) == (50, {"a": "int8"}, "skip")
        assert not other.append(1, 2, 3, a=4)
    assert times(store, 1) == [3]


def test_closed(stores):
    store = stores()
    store.append(1, 2, 3)
    with store:
        pass
    store.close()
    for use in (lambda: store.get(1), lambda: store.append(1, 2, 4), lambda: list(store.users()), lambda: store.delete(1)):  # fmt: skip
        with pytest.raises(ValueError, match=r"Store: .* is closed; open it again"):
            use()
    assert times(stores(), 1) == [3]
