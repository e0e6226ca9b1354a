# SPDX-License-Identifier: Apache-2.0
"""The parts of esu_attention that know behaviours by their positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from cases import LAYOUTS
from fuzz import layouts, oracle
from fuzz.call import Call
from fuzz.compare import LARGEST, ULP, check, compare
from fuzz.draw import FLOATS, INTS, Draw
from fuzz.rules import Rules
from fuzz.spec import Given, Spec

from . import esu_attention_oracle as attention
from .esu_attention import EsuAttention, EsuAttentionBackward, good_calls


class EsuAttentionPositions(Spec):
    name = "esu_attention_positions"
    of = EsuAttention()
    ways = ("raw",)

    @property
    def called(self) -> str:
        return "esu_attention"

    def raw(self) -> dict[str, Given]:
        made = {}
        for name, case in layouts.good_cases(torch.float32).items():
            given = {"key_time": case.key_time, "query_time": case.query_time, "exclude_future": False, **case.layout}  # fmt: skip
            given["found"] = torch.full((*case.query.shape[:-1], 3), -1)
            made[name] = {argument: given.get(argument) for argument in self.kinds}
        return made

    def draw(self, draw: Draw, way: str) -> Given:
        layout = draw.pick(*LAYOUTS)
        given, shape, queries = layouts.place(draw, layout, 9 if draw.tiny else 60)
        period, kind, k = 86400, draw.below(5), draw.size(9 if draw.tiny else 40)
        lead = (queries,) if layout != "candidates" else (queries, draw.size(4))
        key_time = draw.times(shape, draw.pick(*INTS), period, kind)
        sequences = layouts.sequences_of(given, queries)
        query_time = draw.times(sequences, draw.pick(*INTS), period, kind)
        a: Given = {"key_time": key_time, "query_time": query_time, **layouts.NO_LAYOUT, **given}
        a["mask"] = draw.bools(shape, 0.7) if draw.chance(0.4) else None
        a["exclude_future"] = draw.chance(0.4)
        found = torch.full((int(np.prod(lead)), k), -1)
        view = layouts.as_arrays(a) | {"query": np.zeros((*lead, 0))}
        for q, _, _, length in layouts.spans(view):
            found[q] = draw.ints((k,), -1, max(int(length), 0), torch.int64) if length else -1
        a["found"] = found.view(*lead, k)
        return draw.dressed_all(a, "key_time", "query_time", "mask", "found")

    def contract(self, rules: Rules) -> None:
        flat, fits = layouts.check_layout(rules)
        rules.dtype("found", torch.int64)
        fits &= rules.rank("found", *((2,) if flat else (2, 3)))
        if fits and not rules.broken:
            layouts.check_places(rules, "found")

    def values(self, rules: Rules, view: Given) -> None:
        layouts.check_bounds(rules, view, len(view["found"]))
        rules.seconds("query_time", view["query_time"])
        if rules.broken or rules.open:
            return
        found = oracle.lines(view["found"])
        times, mask = view["key_time"].reshape(-1), view["mask"]
        for q, at, _, length in layouts.spans(view | {"query": view["found"]}):
            inside = bool(((found[q] >= -1) & (found[q] < length)).all())
            rules.data(inside, "found outside its history")
            if inside and view["exclude_future"]:  # which compares them as seconds
                seen = at[found[q][found[q] >= 0]]
                read = seen if mask is None else seen[mask.reshape(-1)[seen]]
                rules.seconds("key_time", times[read])

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        positions, query_time = attention.positions(view)
        compare("positions", result[0], positions, torch.int64)
        compare("query_time", result[1], query_time, torch.int64)


class EsuAttentionTableGrad(Spec):
    """Adds up what the backward gives of each row of a table that was looked up."""

    name = "esu_attention_table_grad"
    of = EsuAttention()
    ways = ("raw", "gradient")
    leaves = EsuAttentionBackward.leaves
    sizes = ("table_rows",)
    backward = EsuAttentionBackward()

    def raw(self) -> dict[str, Given]:
        made = {}
        for name, forward in good_calls().items():
            if forward["ids"] is not None:
                given = forward | {"z_grad": torch.randn(3, 8, 5), "table_rows": len(forward["z"])}
                made[name] = {argument: given[argument] for argument in self.kinds}
        return made

    def draw(self, draw: Draw, way: str) -> Given:
        while way == "gradient":
            a = self.backward.draw(draw, way)
            if attention.gathers(a):
                return a | {"need_z": True}
        queries, k, width, count = draw.size(5), draw.size(20), draw.size(20), draw.size(20)
        valid = draw.bools((queries, k), 0.7) if draw.chance(0.5) or count == 0 else None
        valid = valid if count or valid is None else torch.zeros_like(valid)
        ids = draw.ints((queries, k), 0, max(count, 1), draw.pick(*INTS))
        z_grad = draw.floats((queries, k, width), draw.pick(*FLOATS))
        positions = None
        if draw.chance(0.4):  # ids of a history, and where in it each row lies
            total = draw.size(30) if count else 0
            ids = draw.ints((total,), 0, max(count, 1), ids.dtype)
            positions = torch.full((queries, k), -1)
            if total:
                positions = draw.ints((queries, k), -2, total, torch.int64)
            unread = torch.ones(total, dtype=torch.bool)
            unread[positions[positions >= 0]] = False
            draw.nonsense(ids, unread, -1, 0)
            z_grad[positions < 0] = 0.0
        if valid is not None:
            if positions is None:
                draw.nonsense(ids, ~valid, -1, 0)
            z_grad[~valid] = 0.0
        a = {"z_grad": z_grad, "ids": ids, "positions": positions, "valid": valid}
        return draw.dressed_all(a, *a) | {"table_rows": count}

    def contract(self, rules: Rules) -> None:
        a = rules.a
        rules.dtype("z_grad", *FLOATS)
        rules.ints("ids")
        rules.dtype("valid", torch.bool)
        rules.dtype("positions", torch.int64)
        rules.need(a["table_rows"] >= 0, "table_rows")
        if rules.rank("z_grad", 3):
            if a["positions"] is not None:
                rules.rank("ids", 1)
            each = tuple(a["z_grad"].shape[:2])
            rules.shape("ids" if a["positions"] is None else "positions", *each)
            rules.shape("valid", *each)
            large = a["table_rows"] * a["z_grad"].shape[-1] >= 2**38
            rules.need(not large, "table_rows is more than memory")
            if a["table_rows"] > 2**30:
                rules.either.append("table_rows is huge")

    def values(self, rules: Rules, view: Given) -> None:
        if view["positions"] is not None:
            inside = bool((view["positions"] < len(view["ids"])).all())
            rules.data(inside, "positions beyond the history")
            if rules.broken or rules.open:
                return
        view = attention.own_rows(view)
        valid = np.ones(view["ids"].shape, bool) if view["valid"] is None else view["valid"]
        ids, unused = view["ids"][valid], view["z_grad"][~valid]
        if bool(((ids < 0) | (ids >= view["table_rows"])).any()):
            rules.open.append("an id of no row")
        if bool(np.nan_to_num(unused, nan=1).any()):
            rules.open.append("z_grad where nothing is valid")

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        if call.way == "gradient":
            self.backward.check(call, a, view, result)
            return
        z_grad, dtype, count = view["z_grad"], a["z_grad"].dtype, view["table_rows"]
        if count > 2**30:  # of no width
            check(tuple(result.shape) == (count, z_grad.shape[-1]), "shape")
            return
        rounding = ULP.get(dtype, 0.0), LARGEST[dtype]
        exact, off = attention.table_gradient(z_grad, z_grad * 0, view, count, *rounding)
        compare("table", result, exact, dtype, off)


SPECS = (EsuAttentionPositions(), EsuAttentionTableGrad())
