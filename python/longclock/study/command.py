# SPDX-License-Identifier: Apache-2.0
"""What ``python -m longclock.study`` does once its arguments are read."""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
import sys
from collections.abc import Iterable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from pathlib import Path

import torch

from longclock.data import EventStream
from longclock.study import report
from longclock.study.cli import PROTOCOLS, Asked
from longclock.study.plan import Line, Results, Study, Task
from longclock.study.run import run_task
from longclock.study.workers import Stopped, die_with, killed, stoppable, undisturbed
from longclock.train import folder
from longclock.train.arguments import Where
from longclock.train.bars import Bars
from longclock.train.config import Config
from longclock.train.inputs import check_models, device_of
from longclock.train.reading import stream_of, unused_columns
from longclock.train.results import versions

console = Bars("longclock.study")
START = "spawn"  # how workers start
POLL_SECONDS = 0.2  # between two looks whether the study has been asked to end
_stream = functools.cache(stream_of)  # read once in every process


def run(asked: Asked, stream: EventStream) -> int:
    """Run what is missing, and write the report; the exit status.

    Raises:
        ValueError, OSError: a mistake in arguments or files, in one line.
    """
    args, study, config, out = asked.args, asked.study, asked.config, asked.out
    check_models(study.models, config)
    device = device_of(args)
    try:
        with stoppable(), folder.held(out, console.say):
            results = Results(out, _same(stream, config), console.say)
            _run_all(study, results, args, config, asked.where, device)
            return _reported(study, results, out, unused_columns(stream))
    except BrokenExecutor:
        print("longclock.study: a process was killed (memory? try fewer --jobs); the same command goes on", file=sys.stderr)  # fmt: skip
        return 1
    except Stopped as stop:
        print("\nlongclock.study: interrupted; the same command goes on", file=sys.stderr)
        return stop.status


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
        written = report.write(lines, out, unused, study.learning_rates)
    except OSError as error:
        console.say(f"the report could not be written into {out}: {error.strerror}; the same command writes it once there is room")  # fmt: skip
        return 1
    return 0 if console.put_report(written, printed) and saved else 1


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
    where: Where,
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


def _work(task: Task, where: Where, config: Config, counted: float, device: torch.device) -> Line:
    torch.set_num_threads(1)
    config = dataclasses.replace(
        config,
        protocol=PROTOCOLS[task.protocol],
        seed=task.seed,
        learning_rate=task.learning_rate,
    )
    return run_task(task, _stream(where), config, counted, device)
