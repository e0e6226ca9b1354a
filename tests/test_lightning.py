# SPDX-License-Identifier: Apache-2.0
"""A LightningModule with a module in it trains, in 16 bits too, and comes back from its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import longclock as lc

lightning = pytest.importorskip("lightning", reason="the extra test has lightning")


class Ranker(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.item = nn.Embedding(100, 16)
        self.interest = lc.LongTermInterestClock(16, 16, k=5, out_dim=16)
        self.losses: list[float] = []

    def training_step(self, batch: list[Tensor], number: int) -> Tensor:
        item, played, when, now, label = batch
        candidate = self.item(item)
        history = lc.History.dense(lc.Lookup(self.item.weight, played), when)
        logits = (candidate * self.interest(candidate, history, now)).sum(-1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), label)
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(lc.parameter_groups(self, lr=1e-2))


def events() -> DataLoader:
    item, played = torch.randint(0, 100, (64,)), torch.randint(0, 100, (64, 30))
    when, now = torch.randint(0, 10**6, (64, 30)), torch.full((64,), 10**6)
    return DataLoader(TensorDataset(item, played, when, now, (item % 2).float()), 16)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_it_trains_and_comes_back(precision: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trainer = lightning.Trainer(
        max_epochs=8, accelerator="cpu", precision=precision, logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    model = Ranker()
    before = model.interest.w_q.detach().clone()
    trainer.fit(model, events())
    assert sum(model.losses[-4:]) < sum(model.losses[:4])
    assert not torch.equal(model.interest.w_q, before.to(model.interest.w_q.dtype))
    kept = Ranker.load_from_checkpoint(trainer.checkpoint_callback.best_model_path, weights_only=True)  # fmt: skip
    for name, value in model.state_dict().items():
        assert torch.equal(kept.state_dict()[name].to(value.dtype), value), name
