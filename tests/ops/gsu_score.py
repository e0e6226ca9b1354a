# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fuzz import layouts, oracle
from fuzz.call import Call
from fuzz.compare import compare, compare_gradients
from fuzz.draw import Draw
from fuzz.oracle import EPS, TINY, Answer, units
from fuzz.rules import Rules
from fuzz.searches import ClockSearch
from fuzz.spec import MLP, Given


class GsuScore(ClockSearch):
    name = "gsu_score"

    def public(self) -> dict[str, Given]:
        return self.good_public(total=None)

    def draw(self, draw: Draw, way: str) -> Given:
        a = super().draw(draw, way)
        told = draw.chance(0.5 if a["key_time"].dim() == 1 else 0.1)
        return a | {"total": layouts.total_of(a) if told else None}

    def values_of_result(self, rules: Rules, view: Given) -> None:
        size, total = layouts.total_of(view), rules.a.get("total")
        rules.data(total in (None, size), f"total must be {size}")
        if rules.emulated and total is None:
            rules.either.append("total is None")

    def answer(self, a: Given) -> tuple[oracle.Array, oracle.Array]:
        """The scores, and how far off each may be."""
        parts = [self.scores_of_query(a, *span) for span in layouts.spans(a)]
        dense = a["key_time"].ndim == 2
        shape = (*a["query"].shape[:-1], a["key_time"].shape[1]) if dense else (-1,)
        values = np.concatenate([np.zeros(0), *(score for score, _ in parts)])
        off = np.concatenate([np.zeros(0), *(off for _, off in parts)])
        return values.reshape(shape), off.reshape(shape)

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        exact, off = self.answer(view)
        compare("scores", result, exact, torch.float32, off * 0 if call.exact else off)


class GsuScoreBackward(ClockSearch):
    name = "gsu_score_backward"
    of = GsuScore()
    ways = ("raw", "gradient")
    leaves = ("query", "keys", *MLP)
    strict = False

    def raw(self) -> dict[str, Given]:
        made = super().raw()
        return {name: a | {"grad": torch.randn(shape_of(a))} for name, a in made.items()}

    def draw(self, draw: Draw, way: str) -> Given:
        a = super().draw(draw, way)
        draw.exact = False
        grad = draw.dressed(draw.floats(shape_of(a), torch.float32))
        return {"grad": grad} | a | draw.needs("query", "keys", "mlp")

    def contract(self, rules: Rules) -> None:
        rules.dtype("grad", torch.float32)
        super().contract(rules)

    def values_of_result(self, rules: Rules, view: Given) -> None:
        if view["grad"].shape != shape_of(view):
            rules.need(view["grad"].size == layouts.total_of(view), "grad has another count")
            rules.either.append("grad has another shape")

    def answer(self, call: Call, a: Given) -> Answer:
        grad, query = a["grad"].reshape(-1), oracle.lines(a["query"])
        flat_keys = oracle.lines(a["keys"])
        d_query, d_keys = np.zeros(query.shape), np.zeros(flat_keys.shape)
        t_query, t_keys = np.zeros(query.shape), np.zeros(flat_keys.shape)
        n_keys = np.ones(len(flat_keys))
        gs, distances = [np.zeros(0)], [np.zeros((len(a["periods"]), 0), np.int64)]
        scale, begin = np.float64(a["scale"]), 0
        with np.errstate(all="ignore"):
            for q, at, now, length in layouts.spans(a):
                g = grad[begin : begin + len(at)]
                begin += len(at)
                counts = layouts.counting(a, at, now, length)
                seen, g = at[counts], g[counts]
                if not len(seen):
                    continue
                keys = oracle.rows(a, seen)
                lines = seen if a.get("ids") is None else a["ids"].reshape(-1)[seen]
                weights = (scale * g)[:, None]
                sizes = np.abs(weights) + TINY * (1 + np.abs(scale))
                d_query[q] = (weights * keys).sum(0)
                t_query[q] = (sizes * np.abs(keys)).sum(0)
                there = (lines >= 0) & (lines < len(flat_keys))
                np.add.at(d_keys, lines[there], (weights * query[q])[there])
                np.add.at(t_keys, lines[there], (sizes * np.abs(query[q]))[there])
                np.add.at(n_keys, lines[there], 1)
                gs.append(g)
                distances.append(oracle.distances(a["key_time"].reshape(-1)[seen], now, a))
            g = np.concatenate(gs)
            each = np.concatenate(distances, -1)
            s_grads, s_off = oracle.term_gradient(each, g, np.abs(g) * EPS, a)
            query_off = units(t_query, 16 + a["key_time"].size)
            keys_off = units(t_keys, 16) * np.sqrt(n_keys)[:, None]
            keys_off = np.where(t_keys == 0, 0.0, keys_off)
        of_query, of_keys = a["query"].shape, a["keys"].shape
        values = {"query": d_query.reshape(of_query), "keys": d_keys.reshape(of_keys)}
        off = {"query": query_off.reshape(of_query), "keys": keys_off.reshape(of_keys)}
        return Answer(values | s_grads, off | s_off)

    def check(self, call: Call, a: Given, view: Given, result: Any) -> None:
        compare_gradients(call, a, result, self.answer(call, view))


def shape_of(a: Given) -> tuple[int, ...]:
    """Of the scores."""
    if a["key_time"].ndim == 2:
        return (*a["query"].shape[:-1], a["key_time"].shape[1])
    return (layouts.total_of(a),)


SPECS = (GsuScore(), GsuScoreBackward())
