# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from torch import Tensor

from longclock._checks import check_not_strided, dtype_of
from longclock._keywords import named_keywords
from longclock._mlp import require_tensor
from longclock.types import QuantizedRows

# The largest finite value of each dtype that rows are rounded to.
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


@named_keywords("quantize_rows")
@torch.no_grad()
def quantize_rows(rows: Tensor, dtype: torch.dtype = torch.int8) -> QuantizedRows:
    """Rows in bytes, each with a scale of its own: what a search may read in their place.

    ``scale = max |row| / 127`` in float32, and ``values = row / scale`` rounded to the nearest, ties to even; of float8_e4m3fn 448
    takes the place of 127. A row with an element that is not finite has the scale NaN, so that its scores are NaN; one whose scale is
    0, as a row of zeros, is 0.

    int8 keeps what is close to a row's largest element better, float8 what is small beside it, to one part in 16.

    Args:
        rows: [..., D], floating; rounded to float32 first.
        dtype: of the values, torch.int8 or torch.float8_e4m3fn. Searches read the latter on CUDA alone.
    Returns:
        QuantizedRows(values [..., D], scale float32 [...]), without a gradient.
    Raises:
        ValueError: rows that are not floating, or without dimensions; another dtype.

    Example::

        >>> import torch, longclock as lc
        >>> lc.quantize_rows(torch.tensor([[-2.54, 1.0]])).values
        tensor([[-127,   50]], dtype=torch.int8)
    """
    require_tensor("quantize_rows", "rows", rows)
    check_not_strided("quantize_rows", rows=rows)
    if not rows.is_floating_point() or rows.dim() == 0:
        raise ValueError(
            f"quantize_rows: rows must be floating, of shape [..., D], got {dtype_of(rows)} {list(rows.shape)}"
        )
    if dtype not in LARGEST:
        raise ValueError(
            f"quantize_rows: dtype must be torch.int8 or torch.float8_e4m3fn, got {dtype}"
        )
    most, rows = LARGEST[dtype], rows.float()
    largest = rows.abs().amax(-1) if rows.shape[-1] > 0 else rows.new_zeros(rows.shape[:-1])
    # Divided by a tensor: by a number, CUDA multiplies with its rounded reciprocal.
    scale = largest / torch.full_like(largest, most)
    scale = scale.where(largest.isfinite(), torch.nan)
    values = (rows / scale[..., None]).clamp(-most, most).where(scale[..., None] > 0, 0.0)
    return QuantizedRows((values.round() if dtype == torch.int8 else values).to(dtype), scale)
