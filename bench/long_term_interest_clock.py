# SPDX-License-Identifier: Apache-2.0
"""The module end to end, beside the same module in plain PyTorch with the same weights.

- *training step*: a loss and its gradients in the table of embeddings and all parameters. S events, each
  with its history of M ids; the candidates are rows of the table as well. Forward, loss, backward; the
  optimizer's step, the same for both, is left out, and so is the data's way here. The table's
  gradient is dense.
- *one request*: v_cur of C candidates of one request, without gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import longclock as lc
from bench.checks import close, selection
from bench.harness import OURS, Case, Check, Step
from bench.inputs import times, trained

HEADS = 4
Forward = Callable[..., Tensor]


class Searched:
    """The ops of a module, with the scores of its last search and what that found.

    ``found``: the search's result from before, in place of a search.
    """

    def __init__(self, ops: Any, found: lc.TopK | None = None) -> None:
        self.ops, self.found = ops, found

    def clock_gsu(self, query: Tensor, *, k: int, **options: Any) -> lc.TopK:
        self.scores: Tensor = lc.reference.gsu_score(query, **options)
        if self.found is None:
            self.found = self.ops.clock_gsu(query, k=k, **options)
        return self.found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ops, name)


def in_both(*sizes: int) -> dict[str, lc.LongTermInterestClock]:
    """LongTermInterestClock(*sizes), ours and the reference, with the same weights."""
    modules = {
        OURS: lc.LongTermInterestClock(*sizes),
        "reference": lc.LongTermInterestClock(*sizes, backend="reference"),
    }
    modules["reference"].load_state_dict(modules[OURS].state_dict())
    return modules


def check_module(
    modules: dict[str, lc.LongTermInterestClock],
    forward_of: Callable[[lc.LongTermInterestClock], Forward],
    inputs: tuple[Tensor, ...],
    grad: Tensor | None,
) -> Check:
    """The selection; then the result, and with ``grad`` all gradients, of the attention to what ours
    selected: near the last of K, rounding decides, and one other behaviour is another gradient."""
    ours, reference = copy.deepcopy(modules[OURS]), copy.deepcopy(modules["reference"])
    exact = copy.deepcopy(reference).double()

    def run(module: Any, inputs: tuple[Tensor, ...], found: lc.TopK | None) -> tuple[Any, Searched]:
        searched = Searched(module.ops, found)
        step = forward_of(module)
        with mock.patch.object(lc.LongTermInterestClock, "ops", searched):
            if grad is None:
                with torch.no_grad():
                    return (step(*inputs),), searched
            leaves = (*trained(*inputs), *module.parameters())
            return Step(step, leaves, grad.to(leaves[0].dtype))(), searched

    result, searched = run(ours, inputs, None)
    found = searched.found
    assert found is not None
    exact_result, exactly = run(exact, tuple(value.double() for value in inputs), found)
    eager_result, eagerly = run(reference, inputs, found)
    selected = selection(found, exactly.scores, eagerly.scores)
    # Gradients are sums over the K behaviours of every query.
    attended = close(result, exact_result, eager_result, found.indices.numel())
    return max(selected, attended, key=lambda check: check.error / check.allowed)


def training_case(s: int, m: int, rows: int, d: int, k: int) -> Case:
    modules = in_both(d, d, d // HEADS, HEADS, k, d)
    table, ids = torch.randn(rows, d), torch.randint(0, rows, (s, m))
    when, now, item = times(s, m), times(s), torch.randint(0, rows, (s,))
    label = torch.randint(0, 2, (s,)).float()

    def forward_of(module: lc.LongTermInterestClock) -> Forward:
        def forward(table: Tensor, *parameters: Tensor) -> Tensor:
            candidate = nn.functional.embedding(item, table)
            interest = module(candidate, lc.History.dense(lc.Lookup(table, ids), when), now)
            logits = (candidate * interest).mean(-1)
            return nn.functional.binary_cross_entropy_with_logits(logits, label.to(logits.dtype))

        return forward

    (leaf,), grad = trained(table), torch.ones(())
    return Case(
        "training step",
        {"S": s, "M": m, "N": rows, "D": d, "n": HEADS, "K": k, "dtype": "fp32"},
        {
            name: Step(forward_of(module), (leaf, *module.parameters()), grad)
            for name, module in modules.items()
        },
        lambda: check_module(modules, forward_of, (table,), grad),
        compiled="reference",
        memory=True,
    )


def serving_case(candidates: int, m: int, rows: int, d: int, k: int) -> Case:
    modules = in_both(d, d, d // HEADS, HEADS, k, d)
    table, ids = torch.randn(rows, d), torch.randint(0, rows, (1, m))
    when, now, items = times(1, m), times(1), torch.randint(0, rows, (1, candidates))

    def forward_of(module: lc.LongTermInterestClock) -> Forward:
        def forward(table: Tensor) -> Tensor:
            history = lc.History.dense(lc.Lookup(table, ids), when)
            interest: Tensor = module(table[items], history, now)
            return interest

        return forward

    def serve(module: lc.LongTermInterestClock) -> Callable[[], Tensor]:
        forward = forward_of(module)
        return torch.no_grad()(lambda: forward(table))

    return Case(
        f"one request, {candidates} candidates",
        {"S": 1, "C": candidates, "M": m, "N": rows, "D": d, "n": HEADS, "K": k, "dtype": "fp32"},
        {name: serve(module) for name, module in modules.items()},
        lambda: check_module(modules, forward_of, (table,), None),
        compiled="reference",
        memory=True,
    )


def cases(quick: bool) -> Iterator[Case]:
    s, m, rows, d, k = (3, 300, 500, 16, 10) if quick else (64, 10_000, 100_000, 64, 100)
    yield training_case(s, m, rows, d, k)
    yield serving_case(7 if quick else 500, m, rows, d, k)
