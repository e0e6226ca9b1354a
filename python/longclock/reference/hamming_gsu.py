# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longclock.reference._named import named_as_op
from longclock.reference.block_topk import select
from longclock.reference.clock_gsu import join
from longclock.reference.gsu_score import Block, blocks
from longclock.types import TopK


def distances(block: Block) -> Tensor:
    """How many bits of the hashes differ, [B, C, M]."""
    keys = block.keys
    if not isinstance(keys, Tensor):
        raise TypeError("keys must be a tensor")  # which named_as_op says better
    device = keys.device
    bits_of_byte = torch.tensor([byte.bit_count() for byte in range(256)], device=device)
    differ = block.query[:, :, None] ^ keys[:, None]
    bytes_of_words = differ[..., None] >> torch.arange(0, 64, 8, device=device) & 255
    return bits_of_byte[bytes_of_words].sum((-2, -1))


@named_as_op
@torch.no_grad()
def hamming_gsu(
    query: Tensor, keys: Tensor, key_time: Tensor, query_time: Tensor, k: int = 100, **layout: Any
) -> TopK:
    """The k behaviours of each query with the smallest distance: [S, K], [S, C, K] or [Q, K]."""
    best = [
        select(
            (-distances(piece)).float(), k, None if piece.valid is None else piece.valid[:, None]
        )
        for piece in blocks("hamming_gsu", query, keys, key_time, query_time, **layout)
    ]
    return join(best, query, key_time, k, torch.float32)
