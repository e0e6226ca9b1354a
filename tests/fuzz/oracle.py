# SPDX-License-Identifier: Apache-2.0
"""Every op in numpy and float64, written from docs/mathematics.md and from nothing else.

Floats come with how far a right answer may be from them: units in the last place of fp32 (or of a
16-bit result) of the terms that were added up, inf where fp32 has no answer (an overflow on the way).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Given = dict[str, Any]  # the arguments of a raw op by name: arrays, numbers, None

EPS = 2.0**-23  # fp32: a unit in the last place of 1
TINY = 2.0**-126  # below, rounding is absolute
HUGE = 1e37  # terms beyond may overflow on the way to an answer that does not
MLP = ("w1", "b1", "w2", "b2")


@dataclass
class Answer:
    """What is right: values, and how far off each may be. ``chosen`` is set where an op selects."""

    values: dict[str, Array]
    off: dict[str, Array]


def units(terms: Array, count: float) -> Array:
    """How far a sum of terms of these sizes may be off, inf where it may overflow."""
    with np.errstate(all="ignore"):
        return np.where(terms < HUGE, EPS * (8 + count**0.5) * (terms + TINY), np.inf)


def finite(x: Array) -> Array:
    """Sizes, with 0 in place of what is not finite: that decides the answer by itself."""
    return np.abs(np.where(np.isfinite(x), x, 0.0))


# Time.


def clock(t: Any, period: int) -> Array:
    """Of integers of any size."""
    return np.asarray(np.mod(np.asarray(t, object), period), np.int64)


def delta(a: Any, b: Any, period: int) -> Array:
    apart = np.abs(clock(a, period) - clock(b, period))
    return np.minimum(apart, period - apart)


def phi(distance: Array, unit: float) -> Array:
    with np.errstate(all="ignore"):
        x = distance.astype(np.float64) / unit
        return np.stack([x, np.sqrt(x), x * x, np.log(x + 1)], -1)


def phi_sizes(features: Array) -> Array:
    """log(x + 1) is as exact as x + 1 is; what underflows in fp32, as x^2 of a huge unit, is lost whole."""
    sizes = np.abs(features) + TINY / EPS
    sizes[..., 3] += 1.0
    return sizes


def hidden(features: Array, a: Given) -> tuple[Array, Array]:
    """w1 phi + b1 as [..., h], and the sizes of its terms."""
    with np.errstate(all="ignore"):
        before = (features[..., None, :] * a["w1"]).sum(-1) + a["b1"]
        sizes = (phi_sizes(features)[..., None, :] * finite(a["w1"])).sum(-1) + finite(a["b1"])
    return before, sizes + TINY


def similarity(distance: Array, a: Given) -> tuple[Array, Array]:
    """s and how far it may be off."""
    before, sizes = hidden(phi(distance, a["unit"]), a)
    with np.errstate(all="ignore"):
        s = (np.maximum(before, 0.0) * a["w2"]).sum(-1) + a["b2"].reshape(())
        total = (sizes * finite(a["w2"])).sum(-1) + finite(a["b2"]).reshape(())
        total = np.where(sizes.max(-1) < HUGE, total, np.inf)
    return s, units(total, 4 + len(a["b1"]))


def similarity_gradient(distance: Array, g: Array, g_off: Array, a: Given) -> tuple[Given, Given]:
    """Of w1, b1, w2, b2, for pairs at these distances whose s has the gradient g."""
    features = phi(distance, a["unit"])
    before, sizes = hidden(features, a)
    with np.errstate(all="ignore"):
        alive = before > 0
        unsure = ~(np.abs(before) > units(sizes, 4))
        g, g_off = g[:, None], g_off[:, None]
        act = np.where(alive, before, 0.0)
        inner = np.where(alive, g * a["w2"], 0.0)
        inner_off = np.where(alive | unsure, g_off * np.abs(a["w2"]), 0.0)
        inner_off = inner_off + np.where(unsure, np.abs(g * a["w2"]), 0.0)
        phis = phi_sizes(features)[:, None, :]
        grads = {
            "w1": (inner[..., None] * features[:, None, :]).sum(0), "b1": inner.sum(0),
            "w2": (g * act).sum(0), "b2": g.sum(0).reshape(a["b2"].shape),
        }  # fmt: skip
        terms = {
            "w1": ((np.abs(inner) + TINY)[..., None] * phis).sum(0), "b1": np.abs(inner).sum(0),
            "w2": (np.abs(g) * np.where(alive, sizes, 0.0)).sum(0),
            "b2": np.abs(g).sum(0).reshape(a["b2"].shape),
        }  # fmt: skip
        more = {
            "w1": (inner_off[..., None] * phis).sum(0), "b1": inner_off.sum(0),
            "w2": (g_off * act + np.abs(g) * np.where(unsure, units(sizes, 4), 0.0)).sum(0),
            "b2": g_off.sum(0).reshape(a["b2"].shape),
        }  # fmt: skip
        count = 16.0 + len(distance)
        off = {name: units(terms[name], count) + more[name] for name in MLP}
        lost = ~np.isfinite(before).all(0)  # a NaN before relu
        off["w1"][lost], off["b1"][lost], off["w2"][lost] = np.inf, np.inf, np.inf
        if phis.max(initial=0.0) > HUGE:
            off = {name: off[name] + np.inf for name in MLP}
    return grads, off


# Searches.


def spans(a: Given) -> Iterator[tuple[int, Array, int, int]]:
    """Of each query in order: its number, the positions it looks at, its time, how many count of
    them from the first on (a dense row's length)."""
    query, now = a["query"], a["query_time"]
    if a.get("starts") is not None or a.get("offsets") is not None:
        windows, many = a.get("starts") is not None, a.get("query_offsets")
        begin, end = (a["starts"], a["ends"]) if windows else (a["offsets"][:-1], a["offsets"][1:])
        for s in range(len(now)):
            at = np.arange(begin[s], end[s])
            for q in range(many[s], many[s + 1]) if many is not None else (s,):
                yield q, at, now[s], len(at)
    else:
        sequences, columns = a["key_time"].shape
        candidates = query.shape[1] if query.ndim == 3 else 1
        for s in range(sequences):
            length = columns if a.get("lengths") is None else a["lengths"][s]
            for c in range(candidates):
                yield s * candidates + c, s * columns + np.arange(columns), now[s], length


def shares(a: Given) -> list[tuple[int, int]]:
    """Of each sequence its first query and the one after its last."""
    if a.get("query_offsets") is not None:
        return list(zip(a["query_offsets"][:-1], a["query_offsets"][1:], strict=True))
    candidates = a["query"].shape[1] if a["query"].ndim == 3 else 1
    return [(s * candidates, (s + 1) * candidates) for s in range(len(a["query"]))]


def counting(a: Given, at: Array, now: int, length: int) -> Array:
    counts = np.arange(len(at)) < length
    if a.get("mask") is not None:
        counts &= a["mask"].reshape(-1)[at]
    if a.get("exclude_future"):
        counts &= a["key_time"].reshape(-1)[at] < now
    return counts


def rows(a: Given, at: Array, name: str = "keys") -> Array:
    """Rows of the keys, or of the table, at positions that count."""
    width = a[name].shape[-1]
    flat = a[name].reshape(int(np.prod(a[name].shape[:-1])), width)
    if a.get("ids") is None:
        return flat[at]
    ids = a["ids"].reshape(-1)[at]
    there = (ids >= 0) & (ids < len(flat))
    found = flat[np.where(there, ids, 0)] if len(flat) else np.zeros((len(at), width))
    if not there.all():
        found[~there] = (
            np.nan if flat.dtype == np.float64 else 0
        )  # what CUDA gives in place of an error
    return found


def flat_query(a: Given) -> Array:
    return a["query"].reshape(int(np.prod(a["query"].shape[:-1])), a["query"].shape[-1])


def product(keys: Array, query: Array, lossy: bool) -> tuple[Array, Array]:
    """keys [M, D] . query [D], and the sizes of its terms."""
    with np.errstate(all="ignore"):
        dot = (keys * query).sum(-1)
        terms = finite(keys) * finite(query)
        sizes = terms.sum(-1) + TINY * max(1, len(query))
        if lossy:  # instructions for bf16 take a subnormal for 0
            small = (finite(keys) < TINY) | (finite(query) < TINY)
            sizes = sizes + np.where(small, terms, 0.0).sum(-1) / EPS
    return dot, sizes


def scores_of_query(a: Given, q: int, at: Array, now: int, length: int) -> tuple[Array, Array]:
    """Of every position it looks at: -inf where one does not count, and how far off."""
    counts = counting(a, at, now, length)
    score, off = np.full(len(at), -np.inf), np.zeros(len(at))
    if not counts.any():
        return score, off
    seen = at[counts]
    keys, query = rows(a, seen), flat_query(a)[q]
    with np.errstate(all="ignore"):
        if "w1" not in a:  # hamming_gsu
            bits = np.bitwise_xor(keys.astype(np.uint64), query.astype(np.uint64))
            ones = np.unpackbits(bits.view(np.uint8), axis=-1) if bits.shape[-1] else bits
            score[counts] = -ones.sum(-1).astype(np.float64)
            return score, off
        dot, sizes = product(keys, query, a["lossy"])
        scale = np.float64(a["scale"])
        s, s_off = similarity(delta(a["key_time"].reshape(-1)[seen], now, a["period"]), a)
        score[counts] = scale * dot + s
        both = np.where(sizes < HUGE, sizes * max(1.0, finite(scale)), np.inf)
        # A product below the least number times a large scale, and the sum of both halves.
        size = finite(scale) * sizes
        off[counts] = units(size, len(query)) + s_off + EPS * finite(s)
        off[counts] = np.where(both < np.inf, off[counts], np.inf)
    return score, off


def gsu_score(a: Given) -> Answer:
    parts = [scores_of_query(a, *span) for span in spans(a)]
    values = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0)
    off = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0)
    if a["key_time"].ndim == 2:
        shape = (*a["query"].shape[:-1], a["key_time"].shape[1])
        values, off = values.reshape(shape), off.reshape(shape)
    return Answer({"scores": values}, {"scores": off})


