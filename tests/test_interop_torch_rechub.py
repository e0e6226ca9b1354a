# SPDX-License-Identifier: Apache-2.0
"""Torch-RecHub trains the Long-term Interest Clock, which says what a plain call of longclock says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tolerance import assert_bitwise
from torch import Tensor

import longclock as lc

pytest.importorskip("torch_rechub", reason="the extra torch-rechub has it")

from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
from torch_rechub.trainers import CTRTrainer
from torch_rechub.utils.data import DataGenerator

from longclock.interop.torch_rechub import LIC

B, M, ITEMS = 6, 12, 30
HOUR = 3600


def model(padding: int | None = None, user: bool = True, **options: Any) -> LIC:
    torch.manual_seed(0)
    item, cate = SparseFeature("item_id", ITEMS, 8), SparseFeature("cate_id", 5, 4)
    seen = [
        SequenceFeature("hist_item_id", ITEMS, 8, "concat", "item_id", padding),
        SequenceFeature("hist_cate_id", 5, 4, "concat", "cate_id"),
    ]
    beside = [SparseFeature("user_id", 7, 8), DenseFeature("age")] if user else []
    found = LIC(beside, seen, [item, cate], {"dims": [16]}, **{"k": 5} | options)
    for table in found.embedding.embed_dict.values():
        torch.nn.init.normal_(table.weight)
    return found.eval()


def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    found = {"user_id": torch.randint(1, 7, (B,))}
    for name, size in (("item_id", ITEMS), ("cate_id", 5)):
        found[name] = torch.randint(1, size, (B,))
        found[f"hist_{name}"] = torch.randint(1, size, (B, M))
    found["hist_item_id"] *= torch.arange(M) >= torch.tensor([0, 3, 8, 11, 12, 0])[:, None]
    hours = torch.randint(0, 24 * 60, (B, M + 1)).sort(-1).values
    return found | {"age": torch.rand(B), "hist_time": HOUR * hours[:, :-1], "time": HOUR * hours[:, -1]}  # fmt: skip


@pytest.mark.parametrize("user", [True, False])
def test_it_says_what_a_plain_call_says(user: bool) -> None:
    of, x = model(user=user), batch()
    tables = of.embedding.embed_dict
    vectors = torch.cat([tables[n](x[f"hist_{n}"]) for n in ("item_id", "cate_id")], -1)
    target = torch.cat([tables[n](x[n]) for n in ("item_id", "cate_id")], -1)
    history = lc.History.dense(vectors, x["hist_time"], mask=x["hist_item_id"] > 0)
    interest = of.interest(target, history, x["time"])
    beside = [tables["user_id"](x["user_id"]), x["age"][:, None]] if user else []
    logits = of.mlp(torch.cat([*beside, target, interest, target * interest], -1))
    torch.testing.assert_close(of(x), logits.flatten().sigmoid())


def test_times_reach_the_clock_and_padding_does_not() -> None:
    of, x = model(), batch()
    as_given, absent = of(x), x["hist_item_id"] == 0
    assert_bitwise(of(x | {"hist_time": x["hist_time"].masked_fill(absent, 7)}), as_given)
    assert_bitwise(of(x | {"hist_cate_id": x["hist_cate_id"].masked_fill(absent, -1)}), as_given)
    moved = (of(x | {"time": x["time"] + 5 * HOUR}) - as_given).abs()
    assert moved[4] == 0  # who has done nothing
    assert (moved[[0, 1, 2, 3, 5]] > 1e-5).all()
    filled = x | {"hist_item_id": x["hist_item_id"].masked_fill(absent, ITEMS - 1)}
    assert_bitwise(model(padding=ITEMS - 1)(filled), model(padding=ITEMS - 1)(x | filled))
    keeps_0 = model(padding=ITEMS - 1)(x)
    assert not torch.allclose(keeps_0, as_given)  # 0 is an item there


def habits(rows: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Users take an item of their own in the mornings and another in the evenings; the label tells whether it is its hour."""
    rng = np.random.default_rng(seed)
    morning, evening = (rng.integers(1, ITEMS, rows) for _ in range(2))
    early = rng.random((rows, M + 1)) < 0.5
    day, hour = np.arange(M + 1) * 86_400, np.where(early, 8, 20) + rng.integers(-2, 3, early.shape)
    time, item = day + HOUR * hour, np.where(early, morning[:, None], evening[:, None])
    label = rng.random(rows) < 0.5
    asked = np.where(early[:, -1] == label, morning, evening)
    x = {"hist_item_id": item[:, :-1], "hist_time": time[:, :-1], "item_id": asked, "time": time[:, -1]}  # fmt: skip
    return x, label.astype(np.float32)


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_trains_it_and_only_times_tell(tmp_path: Path) -> None:
    """Which of the two items fits the hour is in no other column: without times nothing is left to learn."""
    auc = {}
    for times in ("given", "all the same"):
        torch.manual_seed(0)
        item = SparseFeature("item_id", ITEMS, 8)
        seen = SequenceFeature("hist_item_id", ITEMS, 8, "concat", "item_id")
        of = LIC([], [seen], [item], {"dims": [16]}, k=12, heads=2, head_dim=8)
        parts = [habits(4_096, 0), habits(1_024, 1)]
        if times == "all the same":
            for x, _ in parts:
                x["hist_time"][:], x["time"][:] = 0, 0
        (x, y), (x_held, y_held) = parts
        train, held, _ = DataGenerator(x, y).generate_dataloader(x_held, y_held, x_held, y_held, batch_size=256)  # fmt: skip
        trainer = CTRTrainer(of, optimizer_params={"lr": 1e-2}, n_epoch=4, model_path=str(tmp_path))
        trainer.fit(train, held)
        auc[times] = trainer.evaluate(of, held)
    assert auc["given"] > 0.9
    assert auc["all the same"] < 0.6
    again = LIC([], [seen], [item], {"dims": [16]}, k=12, heads=2, head_dim=8)
    again.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True))
    given = {name: torch.from_numpy(column[:50]) for name, column in x_held.items()}
    assert_bitwise(again.eval()(given), of.eval()(given))
