# SPDX-License-Identifier: Apache-2.0
"""Models that count and learn nothing: what a clock is worth where the form of the answer is known."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from longclock.data.stream import stretches
from longclock.nn import InterestModule
from longclock.reference import circular_delta
from longclock.train.batches import Batch, TrainingData

LEAST = 1e-6  # in place of no behaviour at all
FAR = 1e-3  # what a behaviour counts for at any time of day


class CountingRanker(nn.Module):
    """Scores a candidate by how often its user took it around this time of day.

    The logarithm of ``sum_j exp(-delta_j^2 / 2 width^2)`` over the behaviours of the window that have the candidate's item,
    ``delta_j`` apart on the clock. Nothing is learned, and only the order of one event's candidates means anything.

    Args:
        width: standard deviation of the kernel in seconds; infinite: the clock does not count.
    """

    def __init__(self, width: float, period: int) -> None:
        super().__init__()
        self.interest = InterestModule()  # of any ranker: what differs from model to model
        self.width, self.period = nn.Parameter(torch.tensor(width)), period

    def forward(self, batch: Batch, data: TrainingData) -> Tensor:
        """Score of every candidate, ``[R]``."""
        items, rows = data.rows_by_item
        total, event = len(rows), batch.event.numpy()
        place = np.searchsorted(items, batch.item.numpy())
        window = place * total + np.stack([batch.starts, batch.ends])[:, event]
        first, last = np.searchsorted(rows, window)
        count = last - first
        candidate = np.repeat(np.arange(len(count)), count)
        time = data.behaviour_time[rows[stretches(first, count)] % max(total, 1)]
        apart = circular_delta(time, batch.time[batch.event][candidate], period=self.period)
        near = torch.exp(-((apart / self.width) ** 2) / 2) + FAR
        return (torch.segment_reduce(near, "sum", lengths=torch.from_numpy(count)) + LEAST).log()
