# SPDX-License-Identifier: Apache-2.0
"""``python -m bench.serve``: what a request costs beside its two ops, with its store, and beside a writer.

    python -m bench.serve [--repetitions N] [--json FILE] [--quick]

Figures are CPU time of the request's thread, which other work on the machine changes less than its wall time; all that is
compared takes turns. Histories are of items that are all different, the worst case: real ones repeat items, whose rows are
multiplied once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

import longclock as lc
from bench.harness import OURS, load, surroundings
from bench.plain_request import rivals_of
from longclock.nn.keys import as_query
from longclock.nn.long_term_interest_clock import _each_head
from longclock.serve import Recommender, model_folder
from longclock.serve.ranking_model import RankingModel, Scoring
from longclock.store import SQLiteStore
from longclock.train.config import MODELS, USER_DIM, Config
from longclock.train.ranker import new_tower

KINDS: tuple[tuple[str, Scoring], ...] = (
    ("fp32", "folded"), ("bf16", "folded"), ("bf16", "precomputed"), ("int8", "folded"), ("int8", "precomputed"),
)  # fmt: skip
Name = TypeVar("Name")
USERS, NOW = 20, 1_700_000_000


@dataclasses.dataclass(frozen=True)
class Sizes:
    items: int = 30_000
    behaviours: int = 10_000
    candidates: int = 500
    width: int = 64
    k: int = 100
    compiled: bool = True  # rivals that are compiled as well: half a minute


def random_model(folder: Path, sizes: Sizes) -> None:
    """A version of LIC with weights as they are before training."""
    torch.manual_seed(0)
    config = Config(k=sizes.k)
    interest = MODELS["lic"].build(config, sizes.width, sizes.width, 0, USERS)
    parts = (("interest", interest), ("tower", new_tower(USER_DIM + 5 * sizes.width)))
    tensors = {
        "items": torch.randn(sizes.items, sizes.width),
        "users": torch.randn(USERS + 1, USER_DIM),
    }
    for name, module in parts:
        tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    about = {
        "model": "lic", "config": dataclasses.asdict(config), "users": USERS, "items": sizes.items,
        "category_sizes": {}, "labelled": False, "reads_outcomes": False,
    }  # fmt: skip
    model_folder.write(folder, about, tensors, keep=1)


def histories(path: Path, sizes: Sizes) -> SQLiteStore:
    rng = np.random.default_rng(0)
    store = SQLiteStore(path)
    for user in range(USERS):
        items = rng.permutation(sizes.items)[: sizes.behaviours]
        store.append_many(
            [user] * len(items), items, np.sort(rng.integers(NOW - 10**8, NOW, len(items)))
        )
    return store


class Request:
    """Calls of one user and of candidates, which are the same in each: all of it, and its parts by themselves."""

    def __init__(self, recommender: Recommender, sizes: Sizes) -> None:
        self.recommender, self.store = recommender, recommender.store
        self.candidates = torch.randperm(sizes.items)[: sizes.candidates]

    def rank(self, user: int = 3) -> Any:
        return self.recommender.rank(user, self.candidates, NOW, top=50)

    def parts(self) -> dict[str, Callable[[], Any]]:
        """The whole, the store, and the two ops and the model's layers on tensors that are there already."""
        model, seen = self.recommender._served.model, self.store.get(3, before=NOW)
        lic: Any = model.interest
        offsets = torch.tensor([0, len(self.candidates)])
        ends, now = torch.tensor([len(seen.item)]), torch.tensor([NOW])
        rows = lc.Lookup(model.behaviours, seen.item)
        history = lc.History.windows(rows, seen.time, ends * 0, ends, offsets)
        with torch.no_grad():
            vectors = model.items[self.candidates]
            projected, u = lic._folded(vectors, lic.w_q, lic.w_b)
            searched = model.searched()
            query, scored, scale = lic._search_by(
                vectors, projected, u, model.behaviours, searched.get("keys")
            )
            mlp = lic.time.mlp()
        query, u = as_query(query, scored), as_query(u, model.behaviours)
        given = {**history.arguments(), **searched, "keys": scored, "query_time": now, "mlp": mlp}

        def search() -> Any:
            return lc.clock_gsu(query, k=lic.k, scale=scale, **given).indices

        found = search()
        layers = layers_of(model, vectors)
        attended: dict[str, Any] = {
            "z": history.rows,
            "z_time": seen.time,
            "query_time": now,
            "mlp": mlp,
            "found": found,
            **history.layout(),
        }
        return {
            "rank": self.rank,
            "search": search,
            "attention": lambda: lc.esu_attention(u, **attended),
            "layers": layers,
            "store": lambda: self.store.get(3, before=NOW),
        }


def layers_of(model: RankingModel, vectors: torch.Tensor) -> Callable[[], Any]:
    """The matrix products that whoever has this model makes beside its two ops: of queries, of values, and the tower's."""
    lic: Any = model.interest
    context = torch.randn(len(vectors), lic.heads, lic.w_v.shape[1])
    features = torch.randn(len(vectors), next(model.tower.parameters()).shape[1])

    def layers() -> Any:
        _, u = lic._folded(vectors, lic.w_q, lic.w_b)
        return u, lic.head(_each_head(context, lic.w_v).flatten(1)), model.tower(features)

    return layers


def in_turns(calls: dict[Name, Callable[[], Any]], repetitions: int) -> dict[Name, list[float]]:
    """CPU milliseconds of this thread."""
    for call in calls.values():
        call()
    found: dict[Name, list[float]] = {name: [] for name in calls}
    for _ in range(repetitions):
        for name, call in calls.items():
            begun = time.thread_time()
            call()
            found[name].append(1e3 * (time.thread_time() - begun))
    return found


