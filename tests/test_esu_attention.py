# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from bench.memory import kilobytes
from cases import CLOCKS, FLOATS, NOWHERE
from esu_cases import EsuCase, make_esu
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_error import RAW_ERROR
from tolerance import assert_bitwise, assert_close
from torch import Tensor

import longclock as lc
from longclock._library import raw
from longclock.types import Clocks


def check(case: EsuCase, device: str) -> None:
    """Values and every gradient against fp64."""
    ours, exact, rival = case.to(device).trained(), case.double().trained(), case.trained()
    context = ours.run(lc.esu_attention)
    assert context.dtype == torch.float32
    fine, other = exact.run(lc.reference.esu_attention), rival.run(lc.reference.esu_attention)
    grad = torch.randn(context.shape)
    largest, sizes = case.sizes(grad)
    # Every column counts as much as the others: x^2 is far larger than sqrt(x).
    columns = torch.cat([torch.ones(context.shape[-1] - len(largest)), largest])
    width = case.z.shape[-1]  # products that a logit adds up
    assert_close(context.cpu() / columns.float(), fine / columns, other / columns, "context", width)
    context.backward(grad.to(device))
    fine.backward(grad.double())
    other.backward(grad)
    for name, leaf in ours.leaves().items():
        assert leaf.grad is not None, name
        assert leaf.grad.dtype == leaf.dtype, name
        mine, good, torchs = leaf.grad.cpu(), exact.leaves()[name].grad, rival.leaves()[name].grad
        if name == "w1":
            each = largest if leaf.dim() == 2 else largest.view(-1, 1, 4)
            mine, good, torchs = (g / each.to(g.dtype) for g in (mine, good, torchs))
        terms = 1 if name in ("u", "z") else case.u[..., 0].numel() * case.z_time.shape[1]
        assert_close(mine, good, torchs, name, terms, sizes[name])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("some_invalid", [False, True])
@pytest.mark.parametrize("width", [1, 7, 16, 33, 64])
def test_value_and_gradients(
    level: str, device: str, dtype: torch.dtype, table: bool, some_invalid: bool, width: int
) -> None:
    check(make_esu(dtype, table=table, some_invalid=some_invalid, width=width), device)


@pytest.mark.parametrize("k", [0, 1, 2, 100, 255, 256, 257, 2048, 3001])
@pytest.mark.parametrize("table", [False, True])
def test_lengths(level: str, device: str, k: int, table: bool) -> None:
    check(make_esu(k=k, table=table, queries=3, width=8), device)


@pytest.mark.parametrize("queries", [0, 1, 2])
@pytest.mark.parametrize("heads", [1, 3, 8, 9])
def test_queries_and_heads(level: str, device: str, queries: int, heads: int) -> None:
    check(make_esu(queries=queries, heads=heads, width=12), device)


