# SPDX-License-Identifier: Apache-2.0
"""The command line of ``python -m longclock.train``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from longclock._extras import TRAIN_EXTRA, imported_by_program
from longclock.train import folder
from longclock.train.arguments import (
    Listed,
    Parser,
    Where,
    add_data,
    add_device,
    add_learning,
    config_of,
    data_of,
    folder_name,
    models_of,
    positive,
    where_of,
)
from longclock.train.config import MODELS, PRESETS, SPANS, USUAL, Bounds, Config
from longclock.train.console import Console
from longclock.train.reading import check_negatives, read, source_of, stream_of, unused_text
from longclock.train.source_arguments import (
    add_source,
    bounds_of,
    check_possible,
    possible,
    with_source,
)

if TYPE_CHECKING:
    from longclock.data import EventStream
    from longclock.data.sources import EventSource


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
    run.add_argument("--models", action=Listed, metavar="NAMES", help=f"comma-separated ({','.join(USUAL)}), of {', '.join(MODELS)}")  # fmt: skip
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
    out.add_argument(
        "--quiet", action="store_true", help="no word on what is read, and no progress bars"
    )
    return p


class Asked(NamedTuple):
    """What the arguments ask for."""

    args: argparse.Namespace
    words: list[str]  # the arguments as they were given
    data: str  # the name of an example, a file, or the address of a source
    where: Where | None  # which events; None: those of a source
    out: Path
    names: list[str]  # of models
    config: Config
    bounds: Bounds
    started: float  # of time.monotonic()


def asked(p: argparse.ArgumentParser, argv: Sequence[str] | None) -> Asked:
    """Raises:
    ValueError: an argument that is wrong by itself, or beside another.
    """
    started = time.monotonic()
    args = p.parse_args(argv)
    words = list(sys.argv[1:] if argv is None else argv)
    where = None if args.source is not None else where_of(args)
    if where is not None and where.days is None and where.data == "nyc":
        where = where._replace(days=60)
    data = args.source if where is None else where.data
    out = args.out or Path("longclock-out") / folder_name(data)
    found = Asked(
        args, words, data, where, out, _names(args), _config(args), bounds_of(args), started
    )
    if args.source is not None:
        check_possible(found.names, args.follow, args.histories)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run a comparison; returns the exit status. Mistakes in arguments or files get one line."""
    p = parser()
    console = Console("longclock.train")
    console.open()
    try:
        wanted = asked(p, argv)
        events = _events(wanted, console)
        if not wanted.args.quiet and _first():
            console.say(f"loading PyTorch and preparing {', '.join(wanted.names)} ...")
        with imported_by_program("longclock.train", TRAIN_EXTRA):
            from longclock.train import command
        return command.run(wanted, events)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        p.exit(2, f"longclock.train: {error}\n")
    except KeyboardInterrupt:
        p.exit(130, "\nlongclock.train: interrupted; the same command with --resume goes on\n")


def _events(asked: Asked, console: Console) -> EventStream | EventSource:
    """What is wrong with ``--out`` and with a file comes before PyTorch is imported."""
    args = asked.args
    if _first():
        folder.check_writable(asked.out)
    if asked.where is not None:
        stream = read(asked.where, console, args.quiet) if _first() else stream_of(asked.where)
        check_negatives(args, stream.label is not None, asked.data)
        return stream
    source = source_of(args)
    files = getattr(source, "files", None) or getattr(source, "messages", None)
    check_negatives(args, files is not None and "label" in files.columns, asked.data)
    if not args.quiet and _first():
        console.say(f"reading {args.source} ...")
        if unused := unused_text(getattr(files, "unused", ())):
            console.say(unused)
    return source


def _first() -> bool:
    """Of the processes that torchrun starts, the first writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


def _names(args: argparse.Namespace) -> list[str]:
    if args.model is not None and args.models is not None:
        raise ValueError("--model and --models exclude each other")
    if args.model is not None:
        return models_of("--model", args.model)
    if args.models is not None:
        return models_of("--models", args.models)
    return [name for name in USUAL if args.source is None or possible(name)]


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
