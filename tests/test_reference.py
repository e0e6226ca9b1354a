# SPDX-License-Identifier: Apache-2.0
"""The reference against definitions written as loops over Python numbers, and its gradients."""

from __future__ import annotations

import math
from functools import cmp_to_key

import pytest
import torch
from cases import LAYOUTS, Case, make_case
from esu_cases import EsuCase, make_esu

import longclock.reference as ref
from longclock import Lookup


def s_of(delta: int, mlp: tuple[torch.Tensor, ...], unit: float) -> float:
    x = delta / unit
    phi = [x, math.sqrt(x), x * x, math.log(x + 1)]
    w1, b1, w2, b2 = (weight.tolist() for weight in mlp)
    hidden = [max(sum(w * f for w, f in zip(row, phi, strict=True)) + b, 0.0)
              for row, b in zip(w1, b1, strict=True)]  # fmt: skip
    return sum(w * h for w, h in zip(w2, hidden, strict=True)) + b2


def delta_of(a: int, b: int, period: int) -> int:
    x = abs(a % period - b % period)
    return min(x, period - x)


def windows_of(case: Case) -> list[tuple[torch.Tensor, int, list[tuple[int, int | None]]]]:
    """Each query with its time, and (index, flat position or None where it does not count)."""
    layout, found = case.layout, []
    flat = case.key_time.dim() == 1
    mask = layout.get("mask", torch.ones_like(case.key_time, dtype=torch.bool)).flatten().tolist()
    times = case.key_time.flatten().tolist()

    def add(query: torch.Tensor, now: int, start: int, end: int, length: int) -> None:
        rows: list[tuple[int, int | None]] = []
        for m, at in enumerate(range(start, end)):
            late = layout.get("exclude_future", False) and times[at] >= now
            rows.append((m, at if m < length and mask[at] and not late else None))
        found.append((query, now, rows))

    if not flat:
        width = case.key_time.shape[1]
        for s, now in enumerate(case.query_time.tolist()):
            for query in case.query[s].view(-1, case.query.shape[-1]):
                add(query, now, s * width, (s + 1) * width, int(layout["lengths"][s]))
    else:
        offsets = layout.get("offsets")
        starts = layout["starts"] if offsets is None else offsets[:-1]
        ends = layout["ends"] if offsets is None else offsets[1:]
        bounds = layout.get("query_offsets", torch.arange(len(starts) + 1)).tolist()
        for s, now in enumerate(case.query_time.tolist()):
            start, end = int(starts[s]), int(ends[s])
            for q in range(bounds[s], bounds[s + 1]):
                add(case.query[q], now, start, end, end - start)
    return found


def score_of(case: Case, query: torch.Tensor, now: int, at: int) -> float:
    rows = case.keys.flatten(0, -2)
    row = rows[at] if "ids" not in case.layout else rows[case.layout["ids"].flatten()[at]]
    dot = sum(a * b for a, b in zip(row.tolist(), query.tolist(), strict=True))
    delta = delta_of(int(case.key_time.flatten()[at]), now, case.layout["clocks"])
    return dot / math.sqrt(len(query)) + s_of(delta, case.mlp, 3600.0)


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_and_selection_by_definition(layout: str, table: bool) -> None:
    case = make_case(
        layout, table=table, counts=(7, 0, 12, 3), width=3, mask=True, exclude_future=True
    ).double()
    expected, top, k = [], [], 4
    for query, now, rows in windows_of(case):
        scores = [-math.inf if at is None else score_of(case, query, now, at) for _, at in rows]
        best = sorted((m for m, at in rows if at is not None), key=lambda m: (-scores[m], m))[:k]
        expected += scores
        top.append(best + [-1] * (k - len(best)))
    scores = case.run(ref.gsu_score)
    torch.testing.assert_close(scores.flatten(), torch.tensor(expected, dtype=torch.float64))
    found = case.run(ref.clock_gsu, k)
    assert found.indices.reshape(-1, k).tolist() == top
    picked = found.indices >= 0
    assert (found.scores[~picked] == -torch.inf).all()
    assert found.scores[picked].isfinite().all()


def order_of(row: list[float], length: int, k: int) -> list[int]:
    def compare(i: int, j: int) -> int:
        a, b = row[i], row[j]
        if math.isnan(a) or math.isnan(b):
            return int(math.isnan(b)) - int(math.isnan(a)) or i - j
        return (a < b) - (a > b) or i - j

    order = sorted(range(length), key=cmp_to_key(compare))[:k]
    return order + [-1] * (k - len(order))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_topk_by_definition(dtype: torch.dtype) -> None:
    odd = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 2.0]).to(dtype)
    for m in (0, 1, 5, 40):
        scores = odd[torch.randint(0, len(odd), (20, m))]
        lengths = torch.randint(0, m + 1, (20,))
        for k in (0, 1, 7, 50):
            found = ref.block_topk(scores, k, lengths)
            assert found.scores.dtype == dtype
            for row, length, indices in zip(
                scores.tolist(), lengths.tolist(), found.indices.tolist(), strict=True
            ):
                assert indices == order_of(row, length, k)
            batch = torch.func.vmap(ref.block_topk, in_dims=(0, None, 0))(scores, k, lengths)
            assert torch.equal(batch.indices, found.indices)


