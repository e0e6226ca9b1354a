# SPDX-License-Identifier: Apache-2.0
"""What searches share: queries against rows and times, in every layout."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from cases import LAYOUTS, keys_in_bytes, make_case, several_tables
from torch import Tensor

import longclock as lc
from longclock.types import Clocks

from . import layouts, oracle
from .call import Call
from .clocks import clock_options
from .compare import check
from .draw import FLOATS, INTS, Draw
from .oracle import Array
from .rules import Rules
from .selections import check_row
from .spec import MLP, Given, Spec, schema_of

ROWS = ("query", "keys", "key_time", "query_time")
TWO_CLOCKS: Clocks = (86400, lc.ELAPSED)

IN_BYTES = (torch.int8, torch.float8_e4m3fn)  # what rows are that have a scale each


class Search(Spec):
    """An op whose arguments up to exclude_future or unit are those of clock_gsu."""

    row_dtypes: ClassVar[tuple[torch.dtype, ...]] = FLOATS
    widths: ClassVar[tuple[int, int]] = (9, 70)  # the widest rows, on the emulator and on the CPU
    strict: ClassVar[bool] = True  # refuses times of no clock; on CUDA, scores ids of no row NaN

    # Good calls.

    def good_public(self, **options: Any) -> dict[str, Given]:
        made = {}
        for name, clocks in ("", 86400), ("two clocks", TWO_CLOCKS):
            case = make_case("dense", mask=True, clocks=clocks)
            rows = {name: getattr(case, name) for name in (*ROWS, "mlp")}
            made[name] = {**rows, **case.layout, **options}
        return made

    def raw(self) -> dict[str, Given]:
        """All that is not the search's own is true."""
        made, names = {}, schema_of("clock_gsu")
        cases = layouts.good_cases(self.row_dtypes[0])
        if "key_scale" in self.kinds:
            cases["int8"] = keys_in_bytes(make_case("dense", counts=(5, 0, 3)), "int8")
        if "features" in self.kinds:
            cases["features"] = several_tables(make_case("dense", counts=(5, 0, 3)))
        if "periods" in self.kinds:
            cases["two clocks"] = make_case("dense", counts=(5, 0, 3), clocks=TWO_CLOCKS)
        for name, case in cases.items():
            given = dict(zip(names, case.raw(3), strict=True)) | {"total": case.total()}
            made[name] = {argument: given.get(argument, True) for argument in self.kinds}
        return made

    # Valid calls.

    def rows(self, draw: Draw, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return draw.floats(shape, dtype, draw.exact)

    def query_of(self, draw: Draw, query: Tensor) -> Tensor:
        """Floats may come in fp32 whatever the keys are."""
        if not draw.chance(0.4):
            return query
        if draw.exact or draw.chance(0.5):
            return query.float()
        return draw.floats(query.shape, torch.float32)

    def draw(self, draw: Draw, way: str) -> Given:
        layout = draw.pick(*LAYOUTS)
        large = draw.chance(0.02) and not draw.tiny
        most = 6000 if large else 9 if draw.tiny else 40 if draw.chance(0.9) else 300
        given, shape, queries = layouts.place(draw, layout, most)
        draw.exact = draw.chance(0.25)
        width = draw.size(self.widths[not draw.tiny])
        dtype = draw.pick(*self.row_dtypes)
        clocks = draw.clocks()
        period = clocks["periods"][0] or 86400
        kind, later = draw.below(5), draw.pick(*INTS)
        sequences = layouts.sequences_of(given, queries)
        key_time = draw.times(shape, draw.pick(*INTS), period, kind)
        query_time = draw.times(sequences, later, period, kind)
        candidates = draw.size(3 if draw.tiny else 20) if layout == "candidates" else None
        lead = (queries,) if candidates is None else (queries, candidates)
        table = draw.chance(0.4)
        count = draw.size(most) if table else 0
        keys = self.rows(draw, (count, width) if table else (*shape, width), dtype)
        features = self.features(draw, shape, most, dtype) if "features" in self.kinds else {}
        in_bytes = "key_scale" in self.kinds and draw.chance(0.2)
        if in_bytes:
            features = {"features": [], "feature_ids": []}
        width += sum(rows.shape[1] for rows in features.get("features", ()))
        query = self.query_of(draw, self.rows(draw, (*lead, width), dtype))
        mask = draw.bools(shape, 0.7) if draw.chance(0.4) else None
        a: Given = {"query": query, "keys": keys, "key_time": key_time, "query_time": query_time}
        if "w1" in self.kinds:
            a |= draw.mlps(clocks)
        a |= {"ids": None, **layouts.NO_LAYOUT, **given}
        a |= {"mask": mask, "exclude_future": draw.chance(0.3)}
        if table:
            a["ids"] = draw.ints(shape, 0, max(count, 1), draw.pick(*INTS))
        if "scale" in self.kinds:
            scales = (1.0, width**-0.5 if width else 1.0, -0.3, 0.0, 1e-3)
            scale = 0.5 if draw.exact else draw.pick(*scales)
            a |= {"scale": float(scale), **clocks}
        a |= features
        if "key_scale" in self.kinds:
            a |= self.in_bytes(draw, keys) if in_bytes else {"key_scale": None, "query_dtype": None}
        poison(draw, a, count if table else None)
        a = draw.dressed_all(
            a,
            "query",
            "keys",
            "key_time",
            "query_time",
            "ids",
            "mask",
            *(["key_scale"] if in_bytes else []),
        )
        return a | ({"k": draw.count()} if "k" in self.kinds else {})

    def in_bytes(self, draw: Draw, keys: Tensor) -> Given:
        """Rows of those sizes in bytes, their scales, and what queries are rounded to."""
        float8 = draw.chance(0.5 if draw.tiny else 0.05)  # which the CPU refuses
        low, high = (-3, 4) if draw.exact else (-128, 128)
        values = draw.ints(keys.shape, low, high, torch.int8)
        if float8:
            values = values.to(torch.float8_e4m3fn)
        scale = draw.floats(keys.shape[:-1], torch.float32)
        if draw.exact:
            scale = 2.0 ** draw.ints(keys.shape[:-1], -2, 3, torch.float32)
        dtypes = (None, "float32", "bfloat16", *(() if draw.exact or float8 else ("int8", "int8")))
        return {"keys": values, "key_scale": scale, "query_dtype": draw.pick(*dtypes)}

    def features(
        self, draw: Draw, shape: tuple[int, ...], most: int, dtype: torch.dtype
    ) -> dict[str, list[Tensor]]:
        """Of a table each, or with a row for every behaviour."""
        features, feature_ids = [], []
        for _ in range(draw.pick(0, 0, 0, 1, 2)):
            count, own = max(draw.size(most), 1), draw.chance(0.3) and np.prod(shape) > 0
            size = (int(np.prod(shape)) if own else count, draw.size(9))
            features.append(draw.dressed(self.rows(draw, size, dtype)))
            none = torch.zeros(0, dtype=torch.int64)
            feature_ids.append(none if own else draw.ints(shape, 0, count, draw.pick(*INTS)))
        return {"features": features, "feature_ids": feature_ids}

    def call(self, function: Callable[..., Any], a: Given, mlp: Any, extra: Given) -> Any:
        given = {name: value for name, value in a.items() if name in self.kinds}
        features, feature_ids = given.pop("features", []), given.pop("feature_ids", [])
        key_scale = given.pop("key_scale", None)
        if key_scale is not None:
            given["keys"] = lc.QuantizedRows(given["keys"], key_scale)
        if features:
            given["keys"] = (given["keys"], *features)
            given["ids"] = (given["ids"], *(ids if ids.numel() else None for ids in feature_ids))
        rows = [given.pop(name) for name in ROWS]
        options = {
            name: value for name, value in given.items()
            if name not in (*MLP, "periods", "units") and (value is not None or not self.kinds[name].endswith("[Tensor]"))
        }  # fmt: skip
        options |= clock_options(a) if "periods" in a else {}
        return function(*rows, *([mlp] if "w1" in a else []), **options, **extra)

    # What is refused.

    def has_quantized_keys(self, a: Given) -> bool:
        return "key_scale" in self.kinds and a["keys"].dtype in IN_BYTES

    def check_rows(self, rules: Rules) -> None:
        if self.has_quantized_keys(rules.a):
            rules.need(rules.a["key_scale"] is not None, "key_scale is None")
            rules.dtype("query", *FLOATS)
            rules.dtype("key_scale", torch.float32)
            float8 = rules.a["keys"].dtype != torch.int8
            rules.need(rules.emulated or not float8, "float8 on the CPU")
            dtypes = (None, "float32", "bfloat16", *(() if float8 else ("int8",)))
            rules.need(rules.a["query_dtype"] in dtypes, "query_dtype")
        else:
            rules.matches("query", "keys")
            for name in ("key_scale", "query_dtype"):
                rules.need(rules.a.get(name) is None, f"{name} of floating keys")
        rules.clocks()
        if rules.a["scale"] is not None and not abs(rules.a["scale"]) < 1e30:
            rules.either.append("scale is extreme")
            rules.open.append("scale is extreme")

    def contract(self, rules: Rules) -> None:
        a = rules.a
        self.check_rows(rules)
        rules.ints("ids")
        flat, fits = layouts.check_layout(rules)
        fits &= rules.rank("query", *((2,) if flat else (2, 3)))
        fits &= rules.rank("keys", 2 if flat or a["ids"] is not None else 3)
        if not fits or rules.broken:
            return
        leading = a["key_time"].shape
        if a["ids"] is None:
            rules.need(a["keys"].shape[:-1] == leading, "keys and key_time")
        rules.shape("ids", *leading)
        features = a.get("features", [])
        rules.need(all(rows.dtype == a["keys"].dtype for rows in features), "dtype of features")
        width = a["keys"].shape[-1] + sum(rows.shape[1] for rows in features)
        rules.need(width == a["query"].shape[-1], "D of query and keys")
        if self.has_quantized_keys(a):
            rules.need(not features, "keys in bytes with features")
            rows = a["keys"].shape[:1] if a["ids"] is not None else leading
            rules.shape("key_scale", *rows)
        layouts.check_places(rules, "query")
        if "k" in a:
            rules.k()

    def values_of_result(self, rules: Rules, view: Given) -> None:
        """What a total, or a gradient of the scores, must be where the layout is right."""

    def values(self, rules: Rules, view: Given) -> None:
        a = rules.a
        layouts.check_bounds(rules, view, len(view["query"]))
        if rules.broken or rules.open:
            return
        must = self.strict and a.get("k") != 0
        times = view["key_time"].reshape(-1)
        for _, at, now, length in layouts.spans(view):
            counts = layouts.counting(view, at, now, length)
            rules.seconds("query_time", np.array([now], np.int64), must and bool(counts.any()))
            rules.seconds("key_time", times[at[counts]].astype(np.int64), must)
            within = layouts.counting(view, at, now, length, future=True)
            rules.seconds("key_time", times[at[within]].astype(np.int64), False)
            if not outside(view, at[counts]):
                continue
            if rules.emulated:
                (rules.either if self.strict else rules.open).append("an id of no row")
            elif a.get("k") == 0:
                rules.either.append("an id of no row, k is 0")
            else:
                rules.need(False, "an id of no row")
        for name in ("query_time", "key_time"):  # of nobody
            rules.seconds(name, view[name].astype(np.int64), False)
        unasked = any(first == last for first, last in layouts.shares(view))
        if unasked and outside(view, slice(None)):
            rules.either.append("an id of no row, for no query")  # they may be read
        self.values_of_result(rules, view)

    # What is right.

    @abstractmethod
    def scores(self, a: Given, q: int, seen: Array, now: int) -> tuple[Array, Array]:
        """Of one query at positions that count, and how far off each may be."""

    def scores_of_query(
        self, a: Given, q: int, at: Array, now: int, length: int
    ) -> tuple[Array, Array]:
        """Of every position it looks at: -inf where one does not count, and how far off."""
        counts = layouts.counting(a, at, now, length)
        score, off = np.full(len(at), -np.inf), np.zeros(len(at))
        if counts.any():
            score[counts], off[counts] = self.scores(a, q, at[counts], now)
        return score, off

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        """Of an op that selects."""
        scores, indices = result
        exact = call.exact or "w1" not in self.kinds  # numbers of bits are whole
        k = view["k"]
        shape = (*view["query"].shape[:-1], k)
        check(scores.dtype == torch.float32 and indices.dtype == torch.int64, "dtypes")
        check(
            tuple(scores.shape) == shape == tuple(indices.shape), f"{scores.shape}, {indices.shape}"
        )
        if not np.prod(shape):
            return
        values, chosen = scores.double().numpy().reshape(-1, k), indices.numpy().reshape(-1, k)
        queries = 0
        for span in layouts.spans(view):
            queries += 1
            right, off = self.scores_of_query(view, *span)
            counts = layouts.counting(view, *span[1:])
            off = off * 0 if exact else np.where(np.isnan(right), 0, off)
            where = f"query {span[0]}"
            check_row(values[span[0]], chosen[span[0]], right, off, counts, exact, where)
        check(queries == len(values), "a query that no sequence has")


class ClockSearch(Search):
    """By ``scale key_m . query + s(..)``."""

    def scores(self, a: Given, q: int, seen: Array, now: int) -> tuple[Array, Array]:
        query = oracle.lines(a["query"])[q]
        with np.errstate(all="ignore"):
            dot, sizes = oracle.product(oracle.rows(a, seen), query, a["lossy"])
            scale, largest = np.float64(a["scale"]), sizes
            if a.get("key_scale") is not None:
                of_keys = oracle.rows_of(a["key_scale"].reshape(-1, 1), a.get("ids"), seen)[:, 0]
                dot, sizes = dot * of_keys, sizes * oracle.finite(of_keys)
                largest = np.maximum(largest, sizes)  # a row's 0 comes after its product
                scale = np.float64(np.float32(scale) * np.float32(a["query_scale"][q]))
            s, s_off = oracle.term(oracle.distances(a["key_time"].reshape(-1)[seen], now, a), a)
            size = oracle.finite(scale) * sizes
            # A product below the least number times a large scale, and the sum of both halves.
            off = oracle.units(size, len(query)) + s_off + oracle.EPS * oracle.finite(s)
            both = np.where(largest < oracle.HUGE, sizes * max(1.0, oracle.finite(scale)), np.inf)
            return scale * dot + s, np.where(both < np.inf, off, np.inf)


def outside(view: Given, at: Any) -> bool:
    """Whether there are ids that no table has."""
    looked_up = [
        (table, ids.reshape(-1)[at]) for table, ids in oracle.tables(view) if ids is not None
    ]
    return any(bool(((ids < 0) | (ids >= len(table))).any()) for table, ids in looked_up)


def poison(draw: Draw, a: Given, table_rows: int | None) -> None:
    """Fills what counts for nobody: keys, ids, and times where these tell nothing."""
    seen = np.zeros(a["key_time"].numel(), bool)
    within = seen.copy()
    view = layouts.as_arrays(
        {name: value for name, value in a.items() if name not in ("query", "keys", *MLP)}
    )
    # A sequence without a query is read as if it had one.
    lead = (len(view["query_time"]), *(() if view["key_time"].ndim == 1 else (1,)))
    view |= {"query_offsets": None, "query": np.zeros((*lead, 0))}
    for _, at, now, length in layouts.spans(view):
        seen[at[layouts.counting(view, at, now, length)]] = True
        within[at[layouts.counting(view, at, now, length, future=True)]] = True
    dead = torch.from_numpy(~seen).reshape(a["key_time"].shape)
    if table_rows == 0 and not dead.all():  # no id is right: nothing may count
        a["mask"], dead = torch.zeros(dead.shape, dtype=torch.bool), torch.ones_like(dead)
        within[:] = False
    if draw.chance(0.3):
        return
    if a["ids"] is not None:
        draw.nonsense(a["ids"], dead, -1, table_rows or 0)
    elif a.get("key_scale") is not None:
        draw.nonsense(a["key_scale"], dead)
    elif a["keys"].is_floating_point():
        draw.nonsense(a["keys"], dead)
    for rows, ids in zip(a.get("features", ()), a.get("feature_ids", ()), strict=True):
        if ids.numel():
            draw.nonsense(ids, dead, -1, len(rows))
        elif dead.numel():
            draw.nonsense(rows, dead.flatten())
    if draw.chance(0.5):
        draw.nonsense(a["key_time"], torch.from_numpy(~within).reshape(dead.shape), 0)
