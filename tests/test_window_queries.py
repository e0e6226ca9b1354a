# SPDX-License-Identifier: Apache-2.0
"""Windows with query_offsets: the candidates of a request share a window, and find what each would by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import FLOATS, Case, make_case
from test_hamming_gsu import hashed
from test_long_term_interest_clock import COUNTS, H, L, build, close, flat, make_batch
from tolerance import assert_bitwise, assert_close

import longclock as lc

# Overlapping windows (of each sequence its whole and its last two thirds), empty ones, and ones without queries.
COUNTS_OF_WINDOWS = (37, 0, 5, 300)


def one_each(case: Case) -> Case:
    """The same queries, each with a window of its own."""
    many = case.layout["query_offsets"].diff().long()

    def repeated(values: torch.Tensor) -> torch.Tensor:
        return values.repeat_interleave(many)

    layout = {**case.layout, "starts": repeated(case.layout["starts"]), "ends": repeated(case.layout["ends"])}  # fmt: skip
    del layout["query_offsets"]
    return Case(case.query, case.keys, case.key_time, repeated(case.query_time), case.mlp, layout)


def test_the_cases_are_what_they_should_be() -> None:
    case = make_case("windows_many", counts=COUNTS_OF_WINDOWS)
    many, starts, ends = (case.layout[name] for name in ("query_offsets", "starts", "ends"))
    assert many.tolist() == [0, 0, 1, 3, 3, 4, 6, 6, 7]
    assert ((starts == ends) & (many.diff() > 0)).any()  # an empty window that a query sees
    assert ((starts < ends) & (many.diff() == 0)).any()  # a window that no query sees
    assert (starts[4:] > starts[:4]).any()
    assert (ends[4:] == ends[:4]).all()  # windows overlap


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("dead", [{}, {"mask": True, "exclude_future": True}])
@pytest.mark.parametrize("width", [7, 32])
def test_a_search_finds_what_each_query_does_alone(
    level: str, device: str, dtype: torch.dtype, table: bool, dead: dict[str, bool], width: int
) -> None:
    """To the bit where every sum is exact; else products of many queries at once are added up in another order."""
    case = make_case(
        "windows_many", dtype, counts=COUNTS_OF_WINDOWS, table=table, width=width, integers=True, **dead
    ).to(device)  # fmt: skip
    for k in (1, 20, 400):
        assert_bitwise(case.run(lc.clock_gsu, k), one_each(case).run(lc.clock_gsu, k))
    assert_bitwise(case.score(lc.gsu_score), one_each(case).score(lc.gsu_score))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("width", [7, 32])
def test_windows_that_are_the_sequences_have_the_bits_of_ragged(
    level: str, device: str, emulated: bool, dtype: torch.dtype, table: bool, width: int
) -> None:
    """On CUDA all but the gradients of s, whose sums over behaviours begin elsewhere."""
    ragged = make_case("ragged_many", dtype, counts=COUNTS_OF_WINDOWS, table=table, width=width)
    layout = {name: value for name, value in ragged.layout.items() if name != "offsets"}
    offsets = ragged.layout["offsets"]
    windows = Case(
        ragged.query, ragged.keys, ragged.key_time, ragged.query_time, ragged.mlp,
        layout | {"starts": offsets[:-1], "ends": offsets[1:]},
    )  # fmt: skip
    results = []
    for case in (ragged, windows):
        trained = case.to(device).trained()
        scores = trained.score(lc.gsu_score)
        grad = torch.linspace(-1, 1, len(scores), device=device)
        leaves = trained.leaves()
        gradients = dict(zip(leaves, torch.autograd.grad(scores, list(leaves.values()), grad), strict=True))  # fmt: skip
        of_s = [gradients.pop(name) for name in list(gradients) if name not in ("query", "keys")]
        results.append(
            ([*case.to(device).run(lc.clock_gsu, 20), scores, *gradients.values()], of_s)
        )
    (values, of_s), (others, others_of_s) = results
    assert_bitwise(values, others)
    assert len(of_s) == 4
    if device == "cpu" and not emulated:
        assert_bitwise(of_s, others_of_s)
    else:
        torch.testing.assert_close(of_s, others_of_s, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("words", [1, 3])
@pytest.mark.parametrize("dead", [{}, {"mask": True, "exclude_future": True}])
def test_hashes_find_what_each_query_does_alone(
    level: str, device: str, table: bool, words: int, dead: dict[str, bool]
) -> None:
    case = make_case("windows_many", counts=COUNTS_OF_WINDOWS, table=table, **dead)
    for bits in (3, 64):  # few bits: hardly more than ties
        shared = hashed(case, words, bits).to(device)
        alone = one_each(shared)
        found, expected = (
            lc.hamming_gsu(c.query, c.keys, c.key_time, c.query_time, 20, **c.layout)
            for c in (shared, alone)
        )
        assert_bitwise(found, expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("dead", [{}, {"mask": True, "exclude_future": True}])
@pytest.mark.parametrize("width", [7, 32])
def test_scores_and_their_gradients_are_those_of_each_query_alone(
    level: str, device: str, dtype: torch.dtype, table: bool, dead: dict[str, bool], width: int
) -> None:
    case = make_case("windows_many", dtype, counts=COUNTS_OF_WINDOWS, table=table, width=width, **dead)  # fmt: skip
    ours = case.to(device).trained()
    alone = one_each(case).to(device).trained()
    exact = case.double().trained()
    scores, expected = ours.score(lc.gsu_score), alone.score(lc.gsu_score)
    assert_close(scores, case.double().run(lc.reference.gsu_score), expected.cpu())
    assert len(scores) == case.total() == one_each(case).total()
    grad = torch.randn(scores.shape)
    scores.backward(grad.to(device))
    expected.backward(grad.to(device))
    exact.run(lc.reference.gsu_score).backward(grad.double())
    for name, leaf in ours.leaves().items():
        mine, other, fine = leaf.grad, alone.leaves()[name].grad, exact.leaves()[name].grad
        assert mine is not None
        assert other is not None
        assert fine is not None
        # Rows and weights are added up over the queries of a window, in whatever order.
        terms = 1 if name == "query" else scores.numel()
        assert_close(mine, fine, other.cpu(), name, terms)


def test_the_reference_says_the_same_of_each_query_alone() -> None:
    case = make_case("windows_many", counts=COUNTS_OF_WINDOWS, mask=True).double()
    alone = one_each(case)
    torch.testing.assert_close(case.run(lc.reference.gsu_score), alone.run(lc.reference.gsu_score))
    found, expected = (c.run(lc.reference.clock_gsu, 20) for c in (case, alone))
    assert torch.equal(found.indices, expected.indices)


@pytest.mark.parametrize("backend", ["compiled", "reference"])
@pytest.mark.parametrize("k", [4, None])
@pytest.mark.parametrize("lookup", [False, True])
def test_the_module(device: str, backend: str, k: int | None, lookup: bool) -> None:
    batch, module = make_batch(device), build(device, backend=backend)
    module.k = k
    rows, times, offsets = flat(batch)
    starts, ends = offsets[:-1].repeat(2), offsets[1:].repeat(2)
    starts[4:] += (ends - starts)[4:] // 3
    many = torch.tensor([0, 2, 0, 1, 3, 0, 2, 1], device=device)
    now = torch.randint(0, 10**9, (8,), device=device)
    candidate = torch.randn(9, H, device=device)
    if lookup:
        ids = torch.randperm(len(rows), device=device)
        rows = lc.Lookup(rows[ids.argsort()].clone().requires_grad_(), ids)
    else:
        rows = rows.clone().requires_grad_()
    options: dict[str, Any] = {} if k is not None else {"longest": max(COUNTS)}
    edges = torch.cat([many.new_zeros(1), many.cumsum(0)])
    shared = lc.History.windows(rows, times, starts, ends, query_offsets=edges)
    alone = lc.History.windows(
        rows, times, starts.repeat_interleave(many), ends.repeat_interleave(many)
    )
    leaves = [shared.table, *module.parameters()]
    results = []
    for history, when in ((shared, now), (alone, now.repeat_interleave(many))):
        v = module(candidate, history, when, **options)
        assert v.shape == (9, 9)
        results.append([v, *torch.autograd.grad(v.square().sum(), leaves)])
    assert_bitwise(results[0][0], results[1][0])
    for mine, other in zip(*results, strict=True):
        close(mine, other)
    assert shared.table.shape[-1] == L


@pytest.mark.parametrize("op", ["clock_gsu", "gsu_score"])
def test_no_window_and_no_query(device: str, op: str) -> None:
    nothing = torch.zeros(0, dtype=torch.int64, device=device)
    edge = torch.zeros(1, dtype=torch.int64, device=device)
    rows, times = torch.randn(5, 4, device=device), torch.zeros(5, dtype=torch.int64, device=device)
    mlp, query = lc.TimeSimilarity().to(device), torch.randn(0, 4, device=device)
    total = {"total": 0} if op == "gsu_score" else {}
    for starts, many in ((nothing, edge), (times[:2], times[:3])):
        found = getattr(lc, op)(
            query, rows, times, starts, mlp, starts=starts, ends=starts + 5, query_offsets=many, **total
        )  # fmt: skip
        assert all(part.numel() == 0 for part in (found if op == "clock_gsu" else (found,)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_offsets": [0, 1, 4]}, "query_offsets must end at Q = 3, got 4"),
        ({"query_offsets": [1, 1, 3]}, "query_offsets must start at 0, got 1"),
        ({"query_offsets": [0, 4, 3]}, "query_offsets must not decrease, got 4 then 3 at 2"),
        ({"ends": [5, 6]}, "starts and ends must satisfy 0 <= start <= end <= T = 5, got 2 and 6 at 1"),
        ({"query_offsets": [0, 3]}, "query_offsets must have shape [S + 1] = [3] to match query_time [S], got [2]"),
        ({"ends": [5]}, "ends must have shape [S] = [2] to match query_time [S], got [1]"),
        ({"query_time": [0, 0, 0]}, "starts must have shape [S] = [3] to match query_time [S], got [2]"),
        ({"query_time": [[0, 0]]}, "query_time must have shape [S], got [1, 2]"),
        ({"starts": None}, "ends must come with starts (windows), got starts=None"),
        ({"starts": None, "ends": None},
         "query_offsets must come with offsets (ragged), or starts and ends (windows), got neither"),
        ({"query_offsets": None}, "query_time must have shape [Q] = [3] to match query, got [2]"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("op", ["clock_gsu", "gsu_score", "hamming_gsu"])
def test_mistakes(
    device: str, checks_data: bool, op: str, changes: dict[str, Any], message: str
) -> None:
    hashes = op == "hamming_gsu"
    given: dict[str, Any] = {
        "query": torch.randn(3, 4), "keys": torch.randn(5, 4), "key_time": torch.zeros(5).long(),
        "query_time": torch.zeros(2).long(), "starts": torch.tensor([0, 2]), "ends": torch.tensor([5, 4]),
        "query_offsets": torch.tensor([0, 1, 3]), **({} if hashes else {"mlp": lc.TimeSimilarity().to(device)}),
    }  # fmt: skip
    if hashes:
        given |= {"query": given["query"].long(), "keys": given["keys"].long()}
    wrong = given | {
        name: value if value is None else torch.tensor(value) for name, value in changes.items()
    }
    if not checks_data and (" at " in message or "start at" in message or "got 4" in message):
        return  # these depend on the data, which a CUDA op does not read on the host
    for function in (getattr(lc, op), getattr(lc.reference, op)):
        with pytest.raises(ValueError) as caught:
            function(**{name: value.to(device) if value is not None else None for name, value in wrong.items()})  # fmt: skip
        assert str(caught.value) == f"{op}: {message}"
