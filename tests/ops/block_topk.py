# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fuzz import oracle
from fuzz.call import Call
from fuzz.compare import compare
from fuzz.draw import FLOATS, INTS, Draw
from fuzz.oracle import Array, array
from fuzz.rules import Rules
from fuzz.selections import ranked
from fuzz.spec import Given, Spec


class BlockTopk(Spec):
    name = "block_topk"

    def raw(self) -> dict[str, Given]:
        lengths = torch.tensor([0, 7, 20])
        return {
            "": {"scores": torch.randn(3, 20), "k": 3, "lengths": lengths},
            "padded": {"scores": torch.randn(3, 20), "k": 30, "lengths": None},
        }

    def draw(self, draw: Draw, way: str) -> Given:
        lead = tuple(draw.size(5) for _ in range(draw.pick(0, 1, 1, 1, 2, 3)))
        large = draw.chance(0.02) and not draw.tiny and len(lead) < 2
        m = 140_000 if large else draw.size(40 if draw.tiny else 300)
        scores = draw.floats((*lead, m), draw.pick(*FLOATS), draw.chance(0.3))
        lengths = None
        if draw.chance(0.5):
            lengths = draw.ints(lead, 0, m + 1, draw.pick(*INTS))
            draw.nonsense(scores, torch.arange(m) >= lengths[..., None])
            lengths = draw.dressed(lengths)
        return {"scores": draw.dressed(scores), "k": draw.count(), "lengths": lengths}

    def contract(self, rules: Rules) -> None:
        rules.dtype("scores", *FLOATS)
        rules.ints("lengths")
        rules.k()
        if rules.need(rules.a["scores"].dim() > 0, "scores is a scalar"):
            rules.shape("lengths", *rules.a["scores"].shape[:-1])

    def values(self, rules: Rules, view: Given) -> None:
        rules.lengths(view, view["scores"].shape[-1])

    def answer(self, a: Given) -> tuple[Array, Array]:
        """The best scores, and their indices."""
        flat, m = oracle.lines(a["scores"]), a["scores"].shape[-1]
        ends = np.full(len(flat), m) if a["lengths"] is None else a["lengths"].reshape(-1)
        found = [ranked(row, np.arange(m) < n, a["k"]) for row, n in zip(flat, ends, strict=True)]
        shape = (*a["scores"].shape[:-1], a["k"])
        values = np.array([pair[0] for pair in found]).reshape(shape)
        return values, np.array([pair[1] for pair in found], np.int64).reshape(shape)

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        scores, indices = self.answer(view)
        compare("scores", result[0], scores, a["scores"].dtype)
        compare("indices", result[1], indices, torch.int64)


class BlockTopkBackward(Spec):
    name = "block_topk_backward"
    of = BlockTopk()
    ways = ("raw", "gradient")
    leaves = ("scores",)
    sizes = ("m",)

    def raw(self) -> dict[str, Given]:
        indices = torch.rand(6, 64).topk(3).indices
        return {"": {"grad": torch.randn(6, 3), "indices": indices, "m": 64}}

    def draw(self, draw: Draw, way: str) -> Given:
        if way == "gradient":
            a = self.of.draw(draw, way)
            shape = (*a["scores"].shape[:-1], a["k"])
            return {"grad": draw.dressed(draw.floats(shape, a["scores"].dtype))} | a
        lead = tuple(draw.size(4) for _ in range(draw.pick(0, 1, 1, 2)))
        m, k = draw.size(40), draw.size(20)
        rows = [np.concatenate([draw.random.permutation(m)[:k], np.full(max(k - m, 0), -1)])
                for _ in range(int(np.prod(lead)))]  # fmt: skip
        indices = np.array(rows, np.int64).reshape((*lead, k))
        indices[draw.random.random(indices.shape) < 0.1] = -1
        grad = draw.dressed(draw.floats(indices.shape, draw.pick(*FLOATS)))
        return {"grad": grad, "indices": draw.dressed(torch.from_numpy(indices)), "m": m}

    def contract(self, rules: Rules) -> None:
        rules.dtype("grad", *FLOATS)
        rules.dtype("indices", torch.int64)
        if rules.need(rules.a["grad"].dim() > 0, "grad is a scalar"):
            rules.shape("indices", *rules.a["grad"].shape)
        rules.need(0 <= rules.a["m"] <= 2**31 - 1, "m")

    def values(self, rules: Rules, view: Given) -> None:
        at = oracle.lines(view["indices"])
        rules.data(bool((at < view["m"]).all()), "indices beyond m")
        twice = any(len(np.unique(row[row >= 0])) < (row >= 0).sum() for row in at)
        if twice or bool((at < -1).any()):
            rules.open.append("indices of no selection")

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        """Each of what was chosen has its gradient; -1 is padding."""
        if call.way == "raw":
            dtype, m, indices = a["grad"].dtype, view["m"], view["indices"]
        else:
            dtype, m, indices = a["scores"].dtype, view["scores"].shape[-1], self.of.answer(view)[1]
            result = result["scores"]
        grad = array(a["grad"].to(dtype))  # as autograd does
        flat = oracle.lines(grad)
        out = np.zeros((len(flat), m))
        for row, values, at in zip(out, flat, oracle.lines(indices), strict=True):
            row[at[at >= 0]] = values[at >= 0]
        compare("grad", result, out.reshape(*grad.shape[:-1], m), dtype)


SPECS = (BlockTopk(), BlockTopkBackward())
