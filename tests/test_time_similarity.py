# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from cases import make_mlp
from raw_error import RAW_ERROR
from tolerance import assert_bitwise, assert_close

import longclock as lc

NAMES = ("w1", "b1", "w2", "b2")


def deltas(shape: tuple[int, ...], dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.randint(0, 43201, shape, dtype=dtype)


def doubles(mlp: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return [weight.detach().double().requires_grad_() for weight in mlp]


@pytest.mark.parametrize(
    "shape", [(), (0,), (1,), (7,), (33,), (512,), (513,), (2, 0, 3), (3, 171)]
)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_features(level: str, device: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    delta = deltas(shape, dtype)
    ours = lc.time_features(delta.to(device))
    assert ours.dtype == torch.float32
    assert ours.shape == (*shape, 4)
    exact = lc.reference.time_features(delta, dtype=torch.float64)
    for j in range(4):
        rival = lc.reference.time_features(delta)
        assert_close(ours[..., j], exact[..., j], rival[..., j], f"feature {j}")


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_features_of_the_time_elapsed(level: str, device: str, dtype: torch.dtype) -> None:
    """Seven bits of the seconds, found in the same way everywhere; any seconds of 64 bits."""
    powers = 2 ** torch.arange(31)
    delta = torch.cat([torch.arange(3000), powers, powers - 1, 3 * powers // 2 + 1, torch.randint(0, 2**31, (999,))])  # fmt: skip
    if dtype == torch.int64:
        delta = torch.cat([delta, torch.tensor([2**31, 10**11, 2**62, -90])])
    delta = delta.clamp(max=torch.iinfo(dtype).max).to(dtype)
    kept = torch.tensor([low >> (bits := max(low.bit_length() - 7, 0)) << bits
                         for low in delta.long().abs().clamp(max=2**31 - 1).tolist()])  # fmt: skip
    for unit in (None, 1.0, 3600.0):
        ours = lc.time_features(delta.to(device), unit, elapsed=True)
        exact = lc.reference.time_features(delta, unit, elapsed=True, dtype=torch.float64)
        x = torch.log2(1 + kept.double() / (unit or 60.0))
        torch.testing.assert_close(exact[..., 0], x, rtol=1e-12, atol=1e-12)
        rival = lc.reference.time_features(delta, unit, elapsed=True)
        for j in range(4):
            assert_close(ours[..., j], exact[..., j], rival[..., j], f"feature {j}")
        assert_bitwise(ours, lc.time_features(kept.to(device), unit, elapsed=True))


def test_s_of_the_time_elapsed(level: str, device: str) -> None:
    delta, mlp = torch.randint(0, 2**31 - 1, (3, 331)), make_mlp(8, reach=26.0)
    leaves = [weight.clone().to(device).requires_grad_() for weight in mlp]
    ours = lc.time_similarity(delta.to(device), *leaves, elapsed=True)
    fine = doubles(mlp)
    exact = lc.reference.time_similarity(delta, *fine, elapsed=True)
    rivals = [weight.detach().clone().requires_grad_() for weight in mlp]
    rival = lc.reference.time_similarity(delta, *rivals, elapsed=True)
    assert_close(ours, exact, rival)
    grad = torch.randn(ours.shape)
    ours.backward(grad.to(device))
    exact.backward(grad.double())
    rival.backward(grad)
    for name, mine, good, other in zip(NAMES, leaves, fine, rivals, strict=True):
        assert_close(mine.grad, good.grad, other.grad, name, delta.numel())
    with pytest.raises(ValueError, match=r"^time_similarity: elapsed must be of type bool, got 1"):
        lc.time_similarity(delta, *mlp, elapsed=1)


def test_features_at_known_points(level: str, device: str) -> None:
    phi = lc.time_features(torch.tensor([0, 3600, 14400], device=device)).cpu()
    expected = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 0.6931472], [4, 2, 16, 1.6094379]])
    torch.testing.assert_close(phi, expected)
    assert (phi[0] == 0).all()


@pytest.mark.parametrize("hidden", [1, 2, 7, 8, 33, 64])
@pytest.mark.parametrize(
    ("unit", "edge"), [(3600.0, 43201), (60.0, 43201), (3600.0, 2**30), (7.5, 9)]
)
def test_value(level: str, device: str, hidden: int, unit: float, edge: int) -> None:
    delta = torch.randint(0, edge, (3, 331))
    mlp = make_mlp(hidden, reach=edge / unit)
    ours = lc.time_similarity(delta.to(device), *(w.to(device) for w in mlp), unit=unit)
    assert ours.dtype == torch.float32
    exact = lc.reference.time_similarity(delta, *doubles(mlp), unit=unit)
    assert_close(ours, exact, lc.reference.time_similarity(delta, *mlp, unit=unit))


@pytest.mark.parametrize("hidden", [1, 8, 33])
@pytest.mark.parametrize("shape", [(0,), (1,), (513,), (3, 171), (1024,), (1025,), (270_001,)])
def test_gradients(level: str, device: str, hidden: int, shape: tuple[int, ...]) -> None:
    delta, grad, mlp = deltas(shape), torch.randn(shape), make_mlp(hidden)
    ours = [weight.clone().to(device).requires_grad_() for weight in mlp]
    lc.time_similarity(delta.to(device), *ours).backward(grad.to(device))
    exact, rival = doubles(mlp), [weight.clone().requires_grad_() for weight in mlp]
    lc.reference.time_similarity(delta, *exact).backward(grad.double())
    lc.reference.time_similarity(delta, *rival).backward(grad)
    for name, mine, fine, other in zip(NAMES, ours, exact, rival, strict=True):
        assert_close(mine.grad, fine.grad, other.grad, name, delta.numel())


def test_not_contiguous(level: str, device: str) -> None:
    delta = deltas((40, 60)).to(device)[3::4, ::7].T
    mlp = [weight.to(device) for weight in make_mlp()]
    spread = torch.randn(16, 8, device=device)
    spread[::2, ::2] = mlp[0]
    ours = lc.time_similarity(delta, spread[::2, ::2], *mlp[1:])
    assert_bitwise(ours, lc.time_similarity(delta.contiguous(), *mlp))
    assert_bitwise(lc.time_features(delta), lc.time_features(delta.contiguous()))


def test_nan_weights_are_seen(level: str, device: str) -> None:
    delta = deltas((50,)).to(device)
    for bad in range(4):
        mlp = [weight.to(device) for weight in make_mlp()]
        mlp[bad] = torch.full_like(mlp[bad], torch.nan)
        assert lc.time_similarity(delta, *mlp).isnan().all(), NAMES[bad]


def test_bitwise_repeatable(level: str, device: str, same_at_any_threads) -> None:  # type: ignore[no-untyped-def]
    delta, grad = deltas((70, 1031)).to(device), torch.randn(70, 1031, device=device)
    mlp = [weight.to(device).requires_grad_() for weight in make_mlp()]

    def run() -> list[torch.Tensor]:
        s = lc.time_similarity(delta, *mlp)
        return [s, *torch.autograd.grad(s, mlp, grad)]

    same_at_any_threads(run)


def test_a_value_does_not_depend_on_its_neighbours(level: str, device: str) -> None:
    delta, mlp = deltas((300,)).to(device), [weight.to(device) for weight in make_mlp()]
    alone = torch.cat([lc.time_similarity(one, *mlp) for one in delta.split(1)])
    assert_bitwise(lc.time_similarity(delta, *mlp), alone)


def test_double_backward_explains_itself(device: str) -> None:
    mlp = [weight.to(device).requires_grad_() for weight in make_mlp()]
    s = lc.time_similarity(deltas((9,)).to(device), *mlp)
    (first,) = torch.autograd.grad(s.square().sum(), mlp[0], create_graph=True)
    with pytest.raises(RuntimeError, match=r"time_similarity_backward.*reference.time_similarity"):
        first.sum().backward()


def test_errors(device: str) -> None:
    delta, mlp = deltas((9,)).to(device), [weight.to(device) for weight in make_mlp()]
    with pytest.raises(ValueError, match="delta must be int32 or int64, got float32; convert with"):
        lc.time_similarity(delta.float(), *mlp)
    with pytest.raises(ValueError, match=r"w1 must be .*got float64; longclock.reference.time_sim"):
        lc.time_similarity(delta, mlp[0].double(), *mlp[1:])
    with pytest.raises(ValueError, match="unit must be a positive number of seconds, got 0"):
        lc.time_features(delta, 0)
    with pytest.raises(
        ValueError, match=r"^time_similarity: mlp w1 must have shape \[h, 4\] .* got \[8, 3\]"
    ):
        lc.time_similarity(delta, mlp[0][:, :3], *mlp[1:])
    with pytest.raises(ValueError, match=r"^time_similarity: mlp b1 must"):
        lc.time_similarity(delta, mlp[0], mlp[1][:3], *mlp[2:])
    with pytest.raises(RAW_ERROR, match=r"time_similarity: mlp w2 must"):
        torch.ops.longclock.time_similarity(delta, *mlp[:2], mlp[2][:3], mlp[3], 3600.0, False)
    wide = make_mlp(65)
    with pytest.raises(ValueError, match=r"time_similarity: .*64"):
        lc.time_similarity(delta, *(weight.to(device) for weight in wide))
