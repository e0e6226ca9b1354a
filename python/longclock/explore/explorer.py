# SPDX-License-Identifier: Apache-2.0
"""A model and its users' histories for a page that shows them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from longclock.data.stream import EventStream
from longclock.explore.names import Names
from longclock.explore.settings import CANDIDATES, USERS
from longclock.explore.view import View
from longclock.serve import Recommender
from longclock.store.records import User

LOOKED_AT = 10_000  # users of a store, for those with the longest histories


class Explorer:
    """A recommender's model and histories, with names for what they hold, as a page shows them.

    Args:
        recommender: of a model that searches by content and one clock of a day.
        stream: events of its items, for names of items and groups; None: they have numbers.
        source: what messages call the histories.
    Raises:
        ValueError: another model; no histories.
    """

    def __init__(
        self, recommender: Recommender, stream: EventStream | None = None, source: str = "the store"
    ) -> None:
        self.recommender, self.source = recommender, source
        self._names = Names(stream)
        self._view = self._seen()
        if next(iter(recommender.store.users()), None) is None:
            raise ValueError(f"{source} has no histories; fill it: python -m longclock.store")

    @property
    def version(self) -> str:
        """That which is shown."""
        return self._view.version

    def refresh(self) -> bool:
        """Show the current version of the model's folder, if it is another. Returns whether it was.

        Raises:
            ValueError: it cannot be read, or not be shown; the version before stays.
        """
        self.recommender.refresh()
        if self.recommender.version == self.version:
            return False
        self._view = self._seen()
        return True

    def users(self, count: int = USERS) -> list[User]:
        """Those with the longest histories of the first LOOKED_AT that the store names, longest first."""
        store = self.recommender.store
        found = list(itertools.islice(store.users(), LOOKED_AT))
        lengths = {user: len(store.get(user).item) for user in found}
        return sorted(found, key=lambda user: (-lengths[user], str(user)))[:count]

    def of_model(self) -> dict[str, Any]:
        """What all users share. ``tables`` are s at every second from 0 to half a day: ``search`` names that of the search,
        ``heads`` that of each head of the attention."""
        return self._view.of_model()

    def of_user(
        self,
        user: User,
        items: Sequence[int | str] | None = None,
        count: int = CANDIDATES,
        beside: str | None = None,
    ) -> dict[str, Any]:
        """A user's behaviours, and candidates compared with them, over the day after the user's last behaviour.

        Args:
            items: the candidates, as the events call them: integers and texts; None: the ``count`` items that the user took most
                often.
            beside: the version that the caller has :meth:`of_model` of; of another the answer has it too, as ``model``.
        Raises:
            ValueError: a user without behaviours that the model knows, an item that it does not know.
        """  # fmt: skip
        view = self._view
        found = view.of_user(user, items, count)
        if beside is not None and beside != view.version:
            found["model"] = view.of_model()
        return found

    def _seen(self) -> View:
        return View(self.recommender.served, self.recommender.store, self._names, self.source)
