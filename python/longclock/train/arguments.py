# SPDX-License-Identifier: Apache-2.0
"""Arguments that the trainer and the study share: their bounds, and one line for every mistake. PyTorch is not needed."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from longclock._constants import NEGATIVES_FROM
from longclock._keywords import meant
from longclock.train.config import EMBEDDING_OPTIMIZERS, MODELS, PRESETS, Config

# Whole numbers that are taken, by argument.
BOUNDS = {
    "days": (0, 10**6),
    "max_events": (0, 2**31 - 1),
    "history": (1, 2**31 - 1),
    "history_days": (0, 10**6),
    "history_delay": (0, 2**31 - 1),
    "negatives": (0, 1000),
    "k": (1, 2048),
    "batch": (1, 10**6),
    "period": (1, 2**31 - 1),
    "seed": (0, 2**63 - 1),
    "seeds": (1, 1000),
    "groups": (1, 2**16),
    "popular": (1, 2**31 - 1),
    "forget_days": (0, 10**6),
    "user_rows": (0, 2**31 - 1),
    "item_rows": (0, 2**31 - 1),
    "threads": (1, max(64, os.cpu_count() or 1)),
    "jobs": (1, max(64, os.cpu_count() or 1)),
}


class Listed(argparse.Action):
    """Names with commas between them; an argument that is given again adds to them."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        before = getattr(namespace, self.dest)
        first = before is None or before is self.default
        setattr(namespace, self.dest, values if first else f"{before},{values}")


class Parser(argparse.ArgumentParser):
    """Mistakes get one line, which names the argument, and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: {message}\n")


def add_data(group: argparse._ArgumentGroup, days: str = "0: all") -> None:
    examples = ", ".join(PRESETS)
    group.add_argument("--data", metavar="NAME|FILE", help=f"an example ({examples}), or your own events: Parquet or CSV (nyc)")  # fmt: skip
    group.add_argument("--events", metavar="FILE", help="your own events: as --data FILE")
    add_file(group)
    group.add_argument("--data-dir", metavar="FOLDER", help="folder of the example data")
    group.add_argument("--days", metavar="N", type=int, help=f"only the first days ({days})")
    group.add_argument("--max-events", metavar="N", type=int, help="only the first events")
    group.add_argument("--history", metavar="N", type=int, help="longest history, behaviours (music: 10000)")  # fmt: skip
    group.add_argument("--history-days", metavar="N", type=int, help="days after which a behaviour is forgotten; 0: never (0)")  # fmt: skip
    group.add_argument("--history-delay", metavar="N", type=int, help="seconds before an event whose behaviours it does not see yet (0)")  # fmt: skip
    group.add_argument("--negatives", metavar="N", type=int, help="sampled for an event without labels (4)")  # fmt: skip
    group.add_argument("--negatives-from", choices=NEGATIVES_FROM, help="items by popularity, the user's own earlier ones, or half of each (both)")  # fmt: skip


def add_file(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """How a FILE of events is written."""
    group.add_argument("--categories", action=Listed, metavar="NAMES", help="attribute columns of FILE, comma-separated")  # fmt: skip
    group.add_argument("--columns", action=Listed, metavar="OURS=THEIRS", help="what FILE calls user, item, time, label ...: user=userId,item=movieId,time=timestamp")  # fmt: skip
    group.add_argument("--separator", metavar="TEXT", help="between fields of FILE, such as '::' or tab (told from the first line)")  # fmt: skip
    group.add_argument("--no-header", action="store_true", default=None, help="FILE has no line of names: --columns user=1,item=2,time=4")  # fmt: skip


def add_learning(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    group.add_argument("--search-loss", metavar="X", type=float, help="weight of the loss that teaches a search, which then has weights of its own (0: it shares the attention's)")  # fmt: skip
    group.add_argument("--embedding-optimizer", choices=("adam", *EMBEDDING_OPTIMIZERS), help="of embeddings; the others touch only rows with a gradient (adam)")  # fmt: skip


def add_device(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    group.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where models run (cpu)")  # fmt: skip


def config_of(args: argparse.Namespace, preset: dict[str, Any]) -> Config:
    """The settings: of the arguments that bear a setting's name and are given, else of the preset."""
    check_bounds(args)
    settings = dict(preset)
    for field in dataclasses.fields(Config):
        value = getattr(args, field.name, None)
        if value is not None:
            settings[field.name] = value
    if settings.get("embedding_optimizer") == "adam":
        settings["embedding_optimizer"] = ""
    weight = settings.get("search_loss", 0.0)
    if not 0 <= weight < math.inf:
        raise ValueError(f"--search-loss must be a number of at least 0, got {weight:g}")
    return Config(**settings)


