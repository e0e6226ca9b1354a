# SPDX-License-Identifier: Apache-2.0
"""What the file of an op in bench/ says of its CUDA kernels, found there by name.

``CUDA_CALLS``: calls whose launches are counted. ``CUDA_LOOPS``: hot loops whose instructions are
counted. ``CUDA_GATES``: what is asked of the figures, where less is better.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.cuda_report.sass import Work

M, D, K = 10_000, 128, 100  # behaviours, columns and results of most calls
# One a hidden unit: the relu of 8 units, a compare and select before sm_80.
RELU = r"FMNMX|FSETP\.GTU"


@dataclasses.dataclass
class Call:
    """One call of an op: what it reads must be read once at least, what it returns written once."""

    run: Callable[[], Any]
    inputs: tuple[Tensor, ...]
    rows: Tensor | None = None  # the input that should come in loads of 16 bytes: keys, z


@dataclasses.dataclass(frozen=True)
class Workload:
    """``units``: keys, behaviours or elements of a call, to which instructions are related."""

    name: str
    units: int
    make: Callable[[bool], Call]  # given whether all scores shall be equal
    depends_on_data: bool = False  # also counted with equal scores
    # Of a card whose share of work alone is counted: what its busiest one has over the mean.
    multiprocessors: int = 0


@dataclasses.dataclass(frozen=True)
class HotLoop:
    kernel: str  # as in cubins.short_name
    workload: str  # says which code runs
    work: Work  # of one turn, by one warp


@dataclasses.dataclass(frozen=True)
class Gate:
    """``subject``: a regular expression for kernels (of these architectures) or for workloads."""

    subject: str
    figure: str
    bound: float
    architectures: tuple[int, ...] = ()  # none: a workload's figure
    reason: str = ""  # why it is not met, where it is not


def gates_of(workloads: str, **bounds: float) -> tuple[Gate, ...]:
    """A gate for each of these figures of workloads."""
    return tuple(Gate(workloads, figure, bound) for figure, bound in bounds.items())


def backward(
    forward: Callable[..., Tensor],
    leaves: tuple[Tensor, ...],
    others: tuple[Tensor, ...],
    rows: int,
) -> Call:
    """The backward alone; ``rows`` is the index of the leaf that is read in rows."""
    for leaf in leaves:
        leaf.requires_grad_()
    result = forward(*leaves)
    grad = torch.randn_like(result)

    def run() -> tuple[Tensor, ...]:
        return torch.autograd.grad(result, leaves, grad, retain_graph=True)

    return Call(run, (*leaves, *others, grad), leaves[rows])


def of_ops(name: str) -> tuple[Any, ...]:
    """The entries under this name, op after op."""
    from bench.__main__ import OPS

    files = (importlib.import_module(f"bench.{op}") for op in OPS)
    return tuple(entry for file in files for entry in getattr(file, name, ()))
