# SPDX-License-Identifier: Apache-2.0
"""What every store of histories can do."""

from __future__ import annotations

import abc
import logging
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from typing_extensions import Self

from longclock.history import History
from longclock.store.arguments import (
    fits,
    integers,
    numbers,
    settled,
    times_before,
    user_of,
    users_of,
)
from longclock.store.records import (
    Array,
    Behaviours,
    Columns,
    DamagedHistoryError,
    Records,
    User,
)
from longclock.types import Lookup

CAPACITY = 20_000  # behaviours of a user, of a new store
OnDamage = Literal["raise", "skip"]
log = logging.getLogger("longclock.store")


class Appended(NamedTuple):
    """What one call appends: the users, and the records of each."""

    users: list[User]
    records: list[Array]


class BehaviourStore(abc.ABC):
    """Histories of users, where one process appends what others read.

    A behaviour is an item at a time, with the columns that the store was made with. A user's are kept in the order of
    (time, item), the newest ``capacity`` of them. One that is appended again, as after a failure that nobody answered, is one still.

    Made by :func:`open_store`, or by the class of a backend: :class:`SQLiteStore`, :class:`RedisStore`. Threads may share one, and it
    may be handed to other processes: by a fork, or pickled. ``capacity`` is how many behaviours of a user are kept, ``columns`` the
    names and dtypes of what a behaviour has besides item and time, ``on_damage`` "raise", or "skip": what is damaged is left out
    of what is read, and logged.

    Example::

        >>> import torch
        >>> from longclock.store import open_store
        >>> store = open_store("histories.db")
        >>> store.append_many(["ada", "bob", "ada"], items=[3, 3, 1], times=[20, 10, 10])
        3
        >>> history = store.get_many(["ada", "bob"], torch.randn(5, 8), before=20)
        >>> history.offsets, history.time
        (tensor([0, 1, 2]), tensor([10, 10]))
        >>> store.trim("ada", keep=1), store.delete("bob"), list(store.users())
        (1, True, ['ada'])
        >>> store.close()
    """

    capacity: int
    columns: Columns
    on_damage: OnDamage
    _records: Records

    def append(self, user: User, item: int, time: int, **columns: float) -> bool:
        """One behaviour. It is durable when this returns, and counts from the next :meth:`get` on.

        Args:
            user: an int of 64 bits, or a text.
            item, time: ints of 64 bits; time in seconds.
            columns: a value for each of the store's columns.
        Returns:
            Whether it is new. Threads that append at one time share a commit. One that is older than all that the capacity
            keeps is new, and gone.
        Raises:
            ValueError: an argument that does not fit; the message names it.
            DamagedHistoryError: what the behaviour belongs to cannot be read.
            OSError: it cannot be written. It may be there all the same, and can be appended again.
        """
        if not columns and not self.columns and fits(item) and fits(time):  # as most are
            user = user_of(f"{self._name}.append", user)
            return bool(self._append(Appended([user], [self._records.one(item, time)])))
        of_one = {name: [value] for name, value in columns.items()}
        return bool(self.append_many([user], [item], [time], **of_one))

    def append_many(self, users: Sequence[User], items: Any, times: Any, **columns: Any) -> int:
        """Behaviours of any users, in any order: of each user all or none, of all of them as :attr:`atomic` says.

        Args:
            users: one for each behaviour: ints or texts, or a tensor or array of ints.
            items, times: integers [N].
            columns: numbers [N] for each of the store's columns.
        Returns:
            How many of them are new. All are durable when this returns.
        Raises:
            ValueError, DamagedHistoryError, OSError: as of :meth:`append`. Where :attr:`atomic` is "user", those of users without
                damage are there.
        """
        appended = self._packed(users, items, times, columns)
        return self._append(appended) if appended.users else 0

    def get(self, user: User, before: int | None = None) -> Behaviours:
        """A user's newest ``capacity`` behaviours, oldest first; of a user that nobody knows, none.

        Args:
            before: only what is older than this time. None: all.
        Raises:
            DamagedHistoryError: with ``on_damage="raise"``, where bytes are not what was written.
        """
        return self._records.behaviours(self._read_all("get", [user], before)[0])

    def get_many(
        self,
        users: Sequence[User],
        tables: Tensor | tuple[Tensor, ...],
        before: int | Sequence[int] | None = None,
    ) -> History:
        """Histories of users as the ops and modules take them, ragged: a behaviour's row is that of its item.

        Args:
            users: each with as many queries as the call that the history is given to says.
            tables: [N, L], a row for each item from 0 to N - 1; or a tuple of such tables, of features of items.
            before: only what is older than this time, one for all or one for each.
        Raises:
            ValueError: an item that has no row.
            DamagedHistoryError: as of :meth:`get`.
        """
        several = tables if isinstance(tables, tuple) else (tables,)
        if not several or not all(
            isinstance(table, Tensor) and table.dim() == 2 for table in several
        ):
            raise ValueError(
                f"{self._name}.get_many: tables must be a tensor [N, L], or a tuple of them"
            )
        item, time, offsets = self._flat("get_many", users, before)
        rows = min(len(table) for table in several)
        if len(item) and not 0 <= int(item.min()) <= int(item.max()) < rows:
            bad = int(item[(item < 0) | (item >= rows)][0])
            raise ValueError(
                f"{self._name}.get_many: tables must have a row for every item, got {rows} rows and item {bad}; number the items "
                "as the table does"
            )
        ids = tuple(item for _ in several)
        rows_of = Lookup(tables, ids if isinstance(tables, tuple) else item)
        return History.ragged(rows_of, time, offsets)

    def read_many(
        self, users: Sequence[User], before: int | Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Items and times of users one behind the other, int64 [T], and where each user's begin, [S + 1].

        Args:
            users, before: as of :meth:`get_many`.
        """
        return self._flat("read_many", users, before)

    def read_columns(
        self, users: Sequence[User], before: int | Sequence[int] | None = None
    ) -> tuple[Behaviours, Tensor]:
        """As :meth:`read_many`, with the columns of the store: behaviours [T], and where each user's begin, [S + 1]."""
        found = self._read_all("read_columns", users, before)
        lengths = torch.tensor([0, *(len(records) for records in found)])
        return self._records.behaviours(self._records.join(found)), lengths.cumsum(0)

    def _flat(self, method: str, users: Any, before: Any) -> tuple[Tensor, Tensor, Tensor]:
        found = self._read_all(method, users, before)
        of_all = self._records.join(found)
        item, time = (
            torch.from_numpy(self._records.numbers(of_all, name)) for name in ("item", "time")
        )
        lengths = torch.tensor([0, *(len(records) for records in found)])
        return item, time, lengths.cumsum(0)

    def _read_all(self, method: str, users: Any, before: Any) -> list[Array]:
        op = f"{self._name}.{method}"
        whose = users_of(op, users)
        limits = times_before(op, before, len(whose))
        return [
            self._records.before(each, limit)
            for each, limit in zip(self._read(whose) if whose else [], limits, strict=True)
        ]

    # What a backend does.

    @property
    @abc.abstractmethod
    def atomic(self) -> Literal["call", "user"]:
        """What of :meth:`append_many` is there at once or not at all: all of the call, or all of each user."""

    @abc.abstractmethod
    def trim(self, user: User, *, keep: int | None = None, before: int | None = None) -> int:
        """Drop old behaviours: all but the newest ``keep``, and those older than ``before``. Returns how many."""

    @abc.abstractmethod
    def delete(self, user: User) -> bool:
        """Forget a user, who need not be known. Returns whether there was anything. Durable on return."""

    @abc.abstractmethod
    def users(self) -> Iterator[User]:
        """All who have a history, each once, in no particular order; whoever comes or goes meanwhile may be among them."""

    @abc.abstractmethod
    def repair(self, user: User) -> int:
        """Drop what is damaged of a user's history. Returns how many pieces that were."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give back files and connections. What was appended stays; a closed store is not used again."""

    @abc.abstractmethod
    def _append(self, appended: Appended) -> int: ...

    @abc.abstractmethod
    def _read(self, users: Sequence[User]) -> list[Array]:
        """Records of each, at one moment where :attr:`atomic` is "call"."""

    # Shared by backends.

    def _settle(
        self, found: Mapping[str, Any], capacity: int | None, columns: Columns | None
    ) -> None:
        """Takes the settings that the store was made with.

        Raises:
            ValueError: it is asked to have others.
        """
        given = {"capacity": capacity, "columns": None if columns is None else dict(columns)}
        self.capacity, self.columns = (
            settled(self._name, name, value, found[name]) for name, value in given.items()
        )

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _damaged(self, user: User | None, chunk: int | None, reason: str) -> None:
        error = DamagedHistoryError(self._name, user, chunk, reason)
        if self.on_damage == "raise":
            raise error
        log.warning("%s", error)

    def _packed(
        self, users: Sequence[User], items: Any, times: Any, columns: Mapping[str, Any]
    ) -> Appended:
        op = f"{self._name}.append"
        whose = users_of(op, users)
        count = len(whose)
        item, time = (
            integers(op, name, x, count) for name, x in (("item", items), ("time", times))
        )
        if set(columns) != set(self.columns):
            raise ValueError(
                f"{op}: columns must be those of the store, {', '.join(self.columns) or 'none'}, got {', '.join(columns) or 'none'}"
            )
        values = {n: numbers(op, n, columns[n], count, dtype) for n, dtype in self.columns.items()}
        places: dict[User, list[int]] = {}
        for place, user in enumerate(whose):
            places.setdefault(user, []).append(place)
        return Appended(
            list(places),
            [
                self._records.pack(item[at], time[at], {name: x[at] for name, x in values.items()})
                for at in places.values()
            ],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
