# SPDX-License-Identifier: Apache-2.0
"""What a ranking model asks of the module that makes a user's interest of a history."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor, nn

from longclock.history import History
from longclock.nn.recording import leaf, not_scriptable


class InterestModule(nn.Module):
    """``v_cur``, and a context of the candidate, from a candidate, a history and the time of the request.

    A call is ``module(candidate, history, query_time, return_context=False, **reads)``. What else there may be to
    a module is nothing by default.

    Example::

        >>> import longclock as lc
        >>> from longclock.baselines import SIMHard
        >>> lc.LongTermInterestClock(16, 16).reads, SIMHard(16, 16).reads
        ((), ('candidate_category', 'behaviour_category'))
    """

    reads: tuple[str, ...] = ()  # the keyword arguments that a call takes besides, by name

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in cls.__dict__:
            cls.forward = leaf(cls.forward)

    def __prepare_scriptable__(self) -> NoReturn:
        not_scriptable(self)

    def observe(self, user: Tensor, item: Tensor, time: Tensor) -> None:
        """Users took items: int32 or int64 [E] each, ``time`` in local seconds. Told once it has been scored."""

    def auxiliary_logits(
        self, candidate: Tensor, history: History, query_time: Tensor
    ) -> Tensor | None:
        """Logits of the candidates for a second loss, their shape without its last place; None: there is no such loss."""
        return None

    def search(
        self, candidate: Tensor, history: History, query_time: Tensor, **reads: Any
    ) -> Tensor | None:
        """What the search finds, as indices, best first: int64 [..., K]; None: the module does not search, or not once."""
        return None

    def attention_mass(
        self, candidate: Tensor, history: History, query_time: Tensor, **reads: Any
    ) -> Tensor:
        """How much the attention would look at each behaviour if it saw all, [..., M]; of modules whose search finds something."""
        raise NotImplementedError(
            f"{type(self).__name__}: it does not attend to what a search found"
        )

    def search_loss(
        self, candidate: Tensor, history: History, query_time: Tensor, **reads: Any
    ) -> Tensor | None:
        """A loss that teaches the search what the attention needs; None: there is nothing to teach."""
        return None

    def project(self, rows: Tensor) -> Tensor:
        """Keys of the module's search, which a server may store ahead of time: a row each."""
        raise NotImplementedError(f"{type(self).__name__}: it searches by no keys of its own")
