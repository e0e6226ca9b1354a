# SPDX-License-Identifier: Apache-2.0
"""Rows in bytes, and searches of them."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from cases import LAYOUTS, Case, keys_in_bytes, make_case
from tolerance import assert_bitwise, assert_close, assert_selection
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

import longclock as lc
from longclock import baselines

QUERY_DTYPES = (None, "float32", "bfloat16", "int8")
NO_S = torch.zeros(1, 4), torch.zeros(1), torch.zeros(1), torch.zeros(())


def request(candidates: int, m: int = 700, width: int = 33, rows: int | None = None) -> Case:
    """One user's, with random bytes and no time term: products alone, scaled. rows: of a table, in place of one a behaviour."""
    count = m if rows is None else rows
    keys = torch.randint(-128, 128, (count, width), dtype=torch.int8), torch.rand(count) + 0.01
    given: dict[str, Any] = {"scale": 0.37, "query_dtype": "int8"}
    of_rows = (
        lc.QuantizedRows(*(x[None] for x in keys)) if rows is None else lc.QuantizedRows(*keys)
    )
    if rows is not None:
        given["ids"] = torch.randint(rows, (1, m))
    query, time = torch.randn(1, candidates, width), torch.zeros(1, m, dtype=torch.int64)
    return Case(query, of_rows, time, torch.zeros(1, dtype=torch.int64), NO_S, given)


def by_hand(case: Case) -> torch.Tensor:
    """Of a request with a query of int8: [C, M], each operation rounded once."""
    query, keys = lc.quantize_rows(case.query[0]), case.keys
    assert isinstance(keys, lc.QuantizedRows)
    ids = case.layout.get("ids")
    keys = keys.mapped(lambda x: x[0] if ids is None else x[ids[0]])
    products = (query.values.long() @ keys.values.long().T).float()
    return (query.scale * 0.37)[:, None] * (products * keys.scale)


@pytest.mark.parametrize("op", [lc.clock_gsu, lc.gsu_score])
def test_float8_is_of_cuda(checks_data: bool, op: Any) -> None:
    if not checks_data:
        pytest.skip("only the CPU refuses float8 keys: tests/test_rows_in_bytes_cuda.py")
    case = keys_in_bytes(make_case("dense"), None, torch.float8_e4m3fn)
    text = (
        f"{op.__name__}: keys must be int8 or floats of 16 or 32 bits on the CPU, got float8_e4m3fn"
    )
    with pytest.raises(ValueError, match=text):
        case.run(op, 3)


@pytest.mark.parametrize("query_dtype", QUERY_DTYPES)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("candidates", [3, 17])
def test_scores_in_every_layout(
    level: str, device: str, layout: str, table: bool, query_dtype: str | None, candidates: int
) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        made = make_case(layout, table=table, mask=True, exclude_future=True, candidates=candidates)
        case = keys_in_bytes(made, query_dtype)
        case.query = case.query.to(dtype)
        exact = keys_in_bytes(made.double(), query_dtype)
        exact.query = case.query.double()
        if query_dtype == "int8":  # rounded as the query is
            exact.query = case.query.float().double()
        right, rival = exact.run(lc.reference.gsu_score), case.run(lc.reference.gsu_score)
        there = case.to(device)
        assert_close(there.score(lc.gsu_score), right, rival)
        k = 10
        found = lc.TopK(*(part.cpu() for part in there.run(lc.clock_gsu, k)))
        if case.key_time.dim() == 2:
            rows = zip(found.scores.view(-1, k), found.indices.view(-1, k), right.flatten(0, -2), rival.flatten(0, -2), strict=True)  # fmt: skip
            for scores, indices, of_query, of_rival in rows:
                assert_selection(scores, indices, of_query, of_rival)


@pytest.mark.parametrize("rows", [None, 40, 699])
@pytest.mark.parametrize("candidates", [1, 15, 16, 70])
@pytest.mark.parametrize("width", [33, 48, 130, 256])
def test_products_of_bytes_are_exact(
    level: str, device: str, candidates: int, rows: int | None, width: int
) -> None:
    """The same bits on every SIMD level and on CUDA, for few candidates and for many, and for rows that repeat."""
    case = request(candidates, 700, width, rows)
    right, case = by_hand(case), case.to(device)
    assert torch.equal(case.run(lc.gsu_score)[0].cpu(), right)
    found = lc.TopK(*(part.cpu() for part in case.run(lc.clock_gsu, 700)))
    assert torch.equal(found.scores[0], right.sort(descending=True, stable=True).values)
    assert torch.equal(right.gather(1, found.indices[0]), found.scores[0])


