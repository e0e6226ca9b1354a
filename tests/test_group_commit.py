# SPDX-License-Identifier: Apache-2.0
"""Callers that share a commit: each gets what is its own, and none waits for ever."""

from __future__ import annotations

import os
import random
import threading
import time

import pytest

from longclock.store.group_commit import GroupCommit

SECONDS = 60


class Callers:
    """Threads that submit, and what each of them got."""

    def __init__(self, group, work):
        self.got = {}
        self.threads = [threading.Thread(target=self.call, args=(group, x)) for x in work]
        for thread in self.threads:
            thread.start()

    def call(self, group, work):
        try:
            self.got[work] = group.submit(work)
        except BaseException as error:
            self.got[work] = error

    def end(self):
        for thread in self.threads:
            thread.join(SECONDS)
        assert not any(thread.is_alive() for thread in self.threads), "a caller waits for ever"
        return self.got


def waiting(group, count):
    """Until so many wait for whoever commits."""
    until = time.monotonic() + SECONDS
    while len(group._queue) < count:
        assert time.monotonic() < until
        time.sleep(0.001)


def test_those_who_wait_share_a_commit():
    begun, go, commits = threading.Event(), threading.Event(), []

    def commit(works):
        commits.append(list(works))
        begun.set()
        assert go.wait(SECONDS)
        return [2 * work for work in works]

    group = GroupCommit(commit)
    first = Callers(group, [0])
    assert begun.wait(SECONDS)
    others = Callers(group, range(1, 64))
    waiting(group, 63)
    go.set()
    assert {**first.end(), **others.end()} == {work: 2 * work for work in range(64)}
    assert [sorted(works) for works in commits] == [[0], list(range(1, 64))]


def test_a_failure_is_its_caller_s_alone():
    def commit(works):
        time.sleep(0.001)
        return [KeyError(work) if work % 3 == 0 else work for work in works]

    got = Callers(GroupCommit(commit), range(64)).end()
    for work in range(64):
        if work % 3:
            assert got[work] == work
        else:
            assert isinstance(got[work], KeyError)
            assert got[work].args == (work,)


def test_a_commit_that_fails_fails_for_all_who_are_in_it():
    begun, go, turns = threading.Event(), threading.Event(), []

    def commit(works):
        turns.append(len(works))
        begun.set()
        assert go.wait(SECONDS)
        if len(turns) == 2:
            raise OSError(28, "no room")
        return list(works)

    group = GroupCommit(commit)
    first = Callers(group, [0])
    assert begun.wait(SECONDS)
    others = Callers(group, range(1, 20))
    waiting(group, 19)
    go.set()
    assert first.end() == {0: 0}
    errors = list(others.end().values())
    assert [error.errno for error in errors] == [28] * 19
    assert len({id(error) for error in errors}) == 19  # a traceback each
    assert group.submit(7) == 7


@pytest.mark.parametrize("leads", [True, False])
def test_an_interrupted_caller_takes_no_other_with_it(leads):
    """Ctrl-C in the main thread: the work of the others is committed all the same."""
    begun, go, turns = threading.Event(), threading.Event(), []

    def commit(works):
        turns.append(list(works))
        begun.set()
        if leads and len(turns) == 1:
            waiting(group, 9)
            raise KeyboardInterrupt
        assert go.wait(SECONDS)
        return list(works)

    group = GroupCommit(commit)
    if leads:
        callers = []
        starter = threading.Thread(
            target=lambda: begun.wait(SECONDS) and callers.append(Callers(group, range(1, 10)))
        )
        starter.start()
        with pytest.raises(KeyboardInterrupt):
            group.submit(0)
        starter.join()
        go.set()
        assert callers[0].end() == {work: work for work in range(1, 10)}
    else:
        import signal

        first = Callers(group, [1])
        assert begun.wait(SECONDS)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                group.submit(0)
        finally:
            signal.signal(signal.SIGINT, before)
        others = Callers(group, range(2, 10))
        waiting(group, 8)
        go.set()
        assert {**first.end(), **others.end()} == {work: work for work in range(1, 10)}
        assert turns[0] == [1]
        assert 0 not in turns[1]


def test_sixty_four_threads_for_a_while():
    """Each work is committed once, in one commit at a time."""
    committed, within = [], threading.Lock()

    def commit(works):
        assert within.acquire(blocking=False), "two commit at a time"
        time.sleep(random.choice([0, 0, 0.001]))
        committed.extend(works)
        within.release()
        if random.random() < 0.1:
            raise RuntimeError
        return list(works)

    group, done = GroupCommit(commit), []

    def call(number):
        for turn in range(50):
            try:
                done.append(group.submit((number, turn)))
            except RuntimeError:
                done.append((number, turn))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(done) == sorted(committed) == [(n, t) for n in range(64) for t in range(50)]


def test_a_forked_child_is_led_by_itself():
    begun, go = threading.Event(), threading.Event()

    def commit(works):
        begun.set()
        assert 1 in works or go.wait(SECONDS)
        return list(works)

    group = GroupCommit(commit)
    first = Callers(group, [0])
    assert begun.wait(SECONDS)
    child = os.fork()
    if child == 0:
        os._exit(0 if group.submit(1) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go.set()
    assert first.end() == {0: 0}
