# SPDX-License-Identifier: Apache-2.0
"""Behaviours that are rows of several tables side by side: an item, and its features."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import FLOATS, LAYOUTS, Case, make_case, several_tables
from raw_error import RAW_ERROR
from test_clock_gsu import check as check_selection
from test_gsu_score import check_gradients, check_values
from tolerance import assert_bitwise
from torch import Tensor

import longclock as lc
from longclock.baselines import eta
from longclock.reference.gsu_score import rows_of

# Odd columns; whole pieces of 16 bytes, of one and of several lanes a row on CUDA; a table without columns.
WIDTHS = [(3, 2, 2), (16, 8, 8), (64, 32, 8), (0, 5, 8), (40, 0, 24)]
DEAD = [{}, {"mask": True, "exclude_future": True}]


def tables_case(layout: str, widths: tuple[int, ...] = (3, 2, 2), *args: Any, **given: Any) -> Case:
    return several_tables(make_case(layout, *args, width=sum(widths), **given), widths)


def joined(case: Case) -> Case:
    """The same behaviours with rows of their own."""
    history = history_of(case)
    dead = None if "ids" not in case.layout else case.layout["ids"][0] < 10**9
    layout = {name: value for name, value in case.layout.items() if name != "ids"}
    return Case(
        case.query, rows_of(history.rows, dead), case.key_time, case.query_time, case.mlp, layout
    )


def history_of(case: Case) -> lc.History:
    layout = {name: value for name, value in case.layout.items() if name in ("lengths", "offsets", "query_offsets", "starts", "ends", "mask")}  # fmt: skip
    return lc.History(lc.Lookup(case.keys, case.layout["ids"]), case.key_time, **layout)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dead", DEAD)
def test_scores_and_gradients(
    level: str, device: str, layout: str, dtype: torch.dtype, dead: dict[str, bool]
) -> None:
    case = tables_case(layout, (3, 2, 2), dtype, **dead)
    check_values(case, device)
    check_gradients(case, device)


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_widths(level: str, device: str, widths: tuple[int, ...], dtype: torch.dtype) -> None:
    for layout in ("dense", "candidates", "windows_many"):
        case = tables_case(layout, widths, dtype, counts=(300, 0, 40), candidates=20)
        check_values(case, device)
        check_selection(case, 30, device)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("k", [1, 20, 100])
def test_the_same_choice_as_of_joined_rows(level: str, device: str, layout: str, k: int) -> None:
    """Integers, whose products are exact: hardly more than ties."""
    for dtype in FLOATS:
        for candidates in (3, 20):
            case = tables_case(
                layout, (8, 4, 4), dtype, integers=True, mask=True, counts=(400, 0, 30, 77),
                candidates=candidates, poison=True,
            )  # fmt: skip
            ours = case.to(device).run(lc.clock_gsu, k)
            exact = joined(case).run(lc.reference.clock_gsu, k)
            assert torch.equal(ours.indices.cpu(), exact.indices)
            assert torch.equal(ours.scores.cpu(), exact.scores)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rows", [(4,), (150, 4), (151, 3), (256, 257), (1, 100, 30)])
def test_small_tables_of_many_candidates(
    level: str, device: str, rows: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Some of them looked up, of histories that are twice as long and of none: by both ops with the same bits."""
    case = make_case("candidates", dtype, width=9 + 3 * len(rows), counts=(600, 300, 0, 40), candidates=20, mask=True)  # fmt: skip
    assert isinstance(case.keys, Tensor)
    own = case.keys[..., :9].contiguous()
    small = tuple(torch.randn(n, 3).to(dtype) for n in rows)
    ids = tuple(torch.randint(n, case.key_time.shape) for n in rows)
    case = replace(case, keys=(own, *small), layout={**case.layout, "ids": (None, *ids)})
    check_values(case, device)
    check_selection(case, 30, device)
    case = case.to(device)
    found, scores = case.run(lc.clock_gsu, 30), case.run(lc.gsu_score)
    there = found.indices >= 0
    chosen = scores.gather(-1, found.indices.clamp(min=0))[there]
    if level != "device":  # where sums have another order in each op
        assert_bitwise(found.scores[there], chosen)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_reference_joins_them(layout: str) -> None:
    case = tables_case(layout, mask=True)
    case = case.double()
    for op, k in ((lc.reference.gsu_score, ()), (lc.reference.clock_gsu, (9,))):
        torch.testing.assert_close(case.run(op, *k), joined(case).run(op, *k))


def test_rows_of_their_own_before_a_table(device: str) -> None:
    """keys that lie as the behaviours do, also where sequences lie apart."""
    case = make_case("dense", width=5)
    keys = case.keys.repeat(1, 2, 1)[:, : case.key_time.shape[1]]
    table, ids = torch.randn(6, 3), torch.randint(6, case.key_time.shape)
    query = torch.randn(len(case.query), 8)
    several = Case(query, (keys, table), case.key_time, case.query_time, case.mlp, {**case.layout, "ids": (None, ids)})  # fmt: skip
    check_values(several, device)
    check_gradients(several, device)
    check_selection(several, 7, device)


