# SPDX-License-Identifier: Apache-2.0
"""Histories that compiled, exported and saved modules take."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import torch
from test_history import H, L, S, constructor, every_layout, make, queries_of
from torch import Tensor
from torch.utils._pytree import tree_leaves

import longclock as lc


class Ranker(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.clock = lc.LongTermInterestClock(
            L, H, head_dim=4, heads=2, k=3, out_dim=2, hidden_dim=5
        )

    def forward(self, candidate: Tensor, history: lc.History, now: Tensor) -> Tensor:
        result: Tensor = self.clock(candidate, history, now)
        return result


def call_of(layout: str, device: str) -> tuple[Tensor, lc.History, Tensor]:
    candidate = torch.randn(queries_of(layout), H, device=device)
    return candidate, make(layout).to(device), torch.full((S,), 10**6, device=device)


@every_layout
def test_a_compiled_module_takes_it(layout: str, device: str) -> None:
    torch._dynamo.reset()
    module, arguments = Ranker().to(device), call_of(layout, device)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    found, expected = compiled(*arguments), module(*arguments)
    torch.testing.assert_close(found, expected)
    weights = list(module.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), weights),
        torch.autograd.grad(expected.square().sum(), weights),
    )


@every_layout
def test_it_is_made_in_a_graph(layout: str) -> None:
    torch._dynamo.reset()
    module, (candidate, history, now) = Ranker(), call_of(layout, "cpu")

    def call(candidate: Tensor, given: dict[str, Any], now: Tensor) -> Tensor:
        result: Tensor = module(candidate, constructor(layout)(**given), now)
        return result

    given = {name: value for name, value in history._asdict().items() if value is not None}
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(candidate, given, now), call(candidate, given, now))


@every_layout
def test_an_exported_module_that_takes_it_is_saved_and_loaded(
    layout: str, device: str, tmp_path: Path
) -> None:
    module, arguments = Ranker().to(device), call_of(layout, device)
    torch.export.save(torch.export.export(module, arguments), tmp_path / "ranker.pt2")
    loaded = torch.export.load(tmp_path / "ranker.pt2").module()
    torch.testing.assert_close(loaded(*arguments), module(*arguments))
    others = call_of(layout, device)
    torch.testing.assert_close(loaded(*others), module(*others))


@every_layout
def test_it_is_saved_pickled_and_copied(layout: str) -> None:
    history = make(layout)
    file = io.BytesIO()
    torch.save({"history": history}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)["history"]
    for other in (
        loaded,
        pickle.loads(pickle.dumps(history)),
        copy.deepcopy(history),
        copy.copy(history),
    ):
        assert type(other) is lc.History
        assert type(other.rows) is type(history.rows)
        leaves = zip(tree_leaves(other), tree_leaves(history), strict=True)
        assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in leaves)
