# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from raw_error import RAW_ERROR

import longclock as lc

HOUR = 3600
EXTREMES = {
    torch.int32: [-(2**31), -(2**31) + 1, -86400, -1, 0, 1, 86399, 86400, 2**31 - 2, 2**31 - 1],
    torch.int64: [-(10**11), -(2**36) - 7, -(2**31) - 1, -1, 0, 2**31, 2**36 + 5, 10**11],
}
# The CPU refuses what are no seconds; elsewhere values are not read, and every integer has its place.
BEYOND = [-(2**63), -(2**40) - 7, 2**40 + 5, 2**63 - 1]
PERIODS = (1, 2, 3, 7, 86399, 86400, 604800, 2**30, 2**31 - 1)


def brute(a: int, b: int, period: int) -> int:
    x = abs(a % period - b % period)
    return min(x, period - x)


@pytest.mark.parametrize(
    ("a", "b", "seconds"),
    [(23 * HOUR, 1 * HOUR, 2 * HOUR), (11 * HOUR, 17 * HOUR, 6 * HOUR), (86399, 0, 1), (0, 0, 0)],
)
def test_the_clock_goes_round(a: int, b: int, seconds: int, device: str) -> None:
    delta = lc.circular_delta(
        torch.tensor([a], device=device), torch.tensor([b + 5 * 86400], device=device)
    )
    assert delta.tolist() == [seconds]


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("a_dtype", EXTREMES)
@pytest.mark.parametrize("b_dtype", EXTREMES)
def test_extremes(
    level: str, device: str, a_dtype: torch.dtype, b_dtype: torch.dtype, period: int
) -> None:
    a, b = (
        torch.tensor(
            EXTREMES[dtype] + BEYOND * (dtype == torch.int64 and device != "cpu"), dtype=dtype
        )
        for dtype in (a_dtype, b_dtype)
    )
    a = a[:, None]
    delta = lc.circular_delta(a.to(device), b.to(device), period)
    assert delta.dtype == torch.promote_types(a_dtype, b_dtype)
    assert delta.tolist() == [[brute(x, y, period) for y in b.tolist()] for x in a[:, 0].tolist()]


@pytest.mark.parametrize("dtype", EXTREMES)
@pytest.mark.parametrize("period", PERIODS)
def test_random_times(level: str, device: str, dtype: torch.dtype, period: int) -> None:
    edge = min(torch.iinfo(dtype).max, 10**11)
    a, b = (torch.randint(-edge, edge, (3, 701), dtype=dtype) for _ in range(2))
    ours = lc.circular_delta(a.to(device), b.to(device), period).cpu()
    assert torch.equal(ours, lc.reference.circular_delta(a, b, period))


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [((), ()), ((0,), (0,)), ((0, 3), (3,)), ((1,), (1,)), ((511,), (511,)), ((513,), ()),
     ((3, 5), (5,)), ((3, 1), (1, 5)), ((2, 3, 1, 7), (3, 4, 1)), ((4, 0), (1, 1))],
)  # fmt: skip
def test_shapes(
    level: str, device: str, a_shape: tuple[int, ...], b_shape: tuple[int, ...]
) -> None:
    a, b = torch.randint(-(10**9), 10**9, a_shape), torch.randint(-(10**9), 10**9, b_shape)
    ours = lc.circular_delta(a.to(device), b.to(device)).cpu()
    assert torch.equal(ours, lc.reference.circular_delta(a, b))


def test_not_contiguous(level: str, device: str) -> None:
    a = torch.randint(0, 10**9, (40, 30), device=device)[::3, 5::2].T  # [13, 14]
    b = torch.randint(0, 10**9, (28, 13), device=device)[::2].T
    for other in (b, b[:, :1], b[:1], b[3]):
        ours = lc.circular_delta(a, other).cpu()
        assert torch.equal(ours, lc.reference.circular_delta(a.cpu(), other.cpu()))


@given(
    st.lists(st.integers(-(10**11), 10**11), min_size=1, max_size=40),
    st.integers(-(10**11), 10**11),
    st.integers(1, 2**31 - 1),
)
def test_any_seconds(times: list[int], now: int, period: int) -> None:
    delta = lc.circular_delta(torch.tensor(times), torch.tensor(now), period)
    assert delta.tolist() == [brute(t, now, period) for t in times]


@given(
    st.lists(st.integers(-(10**11), 10**11), min_size=1, max_size=9),
    st.integers(-(2**70), 2**70),
    st.integers(1, 2**31 - 1),
)
def test_clock_time(times: list[int], offset: int, period: int) -> None:
    clock = lc.clock_time(torch.tensor(times), offset, period)
    assert clock.dtype == torch.int32
    assert clock.tolist() == [(t + offset) % period for t in times]


def test_clock_time_takes_an_offset_each() -> None:
    times, offsets = torch.tensor([[0], [86399]], dtype=torch.int32), torch.tensor([3600, -3600])
    assert lc.clock_time(times, offsets).tolist() == [[3600, 82800], [3599, 82799]]


def test_clock_time_near_the_end_of_int64_does_not_wrap() -> None:
    times = torch.tensor([2**63 - 1, -(2**63)])
    clock = lc.reference.clock_time(times, torch.tensor([50_000, -50_000]))
    assert clock.tolist() == [(2**63 - 1 + 50_000) % 86400, (-(2**63) - 50_000) % 86400]


@pytest.mark.parametrize("offset", [5.5 * 3600, 19800.0, None, True, "19800", [19800]])
def test_an_offset_is_whole_seconds(offset: object) -> None:
    times = torch.tensor([1_737_000_123])
    for clock_time in (lc.clock_time, lc.reference.clock_time):
        with pytest.raises(
            ValueError, match="clock_time: utc_offset must be whole seconds, an int"
        ):
            clock_time(times, offset)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="clock_time: utc_offset must be int32 or int64, got float32"
    ):
        lc.clock_time(times, torch.tensor(5.5 * 3600))


def test_bitwise_repeatable(level: str, device: str, same_at_any_threads) -> None:  # type: ignore[no-untyped-def]
    a, b = (torch.randint(0, 2**36, (300, 401), device=device) for _ in range(2))
    same_at_any_threads(lambda: lc.circular_delta(a, b))


def test_meta() -> None:
    a = torch.empty(3, 1, dtype=torch.int32, device="meta")
    delta = lc.circular_delta(a, torch.empty(4, dtype=torch.int64, device="meta"))
    assert delta.shape == (3, 4)
    assert delta.dtype == torch.int64
    assert delta.is_meta


def test_errors(device: str) -> None:
    a = torch.zeros(3, dtype=torch.int64, device=device)
    with pytest.raises(ValueError, match="circular_delta: a must be int32 or int64, got float32; "):
        lc.circular_delta(a.float(), a)
    with pytest.raises(ValueError, match="clock_time: timestamps must be int32 or int64"):
        lc.clock_time(a.double())
    with pytest.raises(ValueError, match=r"circular_delta: a must broadcast with b = .4., got .3."):
        lc.circular_delta(a, a.new_zeros(4))
    for period in (0, -1, 2**31):
        with pytest.raises(ValueError, match="period must be from 1 to 2147483647 seconds, got"):
            lc.circular_delta(a, a, period)
        with pytest.raises(RAW_ERROR, match="circular_delta: period must"):
            torch.ops.longclock.circular_delta(a, a, period)
    with pytest.raises(RAW_ERROR, match="circular_delta: "):
        torch.ops.longclock.circular_delta(a.float(), a, 86400)
