# SPDX-License-Identifier: Apache-2.0
"""The command line of ``python -m longclock.study``."""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from longclock.data import EventStream
from longclock.study import report
from longclock.study.plan import Line, Results, Study, Task
from longclock.study.run import run_task
from longclock.study.workers import Stopped, die_with, killed, stoppable, undisturbed
from longclock.train import folder
from longclock.train.arguments import (
    Parser,
    Where,
    add_data,
    add_device,
    add_learning,
    check_bounds,
    check_models,
    config_of,
    data_of,
    device_of,
    folder_name,
    models_of,
    positive,
    stream_of,
    unused_columns,
    where_of,
)
from longclock.train.config import MODELS, PRESETS, Config
from longclock.train.console import Console
from longclock.train.results import versions

console = Console("longclock.study")

# Scored, then learned from: a day at a time, an hour, a batch; and the trainer's names for it.
PROTOCOLS = {"daily": "daily", "streaming": "hourly", "batches": "stream"}
USUAL = (
    "lic",
    "no-time",
    "hour",
    "interest-clock",
    "sim-hard",
    "eta",
    "sdim",
    "twin",
    "twin-hour",
    "lic-shuffled",
)
START = "spawn"  # how workers start
POLL_SECONDS = 0.2  # between two looks whether the study has been asked to end
# What the study changes of a data set's settings for a single training run.
SETTINGS: dict[str, dict[str, Any]] = {"nyc": {"k": 50}}
LEARNING_RATES = (5e-3, 1e-2, 2e-2, 4e-2)


