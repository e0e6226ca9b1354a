# SPDX-License-Identifier: Apache-2.0
"""esu_attention of what a search found: whole histories as stored, and indices, in every layout."""

from __future__ import annotations

import pytest
import torch
from cases import CLOCKS, FLOATS, LAYOUTS, NOWHERE
from esu_cases import FoundCase, lengths_of, make_found
from hypothesis import given, settings
from hypothesis import strategies as st
from test_esu_attention import check
from tolerance import assert_bitwise, assert_close
from torch import Tensor

import longclock as lc

OP = torch.ops.longclock.esu_attention
POSITIONS = torch.ops.longclock.esu_attention_positions
TABLE_GRAD = torch.ops.longclock.esu_attention_table_grad
KINDS = [(layout, rows) for layout in LAYOUTS for rows in ("rows", "table", "sparse")]
KINDS += [("dense", "columns"), ("candidates", "columns")]
every_kind = pytest.mark.parametrize(("layout", "rows"), KINDS)
DEAD = [{}, {"mask": True}, {"exclude_future": True}, {"mask": True, "exclude_future": True}]


def dense(grad: Tensor | None) -> Tensor:
    assert grad is not None
    return grad.to_dense()


def same_as_gathered(case: FoundCase, device: str) -> None:
    """The result and every gradient have the bits of rows that were gathered by hand."""
    ours, hand = case.to(device).trained(), case.to(device).trained()
    columns = not case.search.keys.is_contiguous() and "ids" not in case.search.layout
    if columns:  # what the leaf is a part of
        wide = case.search.keys.new_zeros(len(case.search.keys), case.search.keys.shape[1] + 3, case.u.shape[2])  # fmt: skip
        wide = wide.to(device)
        wide[:, 1:-2] = case.search.keys.to(device)
        ours.search.keys = wide.requires_grad_()[:, 1:-2]
        ours.search.keys.retain_grad()
        assert not ours.search.keys.is_contiguous()
    context, expected = ours.run(lc.esu_attention), hand.gathered().run(lc.esu_attention)
    assert_bitwise(context, expected)
    grad = torch.randn(context.shape).to(device)
    context.backward(grad)
    expected.backward(grad)
    for name, leaf in ours.leaves().items():
        mine, by_hand = dense(leaf.grad), dense(hand.leaves()[name].grad)
        assert mine.dtype == leaf.dtype, name
        if name == "z" and (columns or case.sparse):  # added up by PyTorch, in another order
            exact = case.double().trained()
            exact.gathered().run(lc.reference.esu_attention).backward(grad.cpu().double())
            fine = dense(exact.search.keys.grad)
            assert_close(mine, fine, by_hand.cpu(), name, terms=case.found.numel())
            assert (mine == 0).eq(by_hand == 0).all()
        else:
            assert_bitwise(mine, by_hand)
    if case.sparse:
        assert ours.search.keys.grad is not None
        assert ours.search.keys.grad.is_sparse


@every_kind
@pytest.mark.parametrize("dead", DEAD, ids=lambda dead: " ".join(dead) or "all")
@pytest.mark.parametrize("dtype", FLOATS)
def test_it_is_what_gathering_gives(
    level: str, device: str, layout: str, rows: str, dead: dict[str, bool], dtype: torch.dtype
) -> None:
    same_as_gathered(make_found(layout, dtype, rows=rows, **dead), device)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("table", [False, True])
def test_values_and_gradients_against_fp64(
    level: str, device: str, layout: str, table: bool
) -> None:
    case = make_found(layout, rows="table" if table else "rows", mask=True, exclude_future=True)
    check(case.gathered(), device)  # whose bits they are


@every_kind
@pytest.mark.parametrize("dead", DEAD, ids=lambda dead: " ".join(dead) or "all")
def test_the_reference_gathers_the_same(layout: str, rows: str, dead: dict[str, bool]) -> None:
    case = make_found(layout, rows=rows, **dead).double().trained()
    hand = case.trained()
    context = case.run(lc.reference.esu_attention)
    expected = hand.gathered().run(lc.reference.esu_attention)
    torch.testing.assert_close(context, expected, rtol=1e-12, atol=1e-12)
    grad = torch.randn_like(context)
    context.backward(grad)
    expected.backward(grad)
    for name, leaf in case.leaves().items():
        torch.testing.assert_close(
            dense(leaf.grad), dense(hand.leaves()[name].grad), rtol=1e-9, atol=1e-9, msg=name
        )


