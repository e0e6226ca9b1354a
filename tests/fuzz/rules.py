# SPDX-License-Identifier: Apache-2.0
"""What must come of a call: the right result, or a refusal that names op and argument.

Written from docs/mathematics.md ("Semantics") and the docstrings, for arguments however odd. Every
rule is looked at; one that is broken makes the call one that must be refused. What holds for all ops
stands here, the rest in the contract and the values of their Specs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .call import Call
from .draw import FLOATS, INTS
from .spec import DEFAULTS, MLP, Given

FARTHEST = 10**11  # seconds


@dataclass
class Verdict:
    """kind: "right"; "refused"; "either" (right or refused); "meta" (the right shapes, or refused);
    "open" (what it gives is not laid down: it may be anything but a crash or an unnamed error)."""

    kind: str = "right"
    why: list[str] = field(default_factory=list)


def of_kind(value: Any) -> str:
    if value is None:
        return "none"
    if not isinstance(value, Tensor):
        return "python"
    if value.is_quantized:
        return "quantized"
    if value.is_nested:
        return "nested"
    if value.layout != torch.strided:
        return "sparse"
    if value.device.type != "cpu":
        return value.device.type
    if type(value) not in (Tensor, torch.nn.Parameter):
        return "subclass"
    return "zero" if value._is_zerotensor() else "tensor"


class Rules:
    def __init__(self, call: Call, emulated: bool) -> None:
        self.call, self.emulated = call, emulated
        self.a = dict(call.arguments)
        self.broken: list[str] = []
        self.either: list[str] = []
        self.open: list[str] = []

    def need(self, holds: bool, what: str) -> bool:
        if not holds:
            self.broken.append(what)
        return holds

    def data(self, holds: bool, what: str) -> None:
        """What depends on values: refused on the CPU; CUDA clamps it."""
        if not holds:
            (self.open if self.emulated else self.broken).append(what)

    # Kinds of argument.

    def arguments(self) -> None:
        meta, real = [], []
        unread = self.call.form.unread(self.a) if self.call.way != "raw" else ()
        for name, value in self.call.arguments.items():
            kind = self.call.kind(name)
            if kind == "Optional[List[Tensor]]":  # as it was drawn, but for its device
                some = value or ()
                (meta if any(each.is_meta for each in some) else real).extend([name] * bool(some))
                continue
            if kind in SCALARS:
                if name not in unread:
                    SCALARS[kind](self, name, value, kind.startswith("Optional"))
                continue
            kind = self.tensor(name, value, kind.startswith("Optional"))
            if (self.call.way == "gradient" and name == "grad") or kind in ("none", "python"):
                continue
            (meta if kind == "meta" else real).append(name)
        self.need(isinstance(self.call.mlp, str) and self.call.mlp != "mlp", "mlp")
        for name in self.call.extra:
            self.need(False, f"{name} is no keyword")
        if meta and real:
            self.need(False, f"{meta} are on meta, {real} are not")
        self.meta = bool(meta)

    def tensor(self, name: str, value: Any, optional: bool) -> str:
        kind = of_kind(value)
        if kind == "none":
            self.need(optional, f"{name} is None")
        elif kind == "python":
            number = isinstance(value, (bool, int, float))
            if self.call.kind(name) == "Tensor or int":
                whole = isinstance(value, int) and not isinstance(value, bool)
                self.need(whole, f"{name} {value!r}")
            elif self.call.way == "raw" and number and abs(value) < 2**63:
                dtype = torch.float64 if isinstance(value, float) else None
                self.a[name] = torch.tensor(value, dtype=dtype)
                self.either.append(f"{name} is a number, which PyTorch makes a tensor")
            else:
                self.need(False, f"{name} is {type(value).__name__}")
        elif kind in ("subclass", "zero"):
            self.either.append(f"{name} is a {kind}")
        else:
            self.need(kind in ("tensor", "meta"), f"{name} is {kind}")
        return kind

    def whole(self, name: str, value: Any, optional: bool) -> None:
        if value is None:
            self.need(optional, f"{name} is None")
        elif isinstance(value, bool):
            self.need(self.call.way == "raw" or optional, f"{name} is a bool")
            self.either.append(f"{name} is a bool")
        else:
            self.need(isinstance(value, int), f"{name} is {type(value).__name__}")

    def real(self, name: str, value: Any, optional: bool) -> None:
        if value is None:
            self.need(self.call.way != "raw" and name in DEFAULTS, f"{name} is None")
        elif isinstance(value, bool):
            self.either.append(f"{name} is a bool")
        else:
            self.need(isinstance(value, (int, float)), f"{name} is {type(value).__name__}")

    def text(self, name: str, value: Any, optional: bool) -> None:
        if value is None:
            self.need(optional, f"{name} is None")
        else:
            self.need(isinstance(value, str), f"{name} is {type(value).__name__}")

    def wholes(self, name: str, value: Any, optional: bool) -> None:
        self.each(Rules.whole, name, value)

    def reals(self, name: str, value: Any, optional: bool) -> None:
        self.each(Rules.real, name, value)

    def each(self, rule: Callable[[Rules, str, Any, bool], None], name: str, value: Any) -> None:
        """Of a list, where None stands for no element."""
        if value is None:
            self.need(self.call.way != "raw" and name in DEFAULTS, f"{name} is None")
        elif self.need(isinstance(value, list), f"{name} is {type(value).__name__}"):
            for at, one in enumerate(value):
                rule(self, f"{name}[{at}]", one, False)

    def flag(self, name: str, value: Any, optional: bool) -> None:
        if not isinstance(value, bool):
            number = value is None or isinstance(value, (int, float))  # PyTorch makes them bools
            self.need(number, f"{name} is {type(value).__name__}")
            self.either.append(f"{name} is {type(value).__name__}")

    # Dtypes and shapes.

    def dtype(self, name: str, *dtypes: torch.dtype) -> bool:
        value = self.a.get(name)
        return value is None or self.need(value.dtype in dtypes, f"{name} is {value.dtype}")

    def ints(self, *names: str) -> None:
        for name in names:
            self.dtype(name, *INTS)

    def shape(self, name: str, *expected: int) -> bool:
        value = self.a.get(name)
        fits = value is None or tuple(value.shape) == expected
        return self.need(fits, f"{name} must have shape {expected}")

    def rank(self, name: str, *ranks: int) -> bool:
        return self.need(self.a[name].dim() in ranks, f"{name} must have {ranks} dimensions")

    def matches(self, name: str, rows: str) -> None:
        if self.dtype(name, *FLOATS) and self.dtype(rows, *FLOATS):
            fits = self.a[name].dtype in (torch.float32, self.a[rows].dtype)
            self.need(fits, f"{name} is not {rows}' dtype")

    def mlp(self, clocks: int = 1) -> None:
        """Stacked, where there are several clocks."""
        for name in MLP:
            self.dtype(name, torch.float32)
        w1, lead = self.a["w1"], () if clocks == 1 else (clocks,)
        fits = w1.dim() == 2 + len(lead) and w1.shape[-1] == 4 and 1 <= w1.shape[-2] <= 64 // clocks
        if self.need(fits and tuple(w1.shape[:-2]) == lead, "w1's shape"):
            self.shape("b1", *w1.shape[:-1])
            self.shape("w2", *w1.shape[:-1])
        shapes = ((), (1,)) if clocks == 1 else (lead,)
        self.need(tuple(self.a["b2"].shape) in shapes, "b2's shape")

    def clocks(self) -> None:
        """Their periods and units, and the parameters of s of each."""
        periods, units = self.a["periods"], self.a["units"]
        self.need(all(0 <= period <= 2**31 - 1 for period in periods), "periods")
        if units is not None:
            self.need(len(units) == len(periods), "how many units")
            self.units(*units)
        if self.need(1 <= len(periods) <= 4, "how many periods"):
            self.mlp(len(periods))

    def units(self, *units: float | None) -> None:
        for unit in units:
            if unit is not None:
                self.need(0.0 < unit < float("inf"), f"unit {unit}")
                if 0.0 < unit < 1e-30 or unit > 1e30:
                    self.either.append("unit is extreme")

    def period(self) -> None:
        self.need(1 <= self.a["period"] <= 2**31 - 1, "period")

    def k(self, most: int = 2048) -> None:
        self.need(0 <= self.a["k"] <= most, "k")

    # Values.

    def seconds(self, name: str, times: Any, must: bool = True) -> None:
        """Times that count."""
        times = np.asarray(times)
        if times.dtype != np.int64 or not ((times > FARTHEST) | (times < -FARTHEST)).any():
            return
        if self.emulated or not must:
            self.either.append(f"{name} is beyond 10^11")
        else:
            self.need(False, f"{name} is beyond 10^11")

    def lengths(self, view: Given, most: int) -> None:
        v = view["lengths"]
        self.data(v is None or bool(((v >= 0) & (v <= most)).all()), "lengths")


SCALARS: dict[str, Callable[[Rules, str, Any, bool], None]] = {
    "int": Rules.whole, "Optional[int]": Rules.whole, "float": Rules.real, "bool": Rules.flag,
    "Optional[str]": Rules.text,
    "List[int]": Rules.wholes, "List[float]": Rules.reals,
}  # fmt: skip


def judge(call: Call, emulated: bool, read: Callable[[Given], Given]) -> Verdict:
    """``read(arguments)`` gives the oracle's view of them."""
    rules = Rules(call, emulated)
    rules.arguments()
    if not rules.broken:
        call.form.contract(rules)
    if rules.meta:
        if not rules.broken:
            return Verdict("meta", rules.either)
        mixed = any("meta" in why for why in rules.broken)
        return Verdict("refused" if mixed else "meta", rules.broken)
    if not rules.broken:
        call.form.values(rules, read(rules.a))
    if rules.broken:
        return Verdict("refused", rules.broken)
    if rules.open or any("saved" in text for text in call.mutations):
        return Verdict("open", rules.open)
    return Verdict("either" if rules.either else "right", rules.either)