@pytest.mark.parametrize("table", [False, True])
def test_attention_by_definition(table: bool) -> None:
    case = make_esu(table=table, queries=4, heads=2, k=6, width=3).double()
    context = case.run(ref.esu_attention)
    assert case.valid is not None
    for q in range(4):
        places = case.valid[q].nonzero().flatten().tolist()
        for head in range(2):
            total, weights = [0.0] * 7, []
            for at in places:
                z = case.z[q, at] if case.ids is None else case.z[case.ids[q, at]]
                delta = delta_of(int(case.z_time[q, at]), int(case.query_time[q]), 86400)
                alpha = float(case.u[q, head] @ z) + s_of(delta, case.mlp, 3600.0)
                x = delta / 3600.0
                weights.append((alpha, [*z.tolist(), x, math.sqrt(x), x * x, math.log(x + 1)]))
            for alpha, values in weights:
                p = 1 / sum(math.exp(other - alpha) for other, _ in weights)
                total = [t + p * v for t, v in zip(total, values, strict=True)]
            torch.testing.assert_close(context[q, head].tolist(), total)


def gradcheck(case: Case | EsuCase, op: object, **options: object) -> None:
    case = case.double().trained()
    names = list(case.leaves())

    def function(*leaves: torch.Tensor) -> torch.Tensor:
        held = dict(zip(names, leaves, strict=True))
        for name, value in list(held.items())[:2]:
            setattr(case, name, value)
        case.mlp = tuple(leaves[2:])
        result = case.run(op, **options)  # type: ignore[operator]
        return result.masked_fill(result == -torch.inf, 0)

    torch.autograd.gradcheck(function, tuple(case.leaves().values()))


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradcheck_of_scores(layout: str, table: bool) -> None:
    case = make_case(
        layout, table=table, counts=(3, 0, 4), width=2, candidates=2, hidden=3, mask=True
    )
    if table or layout in ("dense", "candidates"):  # numerical differences cannot step over NaN
        case.keys.nan_to_num_(0.0)
    gradcheck(case.map(lambda x: x.nan_to_num(0) if x.is_floating_point() else x), ref.gsu_score)


@pytest.mark.parametrize("table", [False, True])
def test_gradcheck_of_attention(table: bool) -> None:
    gradcheck(
        make_esu(table=table, queries=3, heads=2, k=4, width=2, hidden=3, poison=False),
        ref.esu_attention,
    )


def test_gradcheck_of_topk_and_similarity() -> None:
    scores = torch.randn(3, 9, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([9, 0, 2])
    torch.autograd.gradcheck(
        lambda x: ref.block_topk(x, 4, lengths).scores.nan_to_num(neginf=0.0), (scores,)
    )
    mlp = [weight.double().requires_grad_() for weight in make_case(hidden=3).mlp]
    delta = torch.randint(0, 43201, (11,))
    torch.autograd.gradcheck(lambda *w: ref.time_similarity(delta, *w), tuple(mlp))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_poison_reaches_no_gradient(bad: float) -> None:
    for table in (False, True):
        case = make_case("dense", table=table)
        case.keys = torch.where(case.keys.isnan(), bad, case.keys)
        case = case.trained()
        scores = case.run(ref.gsu_score)
        scores.backward(torch.ones_like(scores))
        esu = make_esu(table=table).trained()
        esu.run(ref.esu_attention).sum().backward()
        for leaf in (*case.leaves().values(), *esu.leaves().values()):
            assert leaf.grad is not None
            assert leaf.grad.isfinite().all()


def test_nothing_valid_is_zero_with_zero_gradients() -> None:
    for k in (0, 5):
        case = make_esu(queries=1, k=k, some_invalid=k > 0)
        if case.valid is not None:
            case.valid[:] = False
        case = case.double().trained()
        context = case.run(ref.esu_attention)
        assert (context == 0).all()
        context.sum().backward()
        assert all((leaf.grad == 0).all() for leaf in case.leaves().values())
    table = Lookup(torch.zeros(0, 3), torch.full((2, 4), -1))
    nothing = torch.zeros(2, 4, dtype=torch.bool)
    times = torch.zeros(2, 4, dtype=torch.int64)
    mlp = make_case().mlp
    assert (
        ref.esu_attention(torch.ones(2, 1, 3), table, times, times[:, 0], mlp, nothing) == 0
    ).all()
