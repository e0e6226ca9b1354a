# SPDX-License-Identifier: Apache-2.0
"""The command line of ``python -m longclock.explore``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from longclock._extras import SERVE_EXTRA, imported_by_program
from longclock.explore.settings import CANDIDATES, USERS
from longclock.serve.settings import check_there
from longclock.train.arguments import Listed, Parser, add_file, where_of
from longclock.train.console import Console
from longclock.train.reading import read

OF_EVENTS = ("categories", "columns", "separator", "no_header", "data_dir", "days")
MOST = {"users": 1000, "candidates": 200, "port": 65535}


def parser() -> argparse.ArgumentParser:
    p = Parser(
        prog="python -m longclock.explore",
        description="A page on which one drags the hour and sees what the search picks, what the attention looks at, and how the "
        "ranking moves: by a server on this machine, or with --out as one file that needs none.",
    )
    p.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="of python -m longclock.export")  # fmt: skip
    p.add_argument("--store", metavar="URL", help="of histories: a file, or redis://host:port/0")
    p.add_argument("--data", metavar="NAME|FILE", help="histories of an example, or of your own events; with --store only names of its items")  # fmt: skip
    p.add_argument("--events", metavar="FILE", help="your own events: as --data FILE")
    add_file(p)
    p.add_argument("--data-dir", metavar="FOLDER", help="folder of the example data")
    p.add_argument("--days", metavar="N", type=int, help="only the first days of the events (0: all)")  # fmt: skip
    p.add_argument("--users", type=int, default=USERS, metavar="N", help=f"users to choose from: those with the longest histories ({USERS})")  # fmt: skip
    p.add_argument("--user", action="append", metavar="USER", help="this one in place of these; may be given again")  # fmt: skip
    p.add_argument("--candidates", type=int, default=CANDIDATES, metavar="N", help=f"the items that a user took most often ({CANDIDATES})")  # fmt: skip
    p.add_argument("--items", action=Listed, metavar="ITEMS", help="candidates of all users in place of these: ids as the events have them, with commas between them")  # fmt: skip
    p.add_argument("--out", type=Path, metavar="FILE", help="write the page, and start no server")
    p.add_argument("--port", type=int, default=8001, metavar="N", help="of the server (8001)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Writes a page or serves until it is stopped; returns the exit status. Mistakes get one line."""
    p = parser()
    args = p.parse_args(argv)
    for name, most in MOST.items():
        if not 1 <= getattr(args, name) <= most:
            p.error(f"--{name} must be from 1 to {most}, got {getattr(args, name)}")
    console = Console("longclock.explore")
    console.open()
    try:
        of_events = args.data is not None or args.events is not None
        if args.store is None and not of_events:
            raise ValueError("give the histories: --store URL, --events FILE, or --data NAME")
        if not of_events:
            for name in OF_EVENTS:
                if getattr(args, name) is not None:
                    raise ValueError(f"--{name.replace('_', '-')} is of events: give --events or --data, or leave it out")  # fmt: skip
        if args.store is not None:
            check_there(args.store)
        stream = read(where_of(args), console) if of_events else None
        console.say(f"loading PyTorch and the model of {args.model} ...")
        with imported_by_program("longclock.explore", SERVE_EXTRA):
            from longclock.explore.command import run
        run(args, stream)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        p.exit(2, f"longclock.explore: {error}\n")
    except KeyboardInterrupt:
        p.exit(130, "\nlongclock.explore: interrupted\n")
    return 0
