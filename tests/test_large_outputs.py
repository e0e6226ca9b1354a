# SPDX-License-Identifier: Apache-2.0
"""Gradients of 8 MB and more lie in memory of their own, which the next one of the size takes over
once they are freed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from bench.inputs import make_mlp, times
from bench.memory import kilobytes
from tolerance import assert_bitwise
from torch import Tensor

import longclock as lc

needs_own_memory = pytest.mark.skipif(
    torch.__version__ < "2.11", reason="PyTorch 2.10 has no torch_from_blob in its stable ABI"
)


def gradient_of_keys(megabytes: int, seed: int) -> Tensor:
    torch.manual_seed(seed)
    keys = torch.randn(4, megabytes * 1_000_000 // 4 // 256, 64, requires_grad=True)
    key_time, query_time = times(*keys.shape[:2]), times(4)
    lc.gsu_score(torch.randn(4, 64), keys, key_time, query_time, make_mlp()).sum().backward()
    assert keys.grad is not None
    return keys.grad


def gradient_of_z(megabytes: int, seed: int) -> Tensor:
    torch.manual_seed(seed)
    z = torch.randn(megabytes * 1_000_000 // 100 // 256, 100, 64, requires_grad=True)
    z_time, query_time = times(*z.shape[:2]), times(len(z))
    u = torch.randn(len(z), 2, 64)
    lc.esu_attention(u, z, z_time, query_time, make_mlp()).sum().backward()
    assert z.grad is not None
    return z.grad


GRADIENTS = pytest.mark.parametrize("gradient", [gradient_of_keys, gradient_of_z])


@GRADIENTS
def test_a_gradient_that_is_kept_is_not_written_again(
    gradient: Callable[[int, int], Tensor],
) -> None:
    first = gradient(10, seed=0)
    copy = first.clone()
    second, other_size = gradient(10, seed=1), gradient(12, seed=2)
    assert len({first.data_ptr(), second.data_ptr(), other_size.data_ptr()}) == 3
    assert_bitwise(first, copy)
    assert not torch.equal(second, copy)
    del first, second, other_size
    for seed in (1, 0):  # into memory that holds another gradient
        again = gradient(10, seed)
    assert_bitwise(again, copy)


@needs_own_memory
@GRADIENTS
def test_the_next_gradient_takes_over_the_memory_of_the_last(
    gradient: Callable[[int, int], Tensor],
) -> None:
    places = {gradient(10, seed).data_ptr() for seed in range(3)}
    assert len(places) == 1


@needs_own_memory
@GRADIENTS
def test_one_gradient_of_up_to_128_mb_is_kept_and_no_more(
    gradient: Callable[[int, int], Tensor],
) -> None:
    gradient(10, 0)
    resident = kilobytes("VmRSS")
    gradient(200, 0)
    assert kilobytes("VmRSS") - resident < 100_000
    gradients = [gradient(60, seed) for seed in range(3)]
    del gradients
    assert kilobytes("VmRSS") - resident < 100_000
