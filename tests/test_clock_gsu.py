# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import CLOCKS, FLOATS, LAYOUTS, Case, make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_error import RAW_ERROR
from tolerance import assert_bitwise, assert_selection

import longclock as lc
from longclock.types import Clocks


def rows(case: Case, **options: Any) -> list[torch.Tensor]:
    """The reference's scores, one tensor a query."""
    scores = case.run(lc.reference.gsu_score, **options)
    if case.key_time.dim() == 2:
        return list(scores.flatten(0, -2))
    layout = case.layout | options
    windows = "starts" in layout
    sizes = layout["ends"] - layout["starts"] if windows else layout["offsets"].diff()
    if "query_offsets" in layout:
        sizes = sizes.repeat_interleave(layout["query_offsets"].diff())
    return list(scores.split(sizes.tolist()))


def check(case: Case, k: int, device: str, **options: Any) -> None:
    ours = case.to(device).run(lc.clock_gsu, k, **options)
    assert ours.scores.dtype == torch.float32
    assert ours.indices.dtype == torch.int64
    assert ours.scores.shape == ours.indices.shape == (*case.query.shape[:-1], k)
    exact, rival = rows(case.double(), **options), rows(case, **options)
    for q, (scores, indices) in enumerate(
        zip(ours.scores.view(len(exact), k), ours.indices.view(len(exact), k), strict=True)
    ):
        assert_selection(scores, indices, exact[q], rival[q], f"query {q}")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dead", [{}, {"mask": True}, {"mask": True, "exclude_future": True}])
def test_selection(
    level: str, device: str, layout: str, table: bool, dtype: torch.dtype, dead: dict[str, bool]
) -> None:
    check(make_case(layout, dtype, table=table, **dead), 10, device)


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("k", [1, 20, 100])
def test_integers_are_exact(level: str, device: str, layout: str, table: bool, k: int) -> None:
    """Hardly more than ties: the order must be that of the definition, index by index."""
    for dtype in FLOATS:
        case = make_case(
            layout, dtype, table=table, integers=True, mask=True, counts=(400, 0, 30, 77), width=5
        )
        ours, exact = case.to(device).run(lc.clock_gsu, k), case.run(lc.reference.clock_gsu, k)
        assert torch.equal(ours.indices.cpu(), exact.indices)
        assert torch.equal(ours.scores.cpu(), exact.scores)


@pytest.mark.parametrize("k", [0, 1, 99, 100, 2048])
@pytest.mark.parametrize("counts", [(), (0,), (1, 0), (99, 100, 101), (2047, 2500), (256, 257)])
def test_sizes(level: str, device: str, k: int, counts: tuple[int, ...]) -> None:
    for layout in ("dense", "ragged", "windows"):
        check(make_case(layout, counts=counts, width=8), k, device)


@pytest.mark.parametrize("width", [1, 7, 8, 16, 33, 64, 100])
@pytest.mark.parametrize("dtype", FLOATS)
def test_widths(level: str, device: str, width: int, dtype: torch.dtype) -> None:
    for layout in ("dense", "candidates", "windows"):
        check(make_case(layout, dtype, width=width, counts=(300, 40)), 30, device)


