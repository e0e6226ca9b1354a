# SPDX-License-Identifier: Apache-2.0
"""Optimizers of embeddings: a step touches the rows that have a gradient, and no other.

Both take the sparse gradients of ``nn.Embedding(sparse=True)`` and of ``Lookup(sparse=True)``, and dense ones, with the same result: a
row of zeros counts as no gradient in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

__all__ = ["LazyAdam", "RowWiseAdagrad"]


class RowWiseAdagrad(torch.optim.Optimizer):
    """Adagrad with one accumulator a row: ``a_r += mean(g_r^2)``, ``w_r -= lr g_r / (sqrt(a_r) + eps)``.

    A table of N rows has N numbers of state, where Adam has two of the table's size. A row is what the first dimension
    counts; of a vector it is one element. The accumulators are float32, float64 for weights of it.
    Source: DLRM (arXiv 1906.00091) and FBGEMM, exact row-wise Adagrad: gradients of a row that occurs several times are added up
    before they are squared.

    Args:
        params: weights or groups, with a dimension at least.
        lr: positive. Accumulators only grow, so steps shrink: about ten times the rate of Adam suits.
        eps: positive.
    Raises:
        ValueError: names the argument that is not so.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.optim import RowWiseAdagrad
        >>> items = torch.nn.Embedding(1_000, 4, sparse=True)
        >>> optimizer, before = RowWiseAdagrad(items.parameters(), lr=0.1), items.weight.detach().clone()
        >>> items(torch.tensor([7, 3, 7])).sum().backward()
        >>> optimizer.step()
        >>> (items.weight - before).any(1).nonzero().flatten()  # rows that moved
        tensor([3, 7])
    """

    def __init__(self, params: ParamsT, lr: float = 0.1, eps: float = 1e-10) -> None:
        _check_positive("RowWiseAdagrad", lr=lr, eps=eps)
        super().__init__(params, {"lr": lr, "eps": eps})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        _check_positive("RowWiseAdagrad", lr=group["lr"], eps=group["eps"])
        for weight in group["params"]:
            if weight.dim() == 0:
                raise ValueError(
                    "RowWiseAdagrad: params must have rows, got a weight of shape []; give scalars to another optimizer"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure`` computes the loss anew, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group["lr"], group["eps"])
        return loss

    def _update(self, weight: Tensor, grad: Tensor, lr: float, eps: float) -> None:
        state = self.state[weight]
        if "sum" not in state:
            state["sum"] = weight.new_zeros(len(weight), dtype=_wide(weight.dtype))
        sums = state["sum"]
        if not grad.is_sparse:
            weight.sub_(_scaled(grad, sums, lr, eps))
            return
        _check_sparse("RowWiseAdagrad", grad)
        grad = grad.coalesce()
        rows = grad.indices()[0]
        own = sums[rows]
        change = _scaled(grad.values(), own, lr, eps)
        sums[rows] = own
        weight.index_add_(0, rows, change, alpha=-1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As of any optimizer; accumulators of 16-bit weights stay float32."""
        super().load_state_dict(state_dict)
        weights = (weight for group in self.param_groups for weight in group["params"])
        numbers = (number for group in state_dict["param_groups"] for number in group["params"])
        for weight, number in zip(weights, numbers, strict=True):
            if number in state_dict["state"]:
                sums = state_dict["state"][number]["sum"]
                self.state[weight]["sum"] = sums.to(weight.device, _wide(weight.dtype), copy=True)


class LazyAdam(torch.optim.SparseAdam):
    """Adam whose moments stay as they are in rows without a gradient: :class:`torch.optim.SparseAdam`, for dense gradients as well.

    ``m_r += (1 - beta1) (g_r - m_r)``, ``v_r += (1 - beta2) (g_r^2 - v_r)``,
    ``w_r -= lr sqrt(1 - beta2^t) / (1 - beta1^t) m_r / (sqrt(v_r) + eps)``, with t the steps of the whole weight. Adam itself moves every row at
    every step by what is left of its moments. Arguments: as of ``torch.optim.SparseAdam``.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.optim import LazyAdam
        >>> items = torch.nn.Embedding(1_000, 4)  # its gradients are dense
        >>> optimizer, before = LazyAdam(items.parameters(), lr=0.02), items.weight.detach().clone()
        >>> items(torch.tensor([7, 3, 7])).sum().backward()
        >>> optimizer.step()
        >>> (items.weight - before).any(1).nonzero().flatten()  # rows that moved
        tensor([3, 7])
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure`` computes the loss anew, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        weights = [weight for group in self.param_groups for weight in group["params"]]
        given = [(weight, weight.grad) for weight in weights if weight.grad is not None]
        try:
            for weight, grad in given:
                weight.grad = _rows_with_a_gradient(grad)
            super().step()
        finally:
            for weight, grad in given:
                weight.grad = grad
        return loss


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _scaled(grad: Tensor, sums: Tensor, lr: float, eps: float) -> Tensor:
    """Adds the mean square of each row to ``sums`` and gives the step of each row, in the gradient's dtype."""
    wide = _as_rows(grad).to(sums.dtype)
    if wide.shape[1]:
        sums.add_(wide.square().mean(1))
    return (wide * (lr / (sums.sqrt() + eps))[:, None]).view_as(grad).to(grad.dtype)


def _as_rows(grad: Tensor) -> Tensor:
    """[N, ...] as [N, width]."""
    return grad.reshape(len(grad), math.prod(grad.shape[1:]))


def _rows_with_a_gradient(grad: Tensor) -> Tensor:
    """As a sparse gradient without rows of zeros."""
    if grad.is_sparse:
        _check_sparse("LazyAdam", grad)
        grad = grad.coalesce()
        rows, values = grad.indices()[0], grad.values()
        kept = _as_rows(values != 0).any(1)
        rows, values = rows[kept], values[kept]
    else:
        rows = _as_rows(grad != 0).any(1).nonzero().flatten()
        values = grad[rows]
    return torch.sparse_coo_tensor(
        rows[None], values, grad.shape, is_coalesced=True, check_invariants=False
    )


def _check_sparse(op: str, grad: Tensor) -> None:
    if grad.sparse_dim() != 1:
        raise ValueError(
            f"{op}: a sparse gradient must be sparse in its rows alone, got {grad.sparse_dim()} sparse dimensions; "
            "nn.Embedding(sparse=True) makes such"
        )


def _check_positive(op: str, **values: float) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{op}: {name} must be a number, got {value!r}")
        if not 0 < value < math.inf:
            raise ValueError(f"{op}: {name} must be positive, got {value}")
