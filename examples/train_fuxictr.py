# SPDX-License-Identifier: Apache-2.0
"""The Long-term Interest Clock beside FuxiCTR's DIN, both trained by FuxiCTR on check-ins in New York.

    pip install --no-build-isolation '.[fuxictr]'
    python examples/train_fuxictr.py

The rows of the last days are held out. The data are written as FuxiCTR's models for long sequences read them. See docs/from-fuxictr.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.torch_utils import seed_everything
from model_zoo.LongCTR.DIN import DIN

from longclock.data import EventStream, Histories, nyc, sampled_candidates
from longclock.interop.fuxictr import LIC, TimedDataLoader

DATASET = "nyc"
PARTS = {"train": 0.8, "valid": 1.0}  # where each ends, as a share of the events
# A model, and how long a history it gets: DIN's cost is a network for every behaviour.
MODELS = {"LIC": (LIC, 200), "DIN": (DIN, 50)}
SETTINGS: dict[str, Any] = {
    "optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["AUC", "logloss"], "verbose": 0,
    "embedding_dim": 16, "dnn_hidden_units": [64, 32], "learning_rate": 5e-3, "batch_size": 1_024,
}  # fmt: skip


def write(stream: EventStream, folder: Path) -> FeatureMap:
    """The files of a stream, and what FuxiCTR has to know of them. Item 0 is padding, so the others are one more."""
    past = Histories.of(stream)
    bounds = np.cumsum(np.bincount(stream.user, minlength=stream.users))[:-1]
    lists = {"full_item_seq": past.item + 1, "full_time_seq": past.time}
    users = {name: np.split(column, bounds) for name, column in lists.items()}
    pq.write_table(pa.table(users), folder / "user_info.parquet")
    items = {"item_id": np.arange(stream.items)} | stream.item_categories()
    known = {name: np.concatenate([[0], ids + 1]) for name, ids in items.items()}
    pq.write_table(pa.table({"item_index": known["item_id"], **known}), folder / "item_info.parquet")  # fmt: skip
    scored = sampled_candidates(stream)
    event, first = scored.event, 0
    rows = {
        "user_index": stream.user[event], "item_index": scored.item + 1, "seq_len": (past.ends - past.starts)[event],
        "time": stream.time[event], "user_id": stream.user[event], "label": scored.label,
    }  # fmt: skip
    for part, share in PARTS.items():
        last = scored.first_row[int(share * len(stream))]
        table = pa.table({name: column[first:last] for name, column in rows.items()})
        pq.write_table(table, folder / f"{part}.parquet")
        first = last
    return feature_map(stream, {name: int(ids.max()) + 1 for name, ids in known.items()}, folder)


def feature_map(stream: EventStream, sizes: dict[str, int], folder: Path) -> FeatureMap:
    def table(source: str, size: int) -> dict[str, Any]:
        return {"source": source, "type": "categorical", "vocab_size": size}

    features = {name: {"type": "meta"} for name in ("user_index", "item_index", "seq_len", "time")}
    features |= {"user_id": table("user", stream.users)}
    features |= {name: table("item", size) | {"padding_idx": 0} for name, size in sizes.items()}
    whole = {"dataset_id": DATASET, "labels": ["label"], "features": [{name: spec} for name, spec in features.items()]}  # fmt: skip
    (folder / "feature_map.json").write_text(json.dumps(whole), encoding="utf-8")
    found = FeatureMap(DATASET, str(folder))
    found.load(str(folder / "feature_map.json"), SETTINGS)
    return found


def train(name: str, features: FeatureMap, folder: Path, epochs: int = 1, seed: int = 0) -> dict[str, float]:  # fmt: skip
    """A model's figures on the rows that are held out."""
    seed_everything(seed)
    settings = SETTINGS | {"user_info": str(folder / "user_info.parquet"), "item_info": str(folder / "item_info.parquet")}  # fmt: skip
    of, max_len = MODELS[name]
    model = of(features, model_id=name, model_root=str(folder), **settings)
    Path(model.model_dir).mkdir(exist_ok=True)
    rows = {
        part: TimedDataLoader(features, str(folder / part), shuffle=part == "train", max_len=max_len, **settings)
        for part in PARTS
    }  # fmt: skip
    model.fit(rows["train"], epochs=epochs, validation_data=rows["valid"])
    found: dict[str, float] = model.evaluate(rows["valid"])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    p.add_argument("--epochs", type=int, default=1, metavar="N", help="(%(default)s)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="(%(default)s)")
    p.add_argument("--days", type=int, metavar="N", help="of check-ins (all)")
    p.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS], help="(all)")
    args = p.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)  # layers this small gain nothing from more
    stream = nyc() if args.days is None else nyc().head(args.days)
    with tempfile.TemporaryDirectory() as folder:
        features = write(stream, Path(folder))
        for name in args.models:
            found = train(name, features, Path(folder), args.epochs, args.seed)
            print(f"{name}: AUC {found['AUC']:.4f}, log loss {found['logloss']:.4f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
