# SPDX-License-Identifier: Apache-2.0
"""The events that a program is told to read. That is done before PyTorch is imported, which takes seconds: what is wrong with a file is said
at once."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from longclock.train.arguments import Where, listed
from longclock.train.config import PRESETS
from longclock.train.console import Console

if TYPE_CHECKING:
    from longclock.data import EventStream
    from longclock.data.sources import EventSource


def read(where: Where, console: Console, quiet: bool = False) -> EventStream:
    """The events of an example or a file; the console says so, first of all, unless it is to be quiet.

    Raises:
        ValueError, OSError: a file that is not there, or not what it should be; no events.
    """
    if not quiet:
        console.say(f"reading {where.data} ...")
    stream = stream_of(where)
    if not quiet:
        console.say(f"{len(stream):,} events")
    return stream


def stream_of(where: Where) -> EventStream:
    """The same without a word."""
    from longclock.data import load, read_events  # NumPy, which takes longer than the first line

    if where.data in PRESETS:
        stream = load(where.data, where.data_dir)
    else:
        stream = read_events(
            where.data, where.categories, columns=dict(where.columns), separator=where.separator, header=where.header
        )  # fmt: skip
    stream = stream.head(where.days or None, where.max_events)
    if len(stream) == 0:
        raise ValueError("no events are left: raise --days or --max-events")
    return stream


def unused_columns(stream: EventStream) -> str:
    """A sentence on the columns of a file that nothing reads; empty where there are none."""
    names = stream.unused_columns
    if not names:
        return ""
    return f"columns not used: {', '.join(names)} (--categories {','.join(names)})"


def source_of(args: argparse.Namespace) -> EventSource:
    """Where the events of ``--source`` come from."""
    from longclock.data.sources import open_source

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