def gsu_score_gradient(a: Given) -> Answer:
    grad = a["grad"].reshape(-1)
    query = flat_query(a)
    flat_keys = a["keys"].reshape(-1, a["keys"].shape[-1]) if a["keys"].size else a["keys"]
    flat_keys = flat_keys.reshape(int(np.prod(a["keys"].shape[:-1])), a["keys"].shape[-1])
    d_query, d_keys = np.zeros(query.shape), np.zeros(flat_keys.shape)
    t_query, t_keys = np.zeros(query.shape), np.zeros(flat_keys.shape)
    n_keys = np.ones(len(flat_keys))
    gs, distances = [np.zeros(0)], [np.zeros(0, np.int64)]
    scale, begin = np.float64(a["scale"]), 0
    with np.errstate(all="ignore"):
        for q, at, now, length in spans(a):
            g = grad[begin : begin + len(at)]
            begin += len(at)
            counts = counting(a, at, now, length)
            seen, g = at[counts], g[counts]
            if not len(seen):
                continue
            keys = rows(a, seen)
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
            distances.append(delta(a["key_time"].reshape(-1)[seen], now, a["period"]))
        g = np.concatenate(gs)
        s_grads, s_off = similarity_gradient(np.concatenate(distances), g, np.abs(g) * EPS, a)
        off = {"query": units(t_query, 16 + a["key_time"].size),
               "keys": units(t_keys, 16) * np.sqrt(n_keys)[:, None]}  # fmt: skip
        off["keys"] = np.where(t_keys == 0, 0.0, off["keys"]).reshape(a["keys"].shape)
        off["query"] = off["query"].reshape(a["query"].shape)
    values = {"query": d_query.reshape(a["query"].shape), "keys": d_keys.reshape(a["keys"].shape)}
    return Answer(values | s_grads, off | s_off)


