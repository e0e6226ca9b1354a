# SPDX-License-Identifier: Apache-2.0
"""Which runs a study consists of, and the files that remember those that are done."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from longclock.train.config import METRICS, MODELS
from longclock.train.folder import append_line

Line = dict[str, Any]

TUNING_SEEDS = (1000, 1001, 1002)  # which no run has: their negatives are other ones


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

    def first_of(self, lines: list[Line]) -> Line | None:
        """The task's line: the first, should there be several (files put together)."""
        return next((line for line in lines if self.matches(line)), None)


@dataclasses.dataclass(frozen=True)
class Study:
    """All models and protocols over one stream.

    Every model gets, for each protocol, a learning rate by its runs on the part of the stream that the results leave out
    (:meth:`best_rate`); then it runs over the whole stream once a seed.
    """

    models: tuple[str, ...]
    protocols: tuple[str, ...]
    seeds: int
    learning_rates: tuple[float, ...]
    tuned_on: float = 0.4  # share of the stream, from its start; what comes after is counted

    def tuning(self, protocol: str, model: str) -> list[Task]:
        """Nothing where there is no choice: one rate, or a model that learns nothing."""
        if len(self.learning_rates) == 1 or MODELS[model].counts is not None:
            return []
        return [
            Task(protocol, model, seed, rate, self.tuned_on)
            for rate in self.learning_rates
            for seed in TUNING_SEEDS
        ]

    def runs(self, protocol: str, model: str, rate: float) -> list[Task]:
        return [Task(protocol, model, seed, rate) for seed in range(self.seeds)]

    def pairs(self) -> list[tuple[str, str]]:
        return [(protocol, model) for protocol in self.protocols for model in self.models]

    def __len__(self) -> int:
        return sum(len(self.tuning(*pair)) + self.seeds for pair in self.pairs())

    def best_rate(self, protocol: str, model: str, lines: list[Line]) -> float | None:
        """The smallest learning rate within one standard error of the best; None before all have been tried.

        By the mean over the tuning seeds of the AUC of events whose item occurred before: AUC over all events rises with the
        rate for every model, see :func:`longclock.data.sampled_candidates`. A rate at which a run diverged is out, unless
        all are.
        """
        tasks = self.tuning(protocol, model)
        if not tasks:
            return self.learning_rates[0]
        tried = [line for task in tasks if (line := task.first_of(lines)) is not None]
        if len(tried) < len(tasks):
            return None
        means: dict[float, tuple[float, float]] = {}  # mean and its standard error, by rate
        for rate in self.learning_rates:
            runs = [line for line in tried if line["learning_rate"] == rate]
            found = [auc for line in runs if (auc := line.get("seen_auc")) is not None]
            if len(found) == len(runs):
                error = statistics.stdev(found) / math.sqrt(len(found))
                means[rate] = statistics.mean(found), error
        if not means:
            return self.learning_rates[0]
        best, error = max(means.values())
        return min(rate for rate, (mean, _) in means.items() if mean >= best - error)

    def chosen(self, lines: list[Line]) -> list[Line]:
        """Of ``lines``, which may hold more, the runs of this study, once each: at each model's best learning rate."""
        found = []
        for protocol, model in self.pairs():
            rate = self.best_rate(protocol, model, lines)
            tasks = [] if rate is None else self.runs(protocol, model, rate)
            found += [first for task in tasks if (first := task.first_of(lines)) is not None]
        return found

    def done(self, lines: list[Line]) -> int:
        """How many of its runs, those of tuning among them, ``lines`` hold."""
        tuning = [task for pair in self.pairs() for task in self.tuning(*pair)]
        tuned = sum(task.first_of(lines) is not None for task in tuning)
        return tuned + len(self.chosen(lines))

    def open_tasks(self, lines: list[Line]) -> Iterator[Task]:
        """What can be run now: tuning first, then the runs of pairs that are tuned."""
        for protocol, model in self.pairs():
            rate = self.best_rate(protocol, model, lines)
            tasks = (
                self.tuning(protocol, model) if rate is None else self.runs(protocol, model, rate)
            )
            for task in tasks:
                if task.first_of(lines) is None:
                    yield task


