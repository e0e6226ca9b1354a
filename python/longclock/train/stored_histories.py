# SPDX-License-Identifier: Apache-2.0
"""Histories of a run over a source that lie in a store; of the latest users, in memory as well."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import numpy as np

from longclock.data.kept_histories import (
    COLUMNS,
    Column,
    KeptHistories,
    Rows,
    counts_of,
    long_enough,
)
from longclock.data.stream import IntArray, stretches
from longclock.store import BehaviourStore, open_store
from longclock.train.team import Team

MARK = "longclock.train"  # a user of the store, whose behaviours are the sessions of the run
IN_STORE = {"local_time": "int64", "order_time": "int64", "label": "int8"}
SPARE = 4096  # behaviours of a user that there is room for besides, of sessions that were stopped
CACHED = 1 << 22  # rows in memory
NUMBERS = 1 << 42  # events that there may be


class StoredHistories:
    """As :class:`longclock.data.kept_histories.KeptHistories`, of one run.

    A behaviour's time in the store is its place: the number of its event, behind that of the session, which is one process of
    the run. So a user's behaviours are in the order of their events, also those of one second, and one that is appended again is one still. What a session
    appended behind the checkpoint that the next one begins with is in the store, and is not read: a checkpoint has the sessions, and the event with which each began.

    How many rows each user has is in memory, and in the checkpoint; of a store that has fewer it is said.

    Attributes:
        run: a number of the run, which is in the store.
    Args:
        url: of the store, see :func:`longclock.store.open_store`.
        longest: how many rows of a user are read at most.
        resume: whether the store may be that of an earlier session.
        team: the processes of the session, each of which has the histories of its own users; None: this one alone.
    Raises:
        ValueError: it may not, and has something; or it is of something else.
    """

    def __init__(self, url: str, longest: int, resume: bool, team: Team | None = None) -> None:
        self.url = url
        self.store: BehaviourStore = open_store(url, capacity=longest + SPARE, columns=IN_STORE)
        try:
            self.run, session = (team or Team()).from_first(lambda: self._begun(resume))
        except BaseException:
            self.store.close()
            raise
        self._sessions = np.array([[session, 0]])  # and the number of the first event of each
        self._count = self._used = np.zeros(
            0, np.int64
        )  # [users]; the turn in which a user was last asked for
        self._turn = 0
        self._cache = KeptHistories()  # of a user all rows or none

    def _begun(self, resume: bool) -> tuple[int, int]:
        """The run and the session, which no other of the store has; the store has it from now on."""
        runs, sessions, _ = self.store.get(MARK)
        if len(runs) == 0 and next(self.store.users(), None) is not None:
            raise ValueError(f"--histories: {self.url} has histories that are not of a run over a source; give another store")  # fmt: skip
        if len(runs) and not resume:
            raise ValueError(f"--histories: {self.url} has the histories of another run; give another store, or go on with that run by --resume")  # fmt: skip
        run = int(runs[0]) if len(runs) else secrets.randbits(62)
        session = int(sessions.max()) + 1 if len(runs) else 0
        self.store.append(MARK, run, session, **dict.fromkeys(IN_STORE, 0))
        return run, session

    def __len__(self) -> int:
        """How many rows are kept."""
        return int(self._count.sum())

    def close(self) -> None:
        self.store.close()

    def counts(self, users: IntArray) -> IntArray:
        """How many rows each of some users has; ``[U]``."""
        return counts_of(users, self._count)

    def of(self, users: IntArray) -> tuple[IntArray, Rows]:
        """How many rows each of some users has, and these rows, user after user.

        Args:
            users: int64 ``[U]``, each once.
        Raises:
            ValueError: the store has fewer.
        """
        self._know(users)
        counts = self.counts(users)
        read = users[self._cache.counts(users) < counts]
        if len(read):
            self._cache.add(read, self.counts(read), self.counts(read), self._read(read))
        self._turn += 1
        self._used[users] = self._turn
        return self._cache.of(users)

    def add(
        self,
        users: IntArray,
        counts: IntArray,
        new: IntArray,
        rows: Mapping[str, Column],
        number: IntArray,
    ) -> None:
        """Put rows behind those of some users, who were asked for before, and keep the newest of each.

        They are in the store when this returns.

        Args:
            users, counts, new, rows: as of :meth:`KeptHistories.add`.
            number: of every row, that of its event.
        """
        if not len(users):
            return
        session = int(self._sessions[-1, 0])
        stay = np.minimum(new, counts)
        come = stretches(np.cumsum(new) - stay, stay)
        item, label = rows["item"][come], rows["label"][come]
        time, order_time = rows["time"][come], rows["order_time"][come]
        self.store.append_many(
            users.repeat(stay).tolist(), item, session * NUMBERS + number[come], local_time=time, order_time=order_time, label=label
        )  # fmt: skip
        self._cache.add(users, counts, new, rows)
        self.count(users, counts)
        self._let_go()

    def count(self, users: IntArray, counts: IntArray) -> None:
        """That some users have so many rows, whose histories another rank puts into the store."""
        self._know(users)
        self._count[users] = counts

    def forget(self, users: IntArray) -> None:
        """Keep nothing of some users."""
        users = users[users < len(self._count)]
        self._count[users] = 0
        self._cache.forget(users)

    def arrays(self) -> dict[str, Column]:
        """All but the rows, by names as files have them."""
        return {"count": self._count, "sessions": self._sessions}

    def put_back(self, arrays: Mapping[str, Column], before: int) -> None:
        """Make this what :meth:`arrays` was asked of, in a session that begins now.

        Args:
            before: the number of the first event that comes.
        Raises:
            KeyError: an array that is missing.
        """
        session = np.array([[self._sessions[-1, 0], before]])
        self._sessions = np.concatenate([arrays["sessions"], session])
        self._count = arrays["count"]
        self._used = np.zeros_like(self._count)

    def _know(self, users: IntArray) -> None:
        self._count, self._used = (long_enough(users, x) for x in (self._count, self._used))

    def _read(self, users: IntArray) -> Rows:
        """All rows of some users, user after user."""
        found, offsets = self.store.read_columns(users.tolist())
        session, number = np.divmod(found.time.numpy(), NUMBERS)
        known = self._sessions[:, 0]
        place = np.minimum(np.searchsorted(known, session), len(known) - 1)
        end = np.append(self._sessions[1:, 1], NUMBERS)
        valid = (known[place] == session) & (number < end[place])
        before = np.concatenate([[0], np.cumsum(valid)])[offsets.numpy()]
        there, counts = np.diff(before), self.counts(users)
        if (there < counts).any():
            short = int((there < counts).argmax())
            raise ValueError(
                f"--histories: {self.url} has {there[short]} of the latest {counts[short]} behaviours of user number {users[short]}: others write into it, or "
                f"the run stopped too often before a checkpoint (there is room for {SPARE} behaviours besides); begin with another store"
            )
        rows = np.flatnonzero(valid)[stretches(before[1:] - counts, counts)]
        columns = {"item": found.item, "time": found.columns["local_time"], "order_time": found.columns["order_time"], "label": found.columns["label"]}  # fmt: skip
        return {name: columns[name].numpy()[rows].astype(kind) for name, kind in COLUMNS.items()}

    def _let_go(self) -> None:
        """Of the users in memory, those who were not asked for for the longest time, until there is room."""
        if len(self._cache) <= CACHED:
            return
        users = np.arange(len(self._used))
        users = users[self._cache.counts(users) > 0]
        users = users[np.argsort(-self._used[users], kind="stable")]
        held = np.cumsum(self._cache.counts(users))
        self._cache.forget(users[held > CACHED // 2])
