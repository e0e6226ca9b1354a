# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from esu_cases import make_esu
from fuzz import layouts
from fuzz.call import Call
from fuzz.clocks import clock_options
from fuzz.compare import LARGEST, LEAST, ULP, check, compare, compare_gradients
from fuzz.draw import FLOATS, INTS, Draw
from fuzz.oracle import Answer, Array
from fuzz.rules import FARTHEST, Rules, of_kind
from fuzz.searches import TWO_CLOCKS
from fuzz.spec import MLP, Given, Spec, schema_of
from torch import Tensor

import longclock as lc

from . import esu_attention_oracle as attention


def good_calls() -> dict[str, Given]:
    """Of the forward: rows and a table, looked up one by one or where a search found them."""
    made: dict[str, Given] = {}
    for table, all_valid in itertools.product((False, True), repeat=2):
        case = make_esu(
            queries=3, heads=2, k=8, width=5, table=table, some_invalid=not all_valid, poison=False
        )
        given = dict(zip(schema_of("esu_attention"), case.raw(), strict=True))
        valid = torch.ones(3, 8, dtype=torch.bool) if case.valid is None else case.valid
        at = torch.where(valid, torch.arange(24).view(3, 8), -1)
        whole = {"z_time": case.z_time.flatten(), "positions": at, "valid": None}
        whole |= {"ids": given["ids"].flatten()} if table else {"z": case.z.flatten(0, 1)}
        kind = f"{'table' if table else 'rows'}{', all valid' if all_valid else ''}"
        made |= {kind: given, f"{kind}, found": given | whole}
    case = make_esu(queries=3, heads=2, k=8, width=5, poison=False, clocks=TWO_CLOCKS)
    made["two clocks"] = dict(zip(schema_of("esu_attention"), case.raw(), strict=True))
    case = make_esu(queries=3, heads=2, k=8, width=2, table=True, some_invalid=False)
    given = dict(zip(schema_of("esu_attention"), case.raw(), strict=True))
    few, own = torch.randint(2, (3, 8)), torch.zeros(0, dtype=torch.int64)
    made["features"] = given | {
        "u": torch.randn(3, 2, 5), "features": [torch.randn(2, 2), torch.randn(24, 1)], "feature_ids": [few, own],
    }  # fmt: skip
    return made


def feature_of(rows: Tensor, ids: Tensor, z_time: Any) -> tuple[Tensor, Tensor | None]:
    """As the public function takes it: a row for each behaviour lies as their times do, and has no ids."""
    plain = of_kind(z_time) in ("tensor", "meta")
    if ids.numel() or (plain and z_time.numel() == 0):
        return rows, ids
    fits = plain and z_time.dim() == 2 and z_time.numel() == len(rows)
    return rows.reshape(*z_time.shape, rows.shape[1]) if fits else rows, None