@pytest.mark.parametrize("k", [0, 1, 255, 256, 700])
@pytest.mark.parametrize("width", [0, 1, 16, 130])
def test_sizes(level: str, device: str, k: int, width: int) -> None:
    for layout, rows in (("candidates", "rows"), ("windows_many", "table"), ("dense", "columns")):
        case = make_found(layout, k=k, width=width, rows=rows, heads=3, counts=(40, 0, 300))
        same_as_gathered(case, device)


@pytest.mark.parametrize("heads", [0, 1, 9])
@pytest.mark.parametrize("time_dtype", [torch.int32, torch.int64])
def test_heads_and_times(level: str, device: str, heads: int, time_dtype: torch.dtype) -> None:
    for layout in LAYOUTS:
        for clocks in (604800, CLOCKS[3]):
            case = make_found(layout, heads=heads, time_dtype=time_dtype, clocks=clocks)
            same_as_gathered(case, device)


@every_kind
@pytest.mark.parametrize("counts", [(), (0,), (0, 0, 0)])
def test_empty_histories(device: str, layout: str, rows: str, counts: tuple[int, ...]) -> None:
    case = make_found(layout, rows=rows, counts=counts).to(device).trained()
    assert (case.found == -1).all()
    context = case.run(lc.esu_attention)
    assert context.shape == (len(case.u), 4, 11)
    assert (context == 0).all()
    context.sum().backward()
    for name, leaf in case.leaves().items():
        assert (dense(leaf.grad) == 0).all(), name


@given(st.lists(st.integers(0, 40), max_size=5), st.data())
@settings(max_examples=40, deadline=None)
def test_any_layout(device: str, counts: list[int], data: st.DataObject) -> None:
    layout, rows = data.draw(st.sampled_from(KINDS))
    case = make_found(
        layout, data.draw(st.sampled_from(FLOATS)), rows=rows, counts=tuple(counts),
        k=data.draw(st.integers(0, 30)), width=data.draw(st.integers(1, 20)), mask=data.draw(st.booleans()),
        exclude_future=data.draw(st.booleans()), candidates=data.draw(st.integers(0, 4)),
    )  # fmt: skip
    same_as_gathered(case, device)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("table", [False, True])
def test_bitwise_repeatable(  # type: ignore[no-untyped-def]
    level: str, device: str, layout: str, table: bool, same_at_any_threads
) -> None:
    case = make_found(layout, rows="table" if table else "rows", k=200, width=24, counts=(300, 0, 90, 70))  # fmt: skip
    case = case.to(device).trained()
    grad = torch.randn(len(case.u), 4, 28, device=device)

    def run() -> list[Tensor]:
        context = case.run(lc.esu_attention)
        return [context, *torch.autograd.grad(context, list(case.leaves().values()), grad)]

    same_at_any_threads(run)


@every_kind
def test_rows_that_nothing_was_found_at_get_no_gradient(
    device: str, layout: str, rows: str
) -> None:
    case = make_found(layout, rows=rows, mask=True).to(device).trained()
    case.search.keys.requires_grad_()
    case.run(lc.esu_attention).square().sum().backward()
    at, valid, _ = case.positions()
    read = at[valid]
    ids = case.search.layout.get("ids")
    lines = read if ids is None else ids.flatten()[read].long()
    grad = dense(case.search.keys.grad).flatten(0, -2)
    hit = torch.zeros(len(grad), dtype=torch.bool, device=device)
    hit[lines] = True
    assert (grad[~hit] == 0).all()
    assert (grad[hit] != 0).any(-1).all()