@pytest.mark.parametrize("period", [1, 2, 86399, 604800, 2**31 - 1])
@pytest.mark.parametrize("time_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("hidden", [1, 8, 33, 64])
def test_clocks(level: str, device: str, period: int, time_dtype: torch.dtype, hidden: int) -> None:
    check(make_esu(clocks=period, time_dtype=time_dtype, hidden=hidden, table=True), device)


@pytest.mark.parametrize("clocks", CLOCKS)
@pytest.mark.parametrize("heads", [1, 4, 9])
@pytest.mark.parametrize("k", [1, 37, 700])
def test_several_clocks(level: str, device: str, clocks: Clocks, heads: int, k: int) -> None:
    for width in (7, 16, 140):
        check(make_esu(clocks=clocks, heads=heads, k=k, width=width, table=width == 16), device)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_wider_u_is_rounded_first(level: str, device: str, dtype: torch.dtype) -> None:
    case = make_esu(dtype, width=16)
    case.u = torch.randn_like(case.u, dtype=torch.float32)
    ours = case.to(device).run(lc.esu_attention)
    case.u = case.u.to(dtype)
    assert_bitwise(ours, case.to(device).run(lc.esu_attention))


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_valid_is_exactly_zero(
    level: str, device: str, table: bool, dtype: torch.dtype
) -> None:
    case = make_esu(dtype, table=table, queries=1).to(device).trained()  # query 0 has nothing
    context = case.run(lc.esu_attention)
    assert (context == 0).all()
    context.backward(torch.randn_like(context))
    for name, leaf in case.leaves().items():
        assert leaf.grad is not None, name
        assert (leaf.grad == 0).all(), name


def test_invalid_positions_get_exactly_no_gradient(level: str, device: str) -> None:
    case = make_esu().to(device).trained()
    case.run(lc.esu_attention).sum().backward()
    assert case.valid is not None
    assert case.z.grad is not None
    assert (case.z.grad[~case.valid] == 0).all()
    assert (case.z.grad[2:][case.valid[2:]] != 0).all()


def test_nan_at_a_valid_position_is_seen(level: str, device: str) -> None:
    case = make_esu(some_invalid=False)
    case.u[1, 2, 0] = torch.nan  # one head of one query
    case.z[3, 5, 0] = torch.nan  # every head of one query
    context = case.to(device).run(lc.esu_attention).cpu()
    expected = torch.zeros(5, 4, dtype=torch.bool)
    expected[1, 2] = expected[3] = True
    assert torch.equal(context.isnan().all(-1), expected)
    assert torch.equal(context.isnan().any(-1), expected)


@pytest.mark.parametrize("size", [30.0, 1e4])
def test_large_alphas_do_not_overflow(level: str, device: str, size: float) -> None:
    case = make_esu(width=8)
    case.u = case.u * size
    ours = case.to(device).run(lc.esu_attention)
    exact = case.double().run(lc.reference.esu_attention)
    assert ours.isfinite().all()
    assert_close(ours, exact, case.run(lc.reference.esu_attention))


@pytest.mark.parametrize("dtype", FLOATS)
def test_sparse_table_gradient_is_the_dense_one(
    level: str, device: str, dtype: torch.dtype
) -> None:
    grads = []
    for sparse in (False, True):
        torch.manual_seed(1)
        case = make_esu(dtype, table=True, queries=3, k=4).to(device).trained()
        case.sparse = sparse
        case.run(lc.esu_attention).sum().backward()
        assert case.z.grad is not None
        assert case.z.grad.is_sparse == sparse
        grads.append(case.z.grad.to_dense().float().cpu())
    # 16-bit rows add up in another order
    torch.testing.assert_close(*grads, rtol=1e-5 if dtype == torch.float32 else 0.05, atol=1e-2)


def table_gradient(
    device: str, z_grad: Tensor, ids: Tensor, valid: Tensor | None, rows: int
) -> Tensor:
    there = None if valid is None else valid.to(device)
    op = raw.esu_attention_table_grad
    found: Tensor = op(z_grad.to(device), ids.to(device), None, there, rows).cpu()
    return found


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [1, 16, 37, 264])
@pytest.mark.parametrize("rows", [1, 7, 70_000])  # the last wants huge pages and all threads
def test_table_gradient_has_the_bits_of_embedding(
    level: str, device: str, dtype: torch.dtype, width: int, rows: int
) -> None:
    z_grad, valid = torch.randn(5, 9, width).to(dtype), torch.rand(5, 9) < 0.8
    z_grad[~valid] = 0
    ids = torch.randint(0, rows, (5, 9), dtype=torch.int32)
    sums = z_grad if level != "device" else z_grad.float()  # CUDA rounds a row's sum once
    embedding = torch.ops.aten.embedding_dense_backward
    expected = embedding(sums, ids.long(), rows, -1, False).to(dtype)
    unread = torch.where(valid, ids, -(2**31))
    for places, there in ((ids, None), (ids, valid), (unread, valid), (unread.long(), valid)):
        found = table_gradient(device, z_grad, places, there, rows)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("id_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("rows", [1, 3, 1000, 20_000])
def test_table_gradient_leaves_out_what_is_of_no_row(
    level: str, device: str, id_dtype: torch.dtype, rows: int
) -> None:
    """Of 3,000 pairs: one row has all of them, or hardly any row has one."""
    z_grad, ids = torch.randn(6, 500, 20), torch.randint(0, rows, (6, 500))
    valid, known = torch.rand(6, 500) < 0.7, torch.rand(6, 500) < 0.9
    counted = valid & known
    outside = torch.tensor([-1, -(2**31), rows, 2**31 - 1])[torch.randint(0, 4, (6, 500))]
    places = torch.where(counted, ids, outside).to(id_dtype)
    z_grad[~counted] = torch.nan
    expected = torch.zeros(rows, 20, dtype=torch.float64)
    expected.index_add_(0, ids[counted], z_grad[counted].double())
    for there, at in ((valid, places), (counted, ids.to(id_dtype)), (None, places)):
        found = table_gradient(device, z_grad, at, there, rows)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


def test_table_gradient_sees_nan_and_infinity(level: str, device: str) -> None:
    z_grad, ids = torch.ones(2, 20, 4), torch.arange(20).expand(2, 20) % 5
    z_grad[0, 7, 1], z_grad[1, 13, 2] = torch.nan, torch.inf
    expected = torch.full((9, 4), 8.0)
    expected[5:], expected[2, 1], expected[3, 2] = 0, torch.nan, torch.inf
    found = table_gradient(device, z_grad, ids, None, 9)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("shape", [(0, 5, 8), (3, 0, 8), (3, 5, 0)])
@pytest.mark.parametrize("rows", [0, 4])
def test_table_gradient_of_nothing(
    level: str, device: str, shape: tuple[int, ...], rows: int
) -> None:
    z_grad, ids = torch.ones(shape), torch.zeros(shape[:2], dtype=torch.int64)
    nothing = torch.zeros(rows, shape[2])
    assert torch.equal(table_gradient(device, z_grad, ids, None, rows), nothing)


def test_table_gradient_where_nothing_is_valid(level: str, device: str) -> None:
    z_grad, ids = torch.full((3, 5, 8), torch.nan), torch.full((3, 5), NOWHERE)
    nowhere = torch.zeros(3, 5, dtype=torch.bool)
    for rows in (0, 4):
        found = table_gradient(device, z_grad, ids, nowhere, rows)
        assert torch.equal(found, torch.zeros(rows, 8))


def test_table_gradient_of_wrong_shapes(device: str) -> None:
    z_grad, ids = torch.zeros(3, 2, 8), torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(RAW_ERROR, match=r"ids must have shape .* = \[3, 2\] to match z_grad"):
        table_gradient(device, z_grad, ids, None, 4)


def test_not_contiguous(level: str, device: str) -> None:
    case = make_esu(queries=4, k=10, width=6).to(device)
    expected = case.run(lc.esu_attention)
    wide = torch.full((10, 5, 12), torch.nan, device=device)
    wide[:, :4, ::2] = case.z.transpose(0, 1)
    case.z = wide[:, :4, ::2].transpose(0, 1)
    case.u = case.u.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    case.z_time = case.z_time.T.contiguous().T
    case.query_time = case.query_time.repeat_interleave(2)[::2]
    assert case.valid is not None
    case.valid = case.valid.T.contiguous().T
    assert_bitwise(case.run(lc.esu_attention), expected)


@given(st.integers(0, 4), st.integers(0, 70), st.integers(1, 40), st.integers(1, 5), st.data())
@settings(max_examples=30, deadline=None)
def test_any_size(queries: int, k: int, width: int, heads: int, data: Any) -> None:
    case = make_esu(
        data.draw(st.sampled_from(FLOATS)), queries=queries, k=k, width=width, heads=heads,
        table=data.draw(st.booleans()), some_invalid=data.draw(st.booleans()),
    )  # fmt: skip
    check(case, "cpu")


@pytest.mark.parametrize("table", [False, True])
def test_bitwise_repeatable(level: str, device: str, table: bool, same_at_any_threads) -> None:  # type: ignore[no-untyped-def]
    case = make_esu(queries=40, k=300, width=24, table=table).to(device).trained()
    grad = torch.randn(40, 4, 28, device=device)

    def run() -> list[torch.Tensor]:
        context = case.run(lc.esu_attention)
        return [context, *torch.autograd.grad(context, list(case.leaves().values()), grad)]

    same_at_any_threads(run)


def test_a_query_does_not_depend_on_its_batch(level: str, device: str) -> None:
    case = make_esu(k=300, width=24).to(device)
    together = case.run(lc.esu_attention)
    assert case.valid is not None
    for q in range(5):
        one = slice(q, q + 1)
        alone = lc.esu_attention(
            case.u[one], case.z[one], case.z_time[one], case.query_time[one], case.mlp,
            case.valid[one],
        )  # fmt: skip
        assert_bitwise(alone, together[one])


def test_a_gradient_larger_than_the_caches(level: str) -> None:
    """It is written another way, with the same bits."""
    case = make_esu(queries=6, k=6000, width=64, some_invalid=True)
    grad = torch.randn(6, 4, 68)

    def z_grad(queries: slice) -> torch.Tensor:
        z, valid = case.z[queries].clone().requires_grad_(), case.valid
        assert valid is not None
        context = lc.esu_attention(
            case.u[queries], z, case.z_time[queries], case.query_time[queries], case.mlp,
            valid[queries],
        )  # fmt: skip
        return torch.autograd.grad(context, z, grad[queries])[0]

    together = z_grad(slice(None))
    assert together.numel() > 1 << 21
    for q in range(6):
        assert_bitwise(z_grad(slice(q, q + 1)), together[q : q + 1])


def test_gradient_of_a_large_table_is_an_ordinary_tensor() -> None:
    table = torch.nn.Parameter(torch.zeros(80_000, 32))  # 10 MB: a mapping of its own
    ids = torch.tensor([[5, 5, 79_999]])

    def step() -> Tensor:
        z = lc.Lookup(table, ids)
        mlp = lc.TimeSimilarity().mlp()
        now = torch.zeros(1, dtype=torch.int64)
        lc.esu_attention(torch.ones(1, 1, 32), z, torch.zeros_like(ids), now, mlp).sum().backward()
        assert table.grad is not None
        return table.grad

    once = step().clone()
    assert once.abs().sum(1).nonzero().flatten().tolist() == [5, 79_999]
    assert torch.equal(step(), 2 * once)  # added to in place
    file = io.BytesIO()
    torch.save(table.grad, file)
    file.seek(0)
    assert torch.equal(torch.load(file), 2 * once)
    assert torch.equal(step().share_memory_(), 3 * once)
    torch.optim.Adam([table]).step()
    assert torch.equal(table.abs().sum(1).nonzero(), once.abs().sum(1).nonzero())


def test_memory_of_large_table_gradients_is_given_back() -> None:
    z_grad, ids = torch.ones(1, 1, 32), torch.tensor([[79_999]])
    before = kilobytes("VmRSS")
    for _ in range(20):  # of 10 MB
        assert raw.esu_attention_table_grad(z_grad, ids, None, None, 80_000)[-1].sum() == 32
    assert kilobytes("VmRSS") - before < 50_000
