# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fuzz.call import Call
from fuzz.compare import compare
from fuzz.draw import FLOATS, Draw
from fuzz.oracle import Array
from fuzz.rules import Rules
from fuzz.spec import Given, Spec


class PackSigns(Spec):
    name = "pack_signs"

    def raw(self) -> dict[str, Given]:
        return {"": {"x": torch.randn(6, 64)}}

    def draw(self, draw: Draw, way: str) -> Given:
        shape = (*(draw.size(5) for _ in range(draw.below(4))), draw.size(40 if draw.tiny else 200))
        return {"x": draw.dressed(draw.floats(shape, draw.pick(*FLOATS)))}

    def contract(self, rules: Rules) -> None:
        rules.dtype("x", *FLOATS)
        rules.need(rules.a["x"].dim() > 0, "x is a scalar")

    def answer(self, x: Array) -> Array:
        words = (x.shape[-1] + 63) // 64
        bits = np.zeros((*x.shape[:-1], words * 64), np.uint8)
        with np.errstate(all="ignore"):
            bits[..., : x.shape[-1]] = x > 0
        packed = np.packbits(bits, axis=-1, bitorder="little")
        return packed.view(np.int64) if words else np.zeros((*x.shape[:-1], 0), np.int64)

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        compare("words", result, self.answer(view["x"]), torch.int64)


SPECS = (PackSigns(),)