def test_no_row_of_a_history_is_copied(device: str) -> None:
    """Nor kept for the backward: of wide rows neither the whole nor what was found."""
    for layout, rows in (("dense", "rows"), ("ragged_many", "rows"), ("candidates", "table")):
        case = make_found(layout, rows=rows, counts=(400, 300), width=64, k=50, heads=2)
        case = case.to(device).trained()
        kept: list[Tensor] = []

        def keep(tensor: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            case.run(lc.esu_attention)
        own = [t for t in kept if t.data_ptr() != case.search.keys.data_ptr()]
        largest = max(case.u.numel() + 4 * 2 * len(case.u), case.found.numel(), case.search.key_time.numel())  # fmt: skip
        assert max(t.numel() for t in own) <= largest


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("past", [0, 1000, 2**62])
def test_an_index_outside_its_history_is_named_by_the_cpu(
    device: str, checks_data: bool, layout: str, past: int
) -> None:
    case = make_found(layout).to(device)
    wrong = case.found.clone()
    flat = wrong.flatten(0, -2)
    lengths = lengths_of(case.search)
    last = len(flat) - 1
    for index in (lengths[last] + past, -2 - past):
        flat[last, 3] = -1
        expected = FoundCase(case.u, case.search, wrong).run(lc.esu_attention)
        flat[last, 3] = index
        if not checks_data:
            assert_bitwise(FoundCase(case.u, case.search, wrong).run(lc.esu_attention), expected)
            continue
        at = [*(size - 1 for size in wrong.shape[:-1]), 3]
        for op in (lc.esu_attention, lc.reference.esu_attention):
            with pytest.raises(ValueError) as caught:
                FoundCase(case.u, case.search, wrong).run(op)
            assert str(caught.value) == (
                "esu_attention: found must hold indices of each query's own history, counted from its start, or -1, "
                f"got {index} at {at}; what other behaviours gave may be stale"
            )


def test_an_id_that_no_table_has_is_named_where_it_is_read(device: str, checks_data: bool) -> None:
    case = make_found("ragged", rows="table", time_dtype=torch.int64).to(device)
    at, valid, _ = case.positions()
    place = int(at[valid][0])
    case.search.layout["ids"][place] = NOWHERE
    if checks_data:
        rows = len(case.search.keys)
        with pytest.raises(
            ValueError,
            match=rf"^esu_attention: ids must be from 0 to N - 1 = {rows - 1}, got {NOWHERE} at position {place}",
        ):
            case.run(lc.esu_attention)
        return
    context = case.run(lc.esu_attention)
    hit = (at == place).any(1)
    assert context[hit].isnan().all()
    assert context[~hit].isfinite().all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rows", ["rows", "table"])
def test_positions_are_those_by_hand(device: str, layout: str, rows: str) -> None:
    case = make_found(layout, rows=rows, counts=(9, 0, 5), k=4, mask=True).to(device)
    search = case.search
    names = ("lengths", "offsets", "query_offsets", "starts", "ends", "mask")
    places = [search.layout.get(name) for name in names]
    at, moments = POSITIONS(search.key_time, search.query_time, *places, False, case.found)
    by_hand, _, times = case.positions()
    assert torch.equal(at, by_hand)
    assert torch.equal(moments, times)


def test_positions_have_no_gradient_and_no_other_device(device: str) -> None:
    case = make_found("windows_many")
    assert case.to("meta").run(lc.esu_attention).shape == (7, 4, 11)
    assert make_found("dense").to("meta").run(lc.esu_attention).shape == (4, 4, 11)
    for name in ("u", "z", "w2"):
        case = make_found("candidates", rows="table").to(device)
        case.leaves()[name].requires_grad_()
        case.run(lc.esu_attention).sum().backward()
        got = {other for other, leaf in case.leaves().items() if leaf.grad is not None}
        assert got == {name}


@pytest.mark.parametrize("rows", ["rows", "table", "sparse"])
def test_double_backward_explains_itself(device: str, rows: str) -> None:
    case = make_found("ragged", rows=rows).to(device).trained()
    context = case.run(lc.esu_attention)
    (first,) = torch.autograd.grad(context.square().sum(), case.search.keys, create_graph=True)
    name = "esu_attention_backward" if rows == "sparse" else "esu_attention_table_grad"
    with pytest.raises(
        RuntimeError, match=rf"{name}: a double .* longclock.reference.esu_attention "
    ):
        first.to_dense().square().sum().backward()


def test_nothing_found_has_a_sparse_gradient_of_nothing() -> None:
    table, ids = torch.randn(6, 4, requires_grad=True), torch.zeros(1, 3, dtype=torch.int64)
    found = torch.zeros(1, 0, dtype=torch.int64)
    u, now = torch.randn(1, 2, 4), torch.tensor([60])
    z = lc.Lookup(table, ids, sparse=True)
    lc.esu_attention(u, z, ids, now, lc.TimeSimilarity(), found=found).sum().backward()
    assert table.grad is not None
    assert table.grad.is_sparse
    assert not table.grad.to_dense().any()


def test_what_is_no_second_is_refused_before_it_is_compared(device: str, emulated: bool) -> None:
    if emulated or device != "cpu":
        pytest.skip("only the CPU reads values")
    u, z, found = torch.randn(1, 2, 4), torch.randn(1, 3, 4), torch.tensor([[1]])
    milliseconds = torch.full((1, 3), 10**15)
    with pytest.raises(ValueError, match=r"^esu_attention: z_time must be seconds"):
        lc.esu_attention(u, z, milliseconds, torch.tensor([60]), lc.TimeSimilarity(), found=found,
                         exclude_future=True)  # fmt: skip
