# SPDX-License-Identifier: Apache-2.0
"""Arguments of a run over a source."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from longclock.train.arguments import Listed
from longclock.train.config import MODELS, Bounds, Config

HISTORY = 10_000  # behaviours of a user that are kept where nothing is said
# Arguments of events that are all in memory.
WHOLE = ("data", "events", "data_dir", "columns", "separator", "no_header", "days", "max_events")
# Those of a source alone.
SOURCED = ("message_columns", "follow", "histories", "popular", "forget_days", "user_rows", "item_rows")  # fmt: skip
# Kinds of models that read what is kept of all users since the beginning.
UNBOUNDED = ("graph", "categories")


def add_source(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--source", metavar="ADDRESS", help="folder:PATH, kafka://HOST:PORT/TOPIC or redis://HOST:PORT?stream=KEY")  # fmt: skip
    group.add_argument("--message-columns", action=Listed, metavar="NAMES", help="of label, order_time and utc_offset, those that every message has, comma-separated")  # fmt: skip
    group.add_argument("--follow", action="store_true", default=None, help="wait for more where a topic or a stream ends")  # fmt: skip
    group.add_argument("--histories", metavar="URL", help="sqlite:///PATH or redis://HOST:PORT, a store of its own for the histories of a run of one model (in memory)")  # fmt: skip
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
    if args.histories is not None and config.history_delay:
        raise ValueError(
            "--history-delay keeps more than the latest --history behaviours of a user, and is for histories in memory: leave it out, or --histories"
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


def possible(name: str) -> bool:
    """Whether a model reads no more of the past than a run over a source keeps, and needs not know how long the source is."""
    model = MODELS[name]
    a_share = 0 < model.changes.get("learn_until", 1.0) < 1
    return not (model.kind in UNBOUNDED or model.shuffled_times or a_share)


def check_possible(names: Sequence[str], follow: bool, histories: str | None = None) -> None:
    """Raises:
    ValueError: names a model that cannot be run over a source; or there are several, and the source has no end, or histories a store.
    """
    for name in names:
        if not possible(name):
            raise ValueError(
                f"--models {name}: it reads more of the past than a run over a source keeps; leave it out, or give --events"
            )
    if follow and len(names) > 1:
        raise ValueError(
            f"--follow: the first model never ends, got {len(names)} models; give one by --model"
        )
    if histories is not None and len(names) > 1:
        raise ValueError(
            f"--histories: a store has the histories of one model's run, got {len(names)} models; give one by --model"
        )
