# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
from cases import FLOATS

import longclock as lc


def brute(row: list[float]) -> list[int]:
    """Words of a row as signed integers."""
    words = [0] * math.ceil(len(row) / 64)
    for i, value in enumerate(row):
        words[i // 64] |= (value > 0) << (i % 64)
    return [word - (word >> 63 << 64) for word in words]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("columns", [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 200])
def test_definition(level: str, device: str, dtype: torch.dtype, columns: int) -> None:
    x = torch.randn(70, columns).to(dtype)
    x[torch.rand(x.shape) < 0.2] = 0.0
    if columns:
        x[0] = x[0].sign() * torch.finfo(dtype).smallest_normal
        x[1, ::3], x[1, 1::3], x[2] = torch.nan, -0.0, torch.inf
    words = lc.pack_signs(x.to(device))
    assert words.dtype == torch.int64
    assert words.tolist() == [brute(row) for row in x.tolist()]
    assert torch.equal(words.cpu(), lc.reference.pack_signs(x))


@pytest.mark.parametrize("shape", [(65,), (2, 0, 65), (0, 65), (2, 3, 65), (3, 1, 2, 64)])
def test_shapes(device: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, device=device)
    words = lc.pack_signs(x)
    assert words.shape == (*shape[:-1], (shape[-1] + 63) // 64)
    assert torch.equal(words, lc.reference.pack_signs(x))
    turned = x.mT if x.dim() > 1 else x[::2]
    assert torch.equal(lc.pack_signs(turned), lc.reference.pack_signs(turned))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("start", [1, 4, 8])
def test_rows_that_begin_anywhere(level: str, device: str, dtype: torch.dtype, start: int) -> None:
    x = torch.randn(start + 41 * 128, device=device).to(dtype)[start:].view(41, 128)
    assert torch.equal(lc.pack_signs(x), lc.reference.pack_signs(x))


def test_many_rows(level: str, device: str, same_at_any_threads) -> None:  # type: ignore[no-untyped-def]
    x = torch.randn(3001, 64)
    assert torch.equal(lc.pack_signs(x.to(device)).cpu(), lc.reference.pack_signs(x))
    same_at_any_threads(lambda: lc.pack_signs(x.to(device)))


def test_distances_estimate_angles(device: str) -> None:
    a, b = torch.randn(2, 16)
    directions = torch.randn(16, 20_000)
    hashes = lc.pack_signs((torch.stack([a, b]) @ directions).to(device)).tolist()
    differ = sum((x ^ y).bit_count() if x ^ y >= 0 else ((x ^ y) + 2**64).bit_count()
                 for x, y in zip(*hashes, strict=True))  # fmt: skip
    angle = torch.acos(torch.nn.functional.cosine_similarity(a, b, dim=0))
    assert differ / 20_000 == pytest.approx(float(angle) / math.pi, abs=0.02)  # 5 deviations


def test_no_gradient(device: str) -> None:
    x = torch.randn(5, 70, device=device, requires_grad=True)
    assert not lc.pack_signs(x).requires_grad


def test_errors(device: str) -> None:
    for wrong, message in (
        (torch.zeros(3, dtype=torch.float64), "pack_signs: x must be .* longclock.reference.pack_signs"),
        (torch.zeros(3, dtype=torch.int64), "pack_signs: x must be float32, .* got int64"),
        (torch.zeros(()), "pack_signs: x must have at least one dimension, got a scalar"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{message}"):
            lc.pack_signs(wrong.to(device))
