# SPDX-License-Identifier: Apache-2.0
"""Nested tensors of layout torch.jagged as the ragged layout of the ops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tolerance import assert_bitwise
from torch import Tensor

import longclock as lc

LENGTHS = (3, 0, 5)
OFFSETS = torch.tensor([0, 3, 3, 8])
QUERY, NOW = torch.randn(3, 8), torch.full((3,), 10**6)
ROWS, WHEN = torch.randn(8, 8), torch.randint(0, 10**6, (8,))
TABLE, IDS = torch.randn(6, 8), torch.randint(0, 6, (8,))
MASK = torch.tensor([True, False, True, True, True, False, True, True])
MLP = lc.TimeSimilarity().requires_grad_(False)


def nested(values: Tensor) -> Tensor:
    return torch.nested.nested_tensor_from_jagged(values, OFFSETS)


def search(op: Any, *call: Any, **layout: Any) -> Tensor:
    if op is lc.hamming_gsu:
        query, keys, *rest = call
        packed = lc.pack_signs(keys.values()) if keys.is_nested else lc.pack_signs(keys)
        packed = nested(packed) if keys.is_nested else packed
        return op(lc.pack_signs(query), packed, *rest, k=4, **layout).indices
    found = op(*call, MLP, **layout) if op is lc.gsu_score else op(*call, MLP, k=4, **layout).indices  # fmt: skip
    return found


@pytest.mark.parametrize("op", [lc.clock_gsu, lc.gsu_score, lc.hamming_gsu])
def test_searches(op: Any) -> None:
    flat = search(op, QUERY, ROWS, WHEN, NOW, offsets=OFFSETS, mask=MASK)
    assert torch.equal(search(op, QUERY, nested(ROWS), nested(WHEN), NOW, mask=nested(MASK)), flat)
    assert torch.equal(search(op, QUERY, ROWS, nested(WHEN), NOW, mask=MASK), flat)
    looked_up = search(op, QUERY, TABLE, WHEN, NOW, offsets=OFFSETS, ids=IDS)
    assert torch.equal(search(op, QUERY, TABLE, nested(WHEN), NOW, ids=nested(IDS)), looked_up)
    assert not torch.equal(looked_up, flat)


def test_several_tables_and_several_queries() -> None:
    more, which = torch.randn(4, 2), torch.randint(0, 4, (8,))
    query, split = torch.randn(5, 10), torch.tensor([0, 2, 2, 5])
    call = (query, (TABLE, more), nested(WHEN), NOW, MLP, 3)
    found = lc.clock_gsu(*call, ids=(nested(IDS), nested(which)), query_offsets=split)
    flat = lc.clock_gsu(query, (TABLE, more), WHEN, NOW, MLP, 3, ids=(IDS, which), offsets=OFFSETS, query_offsets=split)  # fmt: skip
    assert torch.equal(found.indices, flat.indices)
    assert_bitwise(found.scores, flat.scores)


def test_attention_and_its_gradient() -> None:
    found = lc.clock_gsu(QUERY, nested(ROWS), nested(WHEN), NOW, MLP, k=4).indices
    u = torch.randn(3, 2, 8)
    flat = ROWS.clone().requires_grad_()
    expected = lc.esu_attention(u, flat, WHEN, NOW, MLP, found=found, offsets=OFFSETS)
    expected.sum().backward()
    rows = torch.nested.nested_tensor_from_jagged(ROWS.clone(), OFFSETS).requires_grad_()
    given = lc.esu_attention(u, rows, nested(WHEN), NOW, MLP, found=found)
    assert_bitwise(given, expected)
    given.sum().backward()
    assert rows.grad is not None
    assert_bitwise(rows.grad.values(), flat.grad)
    looked_up = lc.esu_attention(u, lc.Lookup(TABLE, nested(IDS)), nested(WHEN), NOW, MLP, found=found)  # fmt: skip
    expected = lc.esu_attention(u, lc.Lookup(TABLE, IDS), WHEN, NOW, MLP, found=found, offsets=OFFSETS)  # fmt: skip
    assert_bitwise(looked_up, expected)


def test_a_narrowed_one_has_holes() -> None:
    """Of each padded row some behaviours, which are windows."""
    rows, when = torch.randn(3, 6, 8), torch.randint(0, 10**6, (3, 6))
    begins, sizes = torch.tensor([1, 0, 2]), torch.tensor([2, 0, 4])
    cut = [torch.nested.narrow(x, 1, begins, sizes, layout=torch.jagged) for x in (rows, when)]
    found = lc.clock_gsu(QUERY, *cut, NOW, MLP, k=4)
    starts = 6 * torch.arange(3) + begins
    flat = lc.clock_gsu(QUERY, rows.flatten(0, 1), when.flatten(), NOW, MLP, k=4, starts=starts, ends=starts + sizes)  # fmt: skip
    assert torch.equal(found.indices, flat.indices)


STRIDED = torch.nested.nested_tensor([WHEN[:3], WHEN[3:]])


@pytest.mark.parametrize("change", [{"keys": torch.nested.nested_tensor([ROWS[:3], ROWS[3:]])}, {"key_time": STRIDED}, {"ids": STRIDED}])  # fmt: skip
def test_the_usual_layout_of_nested_tensors_is_named(change: dict[str, Any]) -> None:
    """Which has no shape, and is what torch.nested.nested_tensor makes unless told otherwise."""
    call = {"query": QUERY, "keys": ROWS, "key_time": nested(WHEN), "query_time": NOW, "mlp": MLP}
    message = "must be a tensor of one shape, got a nested one of layout torch.strided; .*layout=torch.jagged"
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"^clock_gsu: {name} {message}"):
        lc.clock_gsu(**{**call, **change}, k=2)
    rows, time = (change.get("keys", ROWS), change.get("key_time", WHEN))
    rows = lc.Lookup(TABLE, value) if name == "ids" else rows
    for history in (lc.History.ragged, lc.History.dense):
        with pytest.raises(ValueError, match=f"^{history.__qualname__}: .* {message}"):
            history(rows, time)
    if name == "keys":
        with pytest.raises(ValueError, match=f"^quantize_rows: rows {message}"):
            lc.quantize_rows(value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": OFFSETS}, "clock_gsu: offsets must be None where key_time is nested and brings its own, got both"),
        ({"lengths": OFFSETS[1:]}, "clock_gsu: lengths must be None where key_time is nested"),
        ({"key_time": WHEN}, "clock_gsu: keys must be a tensor of one shape, got a nested one; give the times as a nested one"),
        ({"keys": torch.nested.nested_tensor_from_jagged(ROWS, torch.tensor([0, 1, 3, 8]))}, "clock_gsu: key_time must have the offsets of keys, got others"),
        ({"query": nested(ROWS)}, "clock_gsu: query must be a tensor of one shape, got a nested one"),
        ({"key_time": torch.nested.nested_tensor([WHEN[:3], WHEN[3:]])}, "clock_gsu: .* must be a tensor of one shape, got a nested one"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    call = {"query": QUERY, "keys": nested(ROWS), "key_time": nested(WHEN), "query_time": NOW, "mlp": MLP}  # fmt: skip
    with pytest.raises(ValueError, match=message):
        lc.clock_gsu(**{**call, **change}, k=2)
