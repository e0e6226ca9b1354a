# SPDX-License-Identifier: Apache-2.0
"""``python -m longclock.store``: puts the events of a file, or of an example, into a store of histories."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from longclock._extras import TRAIN_EXTRA, imported_by_program
from longclock.train.arguments import Parser, add_file, where_of
from longclock.train.console import Console
from longclock.train.reading import read

if TYPE_CHECKING:
    from longclock.data import EventStream
    from longclock.data.stream import IntArray
    from longclock.store import BehaviourStore
    from longclock.store.records import User

CALL = 10_000  # behaviours that are appended together


def columns_of(stream: EventStream) -> dict[str, str]:
    """Of a store for the histories of a stream: how far local time is ahead, and how an event ended where that is known."""
    return {"utc_offset": "int32"} | ({} if stream.label is None else {"label": "int8"})


def fill(store: BehaviourStore, stream: EventStream) -> int:
    """Append all events of a stream, by the ids that it has them from; returns how many were not there yet."""
    import numpy as np

    from longclock.data.ids import called, ids_of

    names = stream.user_names
    keys = None if names is None else [called(name) if isinstance(name, str) else name for name in names]  # fmt: skip
    items = np.arange(stream.items) if stream.item_names is None else ids_of(stream.item_names)

    def users(numbers: IntArray) -> list[User]:
        return numbers.tolist() if keys is None else [keys[number] for number in numbers]

    given = {"utc_offset": stream.time - stream.order_time}
    if stream.label is not None:
        given["label"] = stream.label
    new = 0
    for first in range(0, len(stream), CALL):
        part = slice(first, first + CALL)
        columns = {name: values[part] for name, values in given.items()}
        new += store.append_many(
            users(stream.user[part]), items[stream.item[part]], stream.order_time[part], **columns
        )
    return new


def main(argv: Sequence[str] | None = None) -> int:
    p = Parser(prog="python -m longclock.store", description="Puts the events of a file, or of an example, into a store of histories.")  # fmt: skip
    p.add_argument("--store", required=True, metavar="URL", help="a file, or redis://host:port/0; made where there is none")  # fmt: skip
    p.add_argument("--data", metavar="NAME|FILE", help="an example, or your own events: Parquet or CSV (nyc)")  # fmt: skip
    p.add_argument("--events", metavar="FILE", help="your own events: as --data FILE")
    add_file(p)
    p.add_argument("--data-dir", metavar="FOLDER", help="folder of the example data")
    p.add_argument("--days", metavar="N", type=int, help="only the first days (0: all)")
    args = p.parse_args(argv)
    console = Console("longclock.store")
    console.open()
    try:
        stream = read(where_of(args), console)
        console.say(f"loading PyTorch and opening {args.store} ...")
        with imported_by_program("longclock.store", TRAIN_EXTRA):
            from longclock.store import open_store
        with open_store(args.store, columns=columns_of(stream)) as store:
            new = fill(store, stream)
        print(f"{args.store}: {new:,} new behaviours of {len(stream):,} events")
    except (ValueError, OSError, ModuleNotFoundError) as error:
        p.exit(2, f"longclock.store: {error}\n")
    except KeyboardInterrupt:
        p.exit(130, "\nlongclock.store: interrupted; the same command goes on\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
