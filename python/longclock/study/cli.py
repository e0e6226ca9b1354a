# SPDX-License-Identifier: Apache-2.0
"""The command line of ``python -m longclock.study``."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from longclock._extras import TRAIN_EXTRA, imported_by_program
from longclock.study.plan import Study
from longclock.train import folder
from longclock.train.arguments import (
    Listed,
    Parser,
    Where,
    add_data,
    add_device,
    add_learning,
    check_bounds,
    config_of,
    data_of,
    folder_name,
    models_of,
    positive,
    where_of,
)
from longclock.train.config import MODELS, PRESETS, Config
from longclock.train.console import Console
from longclock.train.reading import check_negatives, read

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
        action=Listed,
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
        action=Listed,
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
    p.add_argument(
        "--quiet", action="store_true", help="no word on what is read, and no progress bar"
    )
    return p  # fmt: skip


class Asked(NamedTuple):
    """What the arguments ask for."""

    args: argparse.Namespace
    where: Where
    out: Path
    study: Study
    config: Config


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing of a study and write its report; returns the exit status."""
    p = parser()
    args = p.parse_args(argv)
    console = Console("longclock.study")
    console.open()
    try:
        where = where_of(args)
        out = args.out or Path("longclock-out") / "study" / folder_name(where.data)
        asked = Asked(args, where, out, study_of(args), _config(args))
        folder.check_writable(out)
        stream = read(where, console, args.quiet)
        check_negatives(args, stream.label is not None, where.data)
        if not args.quiet:
            console.say(f"loading PyTorch and preparing {', '.join(asked.study.models)} ...")
        with imported_by_program("longclock.study", TRAIN_EXTRA):
            from longclock.study import command
        return command.run(asked, stream)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        p.exit(2, f"longclock.study: {error}\n")
    except KeyboardInterrupt:
        p.exit(130, "\nlongclock.study: interrupted; the same command goes on\n")


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