def parser() -> argparse.ArgumentParser:
    p = Parser(
        prog="python -m longclock.study",
        description="Compares models on a stream, over seeds and protocols: each at a learning rate chosen on the "
        "first 40% of the stream, everything after counted. Runs that --out has already are not run again.",
    )
    add_data(p.add_argument_group("data"))
    p.add_argument(
        "--protocol",
        choices=[*PROTOCOLS, "both"],
        default="both",
        help="(both: daily and streaming)",
    )
    p.add_argument(
        "--models",
        metavar="NAMES",
        default=",".join(USUAL),
        help=f"comma-separated ({','.join(USUAL)}), of {', '.join(MODELS)}",
    )
    p.add_argument("--seeds", metavar="N", type=int, default=5, help="runs of each (5)")
    p.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="folder of the results (longclock-out/study/<data>)",
    )
    p.add_argument(
        "--learning-rates",
        metavar="RATES",
        default=",".join(map(str, LEARNING_RATES)),
        help="chosen from; one: not tuned (%(default)s)",
    )
    p.add_argument(
        "--k",
        metavar="N",
        type=int,
        help="behaviours that a search keeps (100; nyc: 50; nycflights and bikeshare14: 300)",
    )
    add_learning(p)
    add_device(p)
    p.add_argument(
        "--jobs",
        metavar="N",
        type=int,
        default=os.cpu_count() or 1,
        help="processes, one thread each (all cores)",
    )
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing of a study and write its report; returns the exit status."""
    console.open()
    p = parser()
    args = p.parse_args(argv)
    try:
        data, study, config = data_of(args), study_of(args), _config(args)
        check_models(study.models, config)
        device = device_of(args)
        out = args.out or Path("longclock-out") / "study" / folder_name(data)
        folder.check_writable(out)
        where = (where_of(args), args.days, args.max_events)
        stream = _stream(*where)
        if unused := unused_columns(stream):
            console.say(unused)
        with stoppable(), folder.held(out, console.say):
            results = Results(out, _same(stream, config), console.say)
            _run_all(study, results, args, config, where, device)
            return _reported(study, results, out, unused)
    except (ValueError, OSError) as error:
        p.exit(2, f"longclock.study: {error}\n")
    except BrokenExecutor:
        p.exit(
            1,
            "longclock.study: a process was killed (memory? try fewer --jobs); the same command goes on\n",
        )
    except (KeyboardInterrupt, Stopped) as stop:
        status = stop.status if isinstance(stop, Stopped) else 130
        p.exit(status, "\nlongclock.study: interrupted; the same command goes on\n")


def _reported(study: Study, results: Results, out: Path, unused: str) -> int:
    """Print the tables and write the report; the exit status, 1 where something could not be written."""
    lines = study.chosen(results.lines())
    parts = []
    for protocol in study.protocols:
        parts += ["", protocol, report.markdown(report.table(lines, protocol)).rstrip("\n")]
        parts += report.warnings(lines, protocol)
    printed = console.put("\n".join(parts))
    saved = results.save()
    if not saved:
        console.say(f"{len(results.unsaved)} runs could not be written into {out}: make room and run the same command")  # fmt: skip
    try:
        written = report.write(lines, out, unused)
    except OSError as error:
        console.say(f"the report could not be written into {out}: {error.strerror}; the same command writes it once there is room")  # fmt: skip
        return 1
    return 0 if console.put_report(written, printed) and saved else 1


def study_of(args: argparse.Namespace) -> Study:
    """The study that the arguments ask for; ValueError where one is wrong."""
    models = tuple(models_of("--models", args.models))
    try:
        rates = tuple(sorted({float(rate) for rate in args.learning_rates.split(",")}))
    except ValueError:
        raise ValueError(
            f"--learning-rates must be numbers with commas between them, got {args.learning_rates!r}"
        ) from None
    for rate in rates:
        positive("--learning-rates", rate)
    check_bounds(args)
    protocols = ("daily", "streaming") if args.protocol == "both" else (args.protocol,)
    return Study(models, protocols, args.seeds, rates)


def _config(args: argparse.Namespace) -> Config:
    data = data_of(args)
    preset = {**PRESETS.get(data, {}), **SETTINGS.get(data, {})}
    return dataclasses.replace(config_of(args, preset), protocol=Config.protocol)


@functools.cache
def _stream(where: Where, days: int | None, max_events: int | None) -> EventStream:
    """Read once in every process."""
    if max_events == 0:
        raise ValueError("--max-events must be at least 1, got 0")
    return stream_of(where).head(days or None, max_events)


def _same(stream: EventStream, config: Config) -> Line:
    """What a line must agree in to count: data and settings that no task changes."""
    settings = dataclasses.asdict(config)
    for name in ("protocol", "seed", "learning_rate", "reference"):
        del settings[name]
    return {
        "data": stream.name,
        "events": len(stream),
        "digest": stream.digest(),
        "settings": settings,
    }


def _run_all(
    study: Study,
    results: Results,
    args: argparse.Namespace,
    config: Config,
    where: tuple[Any, ...],
    device: torch.device,
) -> None:
    """Everything that is missing, ``--jobs`` at a time."""
    lines = results.lines()
    made_by = versions(device)
    context = multiprocessing.get_context(START)
    running: dict[concurrent.futures.Future[Line], Task] = {}

    def keep(done: Iterable[concurrent.futures.Future[Line]]) -> None:
        for future in done:
            results.append({**future.result(), "versions": made_by})
            del running[future]

    with (
        undisturbed() as raise_if_stopped,
        ProcessPoolExecutor(args.jobs, context, die_with, (os.getpid(),)) as pool,
        console.progress(total=len(study), unit=" runs", disable=args.quiet, smoothing=0.0) as bar,
    ):
        try:
            while True:
                for task in study.open_tasks(lines):
                    if len(running) < args.jobs and task not in running.values():
                        work = pool.submit(_work, task, where, config, study.tuned_on, device)
                        running[work] = task
                bar.n = study.done(lines)
                bar.set_postfix_str(", ".join(f"{t.model} {t.protocol}" for t in running.values()))
                if not running:
                    break
                while not (done := _done(running)):
                    raise_if_stopped()
                keep(done)
                raise_if_stopped()
                lines = results.lines()
        except BaseException:
            killed(pool)  # what they were at is run again
            keep([f for f in running if f.done() and not f.cancelled() and not f.exception()])
            raise


def _done(
    running: Iterable[concurrent.futures.Future[Line]],
) -> set[concurrent.futures.Future[Line]]:
    first = concurrent.futures.FIRST_COMPLETED
    return concurrent.futures.wait(running, POLL_SECONDS, first).done


def _work(
    task: Task, where: tuple[Any, ...], config: Config, counted: float, device: torch.device
) -> Line:
    torch.set_num_threads(1)
    config = dataclasses.replace(
        config,
        protocol=PROTOCOLS[task.protocol],
        seed=task.seed,
        learning_rate=task.learning_rate,
    )
    return run_task(task, _stream(*where), config, counted, device)
