# SPDX-License-Identifier: Apache-2.0
"""What ``python -m longclock.explore`` does once its arguments are read."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import uvicorn

from longclock.data import EventStream
from longclock.explore.app import create_app
from longclock.explore.explorer import Explorer
from longclock.explore.names import listed
from longclock.explore.page import html_of
from longclock.serve import Recommender
from longclock.serve.endpoint import user_of
from longclock.store import BehaviourStore, open_store
from longclock.store.__main__ import columns_of, fill
from longclock.train.folder import write_whole

HOST = "127.0.0.1"  # this machine alone


def run(args: argparse.Namespace, stream: EventStream | None) -> None:
    """Writes a page, or serves until it is stopped.

    Args:
        stream: the events that the arguments name; None: none.
    Raises:
        ValueError, OSError: what the arguments name is not there, or not what they say.
    """
    torch.set_num_threads(1)
    items = None if args.items is None else listed(args.items)
    with _explorer(args, stream) as explorer:
        users = explorer.users(args.users) if args.user is None else list(map(user_of, args.user))
        if args.out is None:
            for user in users[:1] if args.user is None else users:
                explorer.of_user(user, items, args.candidates)
            print(f"http://{HOST}:{args.port} shows version {explorer.version}; Ctrl-C ends it", flush=True)  # fmt: skip
            uvicorn.run(create_app(explorer, users, items, args.candidates), host=HOST, port=args.port, log_level="warning")  # fmt: skip
            return
        shown = [explorer.of_user(user, items, args.candidates) for user in users]
        page = html_of(explorer.of_model(), shown).encode()
        write_whole(args.out, page)
    print(f"{args.out}: {len(shown)} users, {len(page) / 1e6:.1f} MB, needs no server")


@contextlib.contextmanager
def _explorer(args: argparse.Namespace, stream: EventStream | None) -> Iterator[Explorer]:
    """What the arguments name; histories of events lie in a temporary store."""
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
