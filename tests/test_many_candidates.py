# SPDX-License-Identifier: Apache-2.0
"""Many candidates of one request: exact for every order of scores, and the same bits in any company."""

from __future__ import annotations

import pytest
import torch
from cases import FLOATS, Case, make_case
from test_clock_gsu import check, rows
from test_gsu_score import check_values
from tolerance import assert_bitwise, assert_selection

import longclock as lc

BLOCK = 8  # behaviours, of which the CUDA kernels keep the best score first


def constant_time() -> tuple[torch.Tensor, ...]:
    """Weights of an s() that is 0 everywhere."""
    return torch.zeros(1, 4), torch.zeros(1), torch.zeros(1), torch.tensor(0.0)


def of_scores(scores: torch.Tensor, dtype: torch.dtype, candidates: int, width: int = 16) -> Case:
    """Behaviours whose scores are these integers, for candidates that turn and stretch them.

    An integer below 2^14 is spread over two columns, so that 16 bits hold it.
    """
    m = len(scores)
    keys = torch.zeros(1, m, width)
    keys[0, :, 0], keys[0, :, width - 1] = (scores / 64).floor(), scores % 64
    factor = torch.tensor([1.0, -1.0, 0.5, 0.0, 2.0]).repeat(candidates)[:candidates]
    query = torch.zeros(1, candidates, width)
    query[0, :, 0], query[0, :, width - 1] = 64 * factor, factor
    return Case(
        query.to(dtype), keys.to(dtype), torch.zeros(1, m, dtype=torch.int64),
        torch.zeros(1, dtype=torch.int64), constant_time(), {"scale": 1.0},
    )  # fmt: skip


