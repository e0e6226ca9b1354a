# SPDX-License-Identifier: Apache-2.0
"""What ``python -m longclock.train`` does once its arguments are read."""

from __future__ import annotations

import contextlib
import functools
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch

from longclock.data import EventStream
from longclock.data.sources import EventSource
from longclock.store import DamagedHistoryError
from longclock.train import folder, report, sourced
from longclock.train.cli import Asked
from longclock.train.compare import Options, compare, console
from longclock.train.inputs import check_models, device_of
from longclock.train.team import RankFault, Team


def run(asked: Asked, events: EventStream | EventSource) -> int:
    """Train, and write the report; the exit status.

    Raises:
        ValueError, OSError: a mistake in arguments or files, in one line.
    """
    args, config, out = asked.args, asked.config, asked.out
    check_models(asked.names, config)
    device = device_of(args)
    try:
        team = Team.started(config.groups, args.rank_timeout, device)
        options = Options(
            out, args.resume, args.checkpoint_seconds, args.warmup, args.quiet, team, device, args.histories
        )  # fmt: skip
        torch.set_num_threads(args.threads)
        if isinstance(events, EventStream):
            comparison = functools.partial(compare, events, asked.names, config, options)
        else:
            comparison = functools.partial(
                sourced.compare, events, asked.data, asked.names, config, asked.bounds, options
            )
        with folder.held(out, console.say) if team.first else contextlib.nullcontext():
            found = comparison()
            team.end()
            if not team.first:
                return 0
            command = shlex.join(["python", "-m", "longclock.train", *asked.words])
            seconds = round(time.monotonic() - asked.started, 1)
            return _reported({"command": command, "seconds": seconds, **found}, out)
    except (RankFault, DamagedHistoryError) as error:
        print(f"longclock.train: {error}; the same command with --resume goes on", file=sys.stderr)
        return 1


def too_few(results: dict[str, Any]) -> str:
    """A sentence where no model has a figure, and none diverged: what it would take; else empty."""
    models, data = results["models"].values(), results["data"]
    if any(model["diverged"] is not None or model["own_auc"] is not None or model["seen_auc"] is not None for model in models):  # fmt: skip
        return ""
    counted = data["events"] - data["counted_from_event"]
    repeated = round(counted * (1 - data["counted_new_items"]))
    return (
        f"too few events: of {data['events']:,}, {counted:,} are counted (those behind --warmup), and {repeated:,} of these have an item that "
        "occurred before; a figure takes some, with positives and negatives, and an answer some ten thousand events"
    )


def _reported(results: dict[str, Any], out: Path) -> int:
    """Print the table and write the report; the exit status, 1 where one of them could not be written."""
    table = report.table(results)
    widths = [max(10, *map(len, column)) for column in zip(*table, strict=True)]
    rows = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table]  # fmt: skip
    printed = console.put("\n".join([*rows, *report.warnings(results)]))
    if few := too_few(results):
        console.say(few)
    try:
        written = report.write(results, out)[-1]
    except OSError as error:
        console.say(f"the report could not be written into {out}: {error.strerror}; the same command with --resume "
                    "writes it once there is room")  # fmt: skip
        return 1
    return 0 if console.put_report(written, printed) else 1
