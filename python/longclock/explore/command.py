# SPDX-License-Identifier: Apache-2.0
"""What ``python -m longclock.explore`` does once its arguments are read."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import uvicorn

from longclock.data import EventStream
from longclock.data.ids import ids_of
from longclock.explore.app import create_app
from longclock.explore.explorer import Explorer
from longclock.explore.names import listed
from longclock.explore.page import html_of
from longclock.serve import Recommender
from longclock.serve.endpoint import user_of
from longclock.store import BehaviourStore, open_store
from longclock.store.__main__ import columns_of, fill
from longclock.train.console import Console
from longclock.train.folder import write_whole

console = Console("longclock.explore")
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
        recommender = Recommender(args.model, store)
        if stream is not None:
            console.say(_known(recommender, stream, source))
        yield Explorer(recommender, stream, source)


def _known(recommender: Recommender, stream: EventStream, source: str) -> str:
    """How many of the events have what the model knows.

    Raises:
        ValueError: none: the model learned from other events.
    """
    served = recommender.served
    events = {}
    for kind, numbers, names, count in (
        ("items", stream.item, stream.item_names, stream.items),
        ("users", stream.user, stream.user_names, stream.users),
    ):
        ids = np.arange(count) if names is None else ids_of(names)
        known = served.numbers(kind, torch.from_numpy(ids)).numpy() >= 0
        events[kind] = int(known[numbers].sum())
    if not events["items"]:
        raise ValueError(
            f"the model knows no item of {source}: it learned from other events; give those that it was trained on, or later ones "
            "of the same items"
        )
    return (
        f"of {len(stream):,} events {events['items']:,} have an item that the model knows, and {events['users']:,} a user; "
        "others are left out, and users that it does not know have the mean of all users' vectors"
    )


def _store(args: argparse.Namespace, stream: EventStream | None, folder: str) -> BehaviourStore:
    if args.store is None:
        assert stream is not None
        store = open_store(Path(folder) / "histories.db", columns=columns_of(stream))
        fill(store, stream)
        return store
    return open_store(args.store)