# The attention.


def heads(a: Given, q: int) -> dict[str, Array] | None:
    """Of one query over what is valid: the probabilities and the values that they weigh."""
    columns = a["z_time"].shape[1]
    valid = np.ones(columns, bool) if a.get("valid") is None else a["valid"][q]
    at = np.flatnonzero(valid)
    if not len(at):
        return None
    z = rows({"z": a["z"], "ids": a.get("ids")}, q * columns + at, "z")
    u = a["u"][q]
    distance = delta(a["z_time"][q][at], a["query_time"][q], a["period"])
    s, s_off = similarity(distance, a)
    with np.errstate(all="ignore"):
        pairs = [product(z, u[h], a["lossy"]) for h in range(len(u))]
        dots = np.array([pair[0] for pair in pairs]).reshape(len(u), len(at))
        sizes = np.array([pair[1] for pair in pairs]).reshape(len(u), len(at))
        alpha = dots + s
        alpha_off = units(sizes, z.shape[-1]) + s_off + EPS * finite(s)
        top = alpha.max(-1, keepdims=True)
        raised = np.exp(alpha - top)
        p = raised / raised.sum(-1, keepdims=True)
        # Relative: of a probability whose alpha is off, and those of all others.
        p_off = alpha_off + (p * alpha_off).sum(-1, keepdims=True)
        p_off = p_off + EPS * (16 + np.abs(alpha - top))
        p_off = np.where((p_off < 0.05).all(-1, keepdims=True), p_off, np.inf)
    features = phi(distance, a["unit"])
    return {"at": at, "z": z, "s": distance, "p": p, "p_off": p_off, "alpha": alpha,
            "values": np.concatenate([z, features], -1),
            "sizes": np.concatenate([np.abs(z), phi_sizes(features)], -1)}  # fmt: skip


