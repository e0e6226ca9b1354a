# SPDX-License-Identifier: Apache-2.0
"""Ray Data: the best items for every user and moment, by projections of all items that a process makes once.

python examples/ray_projections.py model redis://localhost:6379 moments.parquet best 8
"""

import sys

import numpy as np
import ray.data
import torch

from longclock.serve import Recommender
from longclock.store import open_store


class Rank:
    def __init__(self, model: str, store: str) -> None:
        self.recommender = Recommender(model, open_store(store), scoring="precomputed")
        self.items = torch.arange(self.recommender.items)

    def __call__(self, asked: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        moments = zip(asked["user"].tolist(), asked["now"].tolist(), strict=True)
        found = [self.recommender.rank(user, self.items, now, 100) for user, now in moments]
        return {**asked, "items": np.stack([each.items.numpy() for each in found])}


model, store, moments, out, processes = sys.argv[1:]
given = {"fn_constructor_args": (model, store), "concurrency": int(processes)}
ray.data.read_parquet(moments).map_batches(Rank, **given).write_parquet(out)
