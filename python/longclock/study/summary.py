# SPDX-License-Identifier: Apache-2.0
"""Means over seeds, with their uncertainty."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import t as student_t

from longclock.study.plan import Line

MOST_SEEDS = 100


def _half_width(deviation: float, count: int) -> float:
    """Of a 95% confidence interval, by Student's t."""
    return float(student_t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)


class Mean(NamedTuple):
    """A mean and the half width of its 95% confidence interval, None from one value."""

    value: float
    half_width: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        count = len(values)
        if count == 1:
            return cls(values[0], None)
        return cls(statistics.mean(values), _half_width(statistics.stdev(values), count))

    def text(self, digits: int = 4) -> str:
        value = f"{self.value:.{digits}f}"
        return value if self.half_width is None else f"{value} ± {self.half_width:.{digits}f}"


def mean_of(lines: Sequence[Line], figure: str) -> Mean | None:
    values = [line[figure] for line in lines if line.get(figure) is not None]
    return Mean.of(values) if values else None


def difference(lines: Sequence[Line], others: Sequence[Line], figure: str) -> Mean | None:
    """Of lines and others, seed by seed: runs of one seed share their negatives."""
    pairs = differences(lines, others, figure)
    return Mean.of(pairs) if pairs else None


def differences(lines: Sequence[Line], others: Sequence[Line], figure: str) -> list[float]:
    """Lines less others, one for every seed that both have."""
    by_seed = {line["seed"]: line.get(figure) for line in others}
    return [
        mine - theirs
        for line in lines
        if (mine := line.get(figure)) is not None
        and (theirs := by_seed.get(line["seed"])) is not None
    ]


def seeds_needed(values: Sequence[float]) -> int | None:
    """How many seeds tell differences like these from 0, by a 95% confidence interval; None from one value, or above MOST_SEEDS."""
    if len(values) < 2:
        return None
    mean, deviation = abs(statistics.mean(values)), statistics.stdev(values)
    counts = range(2, MOST_SEEDS + 1)
    return next((n for n in counts if _half_width(deviation, n) < mean), None)


def by_model(lines: Sequence[Line], protocol: str) -> dict[str, list[Line]]:
    """The protocol's runs of every model, models by falling seen AUC."""
    models: dict[str, list[Line]] = {}
    for line in lines:
        if line["protocol"] == protocol:
            models.setdefault(line["model"], []).append(line)

    def auc(model: str) -> float:
        mean = mean_of(models[model], "seen_auc")
        return -1.0 if mean is None else mean.value

    return {model: models[model] for model in sorted(models, key=auc, reverse=True)}


def mean_by_hour(lines: Sequence[Line], figure: str) -> list[Mean | None]:
    """Means over seeds of a figure that has a value an hour."""
    hours: list[list[float]] = [
        [value for line in lines if figure in line and (value := line[figure][hour]) is not None]
        for hour in range(24)
    ]
    return [Mean.of(values) if values else None for values in hours]
