# SPDX-License-Identifier: Apache-2.0
"""Stores whose bytes are not what was written: what is returned is right, or the damage is reported; no process dies of it."""

from __future__ import annotations

import logging
import os
import random
import traceback

import numpy as np
import pytest

from longclock.store import DamagedHistoryError, SQLiteStore

PAGE = 4096
USERS, LENGTH = 30, 2_000  # several inner pages
INNER, LEAF = 2, 10  # pages of an index
FILES = int(os.environ.get("DAMAGED_FILES", "80"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file, and the histories in it. Chunks have been split, so that some pages hold what was there before."""
    path = tmp_path_factory.mktemp("damage") / "histories.db"
    rng = np.random.default_rng(0)
    right = {}
    with SQLiteStore(path) as store:
        for _ in range(4):
            for user in range(USERS):
                times = rng.integers(0, 10**6, LENGTH // 4)
                store.append_many([user] * len(times), times % 997, times)
        for user in range(USERS):
            right[user] = pairs(store.get(user))
    return path.read_bytes(), right


def pairs(behaviours):
    return list(zip(behaviours.time.tolist(), behaviours.item.tolist(), strict=True))


def damaged(content, draw, kind):
    """The content with one page, or its end, changed."""
    pages = len(content) // PAGE
    bytes_ = bytearray(content)
    inner = [page for page in range(1, pages) if content[page * PAGE] == INNER]
    leaves = [page for page in range(1, pages) if content[page * PAGE] == LEAF]
    assert len(inner) > 1
    page = draw.choice(inner if kind.startswith("inner") else range(pages))
    at = slice(page * PAGE, (page + 1) * PAGE)
    if kind.endswith("noise"):
        bytes_[at] = draw.randbytes(PAGE)
    elif kind.endswith("zeros"):
        bytes_[at] = bytes(PAGE)
    elif kind.endswith("other page"):
        other = draw.choice(leaves)
        bytes_[at] = content[other * PAGE : (other + 1) * PAGE]
    elif kind == "cut off":
        del bytes_[draw.randrange(len(content)) :]
    elif kind.endswith("pointer"):  # to another page of the same kind, as a flipped bit may make it
        cells = int.from_bytes(content[page * PAGE + 3 : page * PAGE + 5], "big")
        cell = page * PAGE + 12 + 2 * draw.randrange(cells)
        begin = page * PAGE + int.from_bytes(content[cell : cell + 2], "big")
        bytes_[begin : begin + 4] = (draw.choice(leaves) + 1).to_bytes(4, "big")
    else:
        for _ in range(draw.choice([1, 8])):
            within = draw.randrange(64 if kind.endswith("head") else PAGE)
            bytes_[page * PAGE + within] ^= 1 << draw.randrange(8)
    return bytes(bytes_)


KINDS = ["noise", "zeros", "bits", "bits of the head", "other page", "cut off",
         "inner bits", "inner bits of the head", "inner noise", "inner other page", "inner pointer"]  # fmt: skip
FOUND = (DamagedHistoryError, OSError, ValueError)


def histories(path, right, on_damage):
    """What is found of each user: a list, or None where damage is reported. Nobody's may be wrong."""
    try:
        store = SQLiteStore(path, on_damage=on_damage)
    except FOUND:
        return None
    found = {}
    with store:
        for user in right:
            try:
                found[user] = pairs(store.get(user))
            except FOUND as error:
                if isinstance(error, DamagedHistoryError) and error.user != user:
                    raise AssertionError("another's damage") from error
                found[user] = None
    return found


def look(path, right):
    """0: all is there; 1: damage was reported; otherwise the test fails."""
    found = histories(path, right, "raise")
    if found is None:
        return 1
    for user, behaviours in found.items():
        assert behaviours in (None, right[user]), f"user {user}: other behaviours than were written"
    for user, behaviours in (histories(path, right, "skip") or {}).items():
        assert set(behaviours or ()) <= set(right[user]), f"user {user}: more than was written"
    known = None in found.values()
    with SQLiteStore(path) as store:
        for user in right:  # changes nothing about what is known of the damage
            try:
                store.append(user, 1, 10**7)
            except FOUND:
                known = True
    for user, behaviours in (histories(path, right, "raise") or {}).items():
        assert behaviours in (None, right[user], [*right[user], (10**7, 1)])
    return int(known)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file(whole, kind, tmp_path, caplog):
    content, right = whole
    logging.getLogger("longclock.store").setLevel(logging.CRITICAL)
    seen = 0
    for number in range(-(-FILES // len(KINDS))):
        path = tmp_path / f"{number}.db"
        path.write_bytes(damaged(content, random.Random(f"{kind} {number}"), kind))
        child = os.fork()
        if child == 0:
            status = 70
            try:
                status = look(path, right)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 1), f"file {number}: status {status}"
        seen += status
    print(f"{kind}: {seen} of {number + 1} reported")
    logging.getLogger("longclock.store").setLevel(logging.NOTSET)
