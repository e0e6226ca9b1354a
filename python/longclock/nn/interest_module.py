# SPDX-License-Identifier: Apache-2.0
"""What a ranking model asks of the module that makes a user's interest of a history."""

from __future__ import annotations

from torch import Tensor, nn

from longclock.history import History


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

    def observe(self, user: Tensor, item: Tensor, time: Tensor) -> None:
        """Users took items: int32 or int64 [E] each, ``time`` in local seconds. Told once it has been scored."""

    def auxiliary_logits(
        self, candidate: Tensor, history: History, query_time: Tensor
    ) -> Tensor | None:
        """Logits of the candidates for a second loss, their shape without its last place; None: there is no such loss."""
        return None

    def project(self, rows: Tensor) -> Tensor:
        """Keys of the module's search, which a server may store ahead of time: a row each."""
        raise NotImplementedError(f"{type(self).__name__}: it searches by no keys of its own")
