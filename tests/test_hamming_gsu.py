# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import LAYOUTS, Case, make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerance import assert_bitwise

import longclock as lc

DEAD: list[dict[str, bool]] = [{}, {"mask": True}, {"mask": True, "exclude_future": True}]


def hashed(case: Case, words: int, bits: int = 64) -> Case:
    """The case with hashes in place of floats, of which only ``bits`` bits a word can differ."""

    def hashes(rows: torch.Tensor) -> torch.Tensor:
        random = torch.randint(-(2**63), 2**63 - 1, (*rows.shape[:-1], words))
        return random >> (64 - bits)

    layout = {name: value for name, value in case.layout.items()
              if name not in ("clocks", "unit", "scale")}  # fmt: skip
    return Case(
        hashes(case.query), hashes(case.keys), case.key_time, case.query_time, case.mlp, layout
    )


def run(case: Case, op: Any, k: int, **options: Any) -> lc.TopK:
    found: lc.TopK = op(
        case.query, case.keys, case.key_time, case.query_time, k, **(case.layout | options)
    )
    return found


def check(case: Case, k: int, device: str) -> None:
    ours, exact = run(case.to(device), lc.hamming_gsu, k), run(case, lc.reference.hamming_gsu, k)
    assert ours.scores.dtype == exact.scores.dtype == torch.float32
    assert ours.indices.dtype == exact.indices.dtype == torch.int64
    assert_bitwise(tuple(part.cpu() for part in ours), tuple(exact))


def test_the_reference_is_the_definition() -> None:
    query = [0b1011, -1]
    keys = [[0b1011, -1], [0b0011, -1], [0b1011, 0], [0b1111, -1], [-1, 1]]
    top = lc.reference.hamming_gsu(
        torch.tensor([query]),
        torch.tensor([keys]),
        torch.zeros(1, 5).long(),
        torch.zeros(1).long(),
        6,
    )
    assert top.indices.tolist() == [[0, 1, 3, 2, 4, -1]]
    assert not top.scores[0, :1].signbit()
    assert top.scores.tolist() == [[0, -1, -1, -64, -61 - 63, -torch.inf]]


@pytest.mark.parametrize("words", [1, 2, 3, 5])
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dead", DEAD)
def test_selection(
    level: str, device: str, layout: str, table: bool, words: int, dead: dict[str, bool]
) -> None:
    case = make_case(layout, table=table, counts=(400, 0, 30, 77), **dead)
    for k, bits in ((1, 64), (20, 64), (100, 3)):  # few bits: hardly more than ties
        check(hashed(case, words, bits), k, device)


@pytest.mark.parametrize("k", [0, 1, 99, 100, 2048])
@pytest.mark.parametrize(
    "counts", [(), (0,), (1, 0), (99, 100, 101), (2047, 2500), (2048, 2049), (10_240, 10_241)]
)
def test_sizes(level: str, device: str, k: int, counts: tuple[int, ...]) -> None:
    for layout in ("dense", "ragged", "windows"):
        check(hashed(make_case(layout, counts=counts), 1, 20), k, device)


@pytest.mark.parametrize("words", [0, 40])
def test_no_word_and_many(level: str, device: str, words: int) -> None:
    check(hashed(make_case("dense", counts=(300, 20), mask=True), words), 50, device)


@pytest.mark.parametrize("candidates", [0, 1, 2, 17, 300])
def test_candidates(level: str, device: str, candidates: int) -> None:
    case = make_case("candidates", candidates=candidates, counts=(60, 9), table=True)
    check(hashed(case, 1), 20, device)


def test_equal_and_ordered_distances(level: str, device: str) -> None:
    steps = [2**bits - 1 for bits in range(63)] + [2**63 - 1, -1]
    far = torch.tensor(steps).repeat_interleave(100)
    for keys in (far, far.flip(0), torch.full((6500,), -1), torch.zeros(6500).long()):
        case = Case(torch.zeros(1, 1).long(), keys[None, :, None], torch.zeros(1, 6500).long(),
                    torch.zeros(1).long(), ())  # fmt: skip
        for k in (100, 2048):
            check(case, k, device)


