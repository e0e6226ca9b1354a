# SPDX-License-Identifier: Apache-2.0
"""``python -m bench.training_step --against FOLDER``: events a second of ``python -m longclock.train``, beside another version of the package.

    python -m bench.training_step [--against FOLDER] [--model lic] [--events 20000] [--turn 1000] [--data nyc] [--threads 1] [--json FILE] [--quick]

FOLDER is a checkout of the other version, with its library built in place. Each version trains the model in a process of its own on the first events
of nyc and of music, by the data sets' settings. The two take turns of so many events, which are the same ones, so that what else the machine does meets both; one waits while
the other works. A turn's time is the CPU time of its process. The ratio is the median over turns, the first fifth of which warm up. Afterwards scores and weights of the
two are compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DATA = ("nyc", "music")
OWN = Path(__file__).resolve().parent.parent


def work(data_name: str, sizes: argparse.Namespace) -> None:
    """Trains a turn for each line that comes in, and answers with its seconds; at the end with what came out."""
    import torch

    from longclock.data import load
    from longclock.train.batches import TrainingData
    from longclock.train.config import MODELS, PRESETS, Config
    from longclock.train.loop import Run, chunks, train

    torch.set_num_threads(sizes.threads)
    config = MODELS[sizes.model].settings(Config(**PRESETS[data_name]))
    stream = load(data_name).head(max_events=sizes.events)
    data = TrainingData.of(stream, config)
    run = Run.start(data, MODELS[sizes.model], config)
    last = len(chunks(stream, config))

    def begin() -> list[float]:
        _ = sys.stdin.readline()
        return [0, time.process_time()]

    turn = begin()

    def after_chunk(run: Any, learned: int) -> None:
        turn[0] += learned
        if turn[0] >= sizes.turn or run.chunk == last:
            print(json.dumps([turn[0], time.process_time() - turn[1]]), flush=True)
            if run.chunk < last:
                turn[:] = begin()

    train(run, data, config, after_chunk)
    weights = b"".join(weight.detach().numpy().tobytes() for weight in run.ranker.parameters())
    scores = run.scores.numpy()
    found = {"scores": _digest(scores.tobytes()), "weights": _digest(weights), "sum": float(scores.sum())}  # fmt: skip
    print(json.dumps(found), flush=True)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


class Version:
    """A process that trains with the package of a folder."""

    def __init__(self, folder: Path, data_name: str, sizes: argparse.Namespace) -> None:
        words = ["--work", data_name, *(f"--{name}={getattr(sizes, name)}" for name in ("model", "events", "turn", "threads"))]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(folder / "python")}, cwd=folder,
        )  # fmt: skip

    def turn(self) -> Any:
        """What a turn took, [events, seconds]; behind the last one, what came out."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.poll() is None:
            try:
                self._process.stdin.write("\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                pass
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a version ended with status {self._process.wait()}")
        return json.loads(line)


def measured(data_name: str, sizes: argparse.Namespace) -> dict[str, Any]:
    folders = {"this": OWN} | ({"other": sizes.against.resolve()} if sizes.against else {})
    versions = {name: Version(folder, data_name, sizes) for name, folder in folders.items()}
    turns: list[dict[str, tuple[int, float]]] = []
    while True:
        names = list(versions)
        answers = {name: versions[name].turn() for name in (names if len(turns) % 2 else names[::-1])}  # fmt: skip
        if isinstance(answers["this"], dict):
            break
        turns.append(answers)
    counted = turns[len(turns) // 5 :]
    found: dict[str, Any] = {"turns": len(counted)}
    for name in versions:
        events, seconds = (sum(part) for part in zip(*(turn[name] for turn in counted), strict=True))  # fmt: skip
        found[name] = {"events_a_second": events / seconds, "best": max(n / s for n, s in (turn[name] for turn in counted)), **answers[name]}  # fmt: skip
    if sizes.against:
        found["ratio"] = statistics.median(turn["other"][1] / turn["this"][1] for turn in counted)
        found["same_bits"] = all(
            answers["this"][what] == answers["other"][what] for what in ("scores", "weights")
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.training_step", description=__doc__.splitlines()[0])  # fmt: skip
    p.add_argument("--against", type=Path, metavar="FOLDER", help="a checkout of another version")
    p.add_argument("--data", choices=DATA, help="one of the streams (both)")
    p.add_argument("--model", default="lic", metavar="NAME", help="(lic)")
    p.add_argument("--events", type=int, default=20_000, metavar="N", help="of each stream (20000)")
    p.add_argument("--turn", type=int, default=1_000, metavar="N", help="events (1000)")
    p.add_argument("--threads", type=int, default=1, metavar="N", help="(1)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    p.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    p.add_argument("--work", choices=DATA, help=argparse.SUPPRESS)
    sizes = p.parse_args(argv)
    if sizes.work:
        work(sizes.work, sizes)
        return 0
    from bench.harness import load, surroundings

    if sizes.quick:
        sizes.events, sizes.turn = 600, 200
    before, results = load(), {}
    for name in [sizes.data] if sizes.data else DATA:
        found = results[name] = measured(name, sizes)
        for version in ("this", "other"):
            if version in found:
                print(f"{name}, {version}: {found[version]['events_a_second']:,.0f} events a second, {found[version]['best']:,.0f} in the best turn")  # fmt: skip
        if "ratio" in found:
            print(f"{name}: {found['ratio']:.2f} times the other's, {'the same bits' if found['same_bits'] else 'other bits'}")  # fmt: skip
    if sizes.json:
        given = {name: getattr(sizes, name) for name in ("model", "events", "turn", "threads")}
        about = {"of": given, "load": {"before": before, "after": load()}}
        sizes.json.write_text(json.dumps({**surroundings(), **about, "results": results}, indent=1) + "\n", encoding="utf-8")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
