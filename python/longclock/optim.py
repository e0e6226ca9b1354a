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

from longclock._keywords import named_keywords

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

    @named_keywords()
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
        own = sums.index_select(0, rows)
        _add(weight, rows, -_scaled(grad.values(), own, lr, eps))
        sums.index_copy_(0, rows, own)

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
    every step by what is left of its moments.

    Args:
        params: weights or groups.
        lr, eps: positive.
        betas: two numbers, each at least 0 and below 1.
        maximize: whether steps go up.
    Raises:
        ValueError: names the argument that is not so.

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

    @named_keywords()
    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        one = isinstance(lr, Tensor) and lr.numel() == 1
        _check_positive("LazyAdam", lr=float(lr) if one else lr, eps=eps)
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"LazyAdam: betas must be two numbers of at least 0 and below 1, got {betas!r}"
            )
        try:
            super().__init__(params, lr, betas, eps, maximize)
        except ValueError as error:  # which names the class that this one is made of
            text = str(error).replace("SparseAdam", "LazyAdam")
            raise ValueError(f"LazyAdam: {text}") from None

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
                    self._update(weight, *_rows_with_a_gradient(weight.grad), group)
        return loss

    def _update(self, weight: Tensor, rows: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        """The arithmetic of ``SparseAdam``, which adds sparse tensors to dense ones: rows that no cache holds take it thrice as long."""
        state = self.state[weight]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(weight), exp_avg_sq=torch.zeros_like(weight))  # fmt: skip
        state["step"] += 1
        grad = -grad if group["maximize"] else grad
        means = []
        for name, beta, new in zip(("exp_avg", "exp_avg_sq"), group["betas"], (grad, grad.square()), strict=True):  # fmt: skip
            mean = state[name].index_select(0, rows)
            mean += (new - mean) * (1 - beta)
            state[name].index_copy_(0, rows, mean)
            means.append(mean)
        first, second = (1 - beta ** state["step"] for beta in group["betas"])
        step_size = float(group["lr"]) * math.sqrt(second) / first
        _add(weight, rows, -step_size * (means[0] / (means[1].sqrt() + group["eps"])))


def _add(weight: Tensor, rows: Tensor, change: Tensor) -> None:
    """``index_add_`` of rows that all differ, which takes rows that no cache holds longer than reading and writing them."""
    weight.index_copy_(0, rows, weight.index_select(0, rows) + change)


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


def _rows_with_a_gradient(grad: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that are not all zeros, each once, and their gradients."""
    if grad.is_sparse:
        _check_sparse("LazyAdam", grad)
        grad = grad.coalesce()
        rows, grad = grad.indices()[0], grad.values()
    else:
        rows = torch.arange(len(grad), device=grad.device)
    kept = _as_rows(grad != 0).any(1).nonzero().flatten()
    return rows.index_select(0, kept), grad.index_select(0, kept)


def _check_sparse(op: str, grad: Tensor) -> None:
    if grad.sparse_dim() != 1:
        raise ValueError(
            f"{op}: a sparse gradient must be sparse in its rows alone, got {grad.sparse_dim()} sparse dimensions; "
            "nn.Embedding(sparse=True) makes such"
        )


def _check_positive(op: str, **values: Any) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{op}: {name} must be a number, got {value!r}")
        if not 0 < value < math.inf:
            raise ValueError(f"{op}: {name} must be positive, got {value}")