def test_not_contiguous(level: str, device: str) -> None:
    case = hashed(make_case("dense", counts=(200, 200)), 2).to(device)
    expected = run(case, lc.hamming_gsu, 9)
    wide = torch.randint(-9, 9, (200, 3, 4), device=device)
    wide[:, :2, ::2] = case.keys.transpose(0, 1)
    case.keys = wide[:, :2, ::2].transpose(0, 1)
    case.query = case.query.T.contiguous().T
    assert_bitwise(run(case, lc.hamming_gsu, 9), expected)
    wide = torch.randint(-9, 9, (2, 200, 5), device=device)  # rows apart, words together
    wide[..., 1:3] = case.keys
    case.keys = wide[..., 1:3]
    assert_bitwise(run(case, lc.hamming_gsu, 9), expected)


@given(st.lists(st.integers(0, 60), max_size=5), st.data())
@settings(max_examples=60, deadline=None)
def test_any_layout(device: str, counts: list[int], data: st.DataObject) -> None:
    case = make_case(
        data.draw(st.sampled_from(LAYOUTS)), counts=tuple(counts), table=data.draw(st.booleans()),
        mask=data.draw(st.booleans()), exclude_future=data.draw(st.booleans()),
        candidates=data.draw(st.integers(0, 4)),
    )  # fmt: skip
    words, bits = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 64))
    check(hashed(case, words, bits), data.draw(st.integers(0, 80)), device)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bitwise_repeatable(level: str, device: str, layout: str, same_at_any_threads) -> None:  # type: ignore[no-untyped-def]
    case = hashed(make_case(layout, counts=(3000, 1, 700, 500), table=True), 1).to(device)
    same_at_any_threads(lambda: run(case, lc.hamming_gsu, 100))


def test_a_long_history_in_parts(level: str, device: str, same_at_any_threads) -> None:  # type: ignore[no-untyped-def]
    for layout in ("dense", "ragged_many"):
        case = hashed(make_case(layout, counts=(9000, 60_000)), 1, 24)
        check(case, 100, device)
        same_at_any_threads(lambda case=case: run(case.to(device), lc.hamming_gsu, 100))


def test_finds_what_the_product_of_signs_does(level: str, device: str) -> None:
    """Vectors of -1 and 1 have the product ``bits - 2 distance``."""
    case = make_case("dense", torch.bfloat16, counts=(500, 40), width=48, poison=False)
    flat = tuple(torch.zeros_like(weight) for weight in case.mlp)
    case.query, case.keys, case.mlp = case.query.sign(), case.keys.sign(), flat
    case.query[case.query == 0] = case.keys[case.keys == 0] = -1.0
    by_signs = case.to(device).run(lc.clock_gsu, 30, scale=1.0)
    case.query, case.keys = lc.pack_signs(case.query), lc.pack_signs(case.keys)
    del case.layout["clocks"]
    ours = run(case.to(device), lc.hamming_gsu, 30)
    assert torch.equal(ours.indices, by_signs.indices)
    assert torch.equal(48 + 2 * ours.scores, by_signs.scores)


def test_errors(device: str, checks_data: bool) -> None:
    case = hashed(make_case("dense", counts=(32, 32)), 2).to(device)
    arguments = (case.query, case.keys, case.key_time, case.query_time)
    with pytest.raises(
        ValueError, match=r"^hamming_gsu: keys must be int64, .* got float32; pack_signs makes them"
    ):
        lc.hamming_gsu(case.query, case.keys.float(), *arguments[2:])
    with pytest.raises(ValueError, match=r"^hamming_gsu: query must be int64, .* got int32"):
        lc.hamming_gsu(case.query.int(), *arguments[1:])
    with pytest.raises(ValueError, match=r"^hamming_gsu: query must have D = 2 .* got \[2, 1\]"):
        lc.hamming_gsu(case.query[:, 1:], *arguments[1:])
    with pytest.raises(ValueError, match=r"^hamming_gsu: key_time must have shape \[S, M\] = "):
        lc.hamming_gsu(*arguments[:2], case.key_time[:, 1:], case.query_time)
    with pytest.raises(ValueError, match=r"^hamming_gsu: starts must come with ends"):
        lc.hamming_gsu(*arguments, starts=case.query_time)
    for k in (-1, 2049):
        with pytest.raises(ValueError, match=f"^hamming_gsu: k must be from 0 to 2048, got {k}; "):
            lc.hamming_gsu(*arguments, k)
    if checks_data:
        with pytest.raises(ValueError, match=r"^hamming_gsu: lengths must be from 0 to M = 32"):
            lc.hamming_gsu(*arguments, lengths=torch.tensor([33, 0]))
        with pytest.raises(ValueError, match=r"^hamming_gsu: ids must be"):
            lc.hamming_gsu(case.query, case.keys[0], *arguments[2:], ids=case.key_time * 0 + 32)
