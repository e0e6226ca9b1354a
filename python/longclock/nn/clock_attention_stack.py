# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longclock._constants import DENSE_SHARE
from longclock._keywords import named_keywords
from longclock._sizes import check_size
from longclock.history.history import History
from longclock.history.windows import everything
from longclock.nn.interest_module import InterestModule
from longclock.nn.long_term_interest_clock import LongTermInterestClock
from longclock.nn.parameter_groups import parameter_groups
from longclock.ops._errors import named_method


class _SwiGLU(nn.Module):
    """``W_out (silu(W_gate x) * W_in x)``."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gated = nn.Linear(width, 2 * hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.gated(x).chunk(2, -1)
        y: Tensor = self.out(F.silu(gate) * value)
        return y


class ClockAttentionStack(InterestModule):
    """Layers of attention from the candidate to its whole history, each time-aware: no search, and no self-attention.

    ``q_1 = norm(SwiGLU(q))``; layer l is a :class:`LongTermInterestClock` with ``k=None`` and gives ``o_l`` of ``q_l`` and the
    history, with an s of its own; ``q_l+1 = A_l [o_1 ; ... ; o_l ; q]``, and ``v_cur = A [o_1 ; ... ; o_n]``. A query meets every
    behaviour once a layer: the cost is linear in the history, O(layers M heads L) for each candidate.

    Source: stacked target-to-history cross attention (STCA), arXiv 2511.06077, which is the stack without the clock. Of it are the single
    query, the queries made of all outputs before them and of the candidate, and SwiGLU and LayerNorm on the candidate. It has
    these on the history's rows as well, in each layer; here rows are only projected, W_K folded into the query and W_V behind the
    context, so that they are read as they lie, through a table too, and nothing of the history's size is stored.

    Args:
        behaviour_dim: L, width of a behaviour. candidate_dim: H, width of a candidate and of every query and output.
        head_dim, heads: of each layer.
        layers: how many, from 1.
        out_dim: width of v_cur. hidden_dim: of the network of the candidate and of each layer's.
        clock: False: the scores are of content alone, ``s = 0``, and there are no time features.
        options: of each layer, see :class:`LongTermInterestClock`: clocks, unit, time_hidden, time_falls, exclude_future,
            backend.

    Parameters: first, layers[l] and mix[l].

    Raises:
        ValueError: an argument that does not fit; the message names it and the remedy.

    Example::

        >>> import torch, longclock as lc
        >>> stack = lc.ClockAttentionStack(behaviour_dim=16, candidate_dim=16, layers=2)
        >>> time = torch.randint(0, 86400, (1, 10_000))
        >>> history = lc.History.dense(torch.randn(1, 10_000, 16), time)
        >>> stack(torch.randn(1, 16), history, torch.tensor([32 * 3600])).shape
        torch.Size([1, 64])
    """

    @named_keywords()
    def __init__(
        self,
        behaviour_dim: int,
        candidate_dim: int,
        head_dim: int = 32,
        heads: int = 4,
        layers: int = 2,
        out_dim: int = 64,
        hidden_dim: int = 128,
        *,
        clock: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        for name, size in (
            ("behaviour_dim", behaviour_dim), ("candidate_dim", candidate_dim), ("layers", layers),
            ("out_dim", out_dim), ("hidden_dim", hidden_dim),
        ):  # fmt: skip
            check_size("ClockAttentionStack", name, size, 1)
        if not isinstance(clock, bool):
            raise ValueError(f"ClockAttentionStack: clock must be a bool, got {clock!r}")
        for name in ("k", "scoring", "literal_scale"):
            if name in options:
                raise ValueError(
                    f"ClockAttentionStack: {name} must be left out: nothing is searched"
                )
        self.behaviour_dim, self.candidate_dim, self.clock = behaviour_dim, candidate_dim, clock
        self.first = nn.Sequential(_SwiGLU(candidate_dim, hidden_dim), nn.LayerNorm(candidate_dim))
        self.layers = nn.ModuleList(
            LongTermInterestClock(
                behaviour_dim, candidate_dim, head_dim, heads, None, candidate_dim, hidden_dim, **options
            )
            for _ in range(layers)
        )  # fmt: skip
        # What each layer but the first asks by, and v_cur, of all outputs before it.
        self.mix = nn.ModuleList(
            nn.Linear((layer + 1) * candidate_dim, candidate_dim) for layer in range(1, layers)
        )
        self.mix.append(nn.Linear(layers * candidate_dim, out_dim))
        layer: Any
        if not clock:
            for layer in self.layers:
                layer.attention_sees_time = False
                layer.time.requires_grad_(False)

    @property
    def backend(self) -> str:
        """Which implementation every layer runs."""
        return str(self.layers[0].backend)

    def parameter_groups(self, lr: float, dense_share: float = DENSE_SHARE) -> list[dict[str, Any]]:
        """As :meth:`LongTermInterestClock.parameter_groups`."""
        return parameter_groups(self, lr, dense_share)

    @named_method({})
    def forward(
        self,
        candidate: Tensor,
        history: History,
        query_time: Tensor,
        *,
        longest: int | None = None,
        return_context: bool = False,
    ) -> Any:
        """v_cur, and with ``return_context`` the pair of v_cur and c, the contexts of all layers' heads.

        Args:
            candidate, history, query_time, longest: as of :meth:`LongTermInterestClock.forward`.
        Returns:
            v_cur [S, out_dim], [S, C, out_dim] or [Q, out_dim]; c has [layers n, L + 4] in its last place. Both have the
            weights' dtype.
        """
        first: Any = self.layers[0]
        first._check(candidate, history, None, longest)
        found = everything("LongTermInterestClock", history, candidate, query_time, longest)
        query, outputs, contexts = self.first(candidate), [], []
        for layer, mix in zip(self.layers, self.mix, strict=True):
            out, context = layer(query, history, query_time, found=found, return_context=True)
            outputs.append(out)
            contexts.append(context)
            last = layer is self.layers[-1]
            query = mix(torch.cat(outputs if last else [*outputs, candidate], -1))
        return (query, torch.cat(contexts, -2)) if return_context else query

    def extra_repr(self) -> str:
        return f"behaviour_dim={self.behaviour_dim}, candidate_dim={self.candidate_dim}, clock={self.clock}"
