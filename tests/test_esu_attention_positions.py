# SPDX-License-Identifier: Apache-2.0
"""The raw op of attention by positions: what it refuses, and the gradient of its table."""

from __future__ import annotations

import pytest
import torch
from test_esu_attention_found import OP, TABLE_GRAD
from tolerance import assert_bitwise
from torch import Tensor

import longclock as lc


def raw_found(device: str, **changes: object) -> list[object]:
    """Arguments of the raw op: 3 queries of 2 heads over 5 behaviours of width 4."""
    ints = torch.zeros(5, dtype=torch.int64, device=device)
    mlp = [weight.detach().to(device) for weight in lc.TimeSimilarity().mlp()]
    given: dict[str, object] = {
        "u": torch.ones(3, 2, 4, device=device), "z": torch.ones(5, 4, device=device), "ids": None, "z_time": ints,
        "query_time": ints[:3], "positions": torch.tensor([[0, -1], [4, 3], [-1, -9]], device=device),
        **dict(zip(("w1", "b1", "w2", "b2"), mlp, strict=True)), "valid": None, "periods": [86400], "units": [3600.0],
        "features": [], "feature_ids": [], "sparse_grad": False,
    }  # fmt: skip
    return list((given | changes).values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": torch.zeros(3, 2).int()}, "positions must be int64, got int32"),
        ({"positions": torch.zeros(3, 2)}, "positions must be int64, got float32"),
        ({"positions": torch.zeros(2, 2).long()}, "positions must have shape [Q, K] with Q = 3 to match u, got [2, 2]"),
        ({"positions": torch.zeros(3).long()}, "positions must have shape [Q, K] with Q = 3 to match u, got [3]"),
        ({"valid": torch.ones(3, 2).bool()}, "valid must be None with positions; one below 0 is not valid"),
        ({"z_time": torch.zeros(3, 2).long()}, "z_time must have shape [T] with positions, got [3, 2]"),
        ({"z_time": torch.zeros(4).long()}, "z_time must have shape [T] = [5] to match z, got [4]"),
        ({"z": torch.zeros(3, 2, 4)}, "z must have shape [T, L] with L = 4 to match u, got [3, 2, 4]"),
        ({"z": torch.zeros(5, 3)}, "z must have shape [T, L] with L = 4 to match u, got [5, 3]"),
        ({"z": torch.zeros(9, 3), "ids": torch.zeros(5).long()}, "z must have shape [N, L] with L = 4 to match u, got [9, 3]"),
        ({"ids": torch.zeros(4).long()}, "ids must have shape [T] = [5] to match z_time, got [4]"),
        ({"ids": torch.zeros(3, 2).long()}, "ids must have shape [T] = [5] to match z_time, got [3, 2]"),
        ({"ids": torch.zeros(5)}, "ids must be int32 or int64, got float32; convert with ids.to(torch.int64)"),
        ({"query_time": torch.zeros(2).long()}, "query_time must have shape [Q] = [3] to match u, got [2]"),
    ],
)  # fmt: skip
def test_mistakes_in_the_raw_op(device: str, changes: dict[str, Tensor], message: str) -> None:
    there = {name: value.to(device) for name, value in changes.items()}
    OP(*raw_found(device))
    with pytest.raises(ValueError) as caught:
        OP(*raw_found(device, **there))
    assert str(caught.value).splitlines()[0] == f"esu_attention: {message}"


def test_positions_beyond_the_history_are_named(device: str, checks_data: bool) -> None:
    past = torch.tensor([[0, -1], [5, 3], [-1, -9]], device=device)
    z_grad = torch.ones(3, 2, 4, device=device)
    ids = torch.zeros(5, dtype=torch.int64, device=device)
    if not checks_data:
        return  # nothing is read of the history there: tests of the emulator see to it
    with pytest.raises(ValueError, match=r"^esu_attention: positions must be below T = 5, got 5"):
        OP(*raw_found(device, positions=past))
    with pytest.raises(
        ValueError, match=r"^esu_attention_table_grad: positions must be below T = 5, got 5"
    ):
        TABLE_GRAD(z_grad, ids, past, None, 9)