def check_bounds(args: argparse.Namespace) -> None:
    """Raises:
    ValueError: names the argument that is outside of BOUNDS, and where it would not be.
    """
    for name, (least, most) in BOUNDS.items():
        value = getattr(args, name, None)
        if value is None or least <= value <= most:
            continue
        if value > most:
            rule = f"must be at most {most}"
        else:
            rule = f"must be at least {least}" if least else "must not be negative"
        raise ValueError(f"--{name.replace('_', '-')} {rule}, got {value}")


def positive(argument: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{argument} must be a finite number, got {value:g}")
    if value <= 0:
        raise ValueError(f"{argument} must be positive, got {value:g}")


def listed(argument: str, words: str) -> list[str]:
    """Names with commas between them, once each; spaces around them do not count."""
    names = [word.strip() for word in words.split(",")]
    if "" in names:
        raise ValueError(f"{argument} must be names with commas between them, got {words!r}")
    return list(dict.fromkeys(names))


def models_of(argument: str, words: str) -> list[str]:
    """Models by name; ``no_time`` is ``no-time``."""
    names = list(dict.fromkeys(n.replace("_", "-") for n in listed(argument, words)))
    for name in names:
        if name not in MODELS:
            raise ValueError(
                f"{argument}: unknown model {name!r}; {meant(name, MODELS)}choose from {', '.join(MODELS)}"
            )
    return names


class Where(NamedTuple):
    """Where events come from and how many of them, as the arguments say; the same in every process."""

    data: str  # the name of an example, or a file
    data_dir: str | None
    categories: tuple[str, ...] | None
    columns: tuple[tuple[str, str], ...]  # ours and theirs
    separator: str | None
    header: bool
    days: int | None  # the first; 0, or None: all
    max_events: int | None


def data_of(args: argparse.Namespace) -> str:
    """The name of an example, or a file."""
    if args.data is not None and args.events is not None:
        raise ValueError("--data and --events exclude each other")
    name = args.events if args.events is not None else args.data or "nyc"
    for argument in ("categories", "columns", "separator", "no_header"):
        if getattr(args, argument) is not None and name in PRESETS:
            shown = argument.replace("_", "-")
            raise ValueError(f"--{shown} is of a FILE, not of the example data")
    if args.data_dir is not None and name not in PRESETS:
        raise ValueError(
            f"--data-dir is of the example data ({', '.join(PRESETS)}), not of a FILE: give --data {Path(args.data_dir) / name}"
        )
    return str(name)


def where_of(args: argparse.Namespace) -> Where:
    """Raises:
    ValueError: an argument that is wrong by itself, or beside another.
    """
    data = data_of(args)
    categories = None if args.categories is None else tuple(listed("--categories", args.categories))
    columns: dict[str, str] = {}
    for word in [] if args.columns is None else listed("--columns", args.columns):
        own, equals, theirs = word.partition("=")
        if not equals or not own or not theirs:
            raise ValueError(f"--columns must be pairs such as user=userId with commas between them, got {word!r}")  # fmt: skip
        if own in columns:
            raise ValueError(f"--columns must say once which column is the {own}, got {columns[own]!r} and {theirs!r}")  # fmt: skip
        columns[own] = theirs
    separator = "\t" if args.separator in ("tab", "\\t") else args.separator
    most = getattr(args, "max_events", None)
    return Where(data, args.data_dir, categories, tuple(columns.items()), separator, not args.no_header, args.days, most)  # fmt: skip


def folder_name(data: str) -> str:
    """Of the default ``--out``."""
    return data if data in PRESETS else Path(data).stem or Path(data).resolve().stem
