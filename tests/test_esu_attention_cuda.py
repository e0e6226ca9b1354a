# SPDX-License-Identifier: Apache-2.0
"""esu_attention's CUDA kernels: clamps, long K, many heads, wide rows, and what they may cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import emulator
import pytest
import torch
from esu_cases import EsuCase, make_esu
from test_esu_attention import check
from tolerance import assert_bitwise

import longclock as lc


def all_of(case: EsuCase) -> list[torch.Tensor]:
    """The context and every gradient."""
    torch.manual_seed(3)
    context = case.run(lc.esu_attention)
    grad = torch.randn(context.shape).to(context.device)
    return [context, *torch.autograd.grad(context, list(case.leaves().values()), grad)]


@pytest.mark.parametrize("bad", [-1, 200])
def test_an_unknown_id_is_nan_for_its_query_only(device: str, bad: int) -> None:
    case = make_esu(table=True, some_invalid=False, k=200, queries=3).trained()
    expected = case.to(device).run(lc.esu_attention)
    assert case.ids is not None
    case.ids[1, 7] = bad
    case = case.to(device).trained()
    context = case.run(lc.esu_attention)
    assert context[1].isnan().all()
    assert_bitwise(context[[0, 2]], expected[[0, 2]])
    context.sum().backward()
    assert case.u.grad is not None
    assert case.u.grad[1].isnan().all()
    assert case.u.grad[[0, 2]].isfinite().all()


def test_unknown_ids_can_be_asserted(emulator_only: None, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_esu(table=True)  # its invalid ids are outside, too, and are not looked at
    monkeypatch.setenv("LONGCLOCK_CHECK", "1")
    case.run(lc.esu_attention)
    assert not emulator.take_reports()
    assert case.ids is not None
    assert case.valid is not None
    case.ids[2, int(case.valid[2].nonzero()[0])] = len(case.z)
    with (
        emulator.options(print=0),
        pytest.raises(RuntimeError, match="esu_attention failed with CUDA error"),
    ):
        case.run(lc.esu_attention)
    (report,) = emulator.take_reports()
    assert "ids must be in [0, N)" in report["text"]


@pytest.mark.parametrize("table", [False, True])
def test_order_and_device_change_no_bit(emulator_only: None, table: bool) -> None:
    case = make_esu(k=1500, width=24, heads=6, queries=3, table=table).trained()
    expected = all_of(case)
    for seed in (1, 2, 3):
        for sm in (80, 90):
            with emulator.options(seed=seed, sm=sm, threads=seed):
                assert_bitwise(all_of(case), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("width", [128, 129, 264, 516])
def test_rows_wider_than_a_warp(device: str, dtype: torch.dtype, width: int) -> None:
    check(make_esu(dtype, width=width, k=70, queries=2, heads=5), device)


@pytest.mark.parametrize("k", [640, 641, 1280, 10_000])
def test_chunks(device: str, k: int) -> None:
    check(make_esu(k=k, width=16, queries=3, heads=2), device)


@pytest.mark.parametrize("table", [False, True])
def test_sixteen_heads(device: str, table: bool) -> None:
    check(make_esu(torch.bfloat16, k=100, width=32, heads=16, table=table), device)


def test_two_chunks_of_which_one_is_empty(device: str) -> None:
    case = make_esu(k=700, width=8, queries=3)  # query 1 has only its last behaviour
    context = case.to(device).run(lc.esu_attention).cpu()
    assert (context[0] == 0).all()
    assert_bitwise(context[1, :, :8], case.z[1, -1].expand(4, 8).contiguous())


def launches_of(function: Callable[[], Any]) -> list[dict[str, Any]]:
    with emulator.options(counters=1):
        emulator.take_counters()
        function()
        return emulator.take_counters()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_it_costs(emulator_only: None, dtype: torch.dtype) -> None:
    """Rows are read once, 16 bytes a lane. Shared memory has no conflicts, and takes 8 KB; where tensor cores read the rows from
    it, as much as the rows and 14 KB."""
    queries, k, width = 4, 100, 128
    case = make_esu(dtype, queries=queries, k=k, width=width, some_invalid=False).trained()
    for leaf in (case.u, *case.mlp):  # z's gradient alone is one launch
        leaf.requires_grad_(False)
    results: list[torch.Tensor] = []
    (forward,) = launches_of(lambda: results.append(case.run(lc.esu_attention)))
    grad = torch.randn(results[0].shape)
    backward, *rest = launches_of(lambda: torch.autograd.grad(results[0], case.z, grad))
    assert not rest
    rows = queries * k * width * dtype.itemsize
    for launch in (forward, backward):
        loads, shared = launch["global_loads"], launch["shared_loads"]
        assert loads["bytes"] <= 1.05 * loads["first_bytes"]
        # 512 bytes a request, but for the heads, times and parameters of a block.
        assert loads["requests"] <= rows // 512 + 36 * queries
        assert shared["wavefronts"] <= 1.10 * shared["minimum_wavefronts"]
        assert launch["shared_bytes"] <= (
            8192 if dtype == torch.float32 else rows // queries + 14 * 1024
        )
        assert launch["local_load_bytes"] == launch["atomics"] == 0
    assert backward["global_stores"]["sectors"] <= 1.05 * rows / 32


def test_what_it_costs_does_not_depend_on_the_data(emulator_only: None) -> None:
    case = make_esu(torch.float16, k=100, width=128, some_invalid=False)
    equal = case.map(lambda x: torch.zeros_like(x) if x.dim() >= 2 and x.dtype != torch.bool else x)
    (random,), (same,) = (
        launches_of(lambda case=case: case.run(lc.esu_attention))  # type: ignore[misc]
        for case in (case, equal)
    )
    assert sum(same["instructions"].values()) >= 0.95 * sum(random["instructions"].values())
    assert sum(same["instructions"].values()) <= 1.05 * sum(random["instructions"].values())


def test_nothing_larger_than_the_scores_is_kept(device: str) -> None:
    case = make_esu(k=2000, width=32, queries=2).to(device).trained()
    assert case.valid is not None
    given = {x.data_ptr() for x in (*case.leaves().values(), case.z_time, case.valid)}
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        context = case.run(lc.esu_attention)
    ours = [tensor for tensor in kept if tensor.data_ptr() not in given]
    scores = case.u.shape[0] * case.u.shape[1] * case.z_time.shape[1]
    assert sum(tensor.numel() for tensor in ours) <= scores
    assert context.requires_grad
