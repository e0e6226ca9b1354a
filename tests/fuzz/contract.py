# SPDX-License-Identifier: Apache-2.0
"""What must come of a call: the right result, or a refusal that names op and argument.

Written from docs/mathematics.md ("Semantics") and the docstrings, for arguments however odd. Every
rule is looked at; one that is broken makes the call one that must be refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import oracle
from .call import MLP, SEARCHES, Call

INT = (torch.int32, torch.int64)
FLOAT = (torch.float32, torch.float16, torch.bfloat16)
FARTHEST = 10**11  # seconds
OPTIONAL = (
    "ids",
    "lengths",
    "offsets",
    "query_offsets",
    "starts",
    "ends",
    "mask",
    "positions",
    "valid",
)
INT_SCALARS = ("k", "period", "total", "m", "table_rows")
FLOAT_SCALARS = ("scale", "unit")


@dataclass
class Verdict:
    """kind: "right"; "refused"; "either" (right or refused); "meta" (the right shapes, or refused);
    "open" (what it gives is not laid down: it may be anything but a crash or an unnamed error)."""

    kind: str = "right"
    why: list[str] = field(default_factory=list)


def of_kind(value: Any) -> str:
    if value is None:
        return "none"
    if not isinstance(value, Tensor):
        return "python"
    if value.is_quantized:
        return "quantized"
    if value.is_nested:
        return "nested"
    if value.layout != torch.strided:
        return "sparse"
    if value.device.type != "cpu":
        return value.device.type
    if type(value) not in (Tensor, torch.nn.Parameter):
        return "subclass"
    return "zero" if value._is_zerotensor() else "tensor"


class Rules:
    def __init__(self, call: Call, emulated: bool) -> None:
        self.call, self.emulated = call, emulated
        self.a = dict(call.arguments)
        self.broken: list[str] = []
        self.either: list[str] = []
        self.open: list[str] = []

    def need(self, holds: bool, what: str) -> bool:
        if not holds:
            self.broken.append(what)
        return holds

    def data(self, holds: bool, what: str) -> None:
        """What depends on values: refused on the CPU; CUDA clamps it."""
        if not holds:
            (self.open if self.emulated else self.broken).append(what)

    # Kinds of argument.

    def tensors(self) -> None:
        meta, real = [], []
        for name, value in self.call.arguments.items():
            if name in INT_SCALARS:
                self.int_scalar(name, value)
            elif name in FLOAT_SCALARS:
                self.float_scalar(name, value)
            elif name in ("exclude_future", "sparse_grad") or name.startswith("need_"):
                self.flag(name, value)
            else:
                kind = self.tensor(name, value)
                if self.call.way == "gradient" and name == "grad":
                    continue
                (meta if kind == "meta" else [] if kind in ("none", "python") else real).append(
                    name
                )
        self.need(isinstance(self.call.mlp, str) and self.call.mlp != "mlp", "mlp")
        for name in self.call.extra:
            self.need(False, f"{name} is no keyword")
        if meta and real:
            self.need(False, f"{meta} are on meta, {real} are not")
        self.meta = bool(meta)

    def tensor(self, name: str, value: Any) -> str:
        kind = of_kind(value)
        if kind == "none":
            required = name not in OPTIONAL or (name, self.call.form) == (
                "ids",
                "esu_attention_table_grad",
            )
            self.need(not required, f"{name} is None")
        elif kind == "python":
            number = isinstance(value, (bool, int, float))
            if name == "utc_offset" and self.call.way == "public":
                self.need(
                    isinstance(value, int) and not isinstance(value, bool), f"{name} {value!r}"
                )
            elif self.call.way == "raw" and number and abs(value) < 2**63:
                self.a[name] = torch.tensor(
                    value, dtype=None if isinstance(value, (int, bool)) else torch.float64
                )
                self.either.append(f"{name} is a number, which PyTorch makes a tensor")
            else:
                self.need(False, f"{name} is {type(value).__name__}")
        elif kind in ("subclass", "zero"):
            self.either.append(f"{name} is a {kind}")
        else:
            self.need(kind in ("tensor", "meta"), f"{name} is {kind}")
        return kind

    def int_scalar(self, name: str, value: Any) -> None:
        if value is None:
            self.need(name == "total", f"{name} is None")
        elif isinstance(value, bool):
            public = self.call.way != "raw" and name in ("k", "period")
            self.need(not public, f"{name} is a bool")
            self.either.append(f"{name} is a bool")
        else:
            self.need(isinstance(value, int), f"{name} is {type(value).__name__}")

    def float_scalar(self, name: str, value: Any) -> None:
        if value is None:
            self.need(self.call.way != "raw", f"{name} is None")
            return
        if not self.need(isinstance(value, (int, float)), f"{name} is {type(value).__name__}"):
            return
        if isinstance(value, bool):
            self.either.append(f"{name} is a bool")
        if name == "unit":
            self.need(0.0 < value < float("inf"), f"unit {value}")
            if 0.0 < value < 1e-30 or value > 1e30:
                self.either.append("unit is extreme")
        elif not abs(value) < 1e30:
            self.either.append("scale is extreme")
            self.open.append("scale is extreme")

    def flag(self, name: str, value: Any) -> None:
        given = self.call.way == "raw" or name != "sparse_grad" or self.a["ids"] is not None
        if given and not isinstance(value, bool):
            number = value is None or isinstance(value, (int, float))  # PyTorch makes them bools
            self.need(number, f"{name} is {type(value).__name__}")
            self.either.append(f"{name} is {type(value).__name__}")

    # Dtypes and shapes.

    def dtype(self, name: str, dtypes: tuple[torch.dtype, ...]) -> bool:
        value = self.a.get(name)
        return value is None or self.need(value.dtype in dtypes, f"{name} is {value.dtype}")

    def shape(self, name: str, expected: tuple[int, ...]) -> bool:
        value = self.a.get(name)
        fits = value is None or tuple(value.shape) == tuple(expected)
        return self.need(fits, f"{name} must have shape {expected}")

    def rank(self, name: str, *ranks: int) -> bool:
        return self.need(self.a[name].dim() in ranks, f"{name} must have {ranks} dimensions")

    def matches(self, name: str, rows: str) -> None:
        if self.dtype(name, FLOAT) and self.dtype(rows, FLOAT):
            fits = self.a[name].dtype in (torch.float32, self.a[rows].dtype)
            self.need(fits, f"{name} is not {rows}' dtype")

    def mlp(self) -> None:
        for name in MLP:
            self.dtype(name, (torch.float32,))
        w1 = self.a["w1"]
        if self.need(w1.dim() == 2 and w1.shape[1] == 4 and 1 <= w1.shape[0] <= 64, "w1's shape"):
            self.shape("b1", w1.shape[:1])
            self.shape("w2", w1.shape[:1])
        self.need(tuple(self.a["b2"].shape) in ((), (1,)), "b2's shape")

    def period(self) -> None:
        self.need(1 <= self.a["period"] <= 2**31 - 1, "period")

    def seconds(self, name: str, times: Any, must: bool = True) -> None:
        """Times that count."""
        if (
            times.dtype == np.int64
            and times.size
            and ((times > FARTHEST) | (times < -FARTHEST)).any()
        ):
            if self.emulated or not must:
                self.either.append(f"{name} is beyond 10^11")
            else:
                self.need(False, f"{name} is beyond 10^11")

    # Ops.

    def search(self) -> None:
        a = self.a
        hashes = self.call.op == "hamming_gsu"
        if hashes:
            self.dtype("query", (torch.int64,))
            self.dtype("keys", (torch.int64,))
        else:
            self.matches("query", "keys")
            self.mlp()
            self.period()
        self.dtype("ids", INT)
        flat, fits = self.layout()
        fits &= self.rank("query", *((2,) if flat else (2, 3)))
        fits &= self.rank("keys", 2 if flat or a["ids"] is not None else 3)
        if not fits or self.broken:
            return
        leading = a["key_time"].shape
        if a["ids"] is None:
            self.need(a["keys"].shape[:-1] == leading, "keys and key_time")
        self.shape("ids", leading)
        self.need(a["keys"].shape[-1] == a["query"].shape[-1], "D of query and keys")
        self.places("query")
        if "k" in a:
            self.need(0 <= a["k"] <= 2048, "k")

    def layout(self) -> tuple[bool, bool]:
        """Whether it is flat, and whether the times have as many dimensions as it needs."""
        a = self.a
        for name in (
            "key_time",
            "query_time",
            "lengths",
            "offsets",
            "query_offsets",
            "starts",
            "ends",
        ):
            self.dtype(name, INT)
        self.dtype("mask", (torch.bool,))
        windows, ragged = a["starts"] is not None, a["offsets"] is not None
        flat = windows or ragged
        self.need((a["ends"] is not None) == windows, "starts and ends come together")
        self.need(not (windows and ragged), "starts with offsets")
        self.need(flat or a["query_offsets"] is None, "query_offsets of a dense layout")
        self.need(not flat or a["lengths"] is None, "lengths with a flat layout")
        return flat, self.rank("key_time", 1 if flat else 2) & self.rank("query_time", 1)

    def places(self, name: str) -> None:
        """Sizes of the layout, for queries that the first dimensions of that argument count."""
        a = self.a
        leading, queries, sequences = (
            a["key_time"].shape,
            a[name].shape[0],
            a["query_time"].shape[0],
        )
        self.shape("mask", leading)
        if a["starts"] is None and a["offsets"] is None:
            for of_sequences in ("query_time", "lengths"):
                self.shape(of_sequences, (leading[0],))
            self.need(queries == leading[0], f"S of {name}")
            return
        for bound in ("starts", "ends"):
            self.shape(bound, (sequences,))
        for bound in ("offsets", "query_offsets"):
            self.shape(bound, (sequences + 1,))
        if a["query_offsets"] is None:
            self.shape("query_time", (queries,))

    def found_places(self) -> None:
        """Of esu_attention_positions."""
        flat, fits = self.layout()
        self.dtype("found", (torch.int64,))
        fits &= self.rank("found", *((2,) if flat else (2, 3)))
        if fits and not self.broken:
            self.places("found")

    def found_places_data(self, view: dict[str, Any]) -> None:
        given = {**view, "query": view["found"]}
        self.bounds_data(given)
        self.seconds("query_time", view["query_time"])
        if self.broken or self.open:
            return
        found = view["found"].reshape(
            int(np.prod(view["found"].shape[:-1])), view["found"].shape[-1]
        )
        for q, _, _, length in oracle.spans(given):
            self.data(
                bool(((found[q] >= -1) & (found[q] < length)).all()), "found outside its history"
            )

    def bounds_data(self, view: dict[str, Any]) -> None:
        a = self.a
        total = view["key_time"].size
        for name, end in (("offsets", total), ("query_offsets", len(view["query"]))):
            if a[name] is not None:
                v = view[name]
                self.data(v[0] == 0 and v[-1] == end and bool((v[1:] >= v[:-1]).all()), name)
        if a["starts"] is not None:
            begin, end = view["starts"], view["ends"]
            self.data(bool(((begin >= 0) & (begin <= end) & (end <= total)).all()), "starts, ends")
        if a["lengths"] is not None:
            v = view["lengths"]
            self.data(bool(((v >= 0) & (v <= view["key_time"].shape[-1])).all()), "lengths")

    def search_data(self, view: dict[str, Any]) -> None:
        a = self.a
        self.bounds_data(view)
        if self.broken or self.open:
            return
        hamming, backward = (
            "w1" not in a,
            self.call.op.endswith("backward") and self.call.way == "raw",
        )
        must = not hamming and not backward and a.get("k") != 0
        times = view["key_time"].reshape(-1)
        for _, at, now, length in oracle.spans(view):
            counts = oracle.counting(view, at, now, length)
            self.seconds("query_time", np.array([now], np.int64), must and bool(counts.any()))
            self.seconds("key_time", times[at[counts]].astype(np.int64), must)
            within = oracle.counting(view | {"exclude_future": False}, at, now, length)
            self.seconds("key_time", times[at[within]].astype(np.int64), False)
            if a["ids"] is not None:
                ids = view["ids"].reshape(-1)[at[counts]]
                outside = bool(((ids < 0) | (ids >= len(view["keys"]))).any())
                if outside and self.emulated:
                    (self.open if backward or hamming else self.either).append("an id of no row")
                elif outside and a.get("k") == 0:
                    self.either.append("an id of no row, k is 0")
                else:
                    self.need(not outside, "an id of no row")
        for name in ("query_time", "key_time"):  # of nobody
            self.seconds(name, view[name].astype(np.int64), False)
        if a["ids"] is not None and any(first == last for first, last in oracle.shares(view)):
            ids = view["ids"]  # those of a sequence without a query may be read
            if bool(((ids < 0) | (ids >= len(view["keys"]))).any()):
                self.either.append("an id of no row, for no query")
        if a.get("total") is not None or self.call.form == "gsu_score":
            size = sum(len(at) for _, at, _, _ in oracle.spans(view))
            self.data(a.get("total") in (None, size), f"total must be {size}")
            if self.emulated and a.get("total") is None:
                self.either.append("total is None")
        if self.call.form == "gsu_score_backward":
            self.grad_of_scores(view)

    def grad_of_scores(self, view: dict[str, Any]) -> None:
        dense = view["key_time"].ndim == 2
        size = sum(len(at) for _, at, _, _ in oracle.spans(view))
        shape = (*view["query"].shape[:-1], view["key_time"].shape[1]) if dense else (size,)
        if tuple(self.a["grad"].shape) != shape:
            self.need(self.a["grad"].numel() == size, "grad has another count")
            self.either.append("grad has another shape")

    def attention(self) -> None:
        a = self.a
        self.matches("u", "z")
        self.mlp()
        self.period()
        for name in ("z_time", "query_time", "ids"):
            self.dtype(name, INT)
        found = a["positions"] is not None
        self.dtype("positions", (torch.int64,))
        self.dtype("valid", (torch.bool,))
        self.need(not found or a["valid"] is None, "positions with valid")
        fits = (
            self.rank("u", 3) & self.rank("z_time", 1 if found else 2) & self.rank("query_time", 1)
        )
        fits &= self.rank("z", 3 if a["ids"] is None and not found else 2)
        if not fits or (found and not self.rank("positions", 2)):
            return
        queries, heads, width = a["u"].shape
        by_query = "positions" if found else "z_time"
        self.need(a[by_query].shape[0] == queries, f"Q of {by_query}")
        each = tuple(a["z_time"].shape)
        self.shape("query_time", (queries,))
        self.shape("ids", each)
        if not found:
            self.shape("valid", each)
        if a["ids"] is None:
            self.shape("z", (*each, width))
        else:
            self.need(a["z"].shape[-1] == width, "L of the table")
        for name, shape in (("grad", width + 4), ("context", width + 4), ("softmax", 2)):
            if name in a and self.call.way == "raw":
                self.dtype(name, (torch.float32,))
                self.shape(name, (queries, heads, shape))

    def attention_data(self, view: dict[str, Any]) -> None:
        backward = self.call.op.endswith("backward") and self.call.way == "raw"
        if view["positions"] is not None:
            at, total = view["positions"], len(view["z_time"])
            self.data(bool((at < total).all()), "positions beyond the history")
            self.data(self.call.way == "raw" or bool((at >= -1).all()), "found outside its history")
            if self.broken or self.open:
                return
        times, view = view["z_time"], oracle.own_rows(view)
        valid = np.ones(view["z_time"].shape, bool) if view["valid"] is None else view["valid"]
        if backward and np.abs(times.astype(object)).max(initial=0) > FARTHEST:
            self.open.append("times that the forward refuses")
        if backward and any(
            np.abs(view[name].astype(object)).max(initial=0) > FARTHEST
            for name in ("z_time", "query_time")
        ):
            self.open.append("times that the forward refuses")
        self.seconds("z_time", view["z_time"][valid].astype(np.int64), not backward)
        seen = valid.any(1)
        self.seconds("query_time", view["query_time"][seen].astype(np.int64), not backward)
        self.seconds("query_time", view["query_time"].astype(np.int64), False)
        if self.a["ids"] is not None:
            ids = view["ids"][valid]
            outside = bool(((ids < 0) | (ids >= len(view["z"]))).any())
            if outside and self.emulated:
                (self.either if self.call.op == "esu_attention" else self.open).append("ids")
            else:
                self.need(not outside, "an id of no row")

    def table_grad(self) -> None:
        self.dtype("z_grad", FLOAT)
        self.dtype("ids", INT)
        self.dtype("valid", (torch.bool,))
        self.dtype("positions", (torch.int64,))
        self.need(self.a["table_rows"] >= 0, "table_rows")
        if self.rank("z_grad", 3):
            if self.a["positions"] is not None:
                self.rank("ids", 1)
            self.shape(
                "ids" if self.a["positions"] is None else "positions",
                tuple(self.a["z_grad"].shape[:2]),
            )
            self.shape("valid", tuple(self.a["z_grad"].shape[:2]))
            rows = self.a["table_rows"]
            self.need(rows * self.a["z_grad"].shape[-1] < 2**38, "table_rows is more than memory")
            if rows > 2**30:
                self.either.append("table_rows is huge")

    def topk(self) -> None:
        self.dtype("scores", FLOAT)
        self.dtype("lengths", INT)
        self.need(0 <= self.a["k"] <= 2048, "k")
        if self.need(self.a["scores"].dim() > 0, "scores is a scalar"):
            self.shape("lengths", tuple(self.a["scores"].shape[:-1]))

    def topk_backward(self) -> None:
        self.dtype("grad", FLOAT)
        self.dtype("indices", (torch.int64,))
        if self.need(self.a["grad"].dim() > 0, "grad is a scalar"):
            self.shape("indices", tuple(self.a["grad"].shape))
        self.need(0 <= self.a["m"] <= 2**31 - 1, "m")

    def topk_backward_data(self, view: dict[str, Any]) -> None:
        at = view["indices"]
        self.data(bool((at < self.a["m"]).all()), "indices beyond m")
        at = at.reshape(int(np.prod(at.shape[:-1])), at.shape[-1])
        twice = any(len(np.unique(row[row >= 0])) < (row >= 0).sum() for row in at)
        if twice or bool((at < -1).any()):
            self.open.append("indices of no selection")

    def pair(self, first: str, second: str) -> None:
        self.period()
        for name in (first, second):
            if isinstance(self.a[name], Tensor):
                self.dtype(name, INT)
        shapes = [
            tuple(self.a[name].shape)
            for name in (first, second)
            if isinstance(self.a[name], Tensor)
        ]
        if len(set(shapes)) > 1:
            try:
                np.broadcast_shapes(*shapes)
            except ValueError:
                self.need(False, f"{first} and {second} do not broadcast")
            if self.call.way == "raw":
                self.either.append("shapes that differ, in a raw op")

    def time_term(self) -> None:
        self.dtype("delta", INT)
        if self.call.form != "time_features":
            self.mlp()
        if self.call.form.endswith("backward"):
            self.dtype("grad", (torch.float32,))
            self.shape("grad", tuple(self.a["delta"].shape))

    def signs(self) -> None:
        self.dtype("x", FLOAT)
        self.need(self.a["x"].dim() > 0, "x is a scalar")

    def metadata(self) -> None:
        form = self.call.form
        if form in SEARCHES:
            if form == "gsu_score_backward":
                self.dtype("grad", (torch.float32,))
            self.search()
        elif form in ("esu_attention", "esu_attention_backward"):
            self.attention()
        elif form in ("time_features", "time_similarity", "time_similarity_backward"):
            self.time_term()
        elif form == "circular_delta":
            self.pair("a", "b")
        elif form == "clock_time":
            self.pair("timestamps", "utc_offset")
        else:
            {"esu_attention_table_grad": self.table_grad, "esu_attention_positions": self.found_places, "block_topk": self.topk,
             "block_topk_backward": self.topk_backward, "pack_signs": self.signs}[form]()  # fmt: skip

    def values(self, view: dict[str, Any]) -> None:
        form = self.call.form
        if form in SEARCHES:
            self.search_data(view)
        elif form in ("esu_attention", "esu_attention_backward"):
            self.attention_data(view)
        elif form == "circular_delta":
            some = np.broadcast(view["a"], view["b"]).size > 0
            self.seconds("a", view["a"], some)
            self.seconds("b", view["b"], some)
        elif form == "clock_time":
            some = np.broadcast(view["timestamps"], view["utc_offset"]).size > 0
            self.seconds("timestamps", view["timestamps"], some)
            offset = np.asarray(view["utc_offset"])
            if np.any(np.abs(offset.astype(object)) > FARTHEST):
                self.either.append("utc_offset is beyond 10^11")
        elif form == "block_topk" and view["lengths"] is not None:
            v = view["lengths"]
            self.data(bool(((v >= 0) & (v <= view["scores"].shape[-1])).all()), "lengths")
        elif form == "block_topk_backward":
            self.topk_backward_data(view)
        elif form == "esu_attention_positions":
            self.found_places_data(view)
        elif form == "esu_attention_table_grad":
            if view["positions"] is not None:
                self.data(
                    bool((view["positions"] < len(view["ids"])).all()),
                    "positions beyond the history",
                )
                if self.broken or self.open:
                    return
            view = oracle.own_rows(view)
            valid = np.ones(view["ids"].shape, bool) if view["valid"] is None else view["valid"]
            ids = view["ids"][valid]
            if bool(((ids < 0) | (ids >= self.a["table_rows"])).any()):
                self.open.append("an id of no row")
            if view["valid"] is not None and bool(
                np.nan_to_num(view["z_grad"][~valid], nan=1).any()
            ):
                self.open.append("z_grad where nothing is valid")
        elif "delta" in view and bool((view["delta"] < 0).any()):
            self.open.append("delta is negative")


def judge(call: Call, emulated: bool, read: Any) -> Verdict:
    """``read(arguments)`` gives the oracle's view of them."""
    rules = Rules(call, emulated)
    rules.tensors()
    if not rules.broken:
        rules.metadata()
    if rules.meta:
        if not rules.broken:
            return Verdict("meta", rules.either)
        mixed = any("meta" in why for why in rules.broken)
        return Verdict("refused" if mixed else "meta", rules.broken)
    if not rules.broken:
        rules.values(read(rules.a))
    if rules.broken:
        return Verdict("refused", rules.broken)
    if rules.open or any("saved" in text for text in call.mutations):
        return Verdict("open", rules.open)
    return Verdict("either" if rules.either else "right", rules.either)
