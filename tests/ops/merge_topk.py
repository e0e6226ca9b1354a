# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fuzz import oracle
from fuzz.call import Call
from fuzz.compare import compare
from fuzz.draw import FLOATS, INTS, Draw
from fuzz.oracle import Array
from fuzz.rules import Rules
from fuzz.selections import ranked
from fuzz.spec import Given, Spec


class MergeTopk(Spec):
    name = "merge_topk"
    ways = ("public",)  # it is no raw op

    @property
    def kinds(self) -> dict[str, str]:
        return {"scores": "Tensor", "indices": "Tensor", "k": "int"}

    def public(self) -> dict[str, Given]:
        indices = torch.tensor([[4, -1, 0, 9, 2, -1]] * 2)
        return {"": {"scores": torch.randn(2, 6), "indices": indices, "k": 3}}

    def draw(self, draw: Draw, way: str) -> Given:
        lead = tuple(draw.size(5) for _ in range(draw.pick(0, 1, 1, 2)))
        p = draw.size(40 if draw.tiny else 300)
        scores = draw.floats((*lead, p), draw.pick(*FLOATS), draw.chance(0.3))
        dtype = draw.pick(*INTS)
        most = draw.pick(p, 2 * p, 2**31 - 1, 2**31 - 1 if dtype == torch.int32 else 2**62)
        rows = [draw.random.permutation(p) * max(most // max(p, 1), 1) for _ in range(int(np.prod(lead)))]  # fmt: skip
        indices = torch.from_numpy(np.array(rows, np.int64).reshape(*lead, p))
        nothing = draw.bools(indices.shape, draw.pick(0.0, 0.1, 0.9))
        draw.nonsense(scores, nothing)
        indices[nothing] = draw.pick(-1, -1, -5)
        indices = draw.dressed(indices.to(dtype))
        return {"scores": draw.dressed(scores), "indices": indices, "k": draw.count()}

    def contract(self, rules: Rules) -> None:
        rules.dtype("scores", *FLOATS)
        rules.ints("indices")
        if rules.need(rules.a["scores"].dim() > 0, "scores is a scalar"):
            rules.k(max(2**20, rules.a["scores"].shape[-1]))
            rules.shape("indices", *rules.a["scores"].shape)

    def answer(self, a: Given) -> tuple[Array, Array]:
        """The best scores, and their indices: each row in the order of its indices."""
        values, found = [], []
        for scores, at in zip(oracle.lines(a["scores"]), oracle.lines(a["indices"]), strict=True):
            order = np.argsort(at, kind="stable")
            best, places = ranked(scores[order], at[order] >= 0, a["k"])
            values.append(best)
            found.append([-1 if place < 0 else at[order][place] for place in places])
        shape = (*a["scores"].shape[:-1], a["k"])
        return np.array(values).reshape(shape), np.array(found, np.int64).reshape(shape)

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        scores, indices = self.answer(view)
        compare("scores", result[0], scores, a["scores"].dtype)
        compare("indices", result[1], indices, torch.int64)


SPECS = (MergeTopk(),)
