# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

from fuzz.call import Call
from fuzz.draw import Draw
from fuzz.layouts import good_cases
from fuzz.searches import ClockSearch
from fuzz.spec import Given


class ClockGsu(ClockSearch):
    name = "clock_gsu"

    def public(self) -> dict[str, Given]:
        return self.good_public(k=3, scale=1.0, unit=3600.0)

    def raw(self) -> dict[str, Given]:
        return {name: self.good_raw(case) | {"k": 3} for name, case in good_cases().items()}

    def draw(self, draw: Draw, way: str) -> Given:
        return super().draw(draw, way) | {"k": draw.count()}

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        self.check_selection(view, result, call.exact)


SPECS = (ClockGsu(),)
