# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import torch
from fuzz import oracle
from fuzz.draw import Draw
from fuzz.oracle import Array
from fuzz.rules import Rules
from fuzz.searches import Search
from fuzz.spec import Given
from torch import Tensor


class HammingGsu(Search):
    name = "hamming_gsu"
    row_dtypes = (torch.int64,)
    widths = (2, 4)
    strict = False

    def public(self) -> dict[str, Given]:
        words, when = torch.zeros(2, 5, 1, dtype=torch.int64), torch.zeros(2, 5, dtype=torch.int64)
        given = {"query": words[:, 0], "keys": words, "key_time": when, "query_time": when[:, 0]}
        return {"": given | {"k": 3}}

    def rows(self, draw: Draw, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        low, high = (0, 4) if draw.exact else (-(2**63), 2**63 - 1)
        return draw.ints(shape, low, high, dtype)

    def query_of(self, draw: Draw, query: Tensor) -> Tensor:
        return query

    def check_rows(self, rules: Rules) -> None:
        rules.dtype("query", torch.int64)
        rules.dtype("keys", torch.int64)

    def scores(self, a: Given, q: int, seen: Array, now: int) -> tuple[Array, Array]:
        keys, query = oracle.rows(a, seen), oracle.lines(a["query"])[q]
        bits = np.bitwise_xor(keys.astype(np.uint64), query.astype(np.uint64))
        ones = np.unpackbits(bits.view(np.uint8), axis=-1) if bits.shape[-1] else bits
        return -ones.sum(-1).astype(np.float64), np.zeros(len(seen))


SPECS = (HammingGsu(),)
