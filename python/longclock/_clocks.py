# SPDX-License-Identifier: Apache-2.0
"""How the arguments ``clocks`` and ``unit`` are read, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longclock._constants import DEFAULT_PERIOD, DEFAULT_UNIT, ELAPSED, ELAPSED_UNIT, MAX_PERIOD
from longclock._mlp import require_number, resolve_mlp, resolve_unit
from longclock.types import Clock, Clocks, Mlp

MAX_CLOCKS = 4
UNIT_OF_ALL = "a number, or one for each of the clocks"


class TimeTerm(NamedTuple):
    """s() of an op: the parameters by name, and of each clock its period, 0 for the time elapsed, and its unit."""

    weights: dict[str, Tensor]
    periods: list[int]
    units: list[float]

    def arguments(self) -> dict[str, Any]:
        """By the names that raw ops have for them."""
        return {**self.weights, "periods": self.periods, "units": self.units}


def _resolve_clock(op: str, clock: Clock) -> Clock:
    if isinstance(clock, str) and clock == ELAPSED:
        return clock
    if isinstance(clock, bool) or not isinstance(clock, (int, torch.SymInt)):
        raise ValueError(
            f"{op}: clocks must be a period in seconds, lc.ELAPSED, or a tuple of them, got {clock!r}"
        )
    if not 1 <= clock <= MAX_PERIOD:
        raise ValueError(
            f"{op}: clocks must be from 1 to {MAX_PERIOD} seconds, got {clock}; a day is 86400, and lc.ELAPSED has no period"
        )
    return int(clock)


def resolve_clocks(op: str, clocks: Clocks) -> tuple[Clock, ...]:
    """A clock, or a tuple of up to 4, as a tuple."""
    if not isinstance(clocks, tuple):
        return (_resolve_clock(op, clocks),)
    if not 1 <= len(clocks) <= MAX_CLOCKS:
        raise ValueError(
            f"{op}: clocks must be 1 to {MAX_CLOCKS}, got {len(clocks)}; one period is a clock"
        )
    return tuple([_resolve_clock(op, clock) for clock in clocks])


def resolve_units(
    op: str, clocks: Sequence[Clock], unit: float | tuple[float, ...] | None
) -> tuple[float, ...]:
    """The seconds of one x of each clock; None: an hour of a circle, a minute of the time elapsed."""
    if isinstance(unit, tuple):
        if len(unit) != len(clocks):
            raise ValueError(
                f"{op}: unit must be {UNIT_OF_ALL}, which are {len(clocks)}, got {len(unit)}"
            )
        return tuple([resolve_unit(op, require_number(op, "unit", each)) for each in unit])
    if unit is not None:
        return (resolve_unit(op, unit),) * len(clocks)
    return tuple([ELAPSED_UNIT if clock == ELAPSED else DEFAULT_UNIT for clock in clocks])


def periods_of(clocks: Sequence[Clock]) -> list[int]:
    """As raw ops take them."""
    return [0 if clock == ELAPSED else int(clock) for clock in clocks]


def resolve_time(
    op: str, mlp: Mlp, clocks: Clocks | None, unit: float | tuple[float, ...] | None
) -> TimeTerm:
    """``mlp`` is (w1, b1, w2, b2), on a day where no clock is given, or a TimeSimilarity, which has clocks and units."""
    weights = resolve_mlp(op, mlp)
    given = None if clocks is None else resolve_clocks(op, clocks)
    if isinstance(mlp, torch.nn.Module):
        own: Any = mlp
        if given is not None and given != own.clocks:
            raise ValueError(
                f"{op}: clocks must equal those of the TimeSimilarity module, {own.clocks}, got {given}; "
                "leave clocks out, or build the module with them"
            )
        units = own.units if unit is None else resolve_units(op, own.clocks, unit)
        if units != own.units:
            raise ValueError(
                f"{op}: unit must equal the unit of the TimeSimilarity module = {_listed(own.units)}, got "
                f"{_listed(units)}; leave unit out, or build the module with it"
            )
        return TimeTerm(weights, periods_of(own.clocks), list(own.units))
    given = (DEFAULT_PERIOD,) if given is None else given
    return TimeTerm(weights, periods_of(given), list(resolve_units(op, given, unit)))


def _listed(units: Sequence[float]) -> str:
    return str(units[0] if len(units) == 1 else tuple(units))