def patterns(m: int) -> dict[str, torch.Tensor]:
    """Integers below 2^14."""
    ascending = torch.arange(m).float()
    hot, edges = torch.randint(0, 9, (m,)).float(), torch.zeros(m)
    hot[m // 2 : m // 2 + 2 * BLOCK] += 100
    edges[BLOCK - 1 :: BLOCK] = edges[BLOCK::BLOCK] = (
        7.0  # the last of a block, the first of the next
    )
    edges[m // 3] = 8.0
    best_last, best_first = ascending % BLOCK, (BLOCK - 1 - ascending % BLOCK)
    return {
        "equal": torch.full((m,), 5.0), "ascending": ascending, "descending": ascending.flip(0),
        "one hot block": hot, "ties across edges": edges, "few values": torch.randint(0, 3, (m,)).float(),
        "best of a block last": best_last, "best of a block first": best_first,
        "blocks ascending": (ascending / BLOCK).floor(), "random": torch.randint(0, 2**14, (m,)).float(),
    }  # fmt: skip


def exact(case: Case, k: int, device: str) -> None:
    """What is selected, and all scores."""
    ours, expected = case.to(device).run(lc.clock_gsu, k), case.run(lc.reference.clock_gsu, k)
    assert torch.equal(ours.indices.cpu(), expected.indices)
    torch.testing.assert_close(ours.scores.cpu(), expected.scores, rtol=0, atol=0, equal_nan=True)
    every, expected = case.to(device).score(lc.gsu_score), case.run(lc.reference.gsu_score)
    torch.testing.assert_close(every.cpu(), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("k", [1, 100, 256])
@pytest.mark.parametrize("pattern", list(patterns(BLOCK)))
def test_every_order(level: str, device: str, pattern: str, k: int) -> None:
    for dtype in FLOATS:
        for m in (1, 63, 1029):
            exact(of_scores(patterns(m)[pattern], dtype, candidates=21), k, device)


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_length(level: str, device: str, dtype: torch.dtype) -> None:
    lengths = torch.tensor([*range(20), 62, 63, 64, 65, 127, 128, 129, 191, 200])
    s, m = len(lengths), 200
    case = make_case(
        "candidates", dtype, counts=(m,) * s, candidates=17, width=8, integers=True
    ).with_layout(lengths=lengths)
    case.keys[torch.arange(m) >= lengths[:, None]] = torch.nan
    exact(case, 20, device)


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dead", [{"mask": True}, {"mask": True, "exclude_future": True}])
def test_masks(
    level: str, device: str, dtype: torch.dtype, table: bool, dead: dict[str, bool]
) -> None:
    case = make_case(
        "candidates", dtype, counts=(300, 0, 77), candidates=19, width=8, integers=True,
        table=table, **dead,
    )  # fmt: skip
    exact(case, 50, device)
    exact(case.with_layout(mask=torch.zeros_like(case.layout["mask"])), 5, device)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_last_bits(level: str, device: str, sign: float) -> None:
    """1 + j 2^-23, all different, and one apart from the next."""
    case = of_scores(torch.zeros(512), torch.float32, candidates=16)
    order = torch.randperm(512)
    case.keys[0, :, 0] = sign * (1.0 + order * 2.0**-23)
    case.query[0, :, 0] = 1.0
    exact(case, 100, device)
    # The same in 16 bits, where a column of 1 and one of j meet.
    for dtype in (torch.float16, torch.bfloat16):
        case = of_scores(torch.zeros(256), dtype, candidates=16)
        case.keys[0, :, 0], case.keys[0, :, 3] = sign, torch.randperm(256).to(dtype)
        case.query[0, :, 0], case.query[0, :, 3] = 1.0, 2.0**-14
        exact(case, 100, device)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("where", ["keys", "query"])
def test_nan_and_infinity(level: str, device: str, where: str, dtype: torch.dtype) -> None:
    """Zeros as well, which make NaN of an infinity, and -inf, which can be chosen."""
    case = make_case(
        "candidates", dtype, counts=(300,), candidates=40, width=8, integers=True, mask=True
    )
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, -torch.inf, -torch.inf], dtype=dtype)
    tensor = case.keys if where == "keys" else case.query
    flat = tensor.view(-1)
    at = torch.randperm(flat.numel())[: flat.numel() // 5]
    flat[at] = odd[torch.randint(0, 5, (len(at),))]
    for k in (7, 256):
        exact(case, k, device)
    poisoned = case.map(lambda x: x)
    poisoned.query = torch.full_like(case.query, torch.nan)
    exact(poisoned, 100, device)


def test_minus_infinity_behind_nobody(level: str, device: str) -> None:
    """Behaviours that are not there come first, and those that are there score as low as can be."""
    case = of_scores(torch.zeros(200), torch.float32, candidates=16)
    case.keys.fill_(-torch.inf)
    case.query.fill_(1.0)
    exact(case.with_layout(mask=(torch.arange(200) >= 100)[None]), 5, device)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [7, 8, 24, 33, 40, 64, 72, 128, 136, 256, 264, 520])
def test_widths(level: str, device: str, width: int, dtype: torch.dtype) -> None:
    case = make_case("candidates", dtype, width=width, counts=(200, 40), candidates=18)
    check(case, 30, device)
    check_values(case, device)


@pytest.mark.parametrize("dtype", FLOATS)
def test_queries_in_fp32(level: str, device: str, dtype: torch.dtype) -> None:
    case = make_case("candidates", dtype, width=16, counts=(150, 40), candidates=18)
    case.query = torch.randn(case.query.shape)
    rounded = case.map(lambda x: x)
    rounded.query = case.query.to(dtype)
    ours = case.to(device).run(lc.clock_gsu, 30)
    assert_bitwise(ours, rounded.to(device).run(lc.clock_gsu, 30))
    ours = case.to(device).score(lc.gsu_score)
    assert_bitwise(ours, rounded.to(device).score(lc.gsu_score))


def ragged(
    counts: tuple[int, ...], queries: tuple[int, ...], dtype: torch.dtype, **options: object
) -> Case:
    """queries: of each sequence."""
    case = make_case("ragged", dtype, counts=counts, **options)  # type: ignore[arg-type]
    query = case.query.new_empty((sum(queries), case.query.shape[1]))
    case.query = query.copy_(torch.randint(-3, 4, query.shape))
    return case.with_layout(query_offsets=torch.tensor([0, *queries]).cumsum(0))


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_ragged(level: str, device: str, dtype: torch.dtype, table: bool) -> None:
    case = ragged(
        (90, 0, 700, 5, 64, 1), (3, 4, 130, 0, 129, 1), dtype, integers=True, width=16, table=table,
        mask=True,
    )  # fmt: skip
    exact(case, 33, device)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_candidate_does_not_depend_on_the_others(
    level: str, device: str, dtype: torch.dtype, same_at_any_threads
) -> None:  # type: ignore[no-untyped-def]
    case = make_case("candidates", dtype, counts=(900, 70), candidates=150, width=40).to(device)
    together, scores = case.run(lc.clock_gsu, 100), case.run(lc.gsu_score)
    same_at_any_threads(lambda: case.run(lc.clock_gsu, 100))
    for first, last in ((0, 16), (100, 150), (67, 99)):
        some = case.map(lambda x: x)
        some.query = case.query[:, first:last]
        expected = lc.TopK(together.scores[:, first:last], together.indices[:, first:last])
        assert_bitwise(some.run(lc.clock_gsu, 100), expected)
        assert_bitwise(some.run(lc.gsu_score), scores[:, first:last])
    # Nor on the place of a behaviour, nor on the rest of the sequence.
    order = torch.randperm(900)
    moved = case.map(lambda x: x)
    moved.layout = moved.layout | {"lengths": torch.tensor([900, 0], device=device)}
    moved.keys, moved.key_time = case.keys[:, order], case.key_time[:, order]
    scores = moved.run(lc.clock_gsu, 100).scores[0]
    assert_bitwise(scores, together.scores[0])


def test_parts_give_the_bits_of_the_whole(level: str, device: str) -> None:
    """One request is cut into parts; among many it is not."""
    case = make_case("candidates", torch.float16, counts=(5_000,), candidates=32, width=16).to(
        device
    )
    alone = case.run(lc.clock_gsu, 100)
    copies = 40
    many = lc.clock_gsu(
        case.query.expand(copies, -1, -1), case.keys.expand(copies, -1, -1),
        case.key_time.expand(copies, -1), case.query_time.expand(copies), case.mlp, 100,
    )  # fmt: skip
    for copy in (0, copies - 1):
        assert_bitwise(
            lc.TopK(many.scores[copy], many.indices[copy]),
            lc.TopK(alone.scores[0], alone.indices[0]),
        )


@pytest.mark.parametrize("dtype", FLOATS)
def test_request_of_500(device: str, dtype: torch.dtype) -> None:
    """Of the size of a real one, at the best SIMD level."""
    case = make_case("candidates", dtype, counts=(2_000,), candidates=500, width=128)
    ours = case.to(device).run(lc.clock_gsu, 100)
    fine, rival = rows(case.double()), rows(case)
    check_values(case, device)
    for q in range(0, 500, 7):
        assert_selection(ours.scores[0, q], ours.indices[0, q], fine[q], rival[q], f"query {q}")


@pytest.mark.parametrize("k", [257, 2048])
def test_many_of_many(level: str, device: str, k: int) -> None:
    exact(of_scores(patterns(9_000)["random"], torch.float16, candidates=16), k, device)


def test_a_long_history(device: str) -> None:
    case = of_scores(patterns(16_000)["random"].repeat(13), torch.float16, candidates=16)
    exact(case, 100, device)
