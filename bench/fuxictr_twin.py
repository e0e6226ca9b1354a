# SPDX-License-Identifier: Apache-2.0
"""Search and attention of the Long-term Interest Clock beside those of TWIN in FuxiCTR.

Both go from candidates [S, D] and behaviours [S, M, D] that are in memory to an interest vector
[S, D]: 4 heads of D / 4, K behaviours kept, fp32, every behaviour counts. What each does:

- ``longclock`` and ``reference``: ``LongTermInterestClock``, the whole module. The K best by the mean
  of the heads' content scores plus the learned time term, one search for all heads; attention of each
  head to behaviours and time features; a network of two layers.
- ``FuxiCTR TWIN``: ``MultiHeadTopKAttention``, as the wheel has it, without cross features, dropout
  and mask. Keys and values of all M behaviours by two products, K of its own for each head by content
  alone, attention, one output matrix. No time.

The two are different models with the same task and sizes: our result is checked against the fp64
reference, the peer's is not compared. Forward and backward gives gradients of candidates, behaviours
and all parameters, from the same gradient of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import longclock as lc
from bench import peers
from bench.harness import Case, Step
from bench.inputs import times, trained
from bench.long_term_interest_clock import check_module, in_both

HEADS = 4


def peer(d: int, k: int) -> dict[str, nn.Module]:
    layer = peers.fuxictr("TWIN", "MultiHeadTopKAttention")
    if layer is None:
        return {}
    return {"FuxiCTR TWIN": layer(input_dim=d, attention_dim=d, topk=k, num_heads=HEADS)}


def cases(quick: bool) -> Iterator[Case]:
    s, m, d, k = (3, 300, 16, 10) if quick else (64, 10_000, 64, 100)
    modules = in_both(d, d, d // HEADS, HEADS, k, d)
    when, now = times(s, m), times(s)
    candidate, behaviours = torch.randn(s, d), torch.randn(s, m, d)
    sizes = {"S": s, "M": m, "D": d, "n": HEADS, "K": k, "dtype": "fp32"}

    def clock(module: lc.LongTermInterestClock) -> Callable[..., Tensor]:
        def forward(candidate: Tensor, behaviours: Tensor, *parameters: Tensor) -> Tensor:
            result: Tensor = module(candidate, lc.History.dense(behaviours, when), now)
            return result

        return forward

    def twin(module: nn.Module) -> Callable[..., Tensor]:
        def forward(candidate: Tensor, behaviours: Tensor, *parameters: Tensor) -> Tensor:
            result: Tensor = module(candidate, behaviours)
            return result

        return forward

    rivals: dict[str, tuple[nn.Module, Callable[..., Tensor]]] = {}
    rivals |= {name: (module, clock(module)) for name, module in modules.items()}
    rivals |= {name: (module, twin(module)) for name, module in peer(d, k).items()}

    def without_gradient(forward: Callable[..., Tensor]) -> Callable[[], Any]:
        return torch.no_grad()(lambda: forward(candidate, behaviours))

    yield Case(
        "forward",
        sizes,
        {name: without_gradient(forward) for name, (_, forward) in rivals.items()},
        lambda: check_module(modules, clock, (candidate, behaviours), None),
        compiled="reference",
    )
    leaves, grad = trained(candidate, behaviours), torch.randn(s, d)
    yield Case(
        "forward and backward",
        sizes,
        {
            name: Step(forward, (*leaves, *module.parameters()), grad)
            for name, (module, forward) in rivals.items()
        },
        lambda: check_module(modules, clock, leaves, grad),
        compiled="reference",
    )