def write_on(path: str, stop: Any) -> None:
    """Durable appends, one after the other."""
    with SQLiteStore(path) as store:
        while not stop.is_set():
            store.append_many(
                range(USERS), [7] * USERS, [NOW + time.monotonic_ns() % 10**9] * USERS
            )


def percentiles(values: Sequence[float]) -> dict[str, float]:
    return {"p50": statistics.median(values), "p99": float(np.quantile(values, 0.99))}


def by_threads(request: Request, count: int, each: int) -> float:
    """CPU milliseconds of a request, of so many threads that ask at one time."""
    spent: list[float] = []

    def ask(user: int) -> None:
        begun = time.thread_time()
        for _ in range(each):
            request.rank(user)
        spent.append(1e3 * (time.thread_time() - begun) / each)

    threads = [threading.Thread(target=ask, args=(user,)) for user in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statistics.mean(spent)


def beside_rivals(recommender: Recommender, sizes: Sizes, repetitions: int) -> dict[str, Any]:
    """The model of one request, its history at hand, by ours and by rivals, whose scores must be ours."""
    model, store = recommender._served.model, recommender.store
    seen, candidates = store.get(3, before=NOW), torch.randperm(sizes.items)[: sizes.candidates]
    user, now = torch.tensor([3]), torch.tensor([NOW])
    ends, offsets = torch.tensor([len(seen.item)]), torch.tensor([0, len(candidates)])
    with torch.no_grad():
        given = user, candidates, seen.item, seen.time, now
        calls: dict[str, Callable[[], Any]] = {
            OURS: lambda: model(user, candidates, seen.item, seen.time, ends, offsets, now),
            **{
                name: partial(call, *given)
                for name, call in rivals_of(model, given, sizes.compiled).items()
            },
        }
        wanted = calls[OURS]()
        for (
            name,
            call,
        ) in calls.items():  # rounding may choose another behaviour where two are next to equal
            far = float(((call() - wanted).abs() > 1e-3).float().mean())
            if far > 0.01:
                raise RuntimeError(
                    f"{name} has other scores than longclock for {far:.1%} of the candidates"
                )
        times = in_turns(calls, max(repetitions // 5, 2))
    least = {name: min(each) for name, each in times.items()}
    return {"ms": least} | {f"times {n}": x / least[OURS] for n, x in least.items() if n != OURS}


def measured(folder: Path, sizes: Sizes, repetitions: int) -> Iterator[tuple[str, dict[str, Any]]]:
    random_model(folder / "model", sizes)
    store = histories(folder / "histories.db", sizes)
    calls: dict[tuple[str, str, str], Callable[[], Any]] = {}
    for dtype, scoring in KINDS:
        recommender = Recommender(folder / "model", store, scoring=scoring, dtype=dtype)
        for part, call in Request(recommender, sizes).parts().items():
            calls[dtype, scoring, part] = call
    with torch.inference_mode():
        times = in_turns(calls, repetitions)
    for dtype, scoring in KINDS:
        parts = ("rank", "search", "attention", "layers", "store")
        least = {part: min(times[dtype, scoring, part]) for part in parts}
        ops = least["search"] + least["attention"]
        yield f"one request, {dtype}, {scoring}", {
            "ms": least, "over its two ops": least["rank"] / ops,
            "over its parts": least["rank"] / (ops + least["layers"] + least["store"]),
            "share of the store": least["store"] / least["rank"],
        }  # fmt: skip
    yield (
        "beside rivals, fp32",
        beside_rivals(Recommender(folder / "model", store), sizes, repetitions),
    )
    recommender = Recommender(folder / "model", store, dtype="bf16")
    request = Request(recommender, sizes)
    alone = [by_threads(request, count, repetitions // 2) for count in (1, 2, 1, 2)]
    one, two = min(alone[::2]), min(alone[1::2])
    yield "two threads that ask", {"ms": {"1": one, "2": two}, "of one": two / one}
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    writer = context.Process(target=write_on, args=(str(folder / "histories.db"), stop))
    quiet = percentiles(in_turns({"rank": request.rank}, 2 * repetitions)["rank"])
    writer.start()
    beside = percentiles(in_turns({"rank": request.rank}, 2 * repetitions)["rank"])
    stop.set()
    writer.join()
    yield "beside a durable writer", {"ms": beside, "p99 over p50": beside["p99"] / beside["p50"],
                                      "without it": quiet["p99"] / quiet["p50"]}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.serve", description=__doc__.splitlines()[0])
    p.add_argument("--repetitions", type=int, default=100, metavar="N", help="(100)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    p.add_argument("--quick", action="store_true", help="tiny sizes, two repetitions: does it run?")
    args = p.parse_args(argv)
    sizes = Sizes(500, 200, 20, 16, 10, compiled=False) if args.quick else Sizes()
    torch.set_num_threads(1)
    found, before = {}, load()
    with tempfile.TemporaryDirectory() as folder:
        for name, figures in measured(Path(folder), sizes, 4 if args.quick else args.repetitions):
            found[name] = figures
            ms = ", ".join(f"{part} {value:.2f}" for part, value in figures["ms"].items())
            rest = ", ".join(f"{k} {x:.3f}" for k, x in figures.items() if k != "ms")
            print(f"{name}: {rest} (ms: {ms})", flush=True)
    if args.json:
        loads = {"before": before, "after": load()}
        about = {"sizes": dataclasses.asdict(sizes), **surroundings(), "load": loads}
        args.json.write_text(
            json.dumps({**about, "results": found}, indent=1) + "\n", encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
