# SPDX-License-Identifier: Apache-2.0
"""Modules that see several clocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import CLOCKS

import longclock as lc
from longclock.types import Clocks

WEEK = 7 * 86400
BOTH: Clocks = (86400, lc.ELAPSED)


def inputs(device: str) -> tuple[torch.Tensor, lc.History, torch.Tensor]:
    torch.manual_seed(0)
    rows, when = torch.randn(3, 60, 8), torch.randint(0, 10**8, (3, 60))
    now = torch.tensor([10**8, 10**8 - 5000, 10**7])
    history = lc.History.dense(rows.to(device), when.to(device))
    return torch.randn(3, 2, 8, device=device), history, now.to(device)


def build(device: str, **options: Any) -> lc.LongTermInterestClock:
    torch.manual_seed(1)
    return lc.LongTermInterestClock(8, 8, 4, 2, out_dim=5, hidden_dim=6, **{"k": 7, **options}).to(device)  # fmt: skip


@pytest.mark.parametrize("clocks", CLOCKS)
@pytest.mark.parametrize("k", [7, None])
def test_agrees_with_the_reference(device: str, clocks: Clocks, k: int | None) -> None:
    call = inputs(device)
    ours = build(device, clocks=clocks, k=k)
    plain = build(device, clocks=clocks, k=k, backend="reference")
    plain.load_state_dict(ours.state_dict())
    count = len(clocks) if isinstance(clocks, tuple) else 1
    assert ours.w_v.shape == (2, 8 + 4 * count, 4)
    v, context = ours(*call, return_context=True)
    expected, its_context = plain(*call, return_context=True)
    assert context.shape == (3, 2, 2, 8 + 4 * count)
    torch.testing.assert_close(v, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(context, its_context, rtol=1e-3, atol=1e-3)
    v.square().sum().backward()
    expected.square().sum().backward()
    largest = max(float(weight.grad.abs().max()) for weight in plain.parameters())
    for (name, mine), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        size = max(float(other.grad.abs().max()), 1e-3 * largest)  # a softmax has none in b2
        torch.testing.assert_close(mine.grad / size, other.grad / size, rtol=1e-2, atol=2e-3, msg=name)  # fmt: skip


def test_one_clock_in_a_tuple_is_one(device: str) -> None:
    call = inputs(device)
    assert torch.equal(build(device)(*call), build(device, clocks=(86400,))(*call))


def test_a_second_clock_that_says_nothing_changes_nothing(device: str) -> None:
    candidate, history, now = inputs(device)
    both, alone = lc.TimeSimilarity(clocks=BOTH).to(device), lc.TimeSimilarity().to(device)
    with torch.no_grad():
        for mine, other in zip(both.parameters(), alone.parameters(), strict=True):
            mine[0] = other if mine.dim() > 1 else other[0]
        both.w2[1], both.b2[1] = 0.0, 0.0
    arguments = (candidate, history.rows, history.time, now)
    assert torch.equal(lc.gsu_score(*arguments, both), lc.gsu_score(*arguments, alone))


def test_the_time_elapsed_tells_days_apart(device: str) -> None:
    """A day sees the same at the same hour; the time elapsed falls from day to day."""
    ago = 86400 * torch.arange(30, device=device)[None]
    now = torch.tensor([10**8], device=device)
    keys, query = torch.zeros(1, 30, 4, device=device), torch.zeros(1, 4, device=device)
    of_day = lc.gsu_score(query, keys, now - ago, now, lc.TimeSimilarity().to(device))
    assert (of_day == of_day[0, 0]).all()
    s = lc.TimeSimilarity(clocks=lc.ELAPSED).to(device)
    elapsed = lc.gsu_score(query, keys, now - ago, now, s)
    assert (elapsed.diff() <= 0).all()
    assert elapsed[0, 0] > elapsed[0, 1] > elapsed[0, 29] > 0
    torch.testing.assert_close(s(ago)[0], elapsed[0])


def test_a_module_brings_its_clocks_and_units(device: str) -> None:
    candidate, history, now = inputs(device)
    arguments = (candidate, history.rows, history.time, now)
    made = lc.TimeSimilarity(4, (60.0, 1800.0), clocks=(lc.ELAPSED, WEEK)).to(device)
    given = {"clocks": (lc.ELAPSED, WEEK), "unit": (60.0, 1800.0)}
    by_hand = lc.gsu_score(*arguments, made.mlp(), **given)
    assert torch.equal(lc.gsu_score(*arguments, made), by_hand)
    assert torch.equal(lc.gsu_score(*arguments, made, **given), by_hand)
    with pytest.raises(ValueError, match=r"^gsu_score: clocks must equal those of the TimeSimilarity module"):  # fmt: skip
        lc.gsu_score(*arguments, made, clocks=86400)
    with pytest.raises(ValueError, match=r"^gsu_score: unit must equal the unit of the TimeSimilarity module = \(60.0, 1800.0\)"):  # fmt: skip
        lc.gsu_score(*arguments, made, unit=3600.0)


@pytest.mark.parametrize("falls", [True, False, (True, False), (False, True)])
def test_each_clock_falls_by_itself(device: str, falls: Any) -> None:
    made = lc.TimeSimilarity(clocks=BOTH, falls=falls).to(device)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(generator=torch.Generator(device).manual_seed(3) if device == "cuda" else None)  # fmt: skip
        made.w1.abs_()  # which rises where it may
        made.w2.abs_()
    each = falls if isinstance(falls, tuple) else (falls, falls)
    w1, _, w2, _ = made.mlp()
    for c, fall in enumerate(each):
        assert torch.equal(w1[c], -made.w1[c].abs() if fall else made.w1[c])
        assert torch.equal(w2[c], made.w2[c])
    delta, still = torch.arange(0, 43201, 900, device=device), torch.zeros(49, dtype=torch.int64, device=device)  # fmt: skip
    for c, s in enumerate((made(delta, still), made(still, 700 * delta))):
        assert (s.diff() <= 1e-4).all() if each[c] else (s.diff() >= -1e-4).all()


def test_s_starts_at_eight_however_many_clocks(device: str) -> None:
    for clocks in CLOCKS:
        made = lc.TimeSimilarity(clocks=clocks).to(device)
        now = [torch.zeros(1, dtype=torch.int64, device=device) for _ in made.clocks]
        torch.testing.assert_close(made(*now).cpu(), torch.tensor([8.0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clocks": 0}, "clocks must be from 1 to 2147483647 seconds, got 0; a day is 86400"),
        ({"clocks": "week"}, "clocks must be a period in seconds, lc.ELAPSED, or a tuple of them, got 'week'"),
        ({"clocks": [86400]}, r"clocks must be a period in seconds, .* got \[86400\]"),
        ({"clocks": ()}, "clocks must be 1 to 4, got 0"),
        ({"clocks": (1, 2, 3, 4, 5)}, "clocks must be 1 to 4, got 5"),
        ({"clocks": BOTH, "unit": (1.0,)}, "unit must be a number, or one for each of the clocks, which are 2, got 1"),
        ({"clocks": BOTH, "unit": (1.0, 0.0)}, "unit must be a positive number of seconds, got 0.0"),
        ({"clocks": BOTH, "hidden": 33}, "hidden must be from 1 to 32 of each of 2 clocks, got 33"),
        ({"clocks": BOTH, "falls": (True,)}, "falls must be a bool, or one for each of the clocks"),
    ],
)  # fmt: skip
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^TimeSimilarity: " + message):
        lc.TimeSimilarity(**options)


def test_a_module_takes_a_difference_for_each_clock() -> None:
    with pytest.raises(ValueError, match=r"^TimeSimilarity: there must be a tensor of differences for each of 2 clocks, got 1"):  # fmt: skip
        lc.TimeSimilarity(clocks=BOTH)(torch.tensor([60]))
    with pytest.raises(
        ValueError, match=r"^TimeSimilarity: .* must be int32 or int64, got float32"
    ):
        lc.TimeSimilarity(clocks=BOTH)(torch.tensor([60]), torch.tensor([60.0]))


def test_compiles_and_exports(device: str) -> None:
    call = inputs(device)
    module = build(device, clocks=(86400, WEEK, lc.ELAPSED))
    expected = module(*call)
    torch.testing.assert_close(torch.compile(module, fullgraph=True)(*call), expected)
    exported = torch.export.export(module, call)
    torch.testing.assert_close(exported.module()(*call), expected)
