# SPDX-License-Identifier: Apache-2.0
"""What only the CUDA kernels do: long rows in chunks and parts, values that do not fit, counters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import emulator
import pytest
import torch
from cases import FLOATS, NOWHERE, Case, make_case
from test_gsu_score import check_gradients
from tolerance import assert_bitwise, assert_selection

import longclock as lc

LARGE = [1, 100, 10_000, 100_000]


@contextmanager
def profile(emulated: bool, **options: object) -> Iterator[None]:
    """Another architecture or schedule; a GPU has the one it has."""
    if emulated:
        with emulator.options(**options):
            yield
    else:
        yield


def exact(case: Case, k: int, device: str) -> None:
    ours, expected = case.to(device).run(lc.clock_gsu, k), case.run(lc.reference.clock_gsu, k)
    assert torch.equal(ours.indices.cpu(), expected.indices)
    assert torch.equal(ours.scores.cpu(), expected.scores)


@pytest.mark.parametrize("sm", [75, 80, 90])
@pytest.mark.parametrize("k", [1, 100, 2048])
@pytest.mark.parametrize("m", LARGE)
def test_search_of_any_length(device: str, emulated: bool, m: int, k: int, sm: int) -> None:
    """Integers, so that scores tie across chunks and parts, and nothing is a matter of rounding."""
    layouts = ("dense", "ragged", "windows") if m < 100_000 else ("dense",)
    with profile(emulated, sm=sm):
        for layout, dtype in zip(layouts, FLOATS, strict=False):
            counts = (m, m // 3, 7) if m < 100_000 else (m,)
            exact(make_case(layout, dtype, counts=counts, width=8, integers=True), k, device)


@pytest.mark.parametrize("sm", [80, 90])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [64, 100, 128])
def test_search_of_10_000(
    device: str, emulated: bool, width: int, dtype: torch.dtype, sm: int
) -> None:
    case = make_case("dense", dtype, counts=(10_000, 9_999), width=width, table=width == 64)
    with profile(emulated, sm=sm):
        ours = case.to(device).run(lc.clock_gsu, 100)
    fine, rival = case.double().run(lc.reference.gsu_score), case.run(lc.reference.gsu_score)
    for s in range(2):
        assert_selection(ours.scores[s], ours.indices[s], fine[s], rival[s])


def patterns(m: int) -> dict[str, torch.Tensor]:
    ascending = torch.arange(m, dtype=torch.float32)
    hot = torch.zeros(m)
    hot[m // 2 : m // 2 + 500] = torch.rand(min(500, m - m // 2)) + 1
    last_bits = (1.0 + torch.randint(0, 3, (m,)) * 2.0**-23).to(torch.float32)
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0])
    return {
        "random": torch.randn(m), "equal": torch.full((m,), 2.5), "ascending": ascending,
        "descending": ascending.flip(0), "hot": hot, "last bits": last_bits,
        "odd": odd[torch.randint(0, 5, (m,))],
    }  # fmt: skip


@pytest.mark.parametrize("k", [1, 100, 2048])
@pytest.mark.parametrize("m", LARGE)
def test_topk_of_any_length_and_pattern(device: str, m: int, k: int) -> None:
    for name, row in patterns(m).items():
        for dtype in FLOATS if m < 100_000 else FLOATS[:1]:
            scores = row.to(dtype)[None]
            ours, expected = lc.block_topk(scores.to(device), k), lc.reference.block_topk(scores, k)
            assert torch.equal(ours.indices.cpu(), expected.indices), name
            torch.testing.assert_close(
                ours.scores.cpu(), expected.scores, rtol=0, atol=0, equal_nan=True
            )


@pytest.mark.parametrize("k", [100, 2048])
def test_parts_give_the_bits_of_the_whole(device: str, k: int) -> None:
    """One row is cut into parts; among many it is not."""
    row = (torch.randn(9_000, device=device) * 50).round()
    whole, alone = lc.block_topk(row.expand(700, -1), k), lc.block_topk(row[None], k)
    assert_bitwise(alone, (whole.scores[:1], whole.indices[:1]))


@pytest.mark.parametrize("layout", ["dense", "candidates", "ragged_many", "windows"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_gradients_of_long_sequences(device: str, layout: str, dtype: torch.dtype) -> None:
    case = make_case(layout, dtype, counts=(9_000, 4_097), width=40, candidates=2)
    check_gradients(case, device)


@pytest.mark.parametrize("layout", ["candidates", "ragged_many"])
@pytest.mark.parametrize("candidates", [31, 70])
def test_gradients_of_many_candidates(device: str, layout: str, candidates: int) -> None:
    """Blocks of several queries, with a last one that is not full; sums of every eighth query."""
    case = make_case(layout, counts=(300, 9), width=130, candidates=candidates)
    if layout == "ragged_many":
        case.query = torch.randn(candidates, 130)
        case = case.with_layout(query_offsets=torch.tensor([0, candidates - 5, candidates]))
    check_gradients(case, device)


def query_grad(case: Case, grad: torch.Tensor) -> torch.Tensor:
    case = case.trained()
    (found,) = torch.autograd.grad(case.score(lc.gsu_score), case.query, grad)
    return found


@pytest.mark.parametrize(("m", "copies"), [(700, 1_100), (2_100, 300), (9_000, 20)])
def test_a_query_gradient_does_not_depend_on_its_batch(device: str, m: int, copies: int) -> None:
    """Alone its behaviours are shared out over blocks; among many they are not, or among fewer."""
    case = make_case("dense", counts=(m,), width=8).to(device)
    grad = torch.randn(1, m, device=device)
    many = replace(case, mlp=()).map(lambda x: x.expand(copies, *x.shape[1:]))
    many.mlp = case.mlp
    alone = query_grad(case, grad)
    assert_bitwise(query_grad(many, grad.expand(copies, -1)), alone.expand(copies, -1))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [9, 40, 136])
def test_a_query_gradient_does_not_depend_on_its_layout(
    device: str, width: int, dtype: torch.dtype
) -> None:
    """Nor on the other candidates, with which it shares what a block reads."""
    case = make_case("candidates", dtype, counts=(2_100,), width=width, candidates=6).to(device)
    grad = torch.randn(1, 6, 2_100, device=device)
    together = query_grad(case, grad)
    ends = torch.full((6,), 2_100, device=device)
    flat = Case(
        case.query[0], case.keys[0], case.key_time[0], case.query_time.expand(6), case.mlp,
        {"starts": torch.zeros_like(ends), "ends": ends},
    )  # fmt: skip
    assert_bitwise(query_grad(flat, grad.flatten()), together[0])
    alone = Case(case.query[:, 4], case.keys, case.key_time, case.query_time, case.mlp, {})
    assert_bitwise(query_grad(alone, grad[:, 4]), together[:, 4])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [9, 12, 32])
def test_a_wider_query_is_rounded_for_the_gradient_of_keys(
    device: str, width: int, dtype: torch.dtype
) -> None:
    case = make_case("candidates", dtype, counts=(40, 3), width=width, candidates=11).to(device)
    case.query = torch.randn_like(case.query, dtype=torch.float32)
    rounded = replace(case, query=case.query.to(dtype))
    grad = torch.randn(2, 11, 40, device=device)

    def key_grad(case: Case) -> torch.Tensor:
        case = case.trained()
        (found,) = torch.autograd.grad(case.score(lc.gsu_score), case.keys, grad)
        return found

    assert_bitwise(key_grad(case), key_grad(rounded))


def test_the_gradient_of_s_does_not_depend_on_who_adds_it(device: str) -> None:
    """Many queries a sequence: threads share a behaviour. Few on average: one has all of them."""
    case = make_case("ragged_many", counts=(1_000,), width=8, candidates=21).to(device)
    case.query = torch.randn(21, 8, device=device)
    grad = torch.randn(21_000, device=device)

    def mlp_grad(empty: int) -> list[torch.Tensor]:
        """With sequences that have no behaviours and no queries behind the one."""
        ours = case.with_layout(
            offsets=torch.tensor([0, *[1_000] * (empty + 1)], device=device),
            query_offsets=torch.tensor([0, *[21] * (empty + 1)], device=device),
        ).trained()
        ours.query_time = case.query_time.expand(empty + 1)
        return list(torch.autograd.grad(ours.score(lc.gsu_score), ours.mlp, grad))

    assert_bitwise(mlp_grad(empty=9), mlp_grad(empty=0))


def search_and_train(case: Case) -> Callable[[], list[torch.Tensor]]:
    """Selections, scores and every gradient of a case."""
    case = case.trained()
    grad = torch.randn_like(case.score(lc.gsu_score).detach())

    def run() -> list[torch.Tensor]:
        scores = case.score(lc.gsu_score)
        return [
            *case.run(lc.clock_gsu, 100), *lc.block_topk(scores.detach(), 50), scores,
            *torch.autograd.grad(scores, list(case.leaves().values()), grad),
        ]  # fmt: skip

    return run


@pytest.mark.parametrize("layout", ["dense", "ragged_many", "windows"])
def test_schedules_give_the_same_bits(device: str, emulated: bool, layout: str) -> None:
    case = make_case(
        layout, torch.float16, counts=(3_000, 1, 700), width=32, table=True, mask=True
    )  # fmt: skip
    run = search_and_train(case.to(device))
    # One profile a process: CUB keeps what it learned of the device at its first sort.
    first = run()
    for seed in (1, 2, 3):
        with profile(emulated, seed=seed, threads=seed):
            assert_bitwise(run(), first)


@pytest.mark.parametrize("layout", ["dense", "ragged_many", "windows"])
def test_profiles_give_the_same_bits(device: str, emulated: bool, layout: str) -> None:
    case = make_case(layout, torch.float16, counts=(3_000, 1, 700), width=32, mask=True)
    run = search_and_train(case.to(device))
    first = run()
    for sm in (80, 86, 89, 90, 100, 120):
        with profile(emulated, sm=sm):
            assert_bitwise(run(), first)


def misfits() -> dict[str, Case]:
    dense, ragged = make_case("dense", counts=(64, 5)), make_case("ragged_many", counts=(64, 5, 9))
    windows, table = (
        make_case("windows", counts=(64, 5)),
        make_case("dense", counts=(64, 5), table=True),
    )
    far = 2**40
    return {
        "lengths": dense.with_layout(lengths=torch.tensor([far, -far])),
        "offsets": ragged.with_layout(offsets=torch.tensor([-far, 70, 3, -5])),
        "query_offsets": ragged.with_layout(query_offsets=torch.tensor([far, -far, 0, 1])),
        "starts": windows.with_layout(starts=torch.tensor([far, -far, 60, 3])),
        "ends": windows.with_layout(ends=torch.tensor([far, -far, 3, 60])),
        "ids": table.with_layout(ids=torch.full((2, 64), NOWHERE)),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(misfits()))
def test_values_that_do_not_fit_read_nothing_out_of_bounds(device: str, name: str) -> None:
    """The emulator reports what they would read; on a GPU the sanitizer does."""
    case = misfits()[name]
    case.keys.nan_to_num_(0.0)
    case = case.to(device).trained()
    total = 40 if name not in ("lengths", "ids") else None
    case.run(lc.clock_gsu, 7)
    scores = case.run(lc.gsu_score, total=total)
    scores.backward(torch.ones_like(scores))
    if name == "ids":
        assert scores[0].isnan().all()
        assert scores[1, 5:].eq(-torch.inf).all()


def test_only_the_row_of_an_unknown_id_is_nan(device: str) -> None:
    case = make_case("dense", counts=(40, 40), table=True, width=16)
    ids = case.layout["ids"]
    ids[0, 3], ids[1, 39] = -1, len(case.keys)
    scores = case.to(device).run(lc.gsu_score).cpu()
    expected = torch.zeros(2, 40, dtype=torch.bool)
    expected[0, 3] = expected[1, 39] = True
    assert torch.equal(scores.isnan(), expected)
    assert case.to(device).run(lc.clock_gsu, 1).indices.flatten().tolist() == [3, 39]


def asserted(case: Case, monkeypatch: pytest.MonkeyPatch) -> str:
    """The message of the assertion that ends a search with LONGCLOCK_CHECK=1 on the emulator."""
    monkeypatch.setenv("LONGCLOCK_CHECK", "1")
    with pytest.raises(RuntimeError, match="CUDA error"), emulator.options(print=0):
        case.run(lc.clock_gsu, 7)
    (report, *_) = emulator.take_reports()
    assert report["kind"] == "assertion"
    return str(report["message"])


@pytest.mark.parametrize("name", list(misfits()))
def test_checks_on_request(
    emulator_only: None, device: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = asserted(misfits()[name].to(device), monkeypatch)
    assert {"ends": "starts and ends"}.get(name, name).split()[0] in message
