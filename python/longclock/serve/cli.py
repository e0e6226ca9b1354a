# SPDX-License-Identifier: Apache-2.0
"""The command line of ``python -m longclock.serve``."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from longclock._extras import SERVE_EXTRA, imported_by_program
from longclock.serve.settings import DTYPES, Limits, check_there, is_missing

log = logging.getLogger("longclock.serve")


def parser() -> argparse.ArgumentParser:
    usual = Limits()
    p = argparse.ArgumentParser(
        prog="python -m longclock.serve",
        description="Answers requests for rankings over HTTP, by the Open Inference Protocol, and takes new behaviours.",
    )
    p.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="of python -m longclock.export")  # fmt: skip
    p.add_argument("--store", required=True, metavar="URL", help="of histories: a file, or redis://host:port/0")  # fmt: skip
    p.add_argument("--new-store", action="store_true", help="make the store where there is none; else it must be there")  # fmt: skip
    p.add_argument(
        "--host", default="127.0.0.1", help="to listen on (127.0.0.1: this machine alone)"
    )
    p.add_argument("--port", type=int, default=8000, metavar="N", help="(8000)")
    p.add_argument(
        "--scoring", choices=["folded", "precomputed"], default="folded", help="(folded)"
    )
    p.add_argument("--dtype", choices=[*DTYPES], default="fp32", help="of the table of behaviours; int8: of what the search reads (fp32)")  # fmt: skip
    p.add_argument("--query-dtype", choices=[*DTYPES], help="to what a search of int8 rounds its queries (int8)")  # fmt: skip
    p.add_argument("--device", default="cpu", help="of the model (cpu)")
    p.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="requests at one time (one a core)")  # fmt: skip
    p.add_argument("--queue", type=int, default=usual.queue, metavar="N", help=f"requests that wait; more get 429 ({usual.queue})")  # fmt: skip
    p.add_argument("--deadline", type=float, default=usual.deadline, metavar="SECONDS", help=f"that a request waits, else 504 ({usual.deadline:g})")  # fmt: skip
    p.add_argument("--max-body", type=int, default=usual.body, metavar="BYTES", help=f"of a request, else 413 ({usual.body})")  # fmt: skip
    p.add_argument("--refresh", type=float, default=usual.refresh, metavar="SECONDS", help=f"between looks for a new version ({usual.refresh:g})")  # fmt: skip
    p.add_argument("--keep-alive", type=int, default=75, metavar="SECONDS", help="that an idle connection stays open: longer than a proxy before the server keeps it (75)")  # fmt: skip
    p.add_argument("--drain", type=int, default=10, metavar="SECONDS", help="for requests to end when the server is stopped (10)")  # fmt: skip
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status. Mistakes in arguments or files get one line."""
    p = parser()
    args = p.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    for name in ("threads", "queue", "max_body"):
        if getattr(args, name) < (0 if name == "queue" else 1):
            p.error(f"--{name.replace('_', '-')} must be positive, got {getattr(args, name)}")
    try:
        if not args.new_store:
            check_there(args.store, ", or make an empty one with --new-store")
    except OSError as error:
        p.exit(2, f"longclock.serve: {error}\n")
    log.info("loading PyTorch and the model of %s ...", args.model)
    with imported_by_program("longclock.serve", SERVE_EXTRA):
        import torch
        import uvicorn

        from longclock.serve import model_folder
        from longclock.serve.endpoint import create_app
        from longclock.serve.recommender import Recommender
        from longclock.store import open_store
    torch.set_num_threads(1)  # a request takes one core
    try:
        columns = None
        if args.new_store and is_missing(args.store):
            labelled = model_folder.read(args.model).about["labelled"]
            columns = {"utc_offset": "int32"} | ({"label": "int8"} if labelled else {})
        store = open_store(args.store, columns=columns)
        recommender = Recommender(
            args.model, store, scoring=args.scoring, dtype=args.dtype, query_dtype=args.query_dtype, device=args.device
        )  # fmt: skip
    except (ValueError, OSError) as error:
        p.exit(2, f"longclock.serve: {error}\n")
    if next(store.users(), None) is None:
        log.warning(
            "%s has no histories: those of all users are empty until behaviours come", args.store
        )
    limits = Limits(args.threads, args.queue, args.deadline, args.max_body, refresh=args.refresh)
    uvicorn.run(
        create_app(recommender, limits), host=args.host, port=args.port, access_log=False, log_config=None, proxy_headers=False,
        timeout_keep_alive=args.keep_alive, timeout_graceful_shutdown=args.drain,
    )  # fmt: skip
    return 0
