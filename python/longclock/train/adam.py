# SPDX-License-Identifier: Apache-2.0
"""Adam as PyTorch computes it, for steps so short that what PyTorch does around them counts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from longclock._torch_state import fused_adam

# PyTorch wraps the step of a class in its hooks as soon as one is made; those of a step here are called around ours.
_plain_step = inspect.unwrap(torch.optim.Adam.step)


class Adam(torch.optim.Adam):
    """``torch.optim.Adam(fused=True)``: the same kernel on the same tensors, so the same bits and the same state.

    PyTorch sorts a step's tensors by device and dtype, and looks at every option, before it calls the kernel. Where all weights are on
    one device, of one dtype and have a dense gradient, the kernel is called at once; where they are not, or there is nothing to
    update yet, PyTorch is.
    """

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, as of any optimizer."""
        if fused_adam is None or closure is not None or not all(map(self._is_plain, self.param_groups)):  # fmt: skip
            return _plain_step(self, closure)
        for group in self.param_groups:
            weights = group["params"]
            first, second, steps = (
                [self.state[weight][name] for weight in weights]
                for name in ("exp_avg", "exp_avg_sq", "step")
            )
            torch._foreach_add_(steps, 1)
            beta1, beta2 = group["betas"]
            fused_adam(
                weights, [weight.grad for weight in weights], first, second, [], steps, lr=group["lr"], beta1=beta1,
                beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=group["maximize"],
            )  # fmt: skip
        return None

    def _is_plain(self, group: dict[str, Any]) -> bool:
        """Whether the kernel may be called for a group."""
        weights: list[Tensor] = group["params"]
        first = weights[0]
        return not group["amsgrad"] and all(
            weight.grad is not None
            and not weight.grad.is_sparse
            and weight.dtype is first.dtype
            and weight.device == first.device
            and weight in self.state
            for weight in weights
        )