def test_levels_that_fuse_have_the_same_bits_with_a_time_term() -> None:
    from longclock import _native

    found = []
    before = _native.simd_level()
    for candidates in (1, 40):
        case = keys_in_bytes(make_case("candidates", candidates=candidates, counts=(500,)), "int8")
        for level in _native.simd_levels()[1:]:
            _native.set_simd_level(level)
            found.append(case.run(lc.clock_gsu, 500))
            assert_bitwise(found[-1], found[0])
        found.clear()
    _native.set_simd_level(before)


@pytest.mark.parametrize("candidates", [1, 40])
def test_rows_in_one_place_keep_their_scales(level: str, device: str, candidates: int) -> None:
    case = request(candidates, rows=50).to(device)
    values, scale = case.keys
    case.keys = lc.QuantizedRows(values[:1].expand(50, -1), scale)
    copied = Case(**(vars(case) | {"keys": lc.QuantizedRows(values[:1].repeat(50, 1), scale)}))
    assert_bitwise(case.run(lc.clock_gsu, 50), copied.run(lc.clock_gsu, 50))
    wide = torch.zeros(50, 66, dtype=torch.int8, device=device)
    wide[:, ::2] = values
    strided = Case(**(vars(case) | {"keys": lc.QuantizedRows(wide[:, ::2], scale)}))
    packed = Case(**(vars(case) | {"keys": lc.QuantizedRows(values, scale)}))
    assert_bitwise(strided.run(lc.clock_gsu, 50), packed.run(lc.clock_gsu, 50))


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("candidates", [1, 20])
@pytest.mark.parametrize("width", [33, 64])
def test_queries_that_are_not_finite(
    level: str, device: str, width: int, candidates: int, odd: float
) -> None:
    case = request(candidates, width=width).to(device)
    case.query[0, 0, 32] = odd
    found = case.run(lc.clock_gsu, 5)
    assert found.scores[0, 0].isnan().all()
    assert found.indices[0, 0].tolist() == [0, 1, 2, 3, 4]  # equals, in order
    assert not found.scores[0, 1:].isnan().any()
    assert case.run(lc.gsu_score)[0, 0].isnan().all()
    for dtype in (None, "bfloat16"):
        scores = case.run(lc.gsu_score, query_dtype=dtype)[0, 0]
        signs = case.keys[0][0, :, 32].sign()
        expected = torch.where(signs == 0, torch.nan, signs * odd)
        torch.testing.assert_close(scores, expected, equal_nan=True)


@pytest.mark.parametrize("candidates", [1, 20])
@pytest.mark.parametrize("query_dtype", QUERY_DTYPES)
@pytest.mark.parametrize("width", [33, 64])
def test_scales_that_are_not_finite(
    level: str, device: str, width: int, candidates: int, query_dtype: str | None
) -> None:
    case = request(candidates, width=width).to(device)
    case.keys.scale[0, 600], case.keys.scale[0, 3], case.keys.scale[0, 7] = torch.nan, torch.inf, 0
    case.keys.values[0, 3] = 0
    found = case.run(lc.clock_gsu, 10, query_dtype=query_dtype)
    first = found.indices[0, :, :2].cpu()
    assert (first == torch.tensor([3, 600])).all()  # 0 times inf is NaN
    assert (case.run(lc.gsu_score, query_dtype=query_dtype)[0, :, 7] == 0).all()


def test_a_query_of_zeros_scores_zero(level: str, device: str) -> None:
    case = request(2).to(device)
    case.query[0, 0] = 0
    assert not case.run(lc.gsu_score)[0, 0].any()