def test_threads(same_at_any_threads: Callable[[Callable[[], object]], None]) -> None:
    case = tables_case("candidates", (32, 16, 16), counts=(5000, 3000), candidates=40)
    one = tables_case("dense", (32, 16, 16), counts=(20_000,))
    same_at_any_threads(
        lambda: (case.run(lc.clock_gsu, 50), one.run(lc.clock_gsu, 50), one.run(lc.gsu_score))
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [{}, {"k": None}, {"scoring": "precomputed"}, {"backend": "reference"}], ids=str)  # fmt: skip
def test_the_module_as_of_joined_rows(
    device: str, emulated: bool, layout: str, options: dict[str, Any]
) -> None:
    if emulated and "backend" in options:
        pytest.skip("plain PyTorch runs no kernel")
    case = tables_case(layout, counts=(37, 0, 20, 64)).to(device)
    one = joined(case)
    model = lc.LongTermInterestClock(7, 7, **{"k": 10, **options}).to(device)
    longest = {"longest": 64} if "k" in options and case.key_time.dim() == 1 else {}

    def results(case: Case, rows: Any) -> list[Tensor]:
        history = history_of(case)._replace(rows=rows) if "ids" in case.layout else lc.History(rows, case.key_time, **case.layout)  # fmt: skip
        out = model(case.query, history, case.query_time, **longest)
        return [out, *torch.autograd.grad(out.square().sum(), [model.w_b, model.w_q, model.w_v])]

    layout_of_one = {name: value for name, value in one.layout.items() if name != "clocks"}
    one.layout.clear()
    one.layout.update(layout_of_one)
    for ours, theirs in zip(results(case, history_of(case).rows), results(one, one.keys), strict=True):  # fmt: skip
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_eta_hashes_behaviours_as_joined_rows(device: str, layout: str, monkeypatch: Any) -> None:
    """Whole numbers, whose sums are exact: signs of another order of sums are the same."""
    monkeypatch.setattr(eta, "TOGETHER", 50)
    case = tables_case(layout, counts=(37, 0, 20, 64), integers=True, mask=True, poison=True).to(device)  # fmt: skip
    one = joined(case)
    model = eta.ETA(7, 7, k=10, hash_bits=100).to(device)
    with torch.no_grad():
        for weight in (model.w_b, model.w_q, model.rotations):
            weight.copy_(torch.randint(-3, 4, weight.shape))
    own = history_of(case)._replace(rows=one.keys)
    histories = history_of(case), own
    ours, theirs = (model.search(case.query, each, case.query_time) for each in histories)
    assert torch.equal(ours, theirs)
    stored = model.project(one.keys)
    assert torch.equal(model.search(case.query, histories[0], case.query_time, keys=stored), theirs)
    with pytest.raises(ValueError, match=r"^ETA: rows must be of one table, .* got 3 tables"):
        model.project(case.keys)