class Results:
    """``tuning.jsonl`` and ``runs.jsonl`` in a folder: a line a run, appended when it is done.

    Args:
        same: what a line must agree in to be of this study (data, settings); others are ignored, and kept.
        say: told once of everything that does not count although it is there, and of what could not be written.
    """

    def __init__(
        self, folder: Path, same: Line, say: Callable[[str], None] = lambda message: None
    ) -> None:
        self.folder, self.same = folder, same
        self.unsaved: list[Line] = []  # measured, but the disk had no room
        self._say, self._said = say, set[str]()
        folder.mkdir(parents=True, exist_ok=True)

    def lines(self) -> list[Line]:
        """This study's, each task once: the first of its lines counts."""
        found: dict[tuple[Any, ...], Line] = {}
        for name in ("tuning", "runs"):
            path = self.folder / f"{name}.jsonl"
            for number, line in _numbered_lines(path, self._once):
                if any(line.get(key) != value for key, value in self.same.items()):
                    continue
                first = found.setdefault(_task_of(line), line)
                if first.get("seen_auc") != line.get("seen_auc"):
                    self._once(
                        f"{path}: line {number} repeats a run with another AUC: the first counts"
                    )
        for line in self.unsaved:
            found.setdefault(_task_of(line), line)
        return list(found.values())

    def append(self, line: Line) -> None:
        """Write the line, and those that could not be written before; what cannot is kept in memory."""
        self.unsaved.append({**self.same, **line})
        self.save()

    def save(self) -> bool:
        """Whether everything is written."""
        while self.unsaved:
            line = self.unsaved[0]
            path = self.folder / ("runs.jsonl" if line["share"] == 1.0 else "tuning.jsonl")
            try:
                append_line(path, json.dumps(line, allow_nan=False))
            except OSError as error:
                self._once(
                    f"{path} cannot be written: {error.strerror}; the study goes on and tries again"
                )
                return False
            del self.unsaved[0]
        return True

    def _once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._say(message)


def read_lines(path: Path, say: Callable[[str], None] = lambda message: None) -> list[Line]:
    """Lines of a JSONL file; ``say`` is told of those that are none of a study, which are left out."""
    return [line for _, line in _numbered_lines(path, say)]


def _numbered_lines(path: Path, say: Callable[[str], None]) -> Iterator[tuple[int, Line]]:
    texts = path.read_bytes().split(b"\n") if path.exists() else []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text.decode("utf-8"))
            wrong = _wrong(line)
        except (ValueError, RecursionError):
            wrong = "it is cut off, or not JSON"
        if wrong:
            say(f"{path}: line {number} is left out: {wrong}")
        else:
            yield number, line


def _task_of(line: Line) -> tuple[Any, ...]:
    return tuple(line[field.name] for field in dataclasses.fields(Task))


def _wrong(line: Any) -> str:
    """What keeps a line from being one of a study; empty where nothing does."""
    if not isinstance(line, dict):
        return "it is no object"
    for name, kind in (("protocol", str), ("model", str), ("seed", int), ("learning_rate", float),
                       ("share", float)):  # fmt: skip
        if name not in line:
            return f"{name} is missing"
        if not _is(line[name], kind):
            return f"{name} is {json.dumps(line[name])[:60]}"
    for name, value in line.items():
        if name in TEXTS and not isinstance(value, str):
            return f"{name} is no text"
        if name in FIGURES and not _is(value, float | None):
            return f"{name} is no finite number"
        if name in BY_HOUR and not (
            isinstance(value, list)
            and len(value) == 24
            and all(_is(x, float | None) for x in value)
        ):
            return f"{name} is not 24 finite numbers"
    return ""


# What a line may hold besides its task.
TEXTS = ("title", "data")
FIGURES = (*METRICS, "recall_of_attention", "best_recall", "silent_units", "s_fall", "bias_swing", "jump", "mid_hour_change",
           "ms_per_1000", "seconds", "diverged")  # fmt: skip
BY_HOUR = ("seen_auc_by_hour", "bias_by_hour")


def _is(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of a kind; numbers are finite, and True is none."""
    if kind is str or isinstance(value, bool):
        return kind is str and isinstance(value, str)
    if kind is int:
        return isinstance(value, int)
    if value is None:
        return kind == float | None
    return isinstance(value, (int, float)) and math.isfinite(value)