@pytest.mark.parametrize("candidates", [1, 40])
@pytest.mark.parametrize("query_dtype", QUERY_DTYPES)
def test_any_threads(same_at_any_threads: Any, candidates: int, query_dtype: str | None) -> None:
    case = request(candidates, m=9000, rows=8000)
    same_at_any_threads(lambda: case.run(lc.clock_gsu, 100, query_dtype=query_dtype))
    same_at_any_threads(lambda: case.run(lc.gsu_score, query_dtype=query_dtype))


WRONG = {
    "query_dtype must be 'float32', 'bfloat16', 'int8' or None, got 'float16'": {"query_dtype": "float16"},
    "query_dtype must be 'float32', 'bfloat16', 'int8' or None, got torch.int8": {"query_dtype": torch.int8},
    "query_dtype must be None for float32 keys, got 'int8'; a query is rounded to its keys' dtype": {"keys": torch.zeros(1, 9, 4)},
    "query_dtype must not be 'int8' for keys of more than 1024 columns, got D = 1025; take 'bfloat16'": {
        "keys": lc.quantize_rows(torch.zeros(1, 9, 1025)), "query": torch.zeros(1, 1025)},
    "keys must be float32, float16 or bfloat16, got int64; convert it with .float()": {"keys": torch.zeros(1, 9, 4).long()},
    "key_scale must be a tensor for int8 keys, got None; quantize_rows makes both": {"keys": torch.zeros(1, 9, 4).char()},
    "key_scale must be float32, got float64; convert it with .float()": {
        "keys": lc.QuantizedRows(torch.zeros(1, 9, 4).char(), torch.zeros(1, 9).double())},
    "key_scale must have key_time's shape [1, 9], got [1, 8]": {
        "keys": lc.QuantizedRows(torch.zeros(1, 9, 4).char(), torch.zeros(1, 8))},
    "key_scale must have shape [N] = [5] to match keys, got [4]": {
        "keys": lc.QuantizedRows(torch.zeros(5, 4).char(), torch.zeros(4)), "ids": torch.zeros(1, 9).long()},
    "key_scale must be None for float32 keys; rows in bytes have it": {
        "keys": lc.QuantizedRows(torch.zeros(1, 9, 4), torch.zeros(1, 9)), "query_dtype": None},
    "query must be float32, float16 or bfloat16, got int8; convert it with .float()": {"query": torch.zeros(1, 4).char()},
    "keys[0] must be a tensor, got QuantizedRows": {
        "keys": (lc.quantize_rows(torch.zeros(5, 4)), torch.zeros(5, 4)), "ids": (torch.zeros(1, 9).long(),) * 2},
    "keys.scale must be a tensor, got None": {"keys": lc.QuantizedRows(torch.zeros(1, 9, 4).char(), None)},
}  # fmt: skip


@pytest.mark.parametrize("op", [lc.clock_gsu, lc.gsu_score])
@pytest.mark.parametrize("text", WRONG)
def test_what_does_not_fit_is_refused_by_name(device: str, op: Any, text: str) -> None:
    given = {"query": torch.zeros(1, 4), "keys": lc.quantize_rows(torch.zeros(1, 9, 4)), "key_time": torch.zeros(1, 9).long(),
             "query_time": torch.zeros(1).long(), "mlp": NO_S, "query_dtype": "int8"}  # fmt: skip
    there = tree_map_only(torch.Tensor, lambda x: x.to(device), given | WRONG[text])
    with pytest.raises(ValueError) as refusal:
        op(**there)
    assert str(refusal.value).startswith(f"{op.__name__}: {text}")


def test_features_are_refused(device: str) -> None:
    case = make_case("dense", poison=False).to(device)
    arguments = list(keys_in_bytes(case).raw(3))
    feature = torch.zeros(4, 2, dtype=torch.int8, device=device)
    arguments[-5:-3] = [feature], [torch.zeros_like(case.key_time)]
    arguments[0] = torch.zeros(4, 9, device=device)
    with pytest.raises((ValueError, RuntimeError), match="keys must be one table where they are int8, got 2"):  # fmt: skip
        torch.ops.longclock.clock_gsu(*arguments)


def test_a_gradient_through_bytes_is_refused_where_it_is_asked_for(device: str) -> None:
    case = keys_in_bytes(make_case("dense")).to(device)
    case.query.requires_grad_()
    scores = case.run(lc.gsu_score)
    assert scores.requires_grad
    with pytest.raises(RuntimeError, match="gsu_score: gradients through keys in bytes are not"):
        scores[scores.isfinite()].sum().backward()
    assert not case.run(lc.clock_gsu, 3).scores.requires_grad


