# SPDX-License-Identifier: Apache-2.0
"""The command line of ``python -m longclock.explore``."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import uvicorn

from longclock.data import EventStream
from longclock.explore.app import create_app, items_of
from longclock.explore.explorer import CANDIDATES, USERS, Explorer
from longclock.explore.page import html_of
from longclock.serve import Recommender
from longclock.serve.endpoint import user_of
from longclock.store import BehaviourStore, open_store
from longclock.store.__main__ import columns_of, fill
from longclock.train.arguments import Parser, add_file, stream_of, where_of
from longclock.train.folder import write_whole

HOST = "127.0.0.1"  # this machine alone
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
    p.add_argument("--items", metavar="ITEMS", help="candidates of all users in place of these, with commas between them")  # fmt: skip
    p.add_argument("--out", type=Path, metavar="FILE", help="write the page, and start no server")
    p.add_argument("--port", type=int, default=8001, metavar="N", help="of the server (8001)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Writes a page or serves until it is stopped; returns the exit status. Mistakes get one line."""
    p = parser()
    args = p.parse_args(argv)
    torch.set_num_threads(1)
    try:
        for name, most in MOST.items():
            if not 1 <= getattr(args, name) <= most:
                raise ValueError(f"--{name} must be from 1 to {most}, got {getattr(args, name)}")
        items = None if args.items is None else items_of(args.items)
        with _explorer(args) as explorer:
            users = explorer.users(args.users) if args.user is None else list(map(user_of, args.user))  # fmt: skip
            if args.out is None:
                for user in users[:1] if args.user is None else users:
                    explorer.of_user(user, items, args.candidates)
                print(f"http://{HOST}:{args.port} shows version {explorer.recommender.version}; Ctrl-C ends it", flush=True)  # fmt: skip
                uvicorn.run(create_app(explorer, users, items, args.candidates), host=HOST, port=args.port, log_level="warning")  # fmt: skip
                return 0
            shown = [explorer.of_user(user, items, args.candidates) for user in users]
            page = html_of(explorer.of_model(), shown).encode()
            write_whole(args.out, page)
        print(f"{args.out}: {len(shown)} users, {len(page) / 1e6:.1f} MB, needs no server")
    except (ValueError, OSError) as error:
        p.exit(2, f"longclock.explore: {error}\n")
    return 0


@contextlib.contextmanager
def _explorer(args: argparse.Namespace) -> Iterator[Explorer]:
    """What the arguments name; histories of events lie in a temporary store."""
    if args.store is None and args.data is None and args.events is None:
        raise ValueError("give the histories: --store URL, --events FILE, or --data NAME")
    stream = None
    if args.data is not None or args.events is not None:
        stream = stream_of(where_of(args)).head(args.days or None)
    with tempfile.TemporaryDirectory() as folder, _store(args, stream, folder) as store:
        source = args.store or args.events or args.data
        yield Explorer(Recommender(args.model, store), stream, source)


def _store(args: argparse.Namespace, stream: EventStream | None, folder: str) -> BehaviourStore:
    if args.store is None:
        assert stream is not None
        store = open_store(Path(folder) / "histories.db", columns=columns_of(stream))
        fill(store, stream)
        return store
    path = args.store.removeprefix("sqlite:///")
    if "://" not in path and not Path(path).exists():  # which opening would make
        raise ValueError(f"{args.store} does not exist; fill it: python -m longclock.store --store {args.store}")  # fmt: skip
    return open_store(args.store)