def gathers(a: Given) -> bool:
    """Whether rows are looked up in a table, or in whole histories."""
    return a["ids"] is not None or a["positions"] is not None


def own_rows(a: Given) -> Given:
    """What was found in whole histories as looked up one by one: ids, times and what is valid, [Q, K] each."""
    at = a.get("positions")
    if at is None:
        return a
    total = len(a["ids"] if a["ids"] is not None else a["z_time"])
    there = (at >= 0) & (at < total)
    place = np.where(there, at, 0)

    def take(values: Array) -> Array:
        return values[place] if total else np.zeros(at.shape, values.dtype)

    valid = there if a["valid"] is None else there & a["valid"]
    ids = place if a["ids"] is None else take(a["ids"])
    times = {"z_time": take(a["z_time"])} if "z_time" in a else {}
    return {**a, **times, "ids": ids, "valid": valid, "positions": None}


def positions(a: Given) -> tuple[Array, Array]:
    """Where in the flattened history each entry of found lies, -1 where nothing counts; and each query's time."""
    found = a["found"].reshape(int(np.prod(a["found"].shape[:-1])), a["found"].shape[-1])
    given = {**a, "query": a["found"]}
    at_all, times = np.full(found.shape, -1), np.zeros(len(found), np.int64)
    for q, at, now, length in spans(given):
        times[q] = now
        counts = counting(given, at, now, length)
        seen = found[q] >= 0
        index = found[q][seen]
        at_all[q][seen] = np.where(counts[index], at[index], -1)
    return at_all, times


