# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from longclock._backend import Backend, backend_ops, check_backend
from longclock._mlp import DEFAULT_PERIOD, DEFAULT_UNIT, resolve_period, resolve_unit
from longclock.ops._errors import named_method

S_AT_START = 8.0  # s at difference 0 before anything is learned


def _wide(weight: Tensor) -> Tensor:
    return weight.float() if weight.dtype.itemsize < 4 else weight


class TimeSimilarity(nn.Module):
    """The learned similarity of two times of day, ``s(x) = w2 . relu(w1 phi(x) + b1) + b2``.

    ``phi(x) = [x, sqrt(x), x^2, log(x + 1)]`` of ``x = delta / unit``. ``forward`` takes integer
    circular differences in seconds, any shape, and returns fp32 of that shape. Pass the module
    itself as the ``mlp`` of an op.

    Args:
        hidden: width h of the hidden layer, 1 to 64.
        unit: seconds in one x; 3600 counts in hours.
        period: seconds of the clock; only the initial weights depend on it.
        falls: s never rises with the difference: w1 counts as ``-|w1|`` and w2 as ``|w2|``, whatever their signs. In
            a stream's first days, before habits have come round again, finding a candidate in the history tells against it: a
            free s can turn over then and stay so (docs/training.md). False: s is of any form.
        backend: "compiled", or "reference": plain PyTorch, for any float dtype.

    Before anything is learned s falls from 8 at difference 0 to 0 at half the period.
    Parameters: w1 [h, 4], b1 [h], w2 [h], b2 [1]. A state whose b2 is [] loads as well. :meth:`mlp` gives them as the ops
    take them.

    Example::

        >>> import torch, longclock as lc
        >>> s, now, times = lc.TimeSimilarity(), torch.tensor(23), torch.tensor([23, 0, 5, 11])
        >>> delta = lc.circular_delta(3600 * now, 3600 * times)
        >>> [round(x, 1) for x in s(delta).tolist()]  # 23:00 to 23:00, 0:00, 5:00 and 11:00
        [8.0, 6.2, 1.5, 0.0]
    """

    def __init__(
        self,
        hidden: int = 8,
        unit: float = DEFAULT_UNIT,
        *,
        period: int = DEFAULT_PERIOD,
        falls: bool = True,
        backend: Backend = "compiled",
    ) -> None:
        super().__init__()
        if isinstance(hidden, bool) or not isinstance(hidden, int):
            raise ValueError(f"TimeSimilarity: hidden must be an int, got {hidden!r}")
        if not 1 <= hidden <= 64:
            raise ValueError(f"TimeSimilarity: hidden must be from 1 to 64, got {hidden}")
        if not isinstance(falls, bool):
            raise ValueError(f"TimeSimilarity: falls must be a bool, got {falls!r}")
        self.hidden, self.falls = hidden, falls
        self.backend = check_backend("TimeSimilarity", backend)
        self.unit = resolve_unit("TimeSimilarity", unit)
        self.period = resolve_period("TimeSimilarity", period)
        self.w1 = nn.Parameter(torch.empty(hidden, 4))
        self.b1 = nn.Parameter(torch.empty(hidden))
        self.w2 = nn.Parameter(torch.empty(hidden))
        self.b2 = nn.Parameter(torch.empty(1))  # FSDP takes no scalars
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        # Unit j is the hinge relu(1 - x / c_j), the c_j spread over the half period: every unit is
        # alive for near times, none equals another, and s falls smoothly from S_AT_START to 0.
        # The other features begin with next to no weight: at 0 itself a magnitude has no gradient.
        farthest = max(self.period / 2 / self.unit, 1e-6)
        knots = torch.arange(1, self.hidden + 1, dtype=self.w1.dtype, device=self.w1.device)
        self.w1.fill_(-1e-3 / max(farthest, 1.0) ** 2)
        self.w1[:, 0] = -self.hidden / (farthest * knots)
        self.b1.fill_(1.0)
        self.w2.fill_(S_AT_START / self.hidden)
        self.b2.zero_()

    def mlp(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(w1, b1, w2, b2) as the ops take them: with the signs of an s that falls, 16-bit weights as fp32."""
        w1, b1, w2, b2 = _wide(self.w1), _wide(self.b1), _wide(self.w2), _wide(self.b2)
        return (-w1.abs(), b1, w2.abs(), b2) if self.falls else (w1, b1, w2, b2)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        b2 = state_dict.get(f"{prefix}b2")
        if isinstance(b2, Tensor) and b2.dim() == 0:
            state_dict[f"{prefix}b2"] = b2.reshape(1)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @named_method({"mlp w1": "the weights"})
    def forward(self, delta: Tensor) -> Tensor:
        similarity: Tensor = backend_ops(self.backend).time_similarity(
            delta, *self.mlp(), unit=self.unit
        )
        return similarity

    def extra_repr(self) -> str:
        return f"hidden={self.hidden}, unit={self.unit:g}, falls={self.falls}, backend={self.backend!r}"
