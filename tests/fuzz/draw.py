# SPDX-License-Identifier: Apache-2.0
"""Everything by chance: each dtype, size and stride that the contract allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from cases import integer_mlp
from torch import Tensor

from .spec import MLP, Given

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
INTS = (torch.int32, torch.int64)
PERIODS = (86400, 86400, 604800, 1, 2, 7, 16, 3600, 86399, 65537, 2**31 - 1)
NONSENSE = (torch.nan, torch.inf, -torch.inf, 60000.0)


class Draw:
    """Everything by chance, from one seed and one index."""

    def __init__(self, seed: int, index: int, tiny: bool) -> None:
        self.random = np.random.default_rng([seed, index])
        self.tiny = tiny
        self.exact = False  # every sum of this call is exact in fp32

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def pick(self, *options: Any) -> Any:
        return options[int(self.random.integers(len(options)))]

    def below(self, n: int) -> int:
        return int(self.random.integers(n)) if n > 0 else 0

    def size(self, most: int) -> int:
        """0 to ``most``: the edges of vectors, tiles and words often."""
        edges = [n for n in (0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100) if n <= most]
        return int(self.pick(*edges)) if self.chance(0.6) else self.below(most + 1)

    def ints(self, shape: Any, low: int, high: int, dtype: torch.dtype) -> Tensor:
        """low to high - 1."""
        return torch.from_numpy(np.asarray(self.random.integers(low, high, shape))).to(dtype)

    def floats(self, shape: Any, dtype: torch.dtype, integers: bool = False) -> Tensor:
        if integers:
            return self.ints(shape, -3, 4, dtype)
        values = np.asarray(self.random.standard_normal(shape))
        kind = self.below(12)
        if kind == 0:  # many equals
            values = np.round(values)
        elif kind == 1 and dtype != torch.float16:
            values = values * self.pick(1e-30, 1e-10, 1e4, 1e10)
        return torch.from_numpy(np.asarray(values, np.float64)).to(dtype)

    def bools(self, shape: Any, share: float) -> Tensor:
        return torch.from_numpy(np.asarray(self.random.random(shape) < share))

    def times(self, shape: Any, dtype: torch.dtype, period: int, kind: int) -> Tensor:
        """Seconds: of today, around 0, at either end, on the seams of the clock."""
        end = 2**31 - 1 if dtype == torch.int32 else 10**11
        low, high = [
            (1_700_000_000, 1_700_900_000), (-200_000, 200_000), (0, 86400),
            (end - 100, end + 1), (-end, end + 1),
        ][kind]  # fmt: skip
        times = np.asarray(self.random.integers(low, high, shape))
        if self.chance(0.2):
            turns = np.maximum(np.abs(times) // period - 1, 0) * np.sign(times)
            times = turns * period + self.random.integers(-1, 2, shape)
        return torch.from_numpy(np.asarray(times)).to(dtype)

    def nonsense(self, x: Tensor, dead: Tensor, *more: int) -> None:
        """Fills what counts for nobody, in place; integers with the largest, the least, or one more."""
        ends = () if x.is_floating_point() else (torch.iinfo(x.dtype).max, torch.iinfo(x.dtype).min)
        x[dead] = self.pick(*(ends or NONSENSE), *more)

    def dressed(self, tensor: Tensor) -> Tensor:
        """The same values elsewhere: another offset, other strides, poison in between."""
        kind = self.below(8)
        if kind > 3:
            return tensor
        poison = torch.nan if tensor.is_floating_point() else (
            True if tensor.dtype == torch.bool else torch.iinfo(tensor.dtype).min)  # fmt: skip
        if kind == 0:
            flat = torch.full((tensor.numel() + 1,), poison, dtype=tensor.dtype)
            held = flat[1:].view(tensor.shape)
        elif kind == 1 and tensor.dim():
            shape = (*tensor.shape[:-1], tensor.shape[-1] * 2)
            held = torch.full(shape, poison, dtype=tensor.dtype)[..., ::2]
        elif kind == 2 and tensor.dim() > 1:
            order = torch.from_numpy(self.random.permutation(tensor.dim())).tolist()
            back = [order.index(d) for d in range(tensor.dim())]
            sizes = [tensor.shape[d] for d in order]
            held = torch.full(sizes, poison, dtype=tensor.dtype).permute(back)
        elif kind == 3 and tensor.dim() > 1:
            shape = (tensor.shape[0], *(n + 3 for n in tensor.shape[1:]))
            inner = [slice(1, 1 + n) if d else slice(None) for d, n in enumerate(tensor.shape)]
            held = torch.full(shape, poison, dtype=tensor.dtype)[tuple(inner)]
        else:
            return tensor
        return held.copy_(tensor)

    def dressed_all(self, a: Given, *names: str) -> Given:
        return a | {name: self.dressed(a[name]) for name in names if a[name] is not None}

    def clock(self) -> tuple[int, float]:
        """A period, 0 for the time elapsed, and a unit."""
        if self.exact:
            return 16, 1.0
        if self.chance(0.15):
            return 0, self.pick(60.0, 60.0, 1.0, 3600.0, 1e-3)
        if self.chance(0.4):
            return 86400, 3600.0  # with others x^2 is so large that nothing else shows
        period = self.pick(*PERIODS)
        return period, self.pick(3600.0, 3600.0, 60.0, 1.0, period / 24, 1e-3, 7200.5)

    def clocks(self) -> Given:
        """Periods and units: of one clock mostly."""
        made = [self.clock()]
        while not self.exact and len(made) < 4 and self.chance(0.3):
            made.append(self.clock())
        return {"periods": [period for period, _ in made], "units": [unit for _, unit in made]}

    def mlps(self, clocks: Given) -> Given:
        """The parameters of every clock."""
        periods = clocks["periods"]
        width = self.pick(8, 8, 1, 3, 9, 16, 33, 64) if not self.tiny else self.pick(8, 1, 9)
        width = min(width, 64 // len(periods))
        made = [
            self.mlp(float(np.log2(1 + 2**31 / unit)) if period == 0 else period / 2 / unit, width)
            for period, unit in zip(periods, clocks["units"], strict=True)
        ]
        if len(made) == 1:
            return made[0]
        stacked = {name: torch.stack([one[name] for one in made]) for name in MLP[:3]}
        stacked["b2"] = torch.stack([one["b2"].reshape(()) for one in made])
        return self.dressed_all(stacked, *MLP)

    def mlp(self, reach: float, width: int) -> Given:
        """Of an x up to ``reach``."""
        if self.exact:  # on a clock of 16 seconds with unit 1 every term is a small integer
            return dict(zip(MLP, integer_mlp(), strict=True))
        reach = max(reach, 1e-3)
        sizes = np.array([reach, reach**0.5, reach**2, np.log1p(reach)])
        normal = self.random.standard_normal
        weights = {
            "w1": normal((width, 4)) / sizes, "b1": normal(width), "w2": normal(width) / width**0.5,
            "b2": normal(() if self.chance(0.8) else (1,)),
        }  # fmt: skip
        made = {
            name: torch.from_numpy(np.asarray(value)).float() for name, value in weights.items()
        }
        return self.dressed_all(made, *MLP)

    def count(self) -> int:
        """How many to select."""
        return int(self.pick(0, 1, 2, 3, 5, 17, 100) if self.chance(0.95) else 2048)

    def needs(self, *names: str) -> dict[str, bool]:
        return {f"need_{name}": self.chance(0.7) for name in names}
