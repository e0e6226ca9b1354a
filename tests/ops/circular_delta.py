# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from fuzz import oracle
from fuzz.call import Call
from fuzz.compare import compare
from fuzz.draw import INTS, PERIODS, Draw
from fuzz.rules import FARTHEST, Rules
from fuzz.spec import Given, Spec
from torch import Tensor


class Times(Spec):
    """Of two tensors of times that broadcast, and a period."""

    names: ClassVar[tuple[str, str]]

    def draw(self, draw: Draw, way: str) -> Given:
        shape = tuple(draw.size(6) for _ in range(draw.below(5)))
        period = draw.pick(*PERIODS)
        a = draw.times(shape, draw.pick(*INTS), period, draw.below(5))
        other = shape
        if draw.chance(0.4):
            other = tuple(1 if draw.chance(0.4) else n for n in shape)[draw.below(len(shape) + 1) :]
        b = draw.times(other, draw.pick(*INTS), period, draw.below(5))
        if draw.chance(0.5) and self.names == ("a", "b"):
            a, b = b, a
        a, b = draw.dressed(a), draw.dressed(b)
        if way == "raw":
            a, b = torch.broadcast_tensors(a, b)
        return dict(zip(self.names, (a, b), strict=True)) | {"period": period}

    def contract(self, rules: Rules) -> None:
        rules.period()
        times = {name: rules.a[name] for name in self.names if isinstance(rules.a[name], Tensor)}
        rules.ints(*times)
        shapes = [tuple(value.shape) for value in times.values()]
        if len(set(shapes)) > 1:
            try:
                np.broadcast_shapes(*shapes)
            except ValueError:
                rules.need(False, f"{' and '.join(self.names)} do not broadcast")
            if rules.call.way == "raw":
                rules.either.append("shapes that differ, in a raw op")


class CircularDelta(Times):
    name = "circular_delta"
    names = ("a", "b")

    def raw(self) -> dict[str, Given]:
        delta = torch.randint(0, 43_200, (3, 8))
        given = {"a": delta, "b": delta.int(), "period": 86400}
        return {"": given, "expanded": given | {"b": delta[:1].expand(3, 8)}}

    def values(self, rules: Rules, view: Given) -> None:
        some = np.broadcast(view["a"], view["b"]).size > 0
        rules.seconds("a", view["a"], some)
        rules.seconds("b", view["b"], some)

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        x, y = np.broadcast_arrays(view["a"], view["b"])
        dtype = torch.promote_types(a["a"].dtype, a["b"].dtype)
        compare("delta", result, oracle.delta(x, y, view["period"]), dtype)


class ClockTime(Times):
    name = "clock_time"
    names = ("timestamps", "utc_offset")
    ways = ("public",)  # it is no raw op

    @property
    def kinds(self) -> dict[str, str]:
        return {"timestamps": "Tensor", "utc_offset": "Tensor or int", "period": "int"}

    def public(self) -> dict[str, Given]:
        when = torch.zeros(2, 5, dtype=torch.int64)
        return {"": {"timestamps": when, "utc_offset": 0, "period": 86400}}

    def draw(self, draw: Draw, way: str) -> Given:
        a = super().draw(draw, way)
        if draw.chance(0.5):
            a["utc_offset"] = int(draw.pick(0, 3600, -19800, 50400, -(10**6)))
        return a

    def values(self, rules: Rules, view: Given) -> None:
        some = np.broadcast(view["timestamps"], view["utc_offset"]).size > 0
        rules.seconds("timestamps", view["timestamps"], some)
        if np.any(np.abs(np.asarray(view["utc_offset"]).astype(object)) > FARTHEST):
            rules.either.append("utc_offset is beyond 10^11")

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        t, offset = np.broadcast_arrays(view["timestamps"], view["utc_offset"])
        exact = oracle.clock(t.astype(object) + offset.astype(object), view["period"])
        compare("time", result, exact, torch.int32)


SPECS = (CircularDelta(), ClockTime())
