# SPDX-License-Identifier: Apache-2.0
"""What ops share of the oracle, in numpy and float64: written from docs/mathematics.md and from nothing else.

Floats come with how far a right answer may be from them: units in the last place of fp32 (or of a
16-bit result) of the terms that were added up, inf where fp32 has no answer (an overflow on the way).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .spec import MLP, Given

Array = NDArray[Any]

EPS = 2.0**-23  # fp32: a unit in the last place of 1
TINY = 2.0**-126  # below, rounding is absolute
HUGE = 1e37  # terms beyond may overflow on the way to an answer that does not


@dataclass
class Answer:
    """What is right: values, and how far off each may be."""

    values: dict[str, Array]
    off: dict[str, Array]


def units(terms: Array, count: float) -> Array:
    """How far a sum of terms of these sizes may be off, inf where it may overflow."""
    with np.errstate(all="ignore"):
        return np.where(terms < HUGE, EPS * (8 + count**0.5) * (terms + TINY), np.inf)


def finite(x: Array) -> Array:
    """Sizes, with 0 in place of what is not finite: that decides the answer by itself."""
    return np.abs(np.where(np.isfinite(x), x, 0.0))


# The arguments as the oracle reads them.


def array(value: Any) -> Any:
    if isinstance(value, list):
        return [array(each) for each in value]
    if not isinstance(value, Tensor):
        return value
    if value._is_zerotensor():
        value = torch.zeros(value.shape, dtype=value.dtype)
    value = value.detach().as_subclass(Tensor).resolve_neg()
    return value.double().numpy() if value.is_floating_point() else value.numpy()


def read(a: Given) -> Given:
    """As arrays; the query and u rounded to the keys' dtype, defaults filled in."""
    view = {
        name: int(value) if isinstance(value, bool) else array(value) for name, value in a.items()
    }
    for name, rows in (("query", "keys"), ("u", "z")):
        if a.get("key_scale") is not None and name == "query":
            view |= int8_query(a["query"], a["query_dtype"])
        elif name in a and a[name].is_floating_point():
            view[name] = array(torch.from_numpy(view[name]).to(a[name].dtype).to(a[rows].dtype))
            view["lossy"] = a[rows].dtype == torch.bfloat16
    for name in ("offsets", "query_offsets", "starts", "ends", "lengths", "ids", "query_time"):
        if view.get(name) is not None and isinstance(view[name], np.ndarray):
            view[name] = view[name].astype(np.int64)
    if "scale" in view:
        width = view["query"].shape[-1]
        scale = max(width, 1) ** -0.5 if view["scale"] is None else float(view["scale"])
        view["scale"] = float(np.float32(scale)) if abs(scale) < 3e38 else scale
    if "unit" in view:
        usual = 60.0 if view["elapsed"] else 3600.0
        view["unit"] = usual if view["unit"] is None else float(view["unit"])
    if view.get("units", ()) is None:
        view["units"] = [60.0 if period == 0 else 3600.0 for period in view["periods"]]
    return view


def int8_query(query: Tensor, dtype: str | None) -> Given:
    """A query of int8 keys in their dtype, and its scale."""
    rounded = query.to(torch.bfloat16) if dtype == "bfloat16" else query
    values = np.asarray(array(rounded), np.float64)
    scale = np.ones(values.shape[:-1], np.float32)
    if dtype == "int8":
        values, scale = to_int8(values.astype(np.float32))
    lossy = rounded.dtype == torch.bfloat16 and dtype in (None, "bfloat16")
    return {"query": values, "query_scale": scale.reshape(-1), "lossy": lossy}


def to_int8(rows: Array) -> tuple[Array, Array]:
    """The largest size of a row over 127, and what the row is of it, to the nearest integer, ties to even."""
    with np.errstate(all="ignore"):
        largest = np.abs(rows).max(-1, initial=0.0)
        scale = np.where(np.isfinite(largest), largest / np.float32(127), np.nan).astype(np.float32)
        steps = np.rint(np.clip(rows / scale[..., None], -127, 127))
    return np.where(scale[..., None] > 0, steps, 0.0).astype(np.float64), scale


# Time.


def clock(t: Any, period: int) -> Array:
    """Of integers of any size."""
    return np.asarray(np.mod(np.asarray(t, object), period), np.int64)


def delta(a: Any, b: Any, period: int) -> Array:
    apart = np.abs(clock(a, period) - clock(b, period))
    return np.minimum(apart, period - apart)


