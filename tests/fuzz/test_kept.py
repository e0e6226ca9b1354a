# SPDX-License-Identifier: Apache-2.0
"""Calls in which the fuzz found faults, as they are written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import longclock as lc

MLP = (torch.ones(1, 4), torch.zeros(1), torch.ones(1), torch.zeros(()))


def test_the_reference_takes_rows_of_no_width() -> None:
    """Its own scale, 1 / sqrt(D), was a division by zero."""
    times = torch.tensor([[0, 3600]]), torch.tensor([0])
    rows = torch.zeros(1, 0), torch.zeros(1, 2, 0)
    expected = lc.gsu_score(*rows, *times, MLP)
    torch.testing.assert_close(lc.reference.gsu_score(*rows, *times, MLP), expected)


def attention(sparse: Any = False, mlp: Any = MLP, heads: int = 2) -> Tensor:
    """The gradient of a table of 100 rows of ones."""
    table = torch.ones(100, 7, requires_grad=True)
    ids = torch.arange(100)[None]
    times = torch.zeros(1, 100, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    context = lc.esu_attention(torch.ones(1, heads, 7), lc.Lookup(table, ids, sparse), *times, mlp)
    used = [torch.full((100, 7), 3.0) for _ in range(8)]  # memory that is handed out again
    del used
    (grad,) = torch.autograd.grad(context.sum(), table)
    return grad.to_dense()


@pytest.mark.parametrize("sparse", [False, True])
def test_no_head_gives_a_gradient_of_zero(sparse: bool) -> None:
    """It was memory that nobody had written."""
    for _ in range(5):
        assert attention(sparse, heads=0).count_nonzero() == 0


@pytest.mark.parametrize("odd", [Tensor.to_sparse, lambda w: torch.nested.nested_tensor([w])])
@pytest.mark.parametrize("place", range(3))
def test_weights_of_another_layout_are_named(odd: Callable[[Tensor], Tensor], place: int) -> None:
    mlp = [odd(weight) if at == place else weight for at, weight in enumerate(MLP)]
    with pytest.raises(ValueError, match=f"esu_attention: .*{('w1', 'b1', 'w2')[place]}"):
        attention(mlp=tuple(mlp))


def test_no_unit_is_an_hour_and_of_the_time_elapsed_a_minute() -> None:
    delta = torch.tensor([60])
    for elapsed, usual in (False, 3600.0), (True, 60.0):
        expected = lc.time_features(delta, usual, elapsed)
        assert torch.equal(lc.time_features(delta, None, elapsed), expected)


def test_a_sparse_gradient_of_a_table_of_no_width() -> None:
    """[-1, 0] is a shape of any number of rows."""
    table = torch.ones(7, 0, requires_grad=True)
    times = torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    z = lc.Lookup(table, torch.tensor([[0, 4, 2]]), sparse=True)
    context = lc.esu_attention(torch.ones(1, 2, 0), z, *times, MLP)
    (grad,) = torch.autograd.grad(context.sum(), table)
    assert grad.is_sparse
    assert grad.shape == table.shape


def test_huge_features_that_no_query_asks_about_have_no_gradient() -> None:
    """x^2 is infinite in fp32, and 0 of it was NaN."""
    query, keys = torch.ones(1, 0, 1), torch.ones(1, 5, 1)
    mlp = [weight.clone().requires_grad_() for weight in MLP]
    scores = lc.gsu_score(query, keys, torch.arange(5)[None], torch.tensor([9]), mlp, unit=1e-30)
    scores.sum().backward()
    for weight in mlp:
        assert torch.equal(weight.grad, torch.zeros_like(weight))


def test_infinite_features_have_no_gradient_where_no_head_attends() -> None:
    """A time elapsed in units of 1e-45 seconds is infinite in fp32, and 0 of it was NaN on CUDA."""
    mlp = [weight.clone().requires_grad_() for weight in MLP]
    times = torch.arange(3)[None], torch.tensor([9])
    u, z = torch.ones(1, 0, 7), torch.ones(1, 3, 7)
    context = lc.esu_attention(u, z, *times, mlp, clocks=lc.ELAPSED, unit=1e-45)
    context.sum().backward()
    for weight in mlp:
        assert torch.equal(weight.grad, torch.zeros_like(weight))


@pytest.mark.parametrize("package", [lc, lc.reference])
@pytest.mark.parametrize("found", [None, torch.zeros(1, 2, dtype=torch.int64)])
def test_a_table_that_is_not_there_is_named(package: Any, found: Tensor | None) -> None:
    """Of several, in a history that was searched, it was an AttributeError."""
    u, time, now = torch.ones(1, 2, 3), torch.zeros(1, 4).long(), torch.zeros(1).long()
    z = lc.Lookup((None, torch.ones(5, 3)), (None, time))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^esu_attention: z\[0\] must be a tensor, got None"):
        package.esu_attention(u, z, time, now, MLP, found=found)


@pytest.mark.parametrize("op", [lc.clock_gsu, lc.gsu_score, lc.reference.clock_gsu])
def test_several_ids_of_one_table_are_named(op: Callable[..., Any]) -> None:
    """It was PyTorch's error about another function."""
    time, now = torch.zeros(1, 4).long(), torch.zeros(1).long()
    rows = torch.ones(1, 3), torch.ones(5, 3), time, now
    with pytest.raises(
        ValueError, match=rf"^{op.__name__}: ids must be a tensor for one table, got a tuple"
    ):
        op(*rows, MLP, ids=(time, time))
