# SPDX-License-Identifier: Apache-2.0
"""Arguments of a run over a source."""

from __future__ import annotations

import argparse
import dataclasses

from longclock.data.sources import EventSource, open_source
from longclock.train.arguments import listed
from longclock.train.config import Config
from longclock.train.memory import Bounds

HISTORY = 10_000  # behaviours of a user that are kept where nothing is said
# Arguments of events that are all in memory.
WHOLE = ("data", "events", "data_dir", "columns", "separator", "no_header", "days", "max_events")
# Those of a source alone.
SOURCED = ("message_columns", "follow", "popular", "forget_days", "user_rows", "item_rows")


def add_source(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--source", metavar="ADDRESS", help="folder:PATH, kafka://HOST:PORT/TOPIC or redis://HOST:PORT?stream=KEY")  # fmt: skip
    group.add_argument("--message-columns", metavar="NAMES", help="of label, order_time and utc_offset, those that every message has, comma-separated")  # fmt: skip
    group.add_argument("--follow", action="store_true", default=None, help="wait for more where a topic or a stream ends")  # fmt: skip
    group.add_argument("--popular", metavar="N", type=int, help="latest events whose items are drawn as negatives by popularity (1048576)")  # fmt: skip
    group.add_argument("--forget-days", metavar="N", type=int, help="days after which rows of users and items without events are given to new ones; 0: never (0)")  # fmt: skip
    group.add_argument("--user-rows", metavar="N", type=int, help="rows that users are hashed to; 0: a row a user, and more as they come (0)")  # fmt: skip
    group.add_argument("--item-rows", metavar="N", type=int, help="the same of items (0)")


def with_source(config: Config, args: argparse.Namespace) -> Config:
    """The settings of a run over a source: of every user the latest behaviours alone are kept.

    Raises:
        ValueError: an argument of events that are all in memory.
    """
    for name in WHOLE:
        if getattr(args, name) is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} is of events that are all in memory: leave it out, or --source"
            )
    if args.device != "cpu":
        raise ValueError(
            "--device cuda is for events that are all in memory: leave it out, or --source"
        )
    days = config.history_days or args.forget_days or 0
    return dataclasses.replace(config, history=config.history or HISTORY, history_days=days)


def bounds_of(args: argparse.Namespace) -> Bounds:
    """What is kept besides.

    Raises:
        ValueError: an argument of a source, and there is none; or settings that do not fit each other.
    """
    if args.source is None:
        for name in SOURCED:
            if getattr(args, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} is of a source: give --source")
    given = {field.name: getattr(args, field.name, None) for field in dataclasses.fields(Bounds)}
    return Bounds(
        **{name: value for name, value in given.items() if value is not None and name != "events"}
    )


def source_of(args: argparse.Namespace) -> EventSource:
    """Where the events come from."""
    columns, categories = (
        [] if names is None else listed(argument, names)
        for argument, names in (
            ("--message-columns", args.message_columns),
            ("--categories", args.categories),
        )
    )
    return open_source(
        args.source, columns=columns, categories=categories, follow=bool(args.follow)
    )