def test_pytorch_takes_the_ops(device: str) -> None:
    for op, extra in (("clock_gsu", 3), ("gsu_score", None)):
        for dtype in QUERY_DTYPES:
            arguments = keys_in_bytes(make_case("dense"), dtype).to(device).raw(extra)
            torch.library.opcheck(getattr(torch.ops.longclock, op).default, arguments)


def test_compiled_exported_and_saved(device: str) -> None:
    case = keys_in_bytes(make_case("dense", table=True), "int8").to(device)

    class Search(torch.nn.Module):
        def forward(self, query: torch.Tensor, history: lc.History) -> torch.Tensor:
            given = history.arguments()
            time = {"query_time": case.query_time, "mlp": case.mlp, "scale": 0.5}
            return lc.clock_gsu(query, **given, **time, k=5, query_dtype="int8").indices

    lookup = lc.Lookup(case.keys, case.layout["ids"])
    history = lc.History.dense(lookup, case.key_time, case.layout["lengths"])
    right = case.run(lc.clock_gsu, 5, scale=0.5).indices
    assert torch.equal(Search()(case.query, history), right)
    compiled = torch.compile(Search(), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(case.query, history), right)
    exported = torch.export.export(Search(), (case.query, history))
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    assert torch.equal(torch.export.load(file).module()(case.query, history), right)
    file = io.BytesIO()
    torch.save(history, file)
    file.seek(0)
    assert isinstance(torch.load(file).rows.table, lc.QuantizedRows)


def test_vmap_over_queries(device: str) -> None:
    case = keys_in_bytes(make_case("dense"), "int8").to(device)
    queries = torch.randn(3, *case.query.shape, device=device)

    def search(query: torch.Tensor) -> torch.Tensor:
        return Case(**(vars(case) | {"query": query})).run(lc.gsu_score)

    found = torch.func.vmap(search)(queries)
    assert_bitwise(found, torch.stack([search(query) for query in queries]))


def test_a_history_of_bytes() -> None:
    rows, time = lc.quantize_rows(torch.randn(2, 5, 8)), torch.zeros(2, 5, dtype=torch.int64)
    history = lc.History.dense(rows, time)
    assert (history.width, history.table.dtype) == (8, torch.int8)
    assert history.arguments()["keys"] is rows
    moved = history.to("cpu", dtype=torch.bfloat16).rows
    assert_bitwise(moved, rows)
    table = lc.History.dense(lc.Lookup(lc.quantize_rows(torch.randn(9, 8)), time), time)
    assert [part.dtype for part in table.tables] == [torch.int8]
    assert isinstance(table.arguments()["keys"], lc.QuantizedRows)
    flat = lc.quantize_rows(torch.randn(5, 8))
    assert lc.History.ragged(flat, time[0], torch.tensor([0, 5])).width == 8
    for wrong, text in (
        (lc.QuantizedRows(rows.values, rows.scale[:, :4]), "rows.scale must have time's shape"),
        (
            lc.QuantizedRows(rows.values.float(), rows.scale),
            "rows.values must be int8 or float8_e4m3fn, got float32",
        ),
        (
            lc.QuantizedRows(rows.values, rows.scale.double()),
            "rows.scale must be float32, got float64",
        ),
        (lc.QuantizedRows(rows.values, None), "rows.scale must be a tensor, got None"),
    ):
        with pytest.raises(ValueError, match=f"History.dense: {text}"):
            lc.History.dense(wrong, time)


