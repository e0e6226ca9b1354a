# SPDX-License-Identifier: Apache-2.0
"""One similarity of times a head, where the heads of an attention do not share one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from longclock.nn.time_similarity import MlpWeights, TimeSimilarity


class HeadSimilarities(nn.Module):
    """A :class:`TimeSimilarity` for each head; all of them together, as a search sees them, are their mean.

    The mean is itself a similarity of the same clocks, whose hidden layer is the heads' side by side.

    Args:
        heads: how many there are.
        similarity: makes that of one head.
    """

    def __init__(self, heads: int, similarity: Callable[[], TimeSimilarity]) -> None:
        super().__init__()
        self.of_head = nn.ModuleList(similarity() for _ in range(heads))

    @property
    def units(self) -> tuple[float, ...]:
        return self.each()[0].units

    def reset_parameters(self) -> None:
        for one in self.each():
            one.reset_parameters()

    def mlp(self) -> MlpWeights:
        """(w1, b1, w2, b2) of the mean, as :meth:`TimeSimilarity.mlp`."""
        return mean_of([one.mlp() for one in self.each()])

    def each(self) -> list[TimeSimilarity]:
        return list(self.of_head)  # type: ignore[arg-type]  # that is what they are


def mean_of(mlps: list[MlpWeights]) -> MlpWeights:
    """The similarity that is the mean of others: their hidden layers side by side."""
    w1, b1, w2, b2 = zip(*mlps, strict=True)
    mean = torch.stack(b2).mean(0)
    return torch.cat(w1, -2), torch.cat(b1, -1), torch.cat(w2, -1) / len(mlps), mean
