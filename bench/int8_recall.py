# SPDX-License-Identifier: Apache-2.0
"""``python -m bench.int8_recall``: how many of the behaviours that a search in fp32 finds one of fewer bits finds too.

    python -m bench.int8_recall [--runs FOLDER] [--json FILE] [--quick]

A LIC is trained on each data set and exported, and the search of its recommender asked behind the end of the stream: of the users with the longest
histories, half of the candidates items of their own, half drawn as often as they occur. Recall of a query is the share of what fp32
finds; a user's is the mean of theirs. Runs that are in FOLDER are taken as they are, or finished.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import longclock as lc
from bench.harness import load, surroundings
from longclock import data
from longclock.export import export
from longclock.serve import model_folder
from longclock.serve.model_folder import Version
from longclock.serve.ranking_model import DTYPES, QUERY_DTYPES, RankingModel, Scoring, Served
from longclock.train.cli import main as train

DATA = ("nyc", "music")
SCORINGS: tuple[Scoring, ...] = ("folded", "precomputed")
WAYS = {  # dtype, that of queries
    "bf16": ("bf16", "int8"),
    "int8, fp32 query": ("int8", "fp32"),
    "int8, bf16 query": ("int8", "bf16"),
    "int8, int8 query": ("int8", "int8"),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    k: int = 100
    users: int = 40
    behaviours: int = 10_000
    candidates: int = 300
    events: int | None = None  # of each data set; None: all


class Asked:
    """The search of one user's request."""

    def __init__(self, stream: data.EventStream, user: int, sizes: Sizes, rng: np.random.Generator) -> None:  # fmt: skip
        own = np.flatnonzero(stream.user == user)[-sizes.behaviours :]
        half = sizes.candidates // 2
        drawn = rng.choice(stream.item[own], half), rng.choice(stream.item, sizes.candidates - half)
        self.candidates = torch.from_numpy(np.concatenate(drawn))
        label = 0 if stream.label is None else stream.label[own]
        self.ids = torch.from_numpy(stream.item[own] + stream.items * label)
        self.time = torch.from_numpy(stream.time[own])
        self.now = self.time.max()[None] + 60 * int(rng.integers(1, 24 * 60))

    def found(self, model: RankingModel) -> Tensor:
        """int64 [candidates, k]."""
        ends, offsets = torch.tensor([len(self.ids)]), torch.tensor([0, len(self.candidates)])
        rows = lc.Lookup(model.behaviours, self.ids)
        history = lc.History.windows(rows, self.time, ends * 0, ends, offsets)
        asked = model.items[self.candidates], history, self.now
        found = model.interest.search(*asked, **model.searched())
        assert found is not None
        return found


def recall(exact: Tensor, found: Tensor) -> Tensor:
    """The share of each query's exact indices that were found, [Q]; 1 where there are none. -1 is none."""
    there = exact >= 0
    hits = ((exact[:, :, None] == found[:, None]).any(2) & there).sum(1)
    return torch.where(there.any(1), hits / there.sum(1).clamp(min=1), 1.0)


def longest(stream: data.EventStream, sizes: Sizes) -> list[int]:
    """Users with the longest histories, of those for whom a search has twice as many behaviours as it keeps."""
    counts = np.bincount(stream.user, minlength=stream.users)
    order = np.argsort(-counts, kind="stable")[: sizes.users]
    return [int(user) for user in order if counts[user] >= 2 * sizes.k]


def exported(name: str, folder: Path, sizes: Sizes) -> Version:
    """A trained model of a data set."""
    events = [] if sizes.events is None else ["--max-events", str(sizes.events)]
    out = folder / name
    given = ["--data", name, "--days", "0", "--models", "lic", "--k", str(sizes.k), *events]
    if train([*given, "--out", str(out), "--resume", "--quiet"]):
        raise RuntimeError(f"training on {name} failed")
    export(out / "checkpoints" / "lic.safetensors", out / "model")
    return model_folder.read(out / "model")


def model_of(version: Version, scoring: Scoring, dtype: str, query_dtype: str) -> RankingModel:
    return Served.of(
        version, scoring, DTYPES[dtype], torch.device("cpu"), QUERY_DTYPES[query_dtype]
    ).model


@torch.inference_mode()
def measured(name: str, version: Version, sizes: Sizes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Figures of each scoring."""
    stream = data.load(name).head(max_events=sizes.events)
    users = longest(stream, sizes)
    for scoring in SCORINGS:
        rng = np.random.default_rng(0)
        wide = model_of(version, scoring, "fp32", "fp32")
        models = {way: model_of(version, scoring, *given) for way, given in WAYS.items()}
        found: dict[str, list[Tensor]] = {way: [] for way in WAYS}
        lengths = []
        for user in users:
            asked = Asked(stream, user, sizes, rng)
            exact = asked.found(wide)
            lengths.append(len(asked.ids))
            for way, model in models.items():
                found[way].append(recall(exact, asked.found(model)))
        ways = {way: summary(torch.stack(each)) for way, each in found.items()}
        yield (
            f"{name}, {scoring}",
            {"users": len(users), "behaviours": float(np.mean(lengths)), "ways": ways},
        )


def summary(of_users: Tensor) -> dict[str, float]:
    """Of recalls [users, queries]."""
    each = of_users.mean(1)
    return {
        "mean": float(each.mean()),
        "worst user": float(each.min()),
        "worst 1% of queries": float(of_users.flatten().quantile(0.01)),
    }


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.int8_recall", description=(__doc__ or "").split("\n")[0])  # fmt: skip
    p.add_argument("--runs", type=Path, metavar="FOLDER", help="of the trained models (one that is removed)")  # fmt: skip
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    p.add_argument("--quick", action="store_true", help="few events and users: does it run?")
    args = p.parse_args(argv)
    sizes = Sizes(5, 4, 300, 20, 2_000) if args.quick else Sizes()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    before = load()
    with tempfile.TemporaryDirectory() as removed:
        for name in DATA:
            version = exported(name, args.runs or Path(removed), sizes)
            for kind, figures in measured(name, version, sizes):
                found[kind] = figures
                for way, shares in figures["ways"].items():
                    rest = ", ".join(f"{what} {share:.4f}" for what, share in shares.items())
                    print(f"{kind}, {way}: {rest}", flush=True)
    if args.json:
        about = {"recall of": dataclasses.asdict(sizes), **surroundings(), "load": {"before": before, "after": load()}}  # fmt: skip
        args.json.write_text(json.dumps({**about, "results": found}, indent=1) + "\n", encoding="utf-8")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
