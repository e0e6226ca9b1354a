# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from torch import Tensor

from longclock.reference._named import named_as_op


@named_as_op
@torch.no_grad()
def pack_signs(x: Tensor) -> Tensor:
    """Bit i of word w is ``x[..., 64 w + i] > 0``: int64 [..., ceil(D / 64)]."""
    bits = torch.nn.functional.pad(x > 0, (0, -x.shape[-1] % 64)).unflatten(-1, (-1, 64))
    return (bits.long() << torch.arange(64, device=x.device)).sum(-1)
