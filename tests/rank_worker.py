# SPDX-License-Identifier: Apache-2.0
"""One rank of tests/test_team.py: trains what a JSON file says, and the first rank saves what came of it.

A case is {"config": ..., "labels": ..., "stop": chunk or null, "resume": name or null}. ``stop`` keeps a checkpoint of that
chunk under the case's name; ``resume`` goes on from that of another case.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from streams import stream

from longclock.train import checkpoint
from longclock.train.batches import TrainingData
from longclock.train.config import MODELS, Config
from longclock.train.loop import Run, chunks, train
from longclock.train.team import Team


def run_case(started: Team, name: str, case: dict, kept: Path, out: Path) -> None:
    config = Config(**case["config"])
    team = Team(config.groups, started.rank, started.world, started.store)
    data = TrainingData.of(stream(events=200, labels=case["labels"]), config)
    run, parts = Run.start(data, MODELS["lic"], config), chunks(data.stream, config)
    identity = checkpoint.identity("lic", data.stream, config)
    if case["resume"]:
        content = (kept / f"{case['resume']}.checkpoint").read_bytes()
        checkpoint.restore(case["resume"], content, run, identity, data, parts)
        assert run.chunk > 0

    def after_chunk(run: Run, events: int) -> None:
        if run.chunk == case["stop"] and team.first:
            checkpoint.save(kept / f"{name}.checkpoint", run, identity, data, parts)

    train(run, data, config, after_chunk, team)
    weights = torch.cat(
        [x.flatten() for x in run.ranker.state_dict().values() if x.is_floating_point()]
    )
    if team.first:
        save_file({"scores": run.scores, "weights": weights}, out / f"{name}.safetensors")


if __name__ == "__main__":
    cases, kept, out = (
        json.loads(Path(sys.argv[1]).read_text()),
        Path(sys.argv[2]),
        Path(sys.argv[3]),
    )
    torch.set_num_threads(1)
    started = Team.started(0, 60, torch.device("cpu"))
    for name, case in cases.items():
        run_case(started, name, case, kept, out)
    started.end()
