# SPDX-License-Identifier: Apache-2.0
"""Few candidates of one request share each key on the CPU, and find, to the bit, what each does alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import CLOCKS, FLOATS, Case, make_case, several_tables
from test_gsu_score import check_gradients
from tolerance import assert_bitwise
from torch import Tensor

import longclock as lc
from longclock.types import Clocks

# Of one sequence: several parts and what is left over, none, a few.
COUNTS = (4500, 0, 5, 300)
LAYOUTS = ("candidates", "ragged_many", "windows_many", "windows")
DEAD: list[dict[str, bool]] = [{}, {"mask": True, "exclude_future": True}]


def bounds(case: Case) -> Tensor:
    """Of the sequences of a dense case, once their rows lie in one."""
    lengths = case.layout["lengths"].long()
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def flat(case: Case) -> Case:
    """A dense case's behaviours in one sequence, with no query's layout."""
    here = torch.arange(case.key_time.shape[1]) < case.layout["lengths"][:, None]

    def rows(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(rows, value))
        stored = isinstance(value, Tensor) and value.shape[:2] == here.shape
        return value[here] if stored else value

    layout = {name: rows(value) for name, value in case.layout.items() if name != "lengths"}
    return replace(case, keys=rows(case.keys), key_time=case.key_time[here], layout=layout)


def laid_out(case: Case, layout: str) -> Case:
    """The same requests in another layout; of windows each candidate has one, equal to its neighbours'."""
    if layout == "candidates":
        return case
    s, candidates, width = case.query.shape
    edges, one = bounds(case), flat(case)
    one.query = case.query.reshape(s * candidates, width)
    given = {"ragged_many": {"offsets": edges}}.get(layout, {"starts": edges[:-1], "ends": edges[1:]})  # fmt: skip
    if layout == "windows":
        one.query_time = case.query_time.repeat_interleave(candidates)
        given = {name: edge.repeat_interleave(candidates) for name, edge in given.items()}
    else:
        given["query_offsets"] = torch.arange(s + 1) * candidates
    return one.with_layout(**given)


def each_alone(case: Case, op: Callable[..., Any], *extra: Any) -> list[Any]:
    """A call for each candidate, of one window a sequence."""
    edges, one = bounds(case), flat(case)
    calls = []
    for query in case.query.unbind(1):
        one.query = query.contiguous()
        calls.append(one.with_layout(starts=edges[:-1], ends=edges[1:]).run(op, *extra))
    return calls


def check(case: Case, layout: str, ks: tuple[int, ...] = (1, 20, 400)) -> None:
    s, candidates, _ = case.query.shape
    lengths, together = case.layout["lengths"].tolist(), laid_out(case, layout)
    for k in ks:
        found = together.run(lc.clock_gsu, k)
        for i, alone in enumerate(each_alone(case, lc.clock_gsu, k)):
            mine = [part.view(s, candidates, k)[:, i] for part in found]
            assert_bitwise(mine, [alone.scores, alone.indices])
    scores = together.run(lc.gsu_score)
    if layout == "candidates":
        scores = torch.cat([scores[q, :, :n].flatten() for q, n in enumerate(lengths)])
    of_sequences = scores.split([candidates * n for n in lengths])
    for i, alone in enumerate(each_alone(case, lc.gsu_score)):
        rows = [x.view(candidates, n)[i] for x, n in zip(of_sequences, lengths, strict=True)]
        assert_bitwise(torch.cat(rows), alone)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dead", DEAD)
def test_layouts(
    level: str, layout: str, table: bool, dtype: torch.dtype, dead: dict[str, bool]
) -> None:
    case = make_case(
        "candidates", dtype, counts=COUNTS, candidates=5, width=33, table=table, **dead
    )
    check(case, layout)


@pytest.mark.parametrize("candidates", range(2, 16))
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_number_of_them(level: str, candidates: int, dtype: torch.dtype) -> None:
    case = make_case("candidates", dtype, counts=(2100, 300), candidates=candidates, width=64)
    check(case, "candidates", (20,))
    check(case, "windows", (20,))


@pytest.mark.parametrize("width", [1, 7, 8, 16, 31, 32, 64, 65, 100, 128, 256])
@pytest.mark.parametrize("dtype", FLOATS)
def test_widths(level: str, width: int, dtype: torch.dtype) -> None:
    for table in (False, True):
        case = make_case(
            "candidates", dtype, counts=(600, 70), candidates=7, width=width, table=table
        )
        check(case, "candidates", (20,))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dead", DEAD)
