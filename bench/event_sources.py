# SPDX-License-Identifier: Apache-2.0
"""``python -m bench.event_sources``: how fast events come from files and from Kafka, and what memory that takes.

    python -m bench.event_sources [--events 30000000] [--days 100] [--messages 300000] [--folder DIR] [--json FILE] [--quick]

Files are written first, a day each. One process reads them with :class:`longclock.data.sources.FolderSource`, and another with Arrow alone, row group by
row group, which is the limit. Kafka is librdkafka's mock cluster, a broker within the process, so its figures are those of a client without a network.
Every event is counted, in order, and summed.
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

import numpy as np

from bench.harness import load, surroundings

DAY = 86_400
READERS = ("longclock", "Arrow alone")


def write_days(
    folder: Path,
    events: int,
    days: int,
    users: int = 1_000_000,
    items: int = 10_000_000,
    labels: bool = True,
) -> int:
    """Files of a day each; returns the sum of all items."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    total = 0
    for day in range(days):
        draw = np.random.default_rng(day)
        count = events * (day + 1) // days - events * day // days
        columns: dict[str, Any] = {
            "user": draw.integers(0, users, count),
            "item": draw.integers(0, items, count),
            "time": np.sort(draw.integers(day * DAY, (day + 1) * DAY, count)),
        }
        if labels:
            columns["label"] = draw.integers(0, 2, count).astype(np.int8)
        total += int(columns["item"].sum())
        pq.write_table(pa.table(columns), folder / f"day={day:04d}.parquet")
    return total


def peak_mb() -> float:
    """What the process has held at most."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1e3


def read_days(reader: str, folder: Path) -> dict[str, float]:
    """Every event of the files: their number, the sum of their items, seconds, and by how much memory grew."""
    import pandas  # noqa: F401  what is imported does not count
    import pyarrow  # noqa: F401
    from pyarrow import parquet as pq

    from longclock.data.sources import FolderSource

    before, begun = peak_mb(), time.perf_counter()
    count = total = 0
    latest = -(2**62)
    if reader == "longclock":
        for events, _ in FolderSource(folder).read():
            assert events.order_time[0] >= latest
            latest = int(events.order_time[-1])
            count += len(events)
            total += int(events.item.sum())
    else:
        for file in sorted(folder.iterdir()):
            with pq.ParquetFile(file) as data:
                for group in range(data.num_row_groups):
                    table = data.read_row_group(group, ["user", "item", "time", "label"])
                    count += len(table)
                    total += int(table.column("item").to_numpy().sum())
    seconds = time.perf_counter() - begun
    return {"events": count, "sum": total, "seconds": seconds, "grown_mb": peak_mb() - before}


def of_kafka(messages: int) -> dict[str, float]:
    """Events of a topic of JSON messages, read once whole."""
    from confluent_kafka import Producer

    from longclock.data.sources import KafkaSource

    producer = Producer(
        {"test.mock.num.brokers": 1, "linger.ms": 50, "queue.buffering.max.messages": 10**6}
    )
    brokers = producer.list_topics(timeout=10).brokers.values()
    draw = np.random.default_rng(0)
    users, items = (
        draw.integers(0, 5_000, messages).tolist(),
        draw.integers(0, 100_000, messages).tolist(),
    )
    for number, (user, item) in enumerate(zip(users, items, strict=True)):
        value = f'{{"user": {user}, "item": {item}, "time": {1_700_000_000 + number}}}'
        producer.produce("events", value, partition=user % 4)
        producer.poll(0)
    producer.flush(60)
    servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    begun = time.perf_counter()
    count = total = 0
    for events, _ in KafkaSource(servers, "events").read():
        count += len(events)
        total += int(events.item.sum())
    if (count, total) != (messages, sum(items)):
        raise RuntimeError(f"{messages} messages were sent, {count} came")
    return {"events": count, "seconds": time.perf_counter() - begun}


def measured(folder: Path, sizes: argparse.Namespace) -> dict[str, Any]:
    total = write_days(folder, sizes.events, sizes.days)
    results: dict[str, Any] = {}
    for reader in READERS:
        words = [
            sys.executable,
            "-m",
            "bench.event_sources",
            "--read",
            reader,
            "--folder",
            str(folder),
        ]
        found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        if (found["events"], found.pop("sum")) != (sizes.events, total):
            raise RuntimeError(f"{reader} has not read every event once: {found}")
        results[f"files, {reader}"] = found
    results["Kafka, JSON"] = of_kafka(sizes.messages)
    for name, found in results.items():
        found["events_a_second"] = found["events"] / found["seconds"]
        memory = f", {found['grown_mb']:.0f} MB more than before" if "grown_mb" in found else ""
        print(f"{name:20} {found['events_a_second'] / 1e6:6.2f} million events a second{memory}")
    return results


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog="python -m bench.event_sources", description=__doc__.split("\n")[0]
    )
    p.add_argument(
        "--events", type=int, default=30_000_000, metavar="N", help="in files (30000000)"
    )
    p.add_argument("--days", type=int, default=100, metavar="N", help="files (100)")
    p.add_argument("--messages", type=int, default=300_000, metavar="N", help="in Kafka (300000)")
    p.add_argument("--folder", type=Path, metavar="DIR", help="for the files (a temporary one)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    p.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    p.add_argument("--read", choices=READERS, help=argparse.SUPPRESS)
    sizes = p.parse_args(argv)
    if sizes.read:
        print(json.dumps(read_days(sizes.read, sizes.folder)))
        return 0
    if sizes.quick:
        sizes.events, sizes.days, sizes.messages = 3_000, 3, 1_000
    before = load()
    with tempfile.TemporaryDirectory(dir=sizes.folder) as folder:
        sources = measured(Path(folder), sizes)
    if sizes.json:
        given = {"events": sizes.events, "days": sizes.days, "messages": sizes.messages}
        sizes.json.write_text(
            json.dumps(
                {
                    **surroundings(),
                    "of": given,
                    "sources": sources,
                    "load": {"before": before, "after": load()},
                },
                indent=1,
            )
            + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
