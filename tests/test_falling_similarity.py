# SPDX-License-Identifier: Apache-2.0
"""An s that falls, whatever its weights; and one of any form."""

from __future__ import annotations

import pytest
import torch

import longclock as lc

SHAPES = [(86400, 3600.0), (86400, 43200.0), (86400, 60.0), (604800, 302400.0), (600, 7.5)]


def randomised(module: lc.TimeSimilarity, seed: int, size: float = 1.0) -> lc.TimeSimilarity:
    """Weights of either sign, of the magnitude that the features have."""
    random = torch.Generator().manual_seed(seed)
    farthest = module.clocks[0] / 2 / module.units[0]
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=random) * size)
        module.w1[:, 0] /= farthest
        module.w1[:, 2] /= farthest**2
    return module


@pytest.mark.parametrize(("period", "unit"), SHAPES)
@pytest.mark.parametrize("hidden", [1, 8, 64])
@pytest.mark.parametrize("seed", range(4))
def test_it_never_rises(level, device, period, unit, hidden, seed) -> None:
    made = randomised(lc.TimeSimilarity(hidden, unit, clocks=period), seed, 3.0).to(device)
    _, b1, w2, b2 = (weight.detach().cpu() for weight in made.parameters())
    delta = torch.arange(0, period // 2 + 1, max(1, period // 4000), device=device)
    s = made(delta).detach().cpu()
    rounding = 1e-5 * float(b2.abs() + (w2.abs() * b1.abs()).sum())  # a unit is b1 at most
    assert (s.diff() <= rounding).all()
    exact = lc.TimeSimilarity(hidden, unit, clocks=period, backend="reference").double()
    exact.load_state_dict(made.state_dict())
    assert (exact(delta.cpu()).diff() <= 1e-9 * rounding).all()


def test_it_may_rise_where_it_is_free(device) -> None:
    delta = torch.arange(0, 43_201, 600, device=device)
    for falls in (False, True):
        made = lc.TimeSimilarity(falls=falls).to(device)
        with torch.no_grad():
            made.w2.neg_()
        slope = made(delta).diff()
        assert (slope < 0).all() if falls else (slope > 0).all()
        with torch.no_grad():
            made.w1.neg_()
        slope = made(delta).diff()
        assert (slope < 0).all()  # free: less of a unit that grows


@pytest.mark.parametrize("falls", [False, True])
def test_weights_as_the_ops_take_them(falls) -> None:
    made = randomised(lc.TimeSimilarity(8, falls=falls), 5)
    w1, b1, w2, b2 = made.mlp()
    expected = (-made.w1.abs(), made.b1, made.w2.abs(), made.b2) if falls else made.parameters()
    for mine, other in zip((w1, b1, w2, b2), expected, strict=True):
        assert torch.equal(mine, other)
    assert made.w1.max() > 0 > made.w2.min()  # the weights themselves keep their signs
    for weight in made.to(torch.bfloat16).mlp():
        assert weight.dtype == torch.float32


@pytest.mark.parametrize("unit", [3600.0, 43200.0, 60.0])
@pytest.mark.parametrize("hidden", [1, 8, 64])
def test_it_starts_at_eight_and_ends_at_nothing(device, unit, hidden) -> None:
    made = lc.TimeSimilarity(hidden, unit).to(device)
    found = made(torch.tensor([0, 43_200], device=device)).cpu()
    torch.testing.assert_close(found, torch.tensor([8.0, 0.0]), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("unit", [3600.0, 43200.0, 60.0])
def test_every_weight_has_a_gradient_at_the_start(device, unit) -> None:
    made = lc.TimeSimilarity(8, unit).to(device)
    made(torch.arange(0, 43_201, 60, device=device)).sum().backward()
    for name, weight in made.named_parameters():
        assert (weight.grad != 0).all(), name


def test_a_gradient_has_the_sign_of_its_weight(device) -> None:
    """A step against the gradient lowers the loss for weights of either sign."""
    made = randomised(lc.TimeSimilarity(8), 3).to(device)
    delta = torch.arange(0, 43_201, 60, device=device)
    loss = made(delta).square().mean()
    loss.backward()
    with torch.no_grad():
        size = sum(weight.grad.square().sum() for weight in made.parameters())
        for weight in made.parameters():
            weight -= 1e-4 * loss / size * weight.grad
        after = made(delta).square().mean()
    assert 0.5e-4 * loss < loss - after < 2e-4 * loss


@pytest.mark.parametrize("falls", [False, True])
def test_reference_and_ops_agree_on_a_module(level, device, falls) -> None:
    made = randomised(lc.TimeSimilarity(8, 43200.0, falls=falls), 2).to(device)
    query, keys = torch.randn(4, 16, device=device), torch.randn(4, 30, 16, device=device)
    times = torch.randint(0, 10**9, (4, 30), device=device)
    now = torch.randint(0, 10**9, (4,), device=device)
    delta = lc.circular_delta(times, now[:, None])
    calls = {
        "time_similarity": lambda ops, s: ops.time_similarity(delta, *s.mlp(), s.units[0]),
        "TimeSimilarity": lambda ops, s: s(delta),
        "gsu_score": lambda ops, s: ops.gsu_score(query, keys, times, now, s),
        "esu_attention": lambda ops, s: ops.esu_attention(query[:, None], keys, times, now, s),
    }
    plain = lc.TimeSimilarity(8, 43200.0, falls=falls, backend="reference").to(device)
    plain.load_state_dict(made.state_dict())
    for name, call in calls.items():
        results = []
        for ops, module in ((lc, made), (lc.reference, plain)):
            found = call(ops, module)
            grads = torch.autograd.grad(found.square().mean(), list(module.parameters()))
            results.append([found, *grads])
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")  # fmt: skip
    by_weights = lc.gsu_score(query, keys, times, now, made.mlp(), unit=43200.0)
    assert torch.equal(by_weights, lc.gsu_score(query, keys, times, now, made))
    found = lc.clock_gsu(query, keys, times, now, made, k=7)
    other = lc.reference.clock_gsu(query, keys, times, now, plain, k=7)
    assert torch.equal(found.indices, other.indices)


@pytest.mark.parametrize("falls", [False, True])
def test_a_state_goes_round(falls) -> None:
    made, other = (lc.TimeSimilarity(falls=falls) for _ in range(2))
    randomised(made, 1)
    assert set(made.state_dict()) == {"w1", "b1", "w2", "b2"}
    other.load_state_dict(made.state_dict())
    delta = torch.arange(0, 43_201, 60)
    assert torch.equal(other(delta), made(delta))
    for one, two in zip(made.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    assert f"falls={falls}" in repr(made)


@pytest.mark.parametrize("falls", ["yes", 1, None])
def test_falls_is_a_bool(falls) -> None:
    with pytest.raises(
        ValueError,
        match=r"^TimeSimilarity: falls must be a bool, or one for each of the clocks, got ",
    ):
        lc.TimeSimilarity(falls=falls)
    with pytest.raises(
        ValueError, match="falls must be a bool, or one for each of the clocks, got "
    ):
        lc.LongTermInterestClock(4, 3, time_falls=falls)


@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_the_clocks_s_falls_unless_it_is_free(backend) -> None:
    assert lc.LongTermInterestClock(4, 3, backend=backend).time.falls == (True,)
    assert lc.LongTermInterestClock(4, 3, time_falls=False, backend=backend).time.falls == (False,)
