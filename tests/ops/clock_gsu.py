# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from fuzz.searches import ClockSearch
from fuzz.spec import Given


class ClockGsu(ClockSearch):
    name = "clock_gsu"

    def public(self) -> dict[str, Given]:
        return self.good_public(k=3, scale=1.0, unit=3600.0)


SPECS = (ClockGsu(),)
