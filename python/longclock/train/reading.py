# SPDX-License-Identifier: Apache-2.0
"""The events that a program is told to read. That is done before PyTorch is imported, which takes seconds: what is wrong with a file is said
at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longclock._keywords import meant
from longclock.train.arguments import Where, listed
from longclock.train.config import PRESETS
from longclock.train.console import Console

if TYPE_CHECKING:
    from longclock.data import EventStream
    from longclock.data.sources import EventSource


def read(where: Where, console: Console, quiet: bool = False) -> EventStream:
    """The events of an example or a file; the console says so first of all, and then what was read and what was not.

    Args:
        quiet: no word but on columns that are not read.
    Raises:
        ValueError, OSError: a file that is not there, or not what it should be; no events.
    """
    if not quiet:
        console.say(f"reading {where.data} ...")
    stream, before = _read(where)
    lines = [unused_columns(stream)] if quiet else told(stream, before, where)
    for line in filter(None, lines):
        console.say(line)
    return stream


def stream_of(where: Where) -> EventStream:
    """The same without a word."""
    return _read(where)[0]


def _read(where: Where) -> tuple[EventStream, int]:
    """The events, and how many there were before ``--days`` and ``--max-events``."""
    from longclock.data import load  # NumPy, which takes longer than the first line
    from longclock.data.event_file import events_of_file
    from longclock.data.file_columns import FileForm

    if where.data in PRESETS:
        stream = load(where.data, where.data_dir)
    else:
        _check_there(where.data)
        form = FileForm(dict(where.columns), where.separator, where.header, "program")
        stream = events_of_file(where.data, where.categories, form)
    before = len(stream)
    stream = stream.head(where.days or None, where.max_events)
    if len(stream) == 0:
        raise ValueError("no events are left: raise --days or --max-events")
    return stream, before


def _check_there(data: str) -> None:
    """A name that is none of a file may have been meant for an example."""
    path = Path(data)
    if path.exists() or path.name != data or path.suffix:
        return
    raise FileNotFoundError(
        f"event file not found: {data}; {meant(data, PRESETS)}the examples are {', '.join(PRESETS)}"
    )


def told(stream: EventStream, before: int, where: Where) -> list[str]:
    """What was read of the events and what was not, in lines."""
    import numpy as np

    users, items = (len(np.unique(ids)) for ids in (stream.user, stream.item))
    first, last = stream.order_time[[0, -1]].astype("datetime64[s]").astype("datetime64[D]")
    found = [
        f"{len(stream):,} events of {users:,} users and {items:,} items, from {first} to {last}"
    ]
    if stream.file_columns:
        names = [_taken_for(own, theirs, stream) for own, theirs in stream.file_columns.items()]
        found.append(f"columns read: {', '.join(names)}")
        found.append(unused_columns(stream) or "columns not used: none")
    left_out = []
    if stream.blank_rows:
        left_out.append(f"blank lines of the file: {stream.blank_rows:,}")
    if before > len(stream):
        limits = (("--days", where.days), ("--max-events", where.max_events))
        given = " and ".join(f"{argument} {most}" for argument, most in limits if most)
        left_out.append(f"{before - len(stream):,} of {before:,} events by {given}")
    found.append(f"rows left out: {', '.join(left_out) or 'none'}")
    return found


def _taken_for(own: str, theirs: str, stream: EventStream) -> str:
    if own in stream.categories:
        return f"{theirs} as an attribute of the item"
    return own if own == theirs else f"{own} from {theirs}"


def unused_columns(stream: EventStream) -> str:
    """A sentence on the columns of a file that nothing reads; empty where there are none."""
    return unused_text(stream.unused_columns)


def unused_text(names: Sequence[str]) -> str:
    """The same of columns by name."""
    if not names:
        return ""
    return f"columns not used: {', '.join(names)} (what describes the item, and not how an event ended, is given by --categories)"


def check_negatives(args: argparse.Namespace, labelled: bool, data: str) -> None:
    """Raises:
    ValueError: an argument of sampled negatives, where events have labels and none is sampled.
    """
    for name in ("negatives", "negatives_from"):
        if labelled and getattr(args, name) is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} is of events without labels, got {data}, whose column label says which are "
                "negatives; leave it out, or the column"
            )


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