class Attention(Spec):
    """What forward and backward share: the arguments up to ``unit``."""

    def draw(self, draw: Draw, way: str) -> Given:
        """Rows, times and ids of each query, or of whole histories and where in them those of a query lie."""
        found = draw.chance(0.4)
        queries, n = draw.size(3 if draw.tiny else 5), draw.size(2 if draw.tiny else 5)
        large = not found and not draw.tiny and draw.chance(0.02)
        k = 1500 if large else draw.size(9 if draw.tiny else 70)
        width, total = draw.size(9 if draw.tiny else 70), draw.size(9 if draw.tiny else 100)
        dtype, clocks, kind = draw.pick(*FLOATS), draw.clocks(), draw.below(5)
        period = clocks["periods"][0] or 86400
        table, count = draw.chance(0.5), draw.size(30)
        each = (total,) if found else (queries, k)
        positions, valid, dead = None, None, torch.full(each, found)
        if found:
            least = draw.pick(-1, -3) if way == "raw" else -1
            positions = torch.full((queries, k), -1)
            if total and (count or not table):
                positions = draw.ints((queries, k), least, total, torch.int64)
            dead[positions[positions >= 0]] = False
        elif draw.chance(0.5) or (table and count == 0):
            valid = draw.bools((queries, k), 0.7 if count or not table else 0.0)
            dead = ~valid
        z = draw.floats((count, width) if table else (*each, width), dtype)
        features = self.features(draw, each, dtype)
        width += sum(rows.shape[1] for rows in features["features"])
        ids = draw.ints(each, 0, max(count, 1), draw.pick(*INTS)) if table else None
        z_time = draw.times(each, draw.pick(*INTS), period, kind)
        if draw.chance(0.7):
            draw.nonsense(z if ids is None else ids, dead, *([] if ids is None else [-1]))
            draw.nonsense(z_time, dead, 0)
            for rows, of_rows in zip(*features.values(), strict=True):
                if of_rows.numel():
                    draw.nonsense(of_rows, dead, -1, len(rows))
                elif dead.numel():
                    draw.nonsense(rows, dead.flatten())
        u = draw.floats((queries, n, width), torch.float32)
        u = u * draw.pick(1.0, 0.1, 1 / max(width, 1) ** 0.5)
        u = u.to(dtype) if draw.chance(0.7) else u
        now = draw.times(queries, draw.pick(*INTS), period, kind)
        a = {"u": u, "z": z, "ids": ids, "z_time": z_time, "query_time": now, "positions": positions}  # fmt: skip
        a = draw.dressed_all(a | draw.mlps(clocks) | {"valid": valid}, *a, "valid")
        return (
            a | clocks | {name: [draw.dressed(x) for x in made] for name, made in features.items()}
        )

    def features(
        self, draw: Draw, each: tuple[int, ...], dtype: torch.dtype
    ) -> dict[str, list[Tensor]]:
        """Of a table each, or with a row for every behaviour."""
        features, feature_ids = [], []
        for _ in range(draw.pick(0, 0, 0, 1, 2)):
            count, own = max(draw.size(9), 1), draw.chance(0.3) and np.prod(each) > 0
            features.append(
                draw.floats((int(np.prod(each)) if own else count, draw.size(9)), dtype)
            )
            ids = torch.zeros(0, dtype=torch.int64)
            feature_ids.append(ids if own else draw.ints(each, 0, count, draw.pick(*INTS)))
        return {"features": features, "feature_ids": feature_ids}

    def contract(self, rules: Rules) -> None:
        a = rules.a
        rules.matches("u", "z")
        rules.clocks()
        rules.ints("z_time", "query_time", "ids")
        found = a["positions"] is not None
        rules.dtype("positions", torch.int64)
        rules.dtype("valid", torch.bool)
        rules.need(not found or a["valid"] is None, "positions with valid")
        fits = rules.rank("u", 3) & rules.rank("z_time", 1 if found else 2)
        fits &= rules.rank("query_time", 1)
        fits &= rules.rank("z", 3 if a["ids"] is None and not found else 2)
        if not fits or (found and not rules.rank("positions", 2)):
            return
        queries, heads, whole = a["u"].shape
        width = whole - sum(rows.shape[1] for rows in a["features"])
        rules.need(all(rows.dtype == a["z"].dtype for rows in a["features"]), "dtype of features")
        by_query = "positions" if found else "z_time"
        rules.need(a[by_query].shape[0] == queries, f"Q of {by_query}")
        each = tuple(a["z_time"].shape)
        rules.shape("query_time", queries)
        rules.shape("ids", *each)
        if not found:
            rules.shape("valid", *each)
        if a["ids"] is None:
            rules.shape("z", *each, width)
        else:
            rules.need(a["z"].shape[-1] == width, "L of the table")
        wide = whole + 4 * len(a["periods"])
        for name, last in (("grad", wide), ("context", wide), ("softmax", 2)):
            if name in self.kinds:
                rules.dtype(name, torch.float32)
                rules.shape(name, queries, heads, last)

    def values(self, rules: Rules, view: Given) -> None:
        backward = "grad" in self.kinds
        if view["positions"] is not None:
            at, total = view["positions"], len(view["z_time"])
            rules.data(bool((at < total).all()), "positions beyond the history")
            raw = rules.call.way == "raw"
            rules.data(raw or bool((at >= -1).all()), "found outside its history")
            if rules.broken or rules.open:
                return
        view = attention.own_rows(view)
        valid = np.ones(view["z_time"].shape, bool) if view["valid"] is None else view["valid"]
        times, now = view["z_time"][valid], view["query_time"][valid.any(1)]
        if backward and any(
            np.abs(each.astype(object)).max(initial=0) > FARTHEST for each in (times, now)
        ):
            rules.open.append("times that the forward refuses")
        rules.seconds("z_time", times.astype(np.int64), not backward)
        rules.seconds("query_time", now.astype(np.int64), not backward)
        rules.seconds("query_time", view["query_time"].astype(np.int64), False)
        looked_up = [(view["ids"], view["z"])] if rules.a["ids"] is not None else []
        looked_up += [
            pair for pair in zip(view["feature_ids"], view["features"], strict=True) if pair[0].size
        ]
        for ids, rows in looked_up:
            outside = bool(((ids[valid] < 0) | (ids[valid] >= len(rows))).any())
            if outside and rules.emulated:
                (rules.either if rules.call.op == "esu_attention" else rules.open).append("ids")
            else:
                rules.need(not outside, "an id of no row")