@pytest.mark.parametrize("backend", ["compiled", "reference"])
@pytest.mark.parametrize("scoring", ["folded", "precomputed"])
def test_a_module_searches_bytes_and_attends_to_rows(
    device: str, scoring: Any, backend: Any
) -> None:
    module = lc.LongTermInterestClock(8, 6, k=5, scoring=scoring, backend=backend).to(device)
    table, ids = torch.randn(40, 8, device=device), torch.randint(40, (2, 30), device=device)
    history = lc.History.dense(lc.Lookup(table, ids), torch.randint(10**6, (2, 30), device=device))
    candidate, now = torch.randn(2, 3, 6, device=device), torch.full((2,), 10**6, device=device)
    read = table if scoring == "folded" else module.project(table).detach()
    keys = lc.quantize_rows(read)
    for dtype in QUERY_DTYPES:
        found = module.search(candidate, history, now, keys=keys, query_dtype=dtype)
        right = module(candidate, history, now, found=found)
        assert_bitwise(module(candidate, history, now, keys=keys, query_dtype=dtype), right)
        exact = module.search(candidate, history, now)
        same = [len({*a.tolist()} & {*b.tolist()}) for a, b in zip(found.flatten(0, 1), exact.flatten(0, 1), strict=True)]  # fmt: skip
        assert sum(same) >= 0.8 * exact.numel()
    with pytest.raises(ValueError, match=r"history\.rows must be floating, got int8"):
        module(candidate, lc.History.dense(lc.Lookup(lc.quantize_rows(table), ids), history.time), now)  # fmt: skip
    with pytest.raises(ValueError, match="query_dtype must be None for float32"):
        module(candidate, history, now, query_dtype="int8")


def test_what_reads_rows_does_not_take_bytes() -> None:
    """But searches by dot products: each by its own name."""
    rows, time, now = lc.quantize_rows(torch.randn(1, 5, 8)), torch.zeros(1, 5).long(), torch.zeros(1).long()  # fmt: skip
    history = lc.History.dense(rows, time)
    table = lc.Lookup(lc.quantize_rows(torch.randn(9, 8)), time)
    for name in ("DIN", "SDIM", "HSTU", "TWINV2", "ETA"):
        module = getattr(baselines, name)(8, 8)
        for each in (history, lc.History.dense(table, time)):
            with pytest.raises(
                ValueError, match=rf"^{name}: history\.rows must be floating, got int8"
            ):
                module(torch.randn(1, 8), each, now)
    u, mlp, found = torch.randn(1, 2, 8), lc.TimeSimilarity(), torch.zeros(1, 3).long()
    for package in (lc, lc.reference):
        for z in (rows, table):
            with pytest.raises(
                ValueError, match=r"^esu_attention: z.* must be .*, got QuantizedRows"
            ):
                package.esu_attention(u, z, time, now, mlp, found=found)
        with pytest.raises(
            ValueError, match=r"^hamming_gsu: keys must be a tensor, got QuantizedRows"
        ):
            package.hamming_gsu(torch.zeros(1, 8).long(), rows, time, now)
    floats = lc.History.dense(rows.float(), time)
    with pytest.raises(ValueError, match=r"^ETA: query_dtype must be None, .*, got 'int8'"):
        baselines.ETA(8, 8)(torch.randn(1, 8), floats, now, query_dtype="int8")
    with pytest.raises(
        ValueError, match=r"history\.rows must be a Lookup of one table, got QuantizedRows"
    ):
        lc.distributed.clock_gsu_at_rows(torch.randn(1, 8), lc.History.dense(table, time), now, mlp)


@pytest.mark.parametrize("query_dtype", QUERY_DTYPES)
def test_a_graph_of_cuda_takes_bytes(query_dtype: str | None) -> None:
    """As it is traced, without a GPU."""
    case = keys_in_bytes(make_case("dense"), query_dtype)
    for op, extra in (("clock_gsu", 3), ("gsu_score", None)):
        with FakeTensorMode():
            there = tree_map_only(torch.Tensor, lambda x: torch.empty(x.shape, dtype=x.dtype, device="cuda"), case.raw(extra))  # fmt: skip
            found = getattr(torch.ops.longclock, op)(*there)
            here = tree_map_only(torch.Tensor, lambda x: torch.empty_like(x, device="cpu"), there)
            with pytest.raises(ValueError, match=rf"^{op}: key_scale must be on the device of query, cuda"):  # fmt: skip
                getattr(torch.ops.longclock, op)(*there[:-3], here[-3], *there[-2:])
        shapes = [x.shape[-1] for x in found] if op == "clock_gsu" else [found.shape[-1]]
        assert shapes == ([3, 3] if op == "clock_gsu" else [case.key_time.shape[1]])
