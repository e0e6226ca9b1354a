# SPDX-License-Identifier: Apache-2.0
"""The command line of ``python -m longclock.train``."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from longclock.data import EventStream, load, read_events
from longclock.train import folder, report
from longclock.train.compare import Options, compare, say
from longclock.train.config import MODELS, PRESETS, USUAL, Config
from longclock.train.loop import SPANS


def parser() -> argparse.ArgumentParser:
    """All arguments; a default of None means the data set's preset, else ``Config``'s default."""
    p = argparse.ArgumentParser(
        prog="python -m longclock.train",
        description="Stream events through the Long-term Interest Clock and its rivals: every event is "
        "scored before it is learned from, and learned from once.",
    )
    data = p.add_argument_group("data")
    data.add_argument("--data", choices=sorted(PRESETS), help="an example data set (nyc)")
    data.add_argument("--events", metavar="FILE", help="your own events: Parquet or CSV")
    data.add_argument("--categories", help="attribute columns of --events, comma-separated")
    data.add_argument("--data-dir", help="folder of the example data")
    data.add_argument("--days", type=int, help="only the first days (nyc: 60; 0: all)")
    data.add_argument("--max-events", type=int, help="only the first events")
    data.add_argument("--history", type=int, help="longest history, behaviours (music: 10000)")
    data.add_argument("--negatives", type=int, help="sampled for an event without labels (4)")
    run = p.add_argument_group("run")
    run.add_argument("--protocol", choices=[*SPANS, "stream"], help="(nyc: daily; music: stream)")
    run.add_argument(
        "--models", help=f"comma-separated ({','.join(USUAL)}), of {', '.join(MODELS)}"
    )
    run.add_argument("--model", choices=list(MODELS), help="one model: short for --models")
    run.add_argument("--k", type=int, help="behaviours that the search keeps (nyc: 20; music: 100)")
    run.add_argument("--batch", type=int, help="events a step (nyc: 32; music: 128)")
    run.add_argument("--lr", dest="learning_rate", type=float, help="Adam's learning rate")
    run.add_argument("--period", type=int, help="of the clock, seconds (86400; a week: 604800)")
    run.add_argument("--seed", type=int, help="of weights, negatives and shuffling (0)")
    run.add_argument("--reference", action="store_true", help="plain PyTorch, no compiled ops")
    run.add_argument("--threads", type=int, default=1, help="(1: more pays for long histories)")
    out = p.add_argument_group("output")
    out.add_argument("--out", type=Path, help="folder of the report (longclock-out/<data>)")
    out.add_argument("--resume", action="store_true", help="go on from the checkpoints in --out")
    out.add_argument("--checkpoint-seconds", type=float, default=30.0, help="(30)")
    out.add_argument("--warmup", type=float, default=0.4, help="share not counted (0.4)")
    out.add_argument("--quiet", action="store_true", help="no progress bars")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run a comparison; returns the exit status. Mistakes in arguments or files get one line."""
    p = parser()
    args = p.parse_args(argv)
    words = list(sys.argv[1:] if argv is None else argv)
    started = time.monotonic()
    try:
        names, config = _names(args), _config(args)
        out = args.out or Path("longclock-out") / Path(args.events or args.data or "nyc").stem
        folder.check_writable(out)
        stream = _stream(args)
        torch.set_num_threads(args.threads)
        options = Options(out, args.resume, args.checkpoint_seconds, args.warmup, args.quiet)
        with folder.held(out, say):
            found = compare(stream, names, config, options)
            command = shlex.join(["python", "-m", "longclock.train", *words])
            seconds = round(time.monotonic() - started, 1)
            return _reported({"command": command, "seconds": seconds, **found}, out)
    except (ValueError, OSError) as error:
        p.exit(2, f"longclock.train: {error}\n")
    except KeyboardInterrupt:
        p.exit(130, "\nlongclock.train: interrupted; the same command with --resume goes on\n")


def _reported(results: dict[str, Any], out: Path) -> int:
    """Print the table and write the report; the exit status, 1 where it could not be written."""
    for row in report.table(results):
        print(f"{row[0]:20}" + "".join(f"{cell:>12}" for cell in row[1:]))
    try:
        print(f"report: {report.write(results, out)[-1]}")
    except OSError as error:
        say(f"the report could not be written into {out}: {error.strerror}; the table above is complete, and the "
            "same command with --resume writes the report once there is room")  # fmt: skip
        return 1
    return 0


def _names(args: argparse.Namespace) -> list[str]:
    if args.model and args.models:
        raise ValueError("--model and --models exclude each other")
    names = _list(args.model or args.models or ",".join(USUAL))
    for name in names:
        if name not in MODELS:
            raise ValueError(f"--models: unknown model {name!r}; choose from {', '.join(MODELS)}")
    return list(dict.fromkeys(names))


def _list(words: str) -> list[str]:
    return [word.strip() for word in words.split(",")]


def _config(args: argparse.Namespace) -> Config:
    settings: dict[str, Any] = {} if args.events else dict(PRESETS[args.data or "nyc"])
    for field in dataclasses.fields(Config):
        value = getattr(args, field.name, None)
        if value is not None:
            settings[field.name] = value
    config = Config(**settings)
    for name in ("k", "batch", "period"):
        if getattr(config, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(config, name)}")
    if config.history is not None and config.history < 1:
        raise ValueError(f"--history must be at least 1, got {config.history}")
    if config.seed < 0 or config.negatives < 0:
        raise ValueError("--seed and --negatives must not be negative")
    if config.k > 2048:
        raise ValueError(f"--k must be at most 2048, got {config.k}")
    for name in ("days", "max_events"):
        if (getattr(args, name) or 0) < 0:
            raise ValueError(f"--{name.replace('_', '-')} must not be negative")
    if args.threads < 1:
        raise ValueError(f"--threads must be at least 1, got {args.threads}")
    if not 0 <= args.warmup < 1:
        raise ValueError(f"--warmup must be at least 0 and below 1, got {args.warmup}")
    return config


def _stream(args: argparse.Namespace) -> EventStream:
    if args.data and args.events:
        raise ValueError("--data and --events exclude each other")
    if args.categories and not args.events:
        raise ValueError("--categories names columns of --events; give a file")
    if args.events:
        categories = _list(args.categories) if args.categories else None
        stream, days = read_events(args.events, categories), args.days
    else:
        name = args.data or "nyc"
        stream = load(name, args.data_dir)
        days = 60 if args.days is None and name == "nyc" else args.days
    stream = stream.head(days or None, args.max_events)
    if len(stream) == 0:
        raise ValueError("no events are left: raise --days or --max-events")
    return stream
