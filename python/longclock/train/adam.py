# SPDX-License-Identifier: Apache-2.0
"""Adam as PyTorch computes it, for steps so short that what PyTorch does around them counts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longclock._torch_state import fused_adam, has_step_hooks

# PyTorch wraps the step of a class in its hooks as soon as one is made: so once, whoever made one before.
_torch_step = torch.optim.Optimizer.profile_hook_step(inspect.unwrap(torch.optim.Adam.step))


class Adam(torch.optim.Adam):
    """``torch.optim.Adam(fused=True)``: the same kernel on the same tensors, so the same bits and the same state.

    PyTorch sorts a step's tensors by device and dtype, and looks at every option, before it calls the kernel. Where all weights are on
    one device, of one dtype and have a dense gradient, the kernel is called at once; where they are not, or there is nothing to
    update yet, or a step has hooks, PyTorch is.
    """

    _planned: list[_Group] | None = None  # what the kernel takes while the state holds it

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, lr=lr, fused=True)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._planned = None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self._planned = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, as of any optimizer."""
        groups = None if closure is not None or has_step_hooks(self) else self._plan()
        if groups is None or fused_adam is None:
            return _torch_step(self, closure)
        grads = [[weight.grad for weight in group.weights] for group in groups]
        if any(grad is None or grad.is_sparse for of_group in grads for grad in of_group):
            return _torch_step(self, closure)
        for group, of_group in zip(groups, grads, strict=True):
            options = group.options
            beta1, beta2 = options["betas"]
            group.counted.add_(1)
            fused_adam(
                group.weights, of_group, group.first, group.second, [], group.steps, lr=options["lr"], beta1=beta1, beta2=beta2,
                weight_decay=options["weight_decay"], eps=options["eps"], amsgrad=False, maximize=options["maximize"],
            )  # fmt: skip
        return None

    step.hooked = True  # type: ignore[attr-defined]  # what PyTorch calls a step around which it need not put its hooks

    def _plan(self) -> list[_Group] | None:
        """The tensors of a step; None where the kernel may not be called for them, or there is no state yet."""
        planned = self._planned
        if planned is None or not all(group.holds() for group in planned):
            planned = None
            if all(map(self._is_plain, self.param_groups)):
                planned = [_Group.of(group, self.state) for group in self.param_groups]
            self._planned = planned
        return planned

    def _is_plain(self, group: dict[str, Any]) -> bool:
        """Whether the kernel may be called for a group."""
        weights: list[Tensor] = group["params"]
        first = weights[0]
        return not group["amsgrad"] and all(
            weight.dtype is first.dtype and weight.device == first.device and weight in self.state
            for weight in weights
        )


class _Group(NamedTuple):
    """A group of weights as the kernel takes it."""

    options: dict[str, Any]
    weights: list[Tensor]
    states: list[dict[str, Any]]
    first: list[Tensor]
    second: list[Tensor]
    steps: list[Tensor]
    counted: Tensor  # of which the steps are the elements, so that one operation counts all of them

    @classmethod
    def of(cls, options: dict[str, Any], state: Any) -> _Group:
        states = [state[weight] for weight in options["params"]]
        first, second, steps = ([each[name] for each in states] for name in ("exp_avg", "exp_avg_sq", "step"))  # fmt: skip
        counted = torch.stack(steps)
        steps = list(counted.unbind())
        for each, step in zip(states, steps, strict=True):
            each["step"] = step
        return cls(options, options["params"], states, first, second, steps, counted)

    def holds(self) -> bool:
        """Whether the state has no other tensors by now."""
        held = zip(self.states, self.first, self.second, self.steps, strict=True)
        return all(
            state["exp_avg"] is first and state["exp_avg_sq"] is second and state["step"] is step
            for state, first, second, step in held
        )