def test_several_tables(level: str, layout: str, dtype: torch.dtype, dead: dict[str, bool]) -> None:
    for candidates in (2, 8):
        case = make_case("candidates", dtype, counts=COUNTS, candidates=candidates, **dead)
        check(several_tables(case), layout, (20,))


@pytest.mark.parametrize("clocks", [86400, *CLOCKS])
def test_clocks(level: str, clocks: Clocks) -> None:
    """Before s of a clock is looked up in a table, and after."""
    case = make_case("candidates", counts=COUNTS, candidates=6, width=16, clocks=clocks, mask=True)
    check(case, "candidates", (9, 400))
    for _ in range(40):
        case.run(lc.clock_gsu, 9)
    check(case, "candidates", (9, 400))
    check(case, "windows", (9,))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nan_and_infinity(level: str, layout: str) -> None:
    case = make_case("candidates", counts=(900, 50), candidates=4, width=16, poison=False)
    keys = case.keys
    assert isinstance(keys, Tensor)
    for i, odd in enumerate((torch.nan, torch.inf, -torch.inf)):
        keys[:, i::41, 3] = odd
    check(case, layout)


@pytest.mark.parametrize("candidates", [15, 16, 17, 40])
def test_more_are_exact_where_sums_are(level: str, candidates: int) -> None:
    case = make_case("candidates", counts=(900, 70), candidates=candidates, integers=True)
    for layout in LAYOUTS:
        check(case, layout)


@pytest.mark.parametrize("dtype", FLOATS)
def test_equal_windows_change_nobodys_bits(level: str, dtype: torch.dtype) -> None:
    """However many lie next to each other, and where only the time, the start or the end differs."""
    check(make_case("candidates", dtype, counts=(900, 70), candidates=40, width=40), "windows")
    starts = torch.tensor([0, 0, 0, 0, 7, 7, 7, 0, 300, 300])
    ends = torch.tensor([500, 500, 500, 400, 400, 400, 700, 500, 300, 300])
    now = torch.tensor([5, 5, 6, 6, 6, 6, 6, 5, 5, 5]) * 9000
    case = make_case("ragged", dtype, counts=(700,), width=40)
    layout = {"starts": starts, "ends": ends, "clocks": 86400}
    case = replace(case, query=torch.randn(10, 40).to(dtype), query_time=now, layout=layout)
    found, scores = case.run(lc.clock_gsu, 20), case.run(lc.gsu_score)
    for q, score in enumerate(scores.split((ends - starts).tolist())):
        alone = replace(case, query=case.query[q : q + 1], query_time=now[q : q + 1])
        alone = alone.with_layout(starts=starts[q : q + 1], ends=ends[q : q + 1])
        expected = alone.run(lc.clock_gsu, 20)
        assert_bitwise([part[q : q + 1] for part in found], list(expected))
        assert_bitwise(score, alone.run(lc.gsu_score))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("candidates", [2, 5, 15, 16])
def test_gradients(level: str, dtype: torch.dtype, candidates: int) -> None:
    case = make_case("candidates", dtype, counts=(300, 0, 41), candidates=candidates, mask=True)
    for layout in LAYOUTS:
        check_gradients(laid_out(case, layout), "cpu")


def test_attention_to_what_equal_windows_found(level: str) -> None:
    """Positions of what was found are each query's own, though its window is its neighbours'."""
    case = make_case("candidates", counts=(80, 33), candidates=20, width=6)
    u, q_time = torch.randn(40, 2, 6), case.query_time.repeat_interleave(20)
    windows = laid_out(case, "windows")
    given = {name: windows.layout[name] for name in ("starts", "ends")}
    found = windows.run(lc.clock_gsu, 9).indices

    def attend(which: slice) -> Tensor:
        edges = {name: edge[which] for name, edge in given.items()}
        return lc.esu_attention(
            u[which], windows.keys, windows.key_time, q_time[which], case.mlp, found=found[which],
            **edges,
        )  # fmt: skip

    assert_bitwise(attend(slice(None)), torch.cat([attend(slice(q, q + 1)) for q in range(40)]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_threads(layout: str, same_at_any_threads: Callable[[Any], None]) -> None:
    case = laid_out(make_case("candidates", counts=(30_000,), candidates=5, width=16), layout)
    same_at_any_threads(lambda: [case.run(lc.clock_gsu, 50), case.run(lc.gsu_score)])