def esu_attention(a: Given) -> Answer:
    a = own_rows(a)
    queries, count, width = a["u"].shape
    context = np.zeros((queries, count, width + 4))
    off = np.zeros(context.shape)
    for q in range(queries):
        seen = heads(a, q)
        if seen is None or not count:
            continue
        with np.errstate(all="ignore"):
            p, values, sizes = seen["p"], seen["values"], seen["sizes"]
            context[q] = (p[:, :, None] * values).sum(1)
            terms = ((p + TINY)[:, :, None] * sizes).sum(1)
            # The errors of probabilities add up to 0: they weigh what differs from the mean.
            apart = np.abs(values - context[q][:, None]) + EPS * sizes
            spread = (p * seen["p_off"])[:, :, None] * apart
            off[q] = units(terms, 16 + len(values)) + spread.sum(1)
            # 0 times inf: whether such a behaviour is weighed at all is not laid down.
            vanished = (p < 1e-30)[:, :, None] & ~np.isfinite(values)
            off[q][vanished.any(1)] = np.inf
            sums = np.abs(values).sum(0) > HUGE
            off[q][:, sums & np.isfinite(values).all(0)] = np.inf
            off[q][np.isneginf(seen["alpha"]).all(1)] = np.inf
            off[q][np.isnan(off[q])] = 0.0  # a NaN alpha: NaN, exactly
            off[q][~np.isfinite(seen["p_off"]).all(1) & ~np.isnan(p).any(1)] = np.inf
    return Answer({"context": context}, {"context": off})


def esu_attention_gradient(a: Given) -> Answer:
    """Of u, z (a row a behaviour, before a table's rows are added up) and the mlp."""
    a = own_rows(a)
    queries, count, width = a["u"].shape
    columns = a["z_time"].shape[1]
    du, dz = np.zeros(a["u"].shape), np.zeros((queries, columns, width))
    du_off, dz_off = np.zeros(du.shape), np.zeros(dz.shape)
    gs, g_offs, distances = [np.zeros(0)], [np.zeros(0)], [np.zeros(0, np.int64)]
    with np.errstate(all="ignore"):
        for q in range(queries):
            seen = heads(a, q)
            if seen is None or not count:
                continue
            g, u, p, z, at = a["grad"][q], a["u"][q], seen["p"], seen["z"], seen["at"]
            values, sizes, rel = seen["values"], seen["sizes"], seen["p_off"]
            dp = (g[:, None, :] * values).sum(-1)
            mean = (p * dp).sum(-1, keepdims=True)
            dp_size = (np.abs(g)[:, None, :] * sizes).sum(-1) + TINY
            mean_size = (p * dp_size).sum(-1, keepdims=True)
            da = p * (dp - mean)
            # The mean is that of the context which was saved.
            apart = np.abs(dp - mean)
            mean_off = (p * rel * apart).sum(-1, keepdims=True) + EPS * 16 * mean_size
            dp_off = EPS * (16 + width**0.5) * (dp_size + mean_size)
            da_off = (p + TINY) * (2 * rel * apart + mean_off + dp_off)
            du[q] = (da[:, :, None] * z).sum(1)
            du_off[q] = (da_off[:, :, None] * np.abs(z)).sum(1)
            du_off[q] += units((np.abs(da)[:, :, None] * np.abs(z)).sum(1), 16 + len(at))
            weighed = p[:, :, None] * g[:, None, :width]
            dz[q, at] = weighed.sum(0) + (da[:, :, None] * u[:, None]).sum(0)
            dz_off[q, at] = ((rel + EPS * 16)[:, :, None] * np.abs(weighed)).sum(0)
            dz_off[q, at] += (da_off[:, :, None] * np.abs(u)[:, None]).sum(0)
            dz_off[q, at] += TINY * (1 + np.abs(g).max())
            big = max(dp_size.max(), np.abs(u).max(initial=0), np.abs(values).max(initial=0))
            if not big < 1e18:  # products of three may overflow
                du_off[q], dz_off[q, at], da_off = np.inf, np.inf, da_off + np.inf
            gs.append(da.sum(0))
            g_offs.append(da_off.sum(0))
            distances.append(seen["s"])
        grads, off = similarity_gradient(
            np.concatenate(distances), np.concatenate(gs), np.concatenate(g_offs), a
        )
    return Answer({"u": du, "z": dz} | grads, {"u": du_off, "z": dz_off} | off)