@pytest.mark.parametrize(
    ("ids", "positions", "message"),
    [
        (torch.zeros(5), torch.zeros(3, 2), "ids must be int32 or int64, got float32; convert with ids.to(torch.int64)"),
        (torch.zeros(5).long(), torch.zeros(3, 2), "positions must be int64, got float32"),
        (torch.zeros(5).long(), torch.zeros(3, 3).long(),
         "positions must have shape [Q, K] = [3, 2] to match z_grad, got [3, 3]"),
        (torch.zeros(3, 2).long(), torch.zeros(3, 2).long(), "ids must have shape [T] with positions, got [3, 2]"),
    ],
)  # fmt: skip
def test_mistakes_in_the_gradient_of_a_table(
    device: str, ids: Tensor, positions: Tensor, message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        TABLE_GRAD(
            torch.ones(3, 2, 4, device=device), ids.to(device), positions.to(device), None, 9
        )
    assert str(caught.value).splitlines()[0] == f"esu_attention_table_grad: {message}"


@pytest.mark.parametrize("id_dtype", [torch.int32, torch.int64])
def test_the_gradient_of_a_table_by_positions(
    level: str, device: str, id_dtype: torch.dtype
) -> None:
    ids = torch.randint(0, 30, (50,)).to(id_dtype).to(device)
    at = torch.randint(-3, 50, (6, 9), device=device)
    z_grad = torch.randn(6, 9, 20, device=device)
    z_grad[at < 0] = torch.nan  # of what is not valid nothing is read
    there, lines = at >= 0, ids[at.clamp(min=0)]
    found = TABLE_GRAD(z_grad, ids, at, None, 30)
    assert_bitwise(found, TABLE_GRAD(z_grad, lines, None, there, 30))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid": torch.ones(2, 3).bool()},
         "valid must be None with found; a mask says which behaviours of a history may count"),
        ({"found": None}, "lengths must come with found, the indices of a search, got found=None"),
        ({"found": None, "lengths": None}, "lengths must come with found, the indices of a search, got found=None"),
        ({"found": torch.zeros(2, 3).int()}, "found must be int64, got int32; pass the indices of a search"),
        ({"found": torch.zeros(2).long()}, "found must have shape [S, K] or [S, C, K], got [2]"),
        ({"found": torch.zeros(1, 3).long()}, "found must have S = 2 in its first dimension to match z, got [1, 3]"),
        ({"found": torch.zeros(2, 2, 3).long()}, "found must have a row of K for each of Q = 2 queries, got [2, 2, 3]"),
        ({"lengths": torch.zeros(3).long()}, "lengths must have shape [S] = [2] to match z, got [3]"),
        ({"lengths": torch.zeros(2)}, "lengths must be int32 or int64, got float32; convert with lengths.to(torch.int64)"),
        ({"query_time": torch.zeros(3).long()}, "query_time must have shape [S] = [2] to match z, got [3]"),
        ({"z": torch.zeros(10, 4)}, "z must have shape [S, M, L] for dense histories, got [10, 4]; for [T, L] pass offsets, or "
                                    "starts and ends"),
        ({"z": torch.zeros(2, 4, 4)}, "z_time must have shape [S, M] = [2, 4] to match z, got [2, 5]"),
        ({"z": torch.zeros(2, 5, 3)}, "z must have shape [T, L] with L = 4 to match u, got [10, 3]"),
        ({"mask": torch.ones(2, 4).bool()}, "mask must be bool of z_time's shape [2, 5], got bool [2, 4]"),
        ({"offsets": torch.tensor([0, 10])}, "lengths must be None for ragged and windows; it belongs to the dense layout"),
        ({"query_offsets": torch.tensor([0, 1, 2])},
         "query_offsets must come with offsets (ragged), or starts and ends (windows), got neither"),
    ],
)  # fmt: skip
def test_mistakes(device: str, changes: dict[str, Tensor | None], message: str) -> None:
    ints = torch.zeros(2, 5, dtype=torch.int64, device=device)
    mlp = lc.TimeSimilarity().to(device)
    given = {"u": torch.ones(2, 3, 4, device=device), "z": torch.ones(2, 5, 4, device=device), "z_time": ints,
             "query_time": ints[:, 0], "mlp": mlp, "found": ints[:, :3], "lengths": ints[:, 0] + 5}  # fmt: skip
    for op in (lc.esu_attention, lc.reference.esu_attention):
        op(**given)
        there = {
            name: value if value is None else value.to(device) for name, value in changes.items()
        }
        with pytest.raises(ValueError) as caught:
            op(**given | there)
        assert str(caught.value).splitlines()[0] == f"esu_attention: {message}"
