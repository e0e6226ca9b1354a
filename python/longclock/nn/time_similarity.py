# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor, nn

from longclock._backend import Backend, backend_ops, check_backend
from longclock._clocks import resolve_clocks, resolve_units
from longclock._constants import DEFAULT_PERIOD, ELAPSED, S_AT_START
from longclock._keywords import named_keywords
from longclock.nn.recording import leaf, not_scriptable
from longclock.ops._errors import named_method
from longclock.types import Clock, Clocks

YEAR = 365 * 86400
MlpWeights: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]  # w1, b1, w2 and b2


def _wide(weight: Tensor) -> Tensor:
    return weight.float() if weight.dtype.itemsize < 4 else weight


def farthest_x(clock: Clock, unit: float) -> float:
    """The x of times that are as far apart as they may be on a circle, or a year."""
    return max(math.log2(1 + YEAR / unit) if clock == ELAPSED else clock / 2 / unit, 1e-6)


class TimeSimilarity(nn.Module):
    """The learned similarity of two times, ``s(x) = w2 . relu(w1 phi(x) + b1) + b2``, of a clock or summed over several.

    ``phi(x) = [x, sqrt(x), x^2, log(x + 1)]`` of ``x = delta / unit``, or of ``ELAPSED`` of ``x = log2(1 + d / unit)``.
    ``forward`` takes integer differences in seconds, one tensor for each clock, circular ones or how long ago, any shape,
    and returns fp32 of that shape. Pass the module itself as the ``mlp`` of an op: its clocks and units are then the op's.

    Args:
        hidden: width h of the hidden layer of each clock, 1 to 64 of all clocks together.
        unit: seconds in one x, one number or one for each clock; None: 3600, hours, and 60 of ``ELAPSED``.
        clocks: a period in seconds, ``ELAPSED``, or a tuple of up to 4 of them.
        falls: one bool, or one for each clock: s never rises with the difference: w1 counts as ``-|w1|`` and w2 as ``|w2|``, whatever their signs. In
            a stream's first days, before habits have come round again, finding a candidate in the history tells against it: a
            free s can turn over then and stay so (docs/training.md). False: s is of any form.
        backend: "compiled", or "reference": plain PyTorch, for any float dtype.

    Before anything is learned s falls from 8 at difference 0, to which each clock adds as much, to 0 at half the period
    (``ELAPSED``: at a year). Parameters: w1 [h, 4], b1 [h], w2 [h], b2 [1]; of C > 1 clocks [C, h, 4], [C, h], [C, h] and
    [C]. A state whose b2 is [] loads as well. :meth:`mlp` gives them as the ops take them.

    Example::

        >>> import torch, longclock as lc
        >>> s, now, times = lc.TimeSimilarity(), torch.tensor(23), torch.tensor([23, 0, 5, 11])
        >>> delta = lc.circular_delta(3600 * now, 3600 * times)
        >>> [round(x, 1) for x in s(delta).tolist()]  # 23:00 to 23:00, 0:00, 5:00 and 11:00
        [8.0, 6.2, 1.5, 0.0]
        >>> both = lc.TimeSimilarity(clocks=(86400, lc.ELAPSED))
        >>> [round(x, 1) for x in both(delta, 3600 * (now - times)).tolist()]
        [8.0, 3.7, 1.4, 0.7]
    """

    @named_keywords()
    def __init__(
        self,
        hidden: int = 8,
        unit: float | tuple[float, ...] | None = None,
        *,
        clocks: Clocks = DEFAULT_PERIOD,
        falls: bool | tuple[bool, ...] = True,
        backend: Backend = "compiled",
    ) -> None:
        super().__init__()
        if isinstance(hidden, bool) or not isinstance(hidden, int):
            raise ValueError(f"TimeSimilarity: hidden must be an int, got {hidden!r}")
        self.clocks = resolve_clocks("TimeSimilarity", clocks)
        count = len(self.clocks)
        if not 1 <= hidden <= 64 // count:
            of_each = f" of each of {count} clocks" if count > 1 else ""
            raise ValueError(
                f"TimeSimilarity: hidden must be from 1 to {64 // count}{of_each}, got {hidden}"
            )
        each_falls = falls if isinstance(falls, tuple) else (falls,) * count
        if len(each_falls) != count or not all(isinstance(one, bool) for one in each_falls):
            raise ValueError(
                f"TimeSimilarity: falls must be a bool, or one for each of the clocks, got {falls!r}"
            )
        self.hidden, self.falls = hidden, each_falls
        self.backend = check_backend("TimeSimilarity", backend)
        self.units = resolve_units("TimeSimilarity", self.clocks, unit)
        stacked = () if count == 1 else (count,)
        self.w1 = nn.Parameter(torch.empty(*stacked, hidden, 4))
        self.b1 = nn.Parameter(torch.empty(*stacked, hidden))
        self.w2 = nn.Parameter(torch.empty(*stacked, hidden))
        self.b2 = nn.Parameter(torch.empty(count))  # FSDP takes no scalars
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        # Unit j is the hinge relu(1 - x / c_j), the c_j spread over the half period: every unit is
        # alive for near times, none equals another, and s falls smoothly from S_AT_START to 0.
        # The other features begin with next to no weight: at 0 itself a magnitude has no gradient.
        knots = torch.arange(1, self.hidden + 1, dtype=self.w1.dtype, device=self.w1.device)
        for w1, clock, unit in zip(
            self.w1.view(-1, self.hidden, 4), self.clocks, self.units, strict=True
        ):
            farthest = farthest_x(clock, unit)
            w1.fill_(-1e-3 / max(farthest, 1.0) ** 2)
            w1[:, 0] = -self.hidden / (farthest * knots)
        self.b1.fill_(1.0)
        self.w2.fill_(S_AT_START / self.hidden / len(self.clocks))
        self.b2.zero_()

    def mlp(self) -> MlpWeights:
        """(w1, b1, w2, b2) as the ops take them: with the signs of an s that falls, 16-bit weights as fp32."""
        w1, b1, w2, b2 = _wide(self.w1), _wide(self.b1), _wide(self.w2), _wide(self.b2)
        if all(self.falls):
            return -w1.abs(), b1, w2.abs(), b2
        if any(self.falls):  # of several clocks
            each = list(zip(w1, w2, self.falls, strict=True))
            w1 = torch.stack([-one.abs() if falls else one for one, _, falls in each])
            w2 = torch.stack([one.abs() if falls else one for _, one, falls in each])
        return w1, b1, w2, b2

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        b2 = state_dict.get(f"{prefix}b2")
        if isinstance(b2, Tensor) and b2.dim() == 0 and len(self.clocks) == 1:
            state_dict[f"{prefix}b2"] = b2.reshape(1)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def __prepare_scriptable__(self) -> NoReturn:
        not_scriptable(self)

    @leaf
    @named_method({"mlp w1": "the weights"})
    def forward(self, delta: Tensor, *others: Tensor) -> Tensor:
        deltas, count = (delta, *others), len(self.clocks)
        if len(deltas) != count:
            raise ValueError(
                f"TimeSimilarity: there must be a tensor of differences for each of {count} clocks, got {len(deltas)}"
            )
        weights = self.mlp()
        of_clock = zip(*weights, strict=True) if count > 1 else [weights]
        similarity = backend_ops(self.backend).time_similarity
        s = [
            similarity(delta, *mlp, unit=unit, elapsed=clock == ELAPSED)
            for delta, mlp, clock, unit in zip(
                deltas, of_clock, self.clocks, self.units, strict=True
            )
        ]
        total: Tensor = s[0]
        for more in s[1:]:
            total = total + more
        return total

    def extra_repr(self) -> str:
        one = len(self.clocks) == 1
        clocks, units, falls = self.clocks, self.units, self.falls
        return (
            f"hidden={self.hidden}, unit={units[0] if one else units}, clocks={clocks[0] if one else clocks}, "
            f"falls={falls[0] if one else falls}, backend={self.backend!r}"
        )
