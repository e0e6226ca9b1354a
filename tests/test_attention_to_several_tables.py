# SPDX-License-Identifier: Apache-2.0
"""The attention to behaviours that are rows of several tables side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bench.memory import kilobytes
from cases import FLOATS, LAYOUTS, NOWHERE, make_case
from esu_cases import FoundCase, lengths_of, make_esu, queries_of
from tolerance import assert_bitwise, assert_close
from torch import Tensor

import longclock as lc
from longclock.types import Clocks

# Columns of a table that is looked up in, of one that lies as the behaviours do, and of a small one. Odd ones; whole
# pieces of 16 bytes of every dtype, of fp32 alone, over 128 columns; no multiple of 8; none.
WIDTHS = [(6, 5, 2), (16, 8, 8), (4, 12, 8), (64, 80, 16), (24, 0, 9), (0, 3, 4)]
# Of the largest element: in 16 bits each row that comes again is added in 16 bits on the CPU.
OFF = {torch.float32: 2e-4, torch.float16: 2e-2, torch.bfloat16: 1.5e-1}
TWO_CLOCKS = (86400, lc.ELAPSED)
Tables = tuple[Tensor, ...]


class Several:
    """Rows of three tables for behaviours of some shape, poisoned where nothing may be read; the second has a row each."""

    def __init__(self, shape: tuple[int, ...], dead: Tensor, widths: tuple[int, ...], dtype: torch.dtype) -> None:  # fmt: skip
        sizes = ((23, widths[0]), (*shape, widths[1]), (3, widths[2]))
        self.tables: Tables = tuple(torch.randn(size).to(dtype) for size in sizes)
        self.tables[1][dead] = torch.nan
        self.dead = dead
        self.ids = [torch.randint(23, shape), None, torch.randint(3, shape).int()]
        for ids in (self.ids[0], self.ids[2]):
            assert ids is not None
            ids[dead] = NOWHERE if ids.dtype == torch.int64 else -7

    def rows(self, tables: Tables, sparse: bool = False) -> lc.Lookup:
        ids = [each if each is None else each.to(tables[0].device) for each in self.ids]
        return lc.Lookup(tables, tuple(ids), sparse)

    def joined(self, tables: Tables) -> Tensor:
        """A row of its own for each behaviour."""
        dead = self.dead.to(tables[0].device)[..., None]
        pieces = [
            table
            if ids is None
            else table[ids.to(table.device).masked_fill(dead[..., 0], 0).long()]
            for table, ids in zip(tables, self.ids, strict=True)
        ]
        return torch.cat(pieces, -1).masked_fill(dead, 0)


def gradients(out: Tensor, leaves: list[Tensor], grad: Tensor) -> list[Tensor]:
    return [each.to_dense() for each in torch.autograd.grad(out, leaves, grad)]


def compare(
    several: Several,
    u: Tensor,
    mlp: tuple[Tensor, ...],
    device: str,
    attend: Callable[[Any, Tensor, Any, tuple[Tensor, ...]], Tensor],
    sparse: bool = False,
) -> None:
    """The context and all gradients: bit for bit those of joined rows, and those of tables near those in fp64.

    Of joined rows the gradient of every behaviour is the same to the last bit, since each dot product adds its columns in
    the order of L, whatever they lie in. Those of a table are sums over behaviours, which indexing adds up in another order.
    """
    leaves = [x.to(device).requires_grad_() for x in (u, *mlp, *several.tables)]
    split = 1 + len(mlp)
    u, mlp, tables = leaves[0], tuple(leaves[1:split]), tuple(leaves[split:])
    ours = attend(lc.esu_attention, u, several.rows(tables, sparse), mlp)
    grad = torch.randn_like(ours)
    found = gradients(ours, leaves, grad)
    one = several.joined(tables)
    joined = attend(lc.esu_attention, u, one, mlp)
    assert_bitwise(ours, joined)
    # Columns that lie as the behaviours do get the joined rows' gradient itself.
    of_one = gradients(joined, [*leaves[:split], one], grad)
    assert_bitwise(found[:split], of_one[:split])
    begin = tables[0].shape[1]
    own = of_one[split][..., begin : begin + tables[1].shape[-1]]
    assert_bitwise(found[split + 1], own)
    exact_leaves = [x.detach().cpu().double().requires_grad_() for x in leaves]
    exact_mlp, exact_tables = tuple(exact_leaves[1:split]), tuple(exact_leaves[split:])
    exact = attend(
        lc.reference.esu_attention, exact_leaves[0], several.rows(exact_tables), exact_mlp
    )
    assert_close(ours, exact, ours.cpu().float())
    exact_found = gradients(exact, exact_leaves, grad.cpu().double())
    for mine, theirs in zip(found[split:], exact_found[split:], strict=True):
        small = OFF[mine.dtype]
        top = float(theirs.abs().max()) if theirs.numel() else 1.0
        torch.testing.assert_close(
            mine.cpu().double(), theirs, rtol=small, atol=small * max(top, 1e-3)
        )


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("heads", [2, 5])
def test_behaviours_of_each_query(
    level: str, device: str, widths: tuple[int, ...], dtype: torch.dtype, heads: int
) -> None:
    for clocks, k in ((86400, 70), (TWO_CLOCKS, 3)):
        case = make_esu(dtype, width=sum(widths), k=k, heads=heads, clocks=clocks)
        assert case.valid is not None
        several = Several(case.valid.shape, ~case.valid, widths, dtype)
        compare(
            several,
            case.u / max(sum(widths), 1) ** 0.5,
            case.mlp,
            device,
            of_each_query(case, clocks),
        )


def of_each_query(case: Any, clocks: Clocks) -> Callable[..., Tensor]:
    def attend(op: Any, u: Tensor, z: Any, mlp: tuple[Tensor, ...]) -> Tensor:
        there = [x.to(u.device) for x in (case.z_time, case.query_time)]
        result: Tensor = op(u, z, *there, mlp, case.valid.to(u.device), clocks)
        return result

    return attend


def found_case(layout: str, k: int, **options: Any) -> tuple[FoundCase, Tensor]:
    """Indices of which some come twice and some are -1; and which behaviours none names."""
    case = make_case(layout, poison=False, **options)
    starts = [start for start, _ in queries_of(case)]
    found = torch.full((len(starts), k), -1)
    for q, length in enumerate(lengths_of(case)):
        if length and q != 1:
            found[q] = torch.randint(-1, length, (k,))
    made = FoundCase(torch.empty(0), case, found.view(*case.query.shape[:-1], k))
    at, valid, _ = made.positions()
    dead = torch.ones(case.key_time.numel(), dtype=torch.bool)
    dead[at[valid]] = False
    return made, dead.view(case.key_time.shape)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sparse", [False, True])
def test_what_was_found(
    level: str, device: str, layout: str, dtype: torch.dtype, sparse: bool
) -> None:
    for widths in ((6, 5, 2), (16, 8, 8)):
        made, dead = found_case(layout, 6, mask=True)
        case, several = made.search, Several(dead.shape, dead, widths, dtype)
        u = torch.randn(made.positions()[0].shape[0], 4, sum(widths)).to(dtype) / sum(widths) ** 0.5
        layouts = {
            name: value
            for name, value in case.layout.items()
            if name not in ("ids", "scale", "clocks")
        }

        def attend(
            op: Any,
            u: Tensor,
            z: Any,
            mlp: tuple[Tensor, ...],
            made: FoundCase = made,
            layouts: Any = layouts,
        ) -> Tensor:
            case = made.search
            there = [x.to(u.device) for x in (case.key_time, case.query_time)]
            given = {
                name: x.to(u.device) if isinstance(x, Tensor) else x for name, x in layouts.items()
            }
            result: Tensor = op(u, z, *there, mlp, found=made.found.to(u.device), **given)
            return result

        compare(several, u, case.mlp, device, attend, sparse)


def test_many_behaviours_in_parts(device: str) -> None:
    case = make_esu(width=24, k=1300, queries=2, some_invalid=False)
    valid = torch.rand(2, 1300) < 0.9
    case.valid = valid
    several = Several((2, 1300), ~valid, (8, 8, 8), torch.float32)
    compare(several, case.u / 5, case.mlp, device, of_each_query(case, 86400))


def test_eight_tables_of_many_widths(device: str) -> None:
    case = make_esu(width=1 + 2 + 3 + 4 + 5 + 6 + 7 + 8, k=40)
    assert case.valid is not None
    tables = [torch.randn(11, width).to(device) for width in range(1, 9)]
    ids = [torch.randint(11, (5, 40)).masked_fill(~case.valid, 99).to(device) for _ in tables]
    there = case.to(device)
    z = torch.cat([table[each.clamp(max=10)] for table, each in zip(tables, ids, strict=True)], -1)
    several = lc.Lookup(tuple(tables), tuple(ids))
    ours, joined = (
        lc.esu_attention(there.u, rows, there.z_time, there.query_time, there.mlp, there.valid)
        for rows in (several, z)
    )
    assert_bitwise(ours, joined)


@pytest.mark.parametrize("sparse", [False, True])
def test_the_gradient_of_tables_as_of_one(device: str, sparse: bool) -> None:
    """Two tables that are read by the same ids, beside the two joined into one: the same sums in the same order."""
    case = make_esu(width=20, k=50, table=True).to(device)
    grad = torch.randn(5, 4, 24, device=device)
    one = case.z.clone().requires_grad_()
    halves = [half.contiguous().requires_grad_() for half in case.z.split((12, 8), -1)]
    results = []
    for leaves, rows in (([one], lc.Lookup(one, case.ids, sparse)), (halves, lc.Lookup(tuple(halves), (case.ids, case.ids), sparse))):  # fmt: skip
        out = lc.esu_attention(case.u, rows, case.z_time, case.query_time, case.mlp, case.valid)
        made = torch.autograd.grad(out, leaves, grad)
        assert all(each.is_sparse == sparse for each in made)
        results.append(torch.cat([each.to_dense() for each in made], -1))
    assert_bitwise(*results)


def test_tables_that_are_columns_of_one(device: str) -> None:
    """Which lie apart, and are not copied."""
    case = make_esu(width=20, table=True).to(device)
    halves = case.z.split((12, 8), -1)
    several = lc.Lookup(halves, (case.ids, case.ids))
    ours, one = (
        lc.esu_attention(case.u, rows, case.z_time, case.query_time, case.mlp, case.valid)
        for rows in (several, lc.Lookup(case.z, case.ids))
    )
    assert_bitwise(ours, one)


def test_an_id_of_no_row(device: str, checks_data: bool) -> None:
    case = make_esu(width=5, some_invalid=False).to(device)
    tables = tuple(torch.randn(9, width, device=device) for width in (3, 2))
    ids = torch.zeros(2, 5, 37, dtype=torch.int64, device=device)
    ids[1, 2, 3] = 9
    rows = lc.Lookup(tables, tuple(ids))
    flat = torch.arange(37, device=device).expand(5, 37)
    for options in ({}, {"found": flat}):
        if checks_data:
            place = 2 * 37 + 3
            with pytest.raises(
                ValueError,
                match=rf"^esu_attention: ids\[1\] must be from 0 to N - 1 = 8, got 9 at position {place}",
            ):
                lc.esu_attention(case.u, rows, case.z_time, case.query_time, case.mlp, **options)
            continue
        context = lc.esu_attention(case.u, rows, case.z_time, case.query_time, case.mlp, **options)
        assert context[2].isnan().all()
        assert context[[0, 1, 3, 4]].isfinite().all()


def test_mistakes(device: str) -> None:
    case = make_esu(width=7, some_invalid=False).to(device)
    first, own, small = torch.randn(9, 3), torch.randn(5, 37, 2), torch.randn(4, 2)
    ids = torch.zeros(5, 37, dtype=torch.int64)

    def refused(
        text: str, tables: Tables = (first, own, small), every_ids: Any = (ids, None, ids)
    ) -> None:
        there = tuple(x.to(device) for x in tables)
        rows = lc.Lookup(there, tuple(x if x is None else x.to(device) for x in every_ids))
        with pytest.raises(ValueError, match=f"^esu_attention: {text}"):
            lc.esu_attention(case.u, rows, case.z_time, case.query_time, case.mlp)

    refused(
        r"ids must be a tuple of one for each of the 3 tables, got 2 of them", every_ids=(ids, None)
    )
    refused(
        r"z\[2\] must be float32 to match z, got bfloat16; convert it with .to\(\)",
        (first, own, small.bfloat16()),
    )
    refused(r"z\[2\] must have shape \[N, L\] with ids, got \[2\]", (first, own, small[0]))
    refused(
        r"z\[1\] must have a row for every behaviour, where it has no ids, got \[180, 2\]",
        (first, own[:, :36], small),
    )
    refused(r"ids\[2\] must have z_time's shape, got \[5, 3\]", every_ids=(ids, None, ids[:, :3]))
    refused(r"ids\[2\] must be int32 or int64, got float32", every_ids=(ids, None, ids.float()))
    refused(
        r"u must have L = 5 in its last dimension to match z, got \[5, 4, 7\]",
        (first, own),
        (ids, None),
    )
    many = (first, *[small[:, :0]] * 6, small, small)
    refused(r"z must be at most 8 tables, with ids for each, got 9 tables", many, (ids,) * 9)


def test_the_module_over_everything(device: str) -> None:
    """k = None: all behaviours as they are stored."""
    tables = [torch.randn(n, w, device=device, requires_grad=True) for n, w in ((30, 4), (3, 2))]
    ids = [torch.randint(n, (2, 90), device=device) for n in (30, 3)]
    time, now = (
        torch.randint(10**6, (2, 90), device=device),
        torch.tensor([10**6, 5], device=device),
    )
    model, candidate = (
        lc.LongTermInterestClock(6, 4, k=None).to(device),
        torch.randn(2, 4, device=device),
    )
    several = model(candidate, lc.History.dense(lc.Lookup(tuple(tables), tuple(ids)), time), now)
    one = torch.cat([table[each] for table, each in zip(tables, ids, strict=True)], -1)
    joined = model(candidate, lc.History.dense(one, time), now)
    assert_bitwise(several, joined)
    for mine, theirs in zip(torch.autograd.grad(several.sum(), tables), torch.autograd.grad(joined.sum(), tables), strict=True):  # fmt: skip
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_transforms_and_graphs() -> None:
    case = make_esu(width=5, k=9, some_invalid=False)
    ids, own = torch.randint(4, (5, 9)), torch.randn(5, 9, 2)

    def total(u: Tensor, table: Tensor) -> Tensor:
        rows = lc.Lookup((table, own), (ids, None))
        return lc.esu_attention(u, rows, case.z_time, case.query_time, case.mlp).square().sum()

    leaves = [case.u.requires_grad_(), torch.randn(4, 3, requires_grad=True)]
    eager = torch.autograd.grad(total(*leaves), leaves)
    for ours in (
        torch.func.grad(total, argnums=(0, 1))(*leaves),
        torch.autograd.grad(
            torch.compile(total, fullgraph=True, backend="aot_eager")(*leaves), leaves
        ),
    ):
        for mine, theirs in zip(ours, eager, strict=True):
            torch.testing.assert_close(mine, theirs)
    several = torch.stack([leaves[1], leaves[1] * 2])
    each = torch.func.vmap(total, in_dims=(None, 0))(leaves[0], several)
    torch.testing.assert_close(each, torch.stack([total(leaves[0], table) for table in several]))


def test_rows_side_by_side_are_never_made() -> None:
    """Of all behaviours they would take 100 MB."""
    count = 200_000
    tables = tuple(torch.randn(1000, 64) for _ in range(2))
    ids = tuple(torch.randint(1000, (1, count)) for _ in tables)
    time, now = torch.randint(10**6, (1, count)), torch.tensor([10**6])
    u, mlp = torch.randn(1, 4, 128) / 12, lc.TimeSimilarity()
    few = tuple(each[:, :100].contiguous() for each in ids)
    lc.esu_attention(u, lc.Lookup(tables, few), time[:, :100], now, mlp)
    before = kilobytes("VmHWM")
    with torch.no_grad():
        lc.esu_attention(u, lc.Lookup(tables, ids), time, now, mlp)
    assert kilobytes("VmHWM") - before < 20_000