class EsuAttention(Attention):
    name = "esu_attention"

    def public(self) -> dict[str, Given]:
        made, names = {}, ("u", "z", "z_time", "query_time", "mlp", "valid", "clocks")
        for name, clocks in ("", 86400), ("two clocks", TWO_CLOCKS):
            esu = make_esu(clocks=clocks)
            made[name] = {argument: getattr(esu, argument) for argument in names} | {"unit": 3600.0}
        times = torch.zeros(2, 5, dtype=torch.int64)
        made["found"] = {
            "u": torch.randn(4, 2, 7), "z": torch.randn(2, 5, 7), "z_time": times, "query_time": times[:, 0],
            "mlp": made[""]["mlp"], "found": torch.zeros(2, 2, 3, dtype=torch.int64),
            "lengths": torch.tensor([5, 3]), "mask": times == 0, "exclude_future": False,
        }  # fmt: skip
        return made

    def raw(self) -> dict[str, Given]:
        return good_calls()

    def draw(self, draw: Draw, way: str) -> Given:
        return super().draw(draw, way) | {"sparse_grad": draw.chance(0.3)}

    def unread(self, a: Given) -> tuple[str, ...]:
        return ("sparse_grad",) if a["ids"] is None and not a["features"] else ()

    def call(self, function: Callable[..., Any], a: Given, mlp: Any, extra: Given) -> Any:
        z = a["z"] if a["ids"] is None else lc.Lookup(a["z"], a["ids"], a["sparse_grad"])
        if a["features"]:
            others = zip(a["features"], a["feature_ids"], strict=True)
            pairs = [(a["z"], a["ids"]), *(feature_of(*pair, a["z_time"]) for pair in others)]
            z = lc.Lookup(*zip(*pairs, strict=True), a["sparse_grad"])
        options = {"valid": a["valid"], **clock_options(a)}
        if a["positions"] is not None:
            options |= layouts.everywhere(a)
        return function(a["u"], z, a["z_time"], a["query_time"], mlp, **options, **extra)

    def answer(self, a: Given) -> tuple[Array, Array]:
        """The context, and how far off it may be."""
        return attention.esu_attention(a)

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        exact, off = self.answer(view)
        context = result if isinstance(result, Tensor) else result[0]
        compare("context", context, exact, torch.float32, off)


class EsuAttentionBackward(Attention):
    name = "esu_attention_backward"
    of = EsuAttention()
    ways = ("raw", "gradient")
    leaves = ("u", "z", *MLP)
    saved = ("context", "softmax")

    def raw(self) -> dict[str, Given]:
        made = {}
        for name, forward in good_calls().items():
            grad, context = torch.randn(2, 3, 2, 5 + 4 * len(forward["periods"]))
            given = {"grad": grad, "context": context, "softmax": torch.randn(3, 2, 2)}
            given |= dict.fromkeys(("need_u", "need_z", "need_mlp"), True)
            made[name] = {argument: (forward | given)[argument] for argument in self.kinds}
        return made

    def draw(self, draw: Draw, way: str) -> Given:
        a = super().draw(draw, way)
        if way == "gradient":
            a |= {"sparse_grad": draw.chance(0.3)}
        queries, n, width = a["u"].shape
        grad = draw.dressed(draw.floats((queries, n, width + 4 * len(a["periods"])), torch.float32))
        saved = dict.fromkeys(self.saved) if way == "raw" else {}
        return {"grad": grad} | a | saved | draw.needs("u", "z", "mlp")

    def complete(self, call: Call) -> None:
        """What the forward keeps for its backward."""
        if call.way == "raw":
            a = call.arguments
            forward = [a[name] for name in self.of.kinds if name != "sparse_grad"]
            with torch.no_grad():
                context, softmax = torch.ops.longclock.esu_attention(*forward, False)
            a |= {"context": context, "softmax": softmax}

    def answer(self, call: Call, a: Given) -> Answer:
        """A table's rows are added up where autograd does it, each sum rounded to their dtype."""
        answer = attention.esu_attention_gradient(a)
        if call.way == "gradient":  # before the columns of features
            own = a["z"].shape[-1]
            answer.values["z"], answer.off["z"] = (
                answer.values["z"][..., :own],
                answer.off["z"][..., :own],
            )
        if call.way == "gradient" and attention.gathers(a):
            dtype = call.arguments["z"].dtype
            rounding, largest = ULP.get(dtype, 0.0), LARGEST[dtype]
            rows, off = answer.values["z"], answer.off["z"]
            off = off + rounding * np.abs(rows) + (LEAST[dtype] if dtype in ULP else 0.0)
            with np.errstate(all="ignore"):
                off = np.where(np.abs(rows) + off < largest, off, np.inf)
            summed = attention.table_gradient(rows, off, a, len(a["z"]), rounding, largest)
            answer.values["z"], answer.off["z"] = summed
        return answer

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        if call.way == "gradient" and attention.gathers(a) and "z" in result:
            sparse = bool(a["sparse_grad"]) and a["ids"] is not None
            check(result["z"].is_sparse == sparse or len(a["z"]) == 0, "sparse or dense")
            result = result | {"z": result["z"].to_dense()}
        compare_gradients(call, a, result, self.answer(call, view))


SPECS = (EsuAttention(), EsuAttentionBackward())
