# SPDX-License-Identifier: Apache-2.0
"""What the tests that know every op must know of one: a file each, which gives the SPECS of the op and its parts."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from fuzz.spec import Given, Spec

FILES = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
OPS: dict[str, Spec] = {
    spec.name: spec
    for file in FILES
    for spec in getattr(import_module(f"{__name__}.{file}"), "SPECS", ())
}


def raw_calls(*, forward: bool = False) -> dict[str, tuple[str, Given]]:
    """Good calls of every raw op: its name, and its arguments by name. forward: of no gradient."""
    torch.manual_seed(0)
    return {
        f"{op} {kind}".strip(): (op, given)
        for op, spec in OPS.items()
        if "raw" in spec.ways and not (forward and "gradient" in spec.ways)
        for kind, given in spec.raw().items()
    }


def run_raw(op: str, given: Given) -> Any:
    return getattr(torch.ops.longclock, op)(**given)