@pytest.mark.parametrize("layout", ["dense", "windows_many"])
def test_what_teaches_the_search_as_of_joined_rows(layout: str) -> None:
    case = tables_case(layout, counts=(37, 0, 20, 64))
    one = joined(case)
    model = lc.LongTermInterestClock(7, 7, k=10, own_search=True)
    layout_of_one = {name: value for name, value in one.layout.items() if name != "clocks"}
    histories = history_of(case), lc.History(one.keys, one.key_time, **layout_of_one)  # type: ignore[arg-type]
    ours, theirs = (
        [
            model.attention_mass(case.query, history, case.query_time),
            model.search_loss(case.query, history, case.query_time, sample=100),
        ]
        for history in histories
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sparse", [False, True])
def test_the_tables_gradients_through_the_module(device: str, sparse: bool) -> None:
    items, actions = (torch.randn(n, w, requires_grad=True, device=device) for n, w in ((30, 4), (3, 2)))  # fmt: skip
    played, action = (torch.randint(n, (2, 50), device=device) for n in (30, 3))
    time, now = (
        torch.randint(10**6, (2, 50), device=device),
        torch.tensor([10**6, 5], device=device),
    )
    model, candidate = (
        lc.LongTermInterestClock(6, 4, k=9).to(device),
        torch.randn(2, 4, device=device),
    )
    rows = lc.Lookup((items, actions), (played, action), sparse)
    model(candidate, lc.History.dense(rows, time), now).square().sum().backward()
    assert items.grad is not None
    assert items.grad.is_sparse == sparse
    ours = [grad.grad.to_dense() for grad in (items, actions)]  # type: ignore[union-attr]
    items.grad = actions.grad = None
    joined = torch.cat([items[played], actions[action]], -1)
    model(candidate, lc.History.dense(joined, time), now).square().sum().backward()
    for mine, theirs in zip(ours, (items.grad, actions.grad), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_graphs() -> None:
    case = tables_case("dense", counts=(20, 7))
    model = lc.LongTermInterestClock(7, 7, k=5)
    history = history_of(case)

    def forward(candidate: Tensor, history: lc.History, now: Tensor) -> Tensor:
        result: Tensor = model(candidate, history, now)
        return result

    eager = forward(case.query, history, case.query_time)
    compiled = torch.compile(forward, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(case.query, history, case.query_time), eager)

    class Program(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, candidate: Tensor, history: lc.History, now: Tensor) -> Tensor:
            return forward(candidate, history, now)

    program = torch.export.export(Program(), (case.query, history, case.query_time))
    torch.testing.assert_close(program.module()(case.query, history, case.query_time), eager)


def test_opcheck() -> None:
    case = tables_case("dense", counts=(20, 7), poison=True)
    arguments = lc.ops._layout.search_arguments("gsu_score", case.query, case.keys, case.key_time, case.query_time, case.mlp, scale=0.5, **case.layout)  # fmt: skip
    for op, extra in ((torch.ops.longclock.gsu_score, {"total": None}), (torch.ops.longclock.clock_gsu, {"k": 4})):  # fmt: skip
        torch.library.opcheck(op.default, (), {**arguments, **extra})


def test_transforms() -> None:
    case = tables_case("dense", counts=(20, 7), poison=False).trained()
    first, own, small = case.keys

    def total(query: Tensor, small: Tensor) -> Tensor:
        scores = lc.gsu_score(query, (first, own, small), case.key_time, case.query_time, case.mlp, **case.layout)  # fmt: skip
        return scores[scores.isfinite()].sum()

    total(case.query, small).backward()
    for ours, leaf in zip(torch.func.grad(total, argnums=(0, 1))(case.query, small), (case.query, small), strict=True):  # fmt: skip
        torch.testing.assert_close(ours, leaf.grad)


def test_histories_of_them() -> None:
    history = history_of(tables_case("dense"))
    assert history.width == 7
    assert len(history.tables) == 3
    halves = history.to(dtype=torch.bfloat16)
    assert {table.dtype for table in halves.tables} == {torch.bfloat16}
    for same in (copy.deepcopy(history), pickle.loads(pickle.dumps(history))):
        assert_bitwise(list(same.tables), list(history.tables))
    checked = lc.History.dense(history.rows, history.time, history.lengths)
    assert checked.width == 7


def test_mistakes(device: str, checks_data: bool) -> None:
    case = tables_case("dense", poison=False).to(device)
    first, own, small = case.keys
    ids = case.layout["ids"]

    def refused(text: str, keys: Any = case.keys, ids: Any = ids, **other: Any) -> None:
        for op in (lc.clock_gsu, lc.gsu_score):
            with pytest.raises(ValueError, match=rf"^{op.__name__}: {text}"):
                case.run(op, **{"ids": ids, **other}) if keys is case.keys else op(
                    case.query, keys, case.key_time, case.query_time, case.mlp, **{**case.layout, "ids": ids})  # fmt: skip

    refused(r"ids must be a tuple of one for each of the 3 tables, got 2 of them", ids=ids[:2])
    refused(r"ids must be a tuple of one for each of the 3 tables, got Tensor", ids=ids[0])
    refused(r"keys\[2\] must be a tensor, got Embedding; give its weight", keys=(first, own, torch.nn.Embedding(4, 2)))  # fmt: skip
    refused(r"keys\[2\] must be float32 to match keys, got bfloat16; convert it with .to\(\)", keys=(first, own, small.bfloat16()))  # fmt: skip
    refused(r"keys\[2\] must have shape \[N, D\] with ids, got \[2\]", keys=(first, own, small[0]))
    refused(r"keys\[1\] must have a row for every behaviour, where it has no ids, got", keys=(first, own[:, :3], small))  # fmt: skip
    refused(r"ids\[2\] must have key_time's shape, got \[4, 3\]", ids=(*ids[:2], ids[2][:, :3]))
    refused(r"ids\[2\] must be int32 or int64, got float32", ids=(*ids[:2], ids[2].float()))
    refused(r"query must have D = 5 in its last dimension to match keys", keys=(first, own), ids=ids[:2])  # fmt: skip
    many = (first, *[small[:, :0]] * 8)
    refused(r"keys must be at most 8 tables, with ids for each, got 9 tables", keys=(*many[:-1], torch.cat([small, small], 1)), ids=(ids[0], *[ids[2]] * 8))  # fmt: skip
    if not checks_data:
        return
    wrong = ids[2].clone()
    wrong[0, 0] = 4
    refused(r"ids\[2\] must be from 0 to N - 1 = 3, got 4 at position 0", ids=(*ids[:2], wrong))
    with pytest.raises(RAW_ERROR, match=r"hamming_gsu|keys must be a tensor"):
        lc.hamming_gsu(case.query, case.keys, case.key_time, case.query_time)