@pytest.mark.parametrize("period", [1, 2, 86399, 604800, 2**31 - 1])
@pytest.mark.parametrize("time_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("hidden", [1, 8, 64])
def test_clocks(level: str, device: str, period: int, time_dtype: torch.dtype, hidden: int) -> None:
    check(make_case("dense", time_dtype=time_dtype, clocks=period, hidden=hidden), 12, device)


@pytest.mark.parametrize("clocks", CLOCKS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_several_clocks(level: str, device: str, layout: str, clocks: Clocks) -> None:
    for table in (False, True):
        check(make_case(layout, clocks=clocks, mask=True, table=table), 12, device)
    # Often enough for tables of s, and long enough for their limits to rule behaviours out.
    case = make_case(layout, clocks=clocks, counts=(4000, 1, 600, 700)).to(device)
    first = case.run(lc.clock_gsu, 9)
    for _ in range(40 if device == "cpu" else 1):
        again = case.run(lc.clock_gsu, 9)
        assert torch.equal(again.scores, first.scores)
        assert torch.equal(again.indices, first.indices)


@pytest.mark.parametrize("candidates", [0, 1, 2, 5, 8, 9, 17])
def test_candidates(level: str, device: str, candidates: int) -> None:
    check(make_case("candidates", candidates=candidates, width=24, counts=(300, 9)), 20, device)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nan_and_infinity_come_first(level: str, device: str, layout: str) -> None:
    case = make_case(layout, counts=(50, 50), width=8, poison=False)
    case.keys.view(-1, 8)[[7, 57]] = torch.nan
    case.keys.view(-1, 8)[[5, 60]] = torch.inf
    case.query.fill_(1.0)
    ours, expected = case.to(device).run(lc.clock_gsu, 4), case.run(lc.reference.clock_gsu, 4)
    assert torch.equal(ours.indices[..., :2].cpu(), expected.indices[..., :2])
    assert torch.equal(ours.scores.isnan().cpu(), expected.scores.isnan())
    assert ours.scores.isnan().any()
    low = case.map(lambda x: x)
    low.keys = torch.full_like(low.keys, -torch.inf)  # selectable, unlike what does not count
    assert torch.equal(
        low.to(device).run(lc.clock_gsu, 60).indices.cpu(),
        low.run(lc.reference.clock_gsu, 60).indices,
    )


def test_agrees_with_scores_and_topk(level: str, device: str) -> None:
    case = make_case("dense", counts=(3000, 17), width=64).to(device)
    case.keys.nan_to_num_(0.0)
    top = lc.block_topk(case.score(lc.gsu_score), 100, case.layout["lengths"])
    ours = case.run(lc.clock_gsu, 100)
    torch.testing.assert_close(ours.scores, top.scores)


def test_not_contiguous(level: str, device: str) -> None:
    case = make_case("dense", counts=(200, 200), width=12).to(device)
    expected = case.run(lc.clock_gsu, 9)
    wide = torch.full((200, 3, 24), torch.nan, device=device)
    wide[:, :2, ::2] = case.keys.transpose(0, 1)
    case.keys = wide[:, :2, ::2].transpose(0, 1)
    case.key_time = case.key_time.T.contiguous().T
    case.query = case.query.T.contiguous().T
    assert_bitwise(case.run(lc.clock_gsu, 9), expected)


@given(st.lists(st.integers(0, 60), max_size=5), st.data())
@settings(max_examples=60, deadline=None)
def test_any_layout(device: str, counts: list[int], data: st.DataObject) -> None:
    case = make_case(
        data.draw(st.sampled_from(LAYOUTS)), data.draw(st.sampled_from(FLOATS)),
        counts=tuple(counts), integers=True, table=data.draw(st.booleans()),
        mask=data.draw(st.booleans()), exclude_future=data.draw(st.booleans()),
        width=data.draw(st.integers(1, 20)), candidates=data.draw(st.integers(0, 4)),
    )  # fmt: skip
    k = data.draw(st.integers(0, 80))
    ours, exact = case.to(device).run(lc.clock_gsu, k), case.run(lc.reference.clock_gsu, k)
    assert torch.equal(ours.indices.cpu(), exact.indices)
    assert torch.equal(ours.scores.cpu(), exact.scores)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bitwise_repeatable(level: str, device: str, layout: str, same_at_any_threads) -> None:  # type: ignore[no-untyped-def]
    case = make_case(layout, counts=(3000, 1, 700, 500), width=24, table=True).to(device)
    same_at_any_threads(lambda: case.run(lc.clock_gsu, 100))


@pytest.mark.parametrize("layout", ["dense", "candidates"])
def test_a_row_does_not_depend_on_its_batch(level: str, device: str, layout: str) -> None:
    case = make_case(layout, counts=(3000, 30, 256), width=24).to(device)
    together = case.run(lc.clock_gsu, 100)
    for s in range(3):
        one = slice(s, s + 1)
        alone = lc.clock_gsu(
            case.query[one], case.keys[one], case.key_time[one], case.query_time[one], case.mlp,
            100, lengths=case.layout["lengths"][one],
        )  # fmt: skip
        assert_bitwise(alone, lc.TopK(together.scores[one], together.indices[one]))


def test_a_window_does_not_depend_on_its_batch(level: str, device: str) -> None:
    case = make_case("windows", counts=(3000, 30, 256), width=24, table=True).to(device)
    together, layout = case.run(lc.clock_gsu, 100), case.layout
    for q in range(6):
        one = slice(q, q + 1)
        alone = lc.clock_gsu(
            case.query[one], case.keys, case.key_time, case.query_time[one], case.mlp, 100,
            ids=layout["ids"], starts=layout["starts"][one], ends=layout["ends"][one],
        )  # fmt: skip
        assert_bitwise(alone, lc.TopK(together.scores[one], together.indices[one]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_gradient(device: str, layout: str) -> None:
    case = make_case(layout, counts=(9, 0, 5), table=True).to(device).trained()
    top = case.run(lc.clock_gsu, 4)
    assert not top.scores.requires_grad
    assert not top.indices.requires_grad


def test_errors(device: str, checks_data: bool) -> None:
    case = make_case("dense", counts=(32, 32)).to(device)
    late = case.key_time[:, :31]
    message = (
        r"clock_gsu: key_time must have shape \[S, M\] = \[2, 32\] to match keys, got \[2, 31\]"
    )
    with pytest.raises(ValueError, match="^" + message):
        lc.clock_gsu(case.query, case.keys, late, case.query_time, case.mlp)
    with pytest.raises(RAW_ERROR, match=message):
        torch.ops.longclock.clock_gsu(case.query, case.keys, late, *case.raw(5)[3:])
    for k in (-1, 2049):
        with pytest.raises(ValueError, match=f"^clock_gsu: k must be from 0 to 2048, got {k}; "):
            case.run(lc.clock_gsu, k)
        with pytest.raises(RAW_ERROR, match="clock_gsu: k must"):
            torch.ops.longclock.clock_gsu(*case.raw(k))
    with pytest.raises(ValueError, match=r"longclock.reference.clock_gsu takes float64"):
        case.double().run(lc.clock_gsu)
    if checks_data:
        with pytest.raises(ValueError, match=r"^clock_gsu: lengths must "):
            case.run(lc.clock_gsu, lengths=torch.tensor([33, 0]))


def test_parameters_changed_in_place_are_seen(level: str, device: str) -> None:
    """Whatever is kept of s from call to call is of the parameters as they are now."""
    case = make_case("dense", torch.float32, counts=(400,) * 3).to(device)
    step = tuple(torch.full_like(part, 0.25) for part in case.mlp)
    short: dict[str, Any] = {"clocks": 600, "unit": 60.0}  # few deltas: a table pays at once
    for _ in range(6):
        found = case.run(lc.gsu_score, **short)
        expected = case.run(lc.reference.gsu_score, **short)
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
        for part, add in zip(case.mlp, step, strict=True):
            part += add
