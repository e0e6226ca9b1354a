# SPDX-License-Identifier: Apache-2.0
"""esu_attention of rows of 16 bits, which tensor cores multiply on CUDA: all widths and lengths of their tiles, what is never
rounded to 16 bits, and what must not spread."""

from __future__ import annotations

import pytest
import torch
from cases import CLOCKS
from esu_cases import EsuCase, make_esu
from test_esu_attention import check
from test_esu_attention_cuda import all_of, launches_of
from tolerance import assert_bitwise

import longclock as lc
from longclock.types import Clocks

SHORT = (torch.float16, torch.bfloat16)
of_both = pytest.mark.parametrize("dtype", SHORT)


@of_both
@pytest.mark.parametrize("width", [8, 63, 64, 65, 128, 136, 200, 256, 257, 384, 512, 513])
def test_widths_of_tiles(level: str, device: str, dtype: torch.dtype, width: int) -> None:
    for k, heads in ((37, 4), (129, 3)):
        check(make_esu(dtype, width=width, k=k, heads=heads, queries=3, table=k == 37), device)


@of_both
@pytest.mark.parametrize("k", [1, 15, 16, 17, 31, 32, 33, 48, 49, 64, 65, 127, 128, 129, 641])
def test_lengths_of_tiles(level: str, device: str, dtype: torch.dtype, k: int) -> None:
    for width in (24, 320):
        check(make_esu(dtype, width=width, k=k, heads=5, queries=3), device)


@of_both
@pytest.mark.parametrize("clocks", CLOCKS)
@pytest.mark.parametrize("k", [0, 37, 300])
def test_several_clocks(
    level: str, device: str, dtype: torch.dtype, clocks: Clocks, k: int
) -> None:
    check(make_esu(dtype, clocks=clocks, k=k, width=20, heads=6, queries=3), device)


def float_u(dtype: torch.dtype, **sizes: int) -> EsuCase:
    """u is fp32, and so is its gradient; what it is has 16 bits."""
    case = make_esu(dtype, some_invalid=False, **sizes)
    case.u = (case.u / 4).float()
    return case


def of_u(case: EsuCase, op: object, grad: torch.Tensor) -> torch.Tensor:
    case = case.trained()
    context = case.run(op)  # type: ignore[arg-type]
    (found,) = torch.autograd.grad(context, case.u, grad.to(context.device, context.dtype))
    return found.cpu().double()


@of_both
@pytest.mark.parametrize("k", [100, 300])
@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 2.0**16, 1e30])
def test_gradients_of_any_size_are_never_rounded_to_16_bits(
    level: str, device: str, dtype: torch.dtype, k: int, size: float
) -> None:
    """Not even where a head's are 10^8 times as large as another's."""
    case = float_u(dtype, k=k, width=40, queries=2)
    grad = torch.randn(2, 4, 44) * torch.tensor([1.0, 1e-4, 1e4, 1e-2])[:, None] * size
    found = of_u(case.to(device), lc.esu_attention, grad)
    exact = of_u(case.double(), lc.reference.esu_attention, grad)
    for head in range(4):
        off = (found - exact)[:, head].abs().max() / exact[:, head].abs().max()
        assert off < 2e-5, f"head {head}: {off:.1e}"  # 16 bits would leave 4e-4 at least


@of_both
def test_weights_are_never_rounded_to_16_bits(level: str, device: str, dtype: torch.dtype) -> None:
    case = make_esu(dtype, k=128, width=64, queries=4, some_invalid=False)
    case.u = case.u / 8
    found = case.to(device).run(lc.esu_attention).cpu().double()
    exact = case.double().run(lc.reference.esu_attention)
    assert ((found - exact)[..., :64].abs().max() / exact[..., :64].abs().max()) < 1e-6


@of_both
def test_one_behaviour_with_all_the_weight_has_no_gradient_of_u(
    level: str, device: str, dtype: torch.dtype
) -> None:
    case = make_esu(dtype, width=72, k=50).to(device).trained()  # query 1 has but its last
    context = case.run(lc.esu_attention)
    grad = torch.randn(context.shape).to(device)
    u_grad, z_grad = torch.autograd.grad(context, (case.u, case.z), grad)
    assert (u_grad[:2] == 0).all()
    exact = grad[1, :, :72].double().sum(0)
    off = (z_grad[1, -1].double() - exact).abs().max()
    assert off <= torch.finfo(dtype).eps * float(exact.abs().max())


@of_both
def test_an_infinite_gradient_stays_with_its_head_and_query(
    level: str, device: str, dtype: torch.dtype
) -> None:
    case = make_esu(dtype, width=16, k=40).to(device).trained()
    context = case.run(lc.esu_attention)
    grad = torch.randn(context.shape)
    for bad in (torch.inf, torch.nan):
        grad[3, 2, 5] = bad
        found = torch.autograd.grad(context, (case.u, case.z), grad.to(device), retain_graph=True)
        u_grad, z_grad = (each.cpu() for each in found)
        assert not u_grad[3, 2].isfinite().any()
        u_grad[3, 2] = 0
        assert u_grad.isfinite().all()
        assert case.valid is not None
        valid = case.valid[3].cpu()
        assert not z_grad[3][valid].isfinite().all(-1).any()
        assert (z_grad[3][~valid] == 0).all()
        assert z_grad[[0, 1, 2, 4]].isfinite().all()


@of_both
@pytest.mark.parametrize("width", [64, 128, 200])
def test_rows_at_odd_addresses_have_the_same_bits(
    level: str, device: str, dtype: torch.dtype, width: int
) -> None:
    case = make_esu(dtype, width=width, k=70, queries=3, poison=False).to(device)
    expected = all_of(case.trained())
    wide = torch.full((3, 70, width + 5), torch.nan, dtype=dtype, device=device)
    wide[..., 3:-2] = case.z
    case.z = wide[..., 3:-2]
    leaves = list(case.leaves().values())
    for leaf in leaves:
        leaf.requires_grad_()
    torch.manual_seed(3)
    context = case.run(lc.esu_attention)
    grad = torch.randn(context.shape).to(device)
    assert_bitwise([context, *torch.autograd.grad(context, leaves, grad)], expected)


@of_both
def test_wide_rows_are_read_once(emulator_only: None, dtype: torch.dtype) -> None:
    case = make_esu(dtype, queries=2, k=120, width=512, some_invalid=False).trained()
    results: list[torch.Tensor] = []
    (forward,) = launches_of(lambda: results.append(case.run(lc.esu_attention)))
    grad = torch.randn(results[0].shape)
    backward, *_ = launches_of(lambda: torch.autograd.grad(results[0], case.z, grad))
    if "mma" not in forward["kernel"]:
        pytest.skip("sm_75 has no such kernel")
    for launch in (forward, backward):
        loads = launch["global_loads"]
        assert loads["bytes"] <= 1.05 * loads["first_bytes"]
