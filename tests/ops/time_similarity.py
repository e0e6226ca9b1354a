# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from cases import make_mlp
from fuzz import oracle
from fuzz.call import Call
from fuzz.compare import compare, compare_gradients
from fuzz.draw import INTS, Draw
from fuzz.rules import Rules
from fuzz.spec import MLP, Given, Spec


class OfDelta(Spec):
    """Of distances on the clock, whatever its period."""

    def draw(self, draw: Draw, way: str) -> Given:
        period, unit = draw.clock()
        shape = tuple(draw.size(8) for _ in range(draw.below(4)))
        if draw.chance(0.03) and not draw.tiny:
            shape = (40_000,)
        dtype = draw.pick(*INTS)
        if period == 0:
            delta = draw.times(shape, dtype, 86400, draw.below(5)).abs()
        else:
            delta = draw.ints(shape, 0, period // 2 + 1, dtype)
        weights = draw.mlps({"periods": [period], "units": [unit]}) if "w1" in self.kinds else {}
        return {"delta": draw.dressed(delta), **weights, "unit": unit, "elapsed": period == 0}

    def contract(self, rules: Rules) -> None:
        rules.ints("delta")
        rules.units(rules.a["unit"])

    def values(self, rules: Rules, view: Given) -> None:
        if bool((view["delta"] < 0).any()):
            rules.open.append("delta is negative")

    def seen(self, view: Given) -> oracle.Array:
        """The distances as s sees them."""
        delta: oracle.Array = view["delta"]
        return oracle.elapsed(delta, 0) if view["elapsed"] else delta


class TimeFeatures(OfDelta):
    name = "time_features"

    def raw(self) -> dict[str, Given]:
        given = {"delta": torch.randint(0, 43_200, (3, 8)), "unit": 3600.0, "elapsed": False}
        return {"": given, "elapsed": given | {"elapsed": True}}

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        exact = oracle.phi(self.seen(view), view["unit"], view["elapsed"])
        off = oracle.units(oracle.phi_sizes(exact), 1)
        off = np.where(exact[..., :1] < oracle.HUGE, off, np.inf)
        compare("phi", result, exact, torch.float32, off)


class TimeSimilarity(OfDelta):
    name = "time_similarity"

    def raw(self) -> dict[str, Given]:
        delta = torch.randint(0, 43_200, (3, 8))
        given = {"delta": delta, **dict(zip(MLP, make_mlp(), strict=True)), "unit": 3600.0, "elapsed": False}  # fmt: skip
        return {"": given, "elapsed": given | {"elapsed": True}}

    def contract(self, rules: Rules) -> None:
        super().contract(rules)
        rules.mlp()

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        exact, off = oracle.similarity(self.seen(view), view)
        compare("s", result, exact, torch.float32, off)


class TimeSimilarityBackward(TimeSimilarity):
    name = "time_similarity_backward"
    of = TimeSimilarity()
    ways = ("raw", "gradient")
    leaves = MLP

    def raw(self) -> dict[str, Given]:
        return {name: {"grad": torch.randn(3, 8), **given} for name, given in self.of.raw().items()}

    def draw(self, draw: Draw, way: str) -> Given:
        a = super().draw(draw, way)
        return {"grad": draw.dressed(draw.floats(a["delta"].shape, torch.float32))} | a

    def contract(self, rules: Rules) -> None:
        super().contract(rules)
        rules.dtype("grad", torch.float32)
        rules.shape("grad", *rules.a["delta"].shape)

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        g = view["grad"].reshape(-1)
        exact = oracle.similarity_gradient(self.seen(view).reshape(-1), g, np.abs(g) * 0, view)
        compare_gradients(call, a, result, oracle.Answer(*exact))


SPECS = (TimeFeatures(), TimeSimilarity(), TimeSimilarityBackward())