def elapsed(a: Any, b: Any) -> Array:
    """How long apart, up to 2^31 - 1 seconds: the 7 highest bits that count."""
    apart = np.minimum(np.abs(np.asarray(a, object) - np.asarray(b, object)), 2**31 - 1)
    kept = [int(x) >> max(int(x).bit_length() - 7, 0) << max(int(x).bit_length() - 7, 0) for x in apart.flat]  # fmt: skip
    return np.array(kept, np.int64).reshape(apart.shape)


def distances(a: Any, b: Any, given: Given) -> Array:
    """What each clock sees, [C, ..]."""
    return np.stack([elapsed(a, b) if period == 0 else delta(a, b, period) for period in given["periods"]])  # fmt: skip


def phi(distance: Array, unit: float, passed: bool = False) -> Array:
    with np.errstate(all="ignore"):
        x = distance.astype(np.float64) / unit
        if passed:  # what fp32 cannot hold before the logarithm is lost
            x = np.where(x > HUGE, x, np.log1p(x) / np.log(2))
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
    before, sizes = hidden(phi(distance, a["unit"], a["elapsed"]), a)
    with np.errstate(all="ignore"):
        s = (np.maximum(before, 0.0) * a["w2"]).sum(-1) + a["b2"].reshape(())
        total = (sizes * finite(a["w2"])).sum(-1) + finite(a["b2"]).reshape(())
        total = np.where(sizes.max(-1) < HUGE, total, np.inf)
    return s, units(total, 4 + len(a["b1"]))


def similarity_gradient(distance: Array, g: Array, g_off: Array, a: Given) -> tuple[Given, Given]:
    """Of w1, b1, w2, b2, for pairs at these distances whose s has the gradient g."""
    features = phi(distance, a["unit"], a["elapsed"])
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


def of_clocks(a: Given) -> list[Given]:
    """The arguments of each clock's s."""
    made = []
    for c, (period, unit) in enumerate(zip(a["periods"], a["units"], strict=True)):
        weights = {name: a[name] if len(a["periods"]) == 1 else a[name][c] for name in MLP}
        made.append(weights | {"unit": unit, "elapsed": period == 0})
    return made


def term(each: Array, a: Given) -> tuple[Array, Array]:
    """s of all clocks, and how far it may be off."""
    found = [similarity(distance, one) for distance, one in zip(each, of_clocks(a), strict=True)]
    s, off = (np.stack(parts) for parts in zip(*found, strict=True))
    with np.errstate(all="ignore"):
        return s.sum(0), off.sum(0) + (EPS * finite(s).sum(0) if len(s) > 1 else 0.0)


def term_gradient(each: Array, g: Array, g_off: Array, a: Given) -> tuple[Given, Given]:
    """Of the parameters of all clocks."""
    found = [similarity_gradient(distance, g, g_off, one)
             for distance, one in zip(each, of_clocks(a), strict=True)]  # fmt: skip
    if len(found) == 1:
        return found[0]
    return tuple(
        {name: np.stack([pair[i][name] for pair in found]) for name in MLP} for i in (0, 1)
    )  # type: ignore[return-value]


# Rows.


def lines(values: Array) -> Array:
    """With one dimension before the last."""
    return values.reshape(int(np.prod(values.shape[:-1])), values.shape[-1])


def tables(a: Given, name: str = "keys") -> list[tuple[Array, Array | None]]:
    """That of the rows, then those of their features; and ids, where there are some."""
    features = zip(a.get("features") or (), a.get("feature_ids") or (), strict=True)
    return [
        (lines(a[name]), a.get("ids")),
        *((rows, ids if ids.size else None) for rows, ids in features),
    ]


def rows(a: Given, at: Array, name: str = "keys") -> Array:
    """Rows of the keys, or of the tables, side by side, at positions that count."""
    return np.concatenate([rows_of(*each, at) for each in tables(a, name)], -1)


def rows_of(flat: Array, ids: Array | None, at: Array) -> Array:
    if ids is None:
        return flat[at]
    ids = ids.reshape(-1)[at]
    there = (ids >= 0) & (ids < len(flat))
    found = flat[np.where(there, ids, 0)] if len(flat) else np.zeros((len(at), flat.shape[-1]))
    if not there.all():  # what CUDA gives in place of an error
        found[~there] = np.nan if flat.dtype == np.float64 else 0
    return found


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
