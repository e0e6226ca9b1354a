# SPDX-License-Identifier: Apache-2.0
"""Which weights learn at which rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from longclock._constants import DENSE_SHARE
from longclock._keywords import named_keywords


@named_keywords("parameter_groups")
def parameter_groups(
    model: nn.Module,
    lr: float,
    dense_share: float = DENSE_SHARE,
    *,
    embeddings: Iterable[Tensor] = (),
) -> list[dict[str, Any]]:
    """A model's weights for an optimizer: embeddings at ``lr``, all others at ``dense_share`` of it.

    A row of an embedding is updated where its id occurs, a dense weight at every step: at the rate that rows need, the products of
    learned projections in an attention grow until one behaviour takes all the weight, and units die.

    Args:
        model: any module; the weights that need no gradient are left out.
        lr: of embeddings, positive.
        dense_share: of ``lr``, for all other weights, positive.
        embeddings: weights that count as embeddings besides those of ``nn.Embedding`` and ``nn.EmbeddingBag``.
    Returns:
        One or two dicts with ``params`` and ``lr``; a group without weights is left out.
    Raises:
        ValueError: names the argument that is not so.

    Example::

        >>> import torch, longclock as lc
        >>> tables, tower = torch.nn.Embedding(1_000, 8), torch.nn.Linear(8, 1)
        >>> groups = lc.parameter_groups(torch.nn.Sequential(tables, tower), lr=2e-2)
        >>> optimizer = torch.optim.Adam(groups)
        >>> [(len(group["params"]), round(group["lr"], 3)) for group in groups]
        [(1, 0.02), (2, 0.002)]
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"parameter_groups: model must be a module, got {type(model).__name__}")
    for name, value in (("lr", lr), ("dense_share", dense_share)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"parameter_groups: {name} must be a number, got {value!r}")
        if not 0 < value < math.inf:
            raise ValueError(f"parameter_groups: {name} must be positive, got {value}")
    tables = {id(weight) for weight in embeddings}
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            tables.add(id(module.weight))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    split = (
        ([weight for weight in weights if id(weight) in tables], lr),
        ([weight for weight in weights if id(weight) not in tables], lr * dense_share),
    )
    return [{"params": group, "lr": rate} for group, rate in split if group]
