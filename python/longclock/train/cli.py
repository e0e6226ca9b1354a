# SPDX-License-Identifier: Apache-2.0
"""The command line of ``python -m longclock.train``."""

from __future__ import annotations

import argparse
import contextlib
import functools
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from longclock.data import EventStream
from longclock.train import folder, report, sourced
from longclock.train.arguments import (
    Parser,
    add_data,
    add_device,
    add_learning,
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
from longclock.train.compare import Options, compare, console
from longclock.train.config import MODELS, PRESETS, USUAL, Config
from longclock.train.loop import SPANS
from longclock.train.source_arguments import add_source, bounds_of, source_of, with_source
from longclock.train.team import RankFault, Team


def parser() -> argparse.ArgumentParser:
    """All arguments; a default of None means the data set's preset, else ``Config``'s default."""
    p = Parser(
        prog="python -m longclock.train",
        description="Stream events through the Long-term Interest Clock and its rivals: every event is "
        "scored before it is learned from, and learned from once.",
    )
    data = p.add_argument_group("data")
    add_data(data, "nyc: 60; 0: all")
    add_source(
        p.add_argument_group("a source, whose events need not fit into memory: in place of --data")
    )
    run = p.add_argument_group("run")
    run.add_argument("--protocol", choices=[*SPANS, "stream"], help="(daily; music: stream)")
    run.add_argument("--models", metavar="NAMES", help=f"comma-separated ({','.join(USUAL)}), of {', '.join(MODELS)}")  # fmt: skip
    run.add_argument("--model", metavar="NAME", help="one model: short for --models")
    run.add_argument(
        "--k",
        type=int,
        metavar="N",
        help="behaviours that the search keeps (100; nyc: 20; nycflights and bikeshare14: 300)",
    )
    run.add_argument("--batch", type=int, metavar="N", help="events a step (32; music: 128)")
    run.add_argument(
        "--lr",
        dest="learning_rate",
        type=float,
        metavar="X",
        help="learning rate of embeddings; other weights learn at a tenth of it (0.02)",
    )
    add_learning(run)
    run.add_argument(
        "--period", type=int, metavar="N", help="of the clock, seconds (86400; a week: 604800)"
    )
    run.add_argument(
        "--seed", type=int, metavar="N", help="of weights, negatives and shuffling (0)"
    )
    add_device(run)
    run.add_argument("--reference", action="store_true", help="plain PyTorch, no compiled ops")
    run.add_argument(
        "--threads", type=int, default=1, metavar="N", help="(1: more pays for long histories)"
    )
    ranks = p.add_argument_group("several processes, started by torchrun")
    ranks.add_argument(
        "--groups",
        type=int,
        metavar="N",
        help="of users, whose gradients are added up in one order: the same bits for any number of ranks (a group a rank)",
    )
    ranks.add_argument(
        "--rank-timeout",
        type=float,
        default=600.0,
        metavar="X",
        help="seconds after which a rank that does not answer is given up (600)",
    )
    out = p.add_argument_group("output")
    out.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder of the report (longclock-out/<data>)"
    )
    out.add_argument("--resume", action="store_true", help="go on from the checkpoints in --out")
    out.add_argument("--checkpoint-seconds", type=float, default=30.0, metavar="X", help="(30)")
    out.add_argument(
        "--warmup", type=float, default=0.4, metavar="X", help="share not counted (0.4)"
    )
    out.add_argument("--quiet", action="store_true", help="no progress bars")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run a comparison; returns the exit status. Mistakes in arguments or files get one line."""
    console.open()
    p = parser()
    args = p.parse_args(argv)
    words = list(sys.argv[1:] if argv is None else argv)
    started = time.monotonic()
    try:
        data, names, config = args.source or data_of(args), _names(args), _config(args)
        bounds = bounds_of(args)
        check_models(names, config)
        if args.source is not None:
            sourced.check_models(names, args.follow)
        device = device_of(args)
        team = Team.started(config.groups, args.rank_timeout, device)
        out = args.out or Path("longclock-out") / folder_name(data)
        if team.first:
            folder.check_writable(out)
        options = Options(
            out, args.resume, args.checkpoint_seconds, args.warmup, args.quiet, team, device
        )
        torch.set_num_threads(args.threads)
        if args.source is None:
            stream = _stream(data, args)
            if team.first and (unused := unused_columns(stream)):
                console.say(unused)
            comparison = functools.partial(compare, stream, names, config, options)
        else:
            comparison = functools.partial(
                sourced.compare, source_of(args), data, names, config, bounds, options
            )
        with folder.held(out, console.say) if team.first else contextlib.nullcontext():
            found = comparison()
            team.end()
            if not team.first:
                return 0
            command = shlex.join(["python", "-m", "longclock.train", *words])
            seconds = round(time.monotonic() - started, 1)
            return _reported({"command": command, "seconds": seconds, **found}, out)
    except RankFault as error:
        p.exit(1, f"longclock.train: {error}; the same command with --resume goes on\n")
    except (ValueError, OSError, ModuleNotFoundError) as error:
        p.exit(2, f"longclock.train: {error}\n")
    except KeyboardInterrupt:
        p.exit(130, "\nlongclock.train: interrupted; the same command with --resume goes on\n")


def _reported(results: dict[str, Any], out: Path) -> int:
    """Print the table and write the report; the exit status, 1 where one of them could not be written."""
    rows = [f"{row[0]:20}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in report.table(results)]  # fmt: skip
    printed = console.put("\n".join([*rows, *report.warnings(results)]))
    try:
        written = report.write(results, out)[-1]
    except OSError as error:
        console.say(f"the report could not be written into {out}: {error.strerror}; the same command with --resume "
                    "writes it once there is room")  # fmt: skip
        return 1
    return 0 if console.put_report(written, printed) else 1


def _names(args: argparse.Namespace) -> list[str]:
    if args.model is not None and args.models is not None:
        raise ValueError("--model and --models exclude each other")
    if args.model is not None:
        return models_of("--model", args.model)
    if args.models is not None:
        return models_of("--models", args.models)
    return [name for name in USUAL if args.source is None or sourced.possible(name)]


def _config(args: argparse.Namespace) -> Config:
    if args.source is None:
        config = config_of(args, PRESETS.get(data_of(args), {}))
    else:
        config = with_source(config_of(args, {}), args)
    positive("--lr", config.learning_rate)
    positive("--rank-timeout", args.rank_timeout)
    if not 0 <= args.warmup < 1:
        raise ValueError(f"--warmup must be at least 0 and below 1, got {args.warmup}")
    if not args.checkpoint_seconds >= 0:
        raise ValueError(f"--checkpoint-seconds must not be negative, got {args.checkpoint_seconds}")  # fmt: skip
    return config


def _stream(data: str, args: argparse.Namespace) -> EventStream:
    days = 60 if args.days is None and data == "nyc" else args.days
    stream = stream_of(where_of(args)).head(days or None, args.max_events)
    if len(stream) == 0:
        raise ValueError("no events are left: raise --days or --max-events")
    return stream
