# SPDX-License-Identifier: Apache-2.0
"""The clocks of a call, which raw ops take as periods and units, as public functions take them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import longclock as lc

from .spec import MLP, Given


def clock_options(a: Given) -> Given:
    """One clock as itself, several as a tuple; one unit for all of them where they are equal."""
    clocks, unit = a["periods"], a["units"]
    if isinstance(unit, list):
        equal = len(unit) == len(clocks) > 0 and unit.count(unit[0]) == len(unit)
        unit = unit[0] if equal and unit[0] is not None else tuple(unit)
    if isinstance(clocks, list):
        clocks = tuple([lc.ELAPSED if period == 0 else period for period in clocks])
        clocks = clocks[0] if len(clocks) == 1 and clocks[0] is not None else clocks
    return {"clocks": clocks, "unit": unit}


def module(mlp: tuple[Tensor, ...], a: Given) -> Any:
    """The weights in a TimeSimilarity, or as they are where it has no such weights."""
    try:
        made = lc.TimeSimilarity(mlp[0].shape[-2], falls=False, **clock_options(a))
    except (ValueError, IndexError):
        return mlp
    if made.w1.shape != mlp[0].shape or made.b2.numel() != mlp[3].numel():
        return mlp
    for name, weight in zip(MLP, mlp, strict=True):
        if weight.dtype != torch.float32:  # which a module would convert
            return mlp
        setattr(made, name, torch.nn.Parameter(weight, requires_grad=False))
    return made
