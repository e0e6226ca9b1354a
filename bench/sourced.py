# SPDX-License-Identifier: Apache-2.0
"""``python -m bench.sourced``: what memory a run over a source takes, and how fast it goes through its events.

    python -m bench.sourced [--events 30000000] [--days 100] [--users 1000000] [--items 100000] [--stored 1000000] [--trained 100000] [--batch 32]
        [--folder DIR] [--json FILE] [--quick]

Files are written first, a day each. One process goes through all of their events as a run does, with numbers of ids, histories, negatives and figures, but for the
model's steps, whose scores are zeros; another the same with histories in SQLite, on the first ``--stored`` of them; a third trains LIC on the first ``--trained`` of them, ``--batch`` events a step, and writes a checkpoint. Every event is counted, and
what is kept of them. Each process has one thread: the seconds of processor time are those that it takes where nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.event_sources import peak_mb, write_days
from bench.harness import load, surroundings

ROOT = Path(__file__).parents[1]
STORED = "histories in SQLite"
PARTS = ("all but steps", STORED, "trainer")
POINTS = 10  # at which memory is looked at


def now_mb() -> float:
    """What the process holds."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1e3


def gone_through(part: str, folder: Path, events: int, batch: int, place: Path) -> dict[str, Any]:
    """The first events of the files: seconds, and the memory over what the process had before; it may write into ``place``."""
    import torch

    from longclock.data.sources import FolderSource
    from longclock.train.compare import Options
    from longclock.train.config import MODELS, Config
    from longclock.train.memory import Bounds, Memory
    from longclock.train.running import RunningFigures
    from longclock.train.sourced import SourcedRun, excerpts
    from longclock.train.stored_histories import StoredHistories

    torch.set_num_threads(1)
    config = Config(protocol="stream", batch=batch, history=10_000, k=20, embedding_optimizer="lazy-adam")  # fmt: skip
    kept = StoredHistories(str(place / "histories.db"), 10_000, resume=False) if part == STORED else None  # fmt: skip
    memory, figures = Memory(config, Bounds(), [], kept), RunningFigures(0, 10_000)
    begun, worked, before = time.perf_counter(), time.process_time(), peak_mb()
    run: SourcedRun | None = None
    points: list[tuple[int, float]] = []
    for excerpt in excerpts(FolderSource(folder), memory):
        if part == "trainer":
            run = run or SourcedRun.start(MODELS["lic"], config, memory, figures)
            run.carry(excerpt, config, Options(Path("unused"), quiet=True))
        else:
            figures.add(excerpt, torch.zeros(len(excerpt.candidates.item)), len(excerpt.stream))
            memory.keep(excerpt)
        if memory.trained >= events * (len(points) + 1) // POINTS:
            points.append((memory.trained, now_mb()))
        if memory.trained >= events:
            break
    if run is not None:
        run.save(place / "checkpoint", {})
    return {
        "events": memory.trained,
        "kept": len(memory.kept) + (0 if memory.tail is None else len(memory.tail)),
        "users": memory.users.known,
        "items": memory.items.known,
        "seconds": time.perf_counter() - begun,
        "processor_seconds": time.process_time() - worked,
        "before_mb": before,
        "peak_mb": peak_mb(),
        "points": points,
    }


def measured(folder: Path, sizes: argparse.Namespace) -> dict[str, Any]:
    write_days(folder, sizes.events, sizes.days, sizes.users, sizes.items, labels=False)
    results: dict[str, Any] = {}
    for part, events in zip(PARTS, (sizes.events, sizes.stored, sizes.trained), strict=True):
        words = ["--part", part, "--folder", str(folder), "--events", str(events), "--batch", str(sizes.batch)]  # fmt: skip
        command = [sys.executable, "-m", "bench.sourced", *words]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout)  # fmt: skip
        if found["events"] < events:
            raise RuntimeError(f"{part} has not gone through every event: {found}")
        found["events_a_second"] = found["events"] / found["seconds"]
        found["events_a_processor_second"] = found["events"] / found["processor_seconds"]
        results[part] = found
        print(
            f"{part:20} {found['events']:>12,} events, {found['events_a_second']:>9,.0f} a second, {found['events_a_processor_second']:>9,.0f} a second "
            f"of processor time, {found['peak_mb']:,.0f} MB at most, {found['before_mb']:,.0f} before them"
        )
    return results


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.sourced", description=__doc__.split("\n")[0])
    p.add_argument("--events", type=int, default=30_000_000, metavar="N", help="(30000000)")
    p.add_argument("--days", type=int, default=100, metavar="N", help="files (100)")
    p.add_argument("--users", type=int, default=1_000_000, metavar="N", help="(1000000)")
    p.add_argument("--items", type=int, default=100_000, metavar="N", help="(100000)")
    p.add_argument("--stored", type=int, default=1_000_000, metavar="N", help="events with histories in SQLite (1000000)")  # fmt: skip
    p.add_argument("--trained", type=int, default=100_000, metavar="N", help="events that LIC is trained on (100000)")  # fmt: skip
    p.add_argument("--batch", type=int, default=32, metavar="N", help="events of a step (32)")
    p.add_argument("--folder", type=Path, metavar="DIR", help="for the files (a temporary one)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    p.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    p.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    sizes = p.parse_args(argv)
    if sizes.part:
        with tempfile.TemporaryDirectory(dir=sizes.folder.parent) as place:
            found = gone_through(sizes.part, sizes.folder, sizes.events, sizes.batch, Path(place))
        print(json.dumps(found))
        return 0
    if sizes.quick:
        sizes.events, sizes.days, sizes.users, sizes.items = 3_000, 3, 50, 90
        sizes.stored = sizes.trained = 1_000
    before = load()
    with tempfile.TemporaryDirectory(dir=sizes.folder) as folder:
        found = measured(Path(folder).resolve(), sizes)
    if sizes.json:
        given = {name: getattr(sizes, name) for name in ("events", "days", "users", "items", "stored", "trained", "batch")}  # fmt: skip
        about = {"of": given, "sourced": found, "load": {"before": before, "after": load()}}
        sizes.json.write_text(json.dumps({**surroundings(), **about}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
