# SPDX-License-Identifier: Apache-2.0
"""Which runs a study consists of, and the files that remember those that are done."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]

TUNING_SEED = 1000  # which no run has: its negatives are other ones


@dataclasses.dataclass(frozen=True)
class Task:
    """One run: a model over a stream. Equal tasks give equal results."""

    protocol: str
    model: str
    seed: int
    learning_rate: float
    share: float = 1.0  # of the stream, its beginning; below 1 for tuning

    def matches(self, line: Line) -> bool:
        return all(line.get(name) == value for name, value in dataclasses.asdict(self).items())


@dataclasses.dataclass(frozen=True)
class Study:
    """All models and protocols over one stream.

    Every model gets, for each protocol, the learning rate with the best AUC on the part of the stream that the results leave
    out; then it runs over the whole stream once a seed.
    """

    models: tuple[str, ...]
    protocols: tuple[str, ...]
    seeds: int
    learning_rates: tuple[float, ...]
    tuned_on: float = 0.4  # share of the stream, from its start; what comes after is counted

    def tuning(self, protocol: str, model: str) -> list[Task]:
        """Nothing where there is no choice."""
        if len(self.learning_rates) == 1:
            return []
        return [
            Task(protocol, model, TUNING_SEED, rate, self.tuned_on) for rate in self.learning_rates
        ]

    def runs(self, protocol: str, model: str, rate: float) -> list[Task]:
        return [Task(protocol, model, seed, rate) for seed in range(self.seeds)]

    def pairs(self) -> list[tuple[str, str]]:
        return [(protocol, model) for protocol in self.protocols for model in self.models]

    def __len__(self) -> int:
        tuned = len(self.learning_rates) if len(self.learning_rates) > 1 else 0
        return len(self.pairs()) * (tuned + self.seeds)

    def best_rate(self, protocol: str, model: str, lines: list[Line]) -> float | None:
        """The learning rate with the best AUC, the smaller of equals; None before all have been tried."""
        tasks = self.tuning(protocol, model)
        if not tasks:
            return self.learning_rates[0]
        found = [next((line for line in lines if task.matches(line)), None) for task in tasks]
        tried = [line for line in found if line is not None]
        if len(tried) < len(tasks):
            return None
        tried.sort(key=lambda line: line["learning_rate"])
        best: Line = max(tried, key=lambda line: -1.0 if line["auc"] is None else line["auc"])
        return float(best["learning_rate"])

    def chosen(self, lines: list[Line]) -> list[Line]:
        """Of ``lines``, which may hold more, the runs of this study: at each model's best learning rate."""
        found = []
        for protocol, model in self.pairs():
            rate = self.best_rate(protocol, model, lines)
            tasks = [] if rate is None else self.runs(protocol, model, rate)
            found += [line for task in tasks for line in lines if task.matches(line)]
        return found

    def done(self, lines: list[Line]) -> int:
        """How many of its runs, those of tuning among them, ``lines`` hold."""
        tuning = [task for pair in self.pairs() for task in self.tuning(*pair)]
        tuned = sum(any(task.matches(line) for line in lines) for task in tuning)
        return tuned + len(self.chosen(lines))

    def open_tasks(self, lines: list[Line]) -> Iterator[Task]:
        """What can be run now: tuning first, then the runs of pairs that are tuned."""
        for protocol, model in self.pairs():
            rate = self.best_rate(protocol, model, lines)
            tasks = (
                self.tuning(protocol, model) if rate is None else self.runs(protocol, model, rate)
            )
            for task in tasks:
                if not any(task.matches(line) for line in lines):
                    yield task


class Results:
    """``tuning.jsonl`` and ``runs.jsonl`` in a folder: a line a run, appended when it is done.

    Args:
        same: what a line must agree in to be of this study (data, settings); others are ignored, and kept.
    """

    def __init__(self, folder: Path, same: Line) -> None:
        self.folder, self.same = folder, same
        folder.mkdir(parents=True, exist_ok=True)

    def lines(self) -> list[Line]:
        return [
            line
            for name in ("tuning", "runs")
            for line in read_lines(self.folder / f"{name}.jsonl")
            if all(line.get(key) == value for key, value in self.same.items())
        ]

    def append(self, line: Line) -> None:
        path = self.folder / ("runs.jsonl" if line["share"] == 1.0 else "tuning.jsonl")
        text = json.dumps({**self.same, **line}, allow_nan=False) + "\n"
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + text)


def read_lines(path: Path) -> list[Line]:
    """Lines of a JSONL file; one that was cut off while it was written is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines
