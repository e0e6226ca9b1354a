# SPDX-License-Identifier: Apache-2.0
"""Means over seeds, with their uncertainty."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import t as student_t

from longclock.study.plan import Line


class Mean(NamedTuple):
    """A mean and the half width of its 95% confidence interval, None from one value."""

    value: float
    half_width: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        count = len(values)
        if count == 1:
            return cls(values[0], None)
        t = float(student_t.ppf(0.975, count - 1))
        return cls(statistics.mean(values), t * statistics.stdev(values) / math.sqrt(count))

    def text(self, digits: int = 4) -> str:
        value = f"{self.value:.{digits}f}"
        return value if self.half_width is None else f"{value} ± {self.half_width:.{digits}f}"


def mean_of(lines: Sequence[Line], figure: str) -> Mean | None:
    values = [line[figure] for line in lines if line.get(figure) is not None]
    return Mean.of(values) if values else None


def difference(lines: Sequence[Line], others: Sequence[Line], figure: str) -> Mean | None:
    """Of lines and others, seed by seed: runs of one seed share their negatives."""
    by_seed = {line["seed"]: line.get(figure) for line in others}
    pairs = [
        mine - theirs
        for line in lines
        if (mine := line.get(figure)) is not None
        and (theirs := by_seed.get(line["seed"])) is not None
    ]
    return Mean.of(pairs) if pairs else None


def by_model(lines: Sequence[Line], protocol: str) -> dict[str, list[Line]]:
    """The protocol's runs of every model, models by falling AUC."""
    models: dict[str, list[Line]] = {}
    for line in lines:
        if line["protocol"] == protocol:
            models.setdefault(line["model"], []).append(line)

    def auc(model: str) -> float:
        mean = mean_of(models[model], "auc")
        return -1.0 if mean is None else mean.value

    return {model: models[model] for model in sorted(models, key=auc, reverse=True)}


def mean_by_hour(lines: Sequence[Line], figure: str) -> list[float | None]:
    """Mean over seeds of a figure that has a value an hour."""
    hours: list[list[float]] = [
        [value for line in lines if figure in line and (value := line[figure][hour]) is not None]
        for hour in range(24)
    ]
    return [statistics.mean(values) if values else None for values in hours]