def table_gradient(
    z_grad: Array, off: Array, a: Given, count: int, eps: float, largest: float = HUGE
) -> Answer:
    """Adds up the rows of one id; in 16 bits each addition may round, and overflow."""
    a = own_rows(a)
    width = z_grad.shape[-1]
    total, total_off = np.zeros((count, width)), np.zeros((count, width))
    sizes, many = np.zeros((count, width)), np.zeros(count)
    valid = np.ones(a["ids"].shape, bool) if a.get("valid") is None else a["valid"]
    at = valid & (a["ids"] >= 0) & (a["ids"] < count)
    ids = a["ids"][at]
    with np.errstate(all="ignore"):
        np.add.at(total, ids, z_grad[at])
        np.add.at(total_off, ids, off[at])
        np.add.at(sizes, ids, np.abs(z_grad[at]))
        np.add.at(many, ids, 1)
        again = np.where(many > 1, many, 0)[:, None]
        total_off = total_off + sizes * eps * again + units(sizes, 1) * (again > 0)
        total_off = np.where((sizes > largest) & (again > 0), np.inf, total_off)
    return Answer({"table": total}, {"table": total_off})


# What is exact.


def ranked(scores: Array, counts: Array, k: int) -> tuple[Array, Array]:
    """The best k of a row, NaN first, then by score, then by index."""
    at = np.flatnonzero(counts)
    at = at[np.lexsort((at, -np.where(np.isnan(scores[at]), 0, scores[at]), ~np.isnan(scores[at])))]
    at = at[:k]
    indices, values = np.full(k, -1, np.int64), np.full(k, -np.inf)
    indices[: len(at)], values[: len(at)] = at, scores[at]
    return values, indices


def block_topk(a: Given) -> Answer:
    scores = a["scores"]
    lead, m = scores.shape[:-1], scores.shape[-1]
    flat = scores.reshape(int(np.prod(lead)), m)
    lengths = np.full(len(flat), m) if a.get("lengths") is None else a["lengths"].reshape(-1)
    found = [ranked(row, np.arange(m) < n, a["k"]) for row, n in zip(flat, lengths, strict=True)]
    shape = (*lead, a["k"])
    values = np.array([pair[0] for pair in found]).reshape(shape)
    indices = np.array([pair[1] for pair in found], np.int64).reshape(shape)
    return Answer({"scores": values, "indices": indices}, {"scores": np.zeros(shape)})


def scattered(grad: Array, indices: Array, m: int) -> Answer:
    """The gradient of a selection: each of what was chosen, -1 being padding."""
    flat = grad.reshape(int(np.prod(grad.shape[:-1])), grad.shape[-1])
    out = np.zeros((len(flat), m))
    for row, values, at in zip(out, flat, indices.reshape(flat.shape), strict=True):
        row[at[at >= 0]] = values[at >= 0]
    shape = (*grad.shape[:-1], m)
    return Answer({"scores": out.reshape(shape)}, {"scores": np.zeros(shape)})


def pack_signs(x: Array) -> Array:
    words = (x.shape[-1] + 63) // 64
    bits = np.zeros((*x.shape[:-1], words * 64), np.uint8)
    with np.errstate(all="ignore"):
        bits[..., : x.shape[-1]] = x > 0
    packed = np.packbits(bits, axis=-1, bitorder="little")
    return packed.view(np.int64) if words else np.zeros((*x.shape[:-1], 0), np.int64)
