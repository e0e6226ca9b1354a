# SPDX-License-Identifier: Apache-2.0
"""Rows of floats as rows in bytes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tolerance import assert_bitwise

import longclock as lc


def test_quantized_rows_by_hand() -> None:
    rows = torch.tensor([[127.0, -127.0, 0.5, 1.5, -2.5], [2.54, -1.27, 0.0, 0.0, 0.03]])
    values, scale = lc.quantize_rows(rows)
    assert values.tolist() == [[127, -127, 0, 2, -2], [127, -64, 0, 0, 2]]
    assert scale.tolist() == [1.0, torch.tensor(2.54).div(torch.tensor(127.0)).item()]
    assert (values.dtype, scale.dtype) == (torch.int8, torch.float32)
    torch.testing.assert_close(lc.quantize_rows(rows).float(), rows, rtol=0, atol=0.51)


def test_quantized_rows_of_float8_by_hand() -> None:
    rows = torch.tensor([[448.0, -448.0, 17.0, 0.4375, 1e-4], [0.875, -0.4375, 0.0, 0.0, 0.03]])
    values, scale = lc.quantize_rows(rows, torch.float8_e4m3fn)
    assert (values.dtype, scale.dtype) == (torch.float8_e4m3fn, torch.float32)
    assert values.float().tolist() == [[448, -448, 16, 0.4375, 0], [448, -224, 0, 0, 15]]
    assert scale.tolist() == [1.0, torch.tensor(0.875).div(torch.tensor(448.0)).item()]
    rows = torch.randn(50, 64)
    found = lc.quantize_rows(rows, torch.float8_e4m3fn)
    normal = found.values.float().abs() >= 2.0**-6
    error = (found.float() - rows).abs()
    assert bool((error <= rows.abs() / 16 * 1.001)[normal].all())
    assert bool((error <= found.scale[:, None] * 2.0**-10 * 1.001)[~normal].all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rows_are_rounded_to_float32_first(dtype: torch.dtype) -> None:
    rows = torch.randn(3, 5, 16).to(dtype)
    assert_bitwise(lc.quantize_rows(rows), lc.quantize_rows(rows.float()))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_odd_rows(dtype: torch.dtype) -> None:
    rows = torch.tensor([[0.0, -0.0], [1e-45, 0.0], [torch.inf, 1.0], [torch.nan, 1.0]])
    values, scale = lc.quantize_rows(rows, dtype)
    assert not values.float().any()
    assert scale[:2].tolist() == [0.0, 0.0]
    assert scale[2:].isnan().all()
    for shape in ((3, 0), (0, 4), (0,)):
        values, scale = lc.quantize_rows(torch.zeros(shape), dtype)
        assert (values.shape, scale.shape) == (shape, shape[:-1])


@pytest.mark.parametrize("rows", [torch.zeros(3, 2, dtype=torch.int64), torch.tensor(1.0), [1.0]])
def test_what_is_no_matrix_of_floats_is_refused(rows: Any) -> None:
    with pytest.raises(ValueError, match=r"^quantize_rows: rows must be"):
        lc.quantize_rows(rows)


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^quantize_rows: dtype must be torch.int8 or .*, got torch.uint8"):  # fmt: skip
        lc.quantize_rows(torch.zeros(3, 2), torch.uint8)
