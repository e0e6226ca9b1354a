# SPDX-License-Identifier: Apache-2.0
"""The attention in numpy and float64, written from docs/mathematics.md and from nothing else."""

from __future__ import annotations

import numpy as np
from fuzz import oracle
from fuzz.layouts import counting, spans
from fuzz.oracle import EPS, HUGE, TINY, Answer, Array, finite, lines, phi, product, units
from fuzz.spec import Given


def heads(a: Given, q: int) -> dict[str, Array] | None:
    """Of one query over what is valid: the probabilities and the values that they weigh."""
    columns = a["z_time"].shape[1]
    valid = np.ones(columns, bool) if a.get("valid") is None else a["valid"][q]
    at = np.flatnonzero(valid)
    if not len(at):
        return None
    z = oracle.rows(a, q * columns + at, "z")
    u = a["u"][q]
    each = oracle.distances(a["z_time"][q][at], a["query_time"][q], a)
    s, s_off = oracle.term(each, a)
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
    of_each = [
        phi(x, a["unit"], a["elapsed"]) for x, a in zip(each, oracle.of_clocks(a), strict=True)
    ]
    features = np.concatenate(of_each, -1)
    return {"at": at, "z": z, "s": each, "p": p, "p_off": p_off, "alpha": alpha,
            "values": np.concatenate([z, features], -1),
            "sizes": np.concatenate([np.abs(z), *map(oracle.phi_sizes, of_each)], -1)}  # fmt: skip


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
    features = [take(each) if each.size else place for each in a.get("feature_ids") or ()]
    return {**a, **times, "ids": ids, "valid": valid, "positions": None, "feature_ids": features}


def positions(a: Given) -> tuple[Array, Array]:
    """Where in the flattened history each entry of found lies, -1 where nothing counts; and each query's time."""
    found = lines(a["found"])
    given = {**a, "query": a["found"]}
    at_all, times = np.full(found.shape, -1), np.zeros(len(found), np.int64)
    for q, at, now, length in spans(given):
        times[q] = now
        counts = counting(given, at, now, length)
        seen = found[q] >= 0
        index = found[q][seen]
        at_all[q][seen] = np.where(counts[index], at[index], -1)
    return at_all, times


def esu_attention(a: Given) -> tuple[Array, Array]:
    """The context, and how far off."""
    a = own_rows(a)
    queries, count, width = a["u"].shape
    context = np.zeros((queries, count, width + 4 * len(a["periods"])))
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
    return context, off


def esu_attention_gradient(a: Given) -> Answer:
    """Of u, z (a row a behaviour, before a table's rows are added up) and the mlp."""
    a = own_rows(a)
    queries, count, width = a["u"].shape
    columns = a["z_time"].shape[1]
    du, dz = np.zeros(a["u"].shape), np.zeros((queries, columns, width))
    du_off, dz_off = np.zeros(du.shape), np.zeros(dz.shape)
    none = np.zeros((len(a["periods"]), 0), np.int64)
    gs, g_offs, distances = [np.zeros(0)], [np.zeros(0)], [none]
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
            da_off = da_off + 2 * TINY * apart  # so small a weight may be 0
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
        grads, off = oracle.term_gradient(
            np.concatenate(distances, -1), np.concatenate(gs), np.concatenate(g_offs), a
        )
    return Answer({"u": du, "z": dz} | grads, {"u": du_off, "z": dz_off} | off)


def table_gradient(
    z_grad: Array, off: Array, a: Given, count: int, eps: float, largest: float = HUGE
) -> tuple[Array, Array]:
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
    return total, total_off
