# SPDX-License-Identifier: Apache-2.0
"""What the attention needs of its history, and how far a search is from it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from longclock._torch_state import reads_values
from longclock.history.history import History
from longclock.history.windows import edges_of
from longclock.types import Lookup


class Sample(NamedTuple):
    """Behaviours of each query: their indices, and the log of how many behaviours each stands for."""

    indices: Tensor  # int64 [Q, P], from the start of the query's window
    log_weight: Tensor  # fp32 [Q, P]; -inf: nothing is there


def whole(windows: History) -> Sample:
    """Every behaviour of the windows, each for itself."""
    starts, ends = edges_of(windows)
    counts = ends - starts
    longest = int(counts.max()) if len(counts) else 0
    index = torch.arange(longest, device=counts.device).expand(len(counts), longest)
    return Sample(index, _log_weight(index < counts[:, None]))


def sample_of(
    windows: History, found: Tensor, size: int, generator: torch.Generator | None = None
) -> Sample:
    """What was found, each for itself, and ``size`` draws among all else, which together stand for the rest.

    Draws are uniform over the window of M behaviours and independent; one that hits what was found is dropped. Each of the
    others stands for ``M / size`` behaviours, so that the expectation of a weighted sum over the sample is the sum over the
    window. A window of up to ``size`` behaviours is taken whole.

    Args:
        found: int64 [Q, K], -1 where there is nothing.
        generator: on the device of ``found``.
    """
    starts, ends = edges_of(windows)
    counts = (ends - starts)[:, None]
    outside = (found < -1) | (found >= counts)
    if reads_values(found) and outside.any():
        raise IndexError("found holds an index that is outside its query's history")
    found = found.masked_fill(outside, -1)
    shape, device = (len(counts), size), found.device
    uniform = torch.rand(shape, dtype=torch.float64, device=device, generator=generator)
    drawn = torch.where(
        counts <= size, torch.arange(size, device=device), (uniform * counts).long()
    )
    again = torch.zeros_like(drawn, dtype=torch.bool)
    if found.shape[1]:
        known = found.sort(1).values
        near = torch.searchsorted(known, drawn).clamp(max=found.shape[1] - 1)
        again = known.gather(1, near) == drawn
    there = (drawn < counts) & ~again
    stands_for = (counts / max(size, 1)).clamp(min=1).float().log()
    return Sample(
        torch.cat([found.clamp(min=0), drawn], 1),
        torch.cat([_log_weight(found >= 0), torch.where(there, stands_for, -math.inf)], 1),
    )


def _log_weight(there: Tensor) -> Tensor:
    return torch.where(there, 0.0, -math.inf)


class Sampled(NamedTuple):
    """The behaviours of a sample: a dense history of P behaviours a query, whose rows are looked up."""

    history: History
    log_weight: Tensor  # fp32 [Q, P], of the sample


def sampled(windows: History, sample: Sample) -> Sampled:
    """What the mask of the windows rules out is in the sample, and does not count."""
    starts, _ = edges_of(windows)
    there = sample.log_weight > -math.inf
    position = torch.where(there, sample.indices + starts[:, None], 0)

    def take(values: Tensor) -> Tensor:
        none = values.new_zeros(*position.shape, *values.shape[1:])
        return values[position] if len(values) else none

    if windows.mask is not None:
        there = there & take(windows.mask)
    rows = windows.rows
    rows = rows.mapped(take) if isinstance(rows, Lookup) else Lookup(rows, position)
    return Sampled(History(rows, take(windows.time), mask=there), sample.log_weight)


def mass(logits: Tensor) -> Tensor:
    """Mean over heads of each head's softmax, [Q, n, P] -> [Q, P]; 0 for a query all of whose logits are -inf."""
    nothing = (logits == -math.inf).all(-1, keepdim=True)
    return logits.masked_fill(nothing, 0).softmax(-1).masked_fill(nothing, 0).mean(1)


def divergence(teacher: Tensor, scores: Tensor) -> Tensor:
    """``sum_m p_m log(p_m / softmax(scores)_m)``, mean over queries, p the teacher; 0 for a query without any.

    Args:
        teacher: [Q, P], a distribution a query, or all 0.
        scores: [Q, P]; -inf where there is nothing, and the teacher is 0.
    """
    there = scores > -math.inf
    nothing = ~there.any(1, keepdim=True)
    student = scores.masked_fill(nothing, 0).log_softmax(1).masked_fill(~there, 0)
    of_each = torch.xlogy(teacher, teacher) - teacher * student
    return of_each.sum() / max(len(scores), 1)
