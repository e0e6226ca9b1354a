# SPDX-License-Identifier: Apache-2.0
"""Valid calls of every op: each dtype, layout, size and stride that the contract allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longclock import _native

from . import oracle
from .call import LAYOUT, MLP, SEARCHES, Call

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
INTS = (torch.int32, torch.int64)
LAYOUTS = ("dense", "candidates", "ragged", "ragged_many", "windows", "windows_many")
PERIODS = (86400, 86400, 604800, 1, 2, 7, 16, 3600, 86399, 65537, 2**31 - 1)


class Draw:
    """Everything by chance, from one seed and one index."""

    def __init__(self, seed: int, index: int, tiny: bool) -> None:
        self.random = np.random.default_rng([seed, index])
        self.tiny = tiny

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def pick(self, *options: Any) -> Any:
        return options[int(self.random.integers(len(options)))]

    def below(self, n: int) -> int:
        return int(self.random.integers(n)) if n > 0 else 0

    def size(self, most: int) -> int:
        """0 to ``most``: the edges of vectors, tiles and words often."""
        edges = [n for n in (0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100) if n <= most]
        return int(self.pick(*edges)) if self.chance(0.6) else self.below(most + 1)

    def ints(self, shape: Any, low: int, high: int, dtype: torch.dtype) -> Tensor:
        """low to high - 1."""
        return torch.from_numpy(np.asarray(self.random.integers(low, high, shape))).to(dtype)

    def floats(self, shape: Any, dtype: torch.dtype, exact: bool = False) -> Tensor:
        if exact:
            return self.ints(shape, -3, 4, dtype)
        values = np.asarray(self.random.standard_normal(shape))
        kind = self.below(12)
        if kind == 0:  # many equals
            values = np.round(values)
        elif kind == 1 and dtype != torch.float16:
            values = values * self.pick(1e-30, 1e-10, 1e4, 1e10)
        return torch.from_numpy(np.asarray(values, np.float64)).to(dtype)

    def bools(self, shape: Any, share: float) -> Tensor:
        return torch.from_numpy(np.asarray(self.random.random(shape) < share))

    def times(self, shape: Any, dtype: torch.dtype, period: int, kind: int) -> Tensor:
        """Seconds: of today, around 0, at either end, on the seams of the clock."""
        end = 2**31 - 1 if dtype == torch.int32 else 10**11
        low, high = [
            (1_700_000_000, 1_700_900_000), (-200_000, 200_000), (0, 86400),
            (end - 100, end + 1), (-end, end + 1),
        ][kind]  # fmt: skip
        times = np.asarray(self.random.integers(low, high, shape))
        if self.chance(0.2):
            turns = np.maximum(np.abs(times) // period - 1, 0) * np.sign(times)
            times = turns * period + self.random.integers(-1, 2, shape)
        return torch.from_numpy(np.asarray(times)).to(dtype)

    def dressed(self, tensor: Tensor) -> Tensor:
        """The same values elsewhere: another offset, other strides, poison in between."""
        kind = self.below(8)
        if kind > 3:
            return tensor
        poison = torch.nan if tensor.is_floating_point() else (
            True if tensor.dtype == torch.bool else torch.iinfo(tensor.dtype).min)  # fmt: skip
        if kind == 0:
            flat = torch.full((tensor.numel() + 1,), poison, dtype=tensor.dtype)
            held = flat[1:].view(tensor.shape)
        elif kind == 1 and tensor.dim():
            shape = (*tensor.shape[:-1], tensor.shape[-1] * 2)
            held = torch.full(shape, poison, dtype=tensor.dtype)[..., ::2]
        elif kind == 2 and tensor.dim() > 1:
            order = torch.from_numpy(self.random.permutation(tensor.dim())).tolist()
            back = [order.index(d) for d in range(tensor.dim())]
            sizes = [tensor.shape[d] for d in order]
            held = torch.full(sizes, poison, dtype=tensor.dtype).permute(back)
        elif kind == 3 and tensor.dim() > 1:
            shape = (tensor.shape[0], *(n + 3 for n in tensor.shape[1:]))
            wide = torch.full(shape, poison, dtype=tensor.dtype)
            held = wide[
                tuple(slice(1, 1 + n) if d else slice(None) for d, n in enumerate(tensor.shape))
            ]
        else:
            return tensor
        return held.copy_(tensor)


def make_mlp(draw: Draw, period: int, unit: float, exact: bool) -> dict[str, Tensor]:
    if exact:  # on a clock of 16 seconds with unit 1 every term is a small integer
        return {"w1": torch.tensor([[1.0, 0, 0, 0], [-2.0, 0, 1.0, 0], [0, 0, -1.0, 0]]),
                "b1": torch.tensor([-3.0, 1.0, 9.0]), "w2": torch.tensor([1.0, -1.0, 2.0]),
                "b2": torch.tensor(2.0)}  # fmt: skip
    width = draw.pick(8, 8, 1, 3, 9, 16, 33, 64) if not draw.tiny else draw.pick(8, 1, 9)
    reach = max(period / 2 / unit, 1e-3)
    sizes = np.array([reach, reach**0.5, reach**2, np.log1p(reach)])
    normal = draw.random.standard_normal
    weights = {
        "w1": normal((width, 4)) / sizes, "b1": normal(width), "w2": normal(width) / width**0.5,
        "b2": normal(() if draw.chance(0.8) else (1,)),
    }  # fmt: skip
    return {
        name: draw.dressed(torch.from_numpy(np.asarray(value)).float())
        for name, value in weights.items()
    }


def clock_of(draw: Draw, exact: bool) -> tuple[int, float]:
    """A period and a unit."""
    if exact:
        return 16, 1.0
    if draw.chance(0.4):
        return 86400, 3600.0  # with others x^2 is so large that nothing else shows
    period = draw.pick(*PERIODS)
    return period, draw.pick(3600.0, 3600.0, 60.0, 1.0, period / 24, 1e-3, 7200.5)


def place(draw: Draw, layout: str, most: int) -> tuple[dict[str, Any], tuple[int, ...], int]:
    """The arguments that tell a layout, the shape of key_time, and queries."""
    dtype = draw.pick(*INTS)
    sequences = draw.size(3 if draw.tiny else 5)
    if layout in ("dense", "candidates"):
        m = draw.size(most)
        lengths = draw.dressed(draw.ints(sequences, 0, m + 1, dtype)) if draw.chance(0.7) else None
        return {"lengths": lengths}, (sequences, m), sequences
    counts = np.array([draw.size(most // 2) for _ in range(sequences)], np.int64)
    bounds = np.concatenate([[0], counts.cumsum()])
    total = int(bounds[-1])
    if layout.startswith("windows"):
        total += draw.below(3)  # rows that no window sees
        begin = draw.random.integers(0, total + 1, sequences)
        end = begin + draw.random.integers(0, total - begin + 1)
        starts, ends = (draw.dressed(torch.from_numpy(x).to(dtype)) for x in (begin, end))
        given = {"starts": starts, "ends": ends}
    else:
        given = {"offsets": draw.dressed(torch.from_numpy(bounds).to(dtype))}
    if not layout.endswith("_many"):
        return given, (total,), sequences
    many = np.concatenate([[0], np.array([draw.size(4) for _ in range(sequences)], int).cumsum()])
    given["query_offsets"] = draw.dressed(torch.from_numpy(many).to(draw.pick(*INTS)))
    return given, (total,), int(many[-1])


def sequences_of(given: dict[str, Any], queries: int) -> int:
    if "starts" in given:
        return len(given["starts"])
    return len(given["offsets"]) - 1 if "offsets" in given else queries


def search(draw: Draw, op: str) -> tuple[dict[str, Any], bool]:
    """Arguments of a search up to and with ``unit``, and whether they are exact."""
    layout = draw.pick(*LAYOUTS)
    large = draw.chance(0.02) and not draw.tiny
    most = 6000 if large else 9 if draw.tiny else 40 if draw.chance(0.9) else 300
    given, shape, queries = place(draw, layout, most)
    hashes, exact = op == "hamming_gsu", draw.chance(0.25)
    width = draw.size(2 if hashes and draw.tiny else 4 if hashes else 9 if draw.tiny else 70)
    dtype = torch.int64 if hashes else draw.pick(*FLOATS)
    period, unit = clock_of(draw, exact)
    kind, later = draw.below(5), draw.pick(*INTS)
    sequences = sequences_of(given, queries)
    key_time = draw.times(shape, draw.pick(*INTS), period, kind)
    query_time = draw.times(sequences, later, period, kind)
    candidates = draw.size(3 if draw.tiny else 20) if layout == "candidates" else None
    lead = (queries,) if candidates is None else (queries, candidates)
    table = draw.chance(0.4)
    count = draw.size(most) if table else 0

    def values(shape: Any) -> Tensor:
        if hashes:
            return (
                draw.ints(shape, -(2**63), 2**63 - 1, dtype)
                if not exact
                else draw.ints(shape, 0, 4, dtype)
            )
        return draw.floats(shape, dtype, exact)

    keys = values((count, width) if table else (*shape, width))
    query = values((*lead, width))
    if not hashes and draw.chance(0.4):
        query = (
            query.float() if exact or draw.chance(0.5) else draw.floats(query.shape, torch.float32)
        )
    mask = draw.bools(shape, 0.7) if draw.chance(0.4) else None
    a: dict[str, Any] = {
        "query": query,
        "keys": keys,
        "key_time": key_time,
        "query_time": query_time,
    }
    if not hashes:
        a |= make_mlp(draw, period, unit, exact)
    a |= dict.fromkeys(LAYOUT) | given | {"mask": mask, "exclude_future": draw.chance(0.3)}
    if table:
        a["ids"] = draw.ints(shape, 0, max(count, 1), draw.pick(*INTS))
    if not hashes:
        scale = (
            0.5 if exact else float(draw.pick(1.0, width**-0.5 if width else 1.0, -0.3, 0.0, 1e-3))
        )
        a |= {"scale": scale, "period": period, "unit": unit}
    poison(draw, a, count if table else None)
    for name in ("query", "keys", "key_time", "query_time", "ids", "mask"):
        if a[name] is not None:
            a[name] = draw.dressed(a[name])
    return a, exact and not hashes


def poison(draw: Draw, a: dict[str, Any], table_rows: int | None) -> None:
    """Fills what counts for nobody: keys, ids, and times where these tell nothing."""
    seen = np.zeros(a["key_time"].numel(), bool)
    within = seen.copy()
    view = {name: value.numpy() for name, value in a.items()
            if isinstance(value, Tensor) and name not in ("query", "keys", *MLP)}  # fmt: skip
    # A sequence without a query is read as if it had one.
    flat = a["key_time"].dim() == 1
    view |= {"exclude_future": a["exclude_future"], "query_offsets": None}
    view["query"] = np.zeros((len(view["query_time"]), *(() if flat else (1,)), 0))
    for _, at, now, length in oracle.spans(view):
        seen[at[oracle.counting(view, at, now, length)]] = True
        within[at[oracle.counting(view | {"exclude_future": False}, at, now, length)]] = True
    dead = torch.from_numpy(~seen).reshape(a["key_time"].shape)
    if table_rows == 0 and not dead.all():  # no id is right: nothing may count
        a["mask"], dead = torch.zeros(dead.shape, dtype=torch.bool), torch.ones_like(dead)
        within[:] = False
    if draw.chance(0.3):
        return
    if a["ids"] is not None:
        info = torch.iinfo(a["ids"].dtype)
        a["ids"][dead] = draw.pick(-1, info.max, info.min, table_rows)
    elif a["keys"].is_floating_point():
        a["keys"][dead] = draw.pick(torch.nan, torch.inf, -torch.inf, 60000.0)
    if draw.chance(0.5):
        info = torch.iinfo(a["key_time"].dtype)
        nowhere = torch.from_numpy(~within).reshape(dead.shape)
        a["key_time"][nowhere] = draw.pick(info.max, info.min, 0)


def score_count(a: dict[str, Any]) -> int:
    view = {
        name: value.numpy()
        if isinstance(value, Tensor)
        and name
        in ("starts", "ends", "offsets", "query_offsets", "lengths", "query_time", "key_time")
        else value
        for name, value in a.items()
    }
    return sum(len(at) for _, at, _, _ in oracle.spans(view))


def number_of(draw: Draw) -> int:
    return int(draw.pick(0, 1, 2, 3, 5, 17, 100) if draw.chance(0.95) else 2048)


def clock_gsu(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    a, exact = search(draw, "clock_gsu")
    return a | {"k": number_of(draw)}, exact


def hamming_gsu(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    a, _ = search(draw, "hamming_gsu")
    return a | {"k": number_of(draw)}, True


def gsu_score(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    a, exact = search(draw, "gsu_score")
    flat = a["key_time"].dim() == 1
    return a | {"total": score_count(a) if draw.chance(0.5 if flat else 0.1) else None}, exact


def needs(draw: Draw, *names: str) -> dict[str, bool]:
    return {f"need_{name}": draw.chance(0.7) for name in names}


def gsu_score_backward(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    a, _ = search(draw, "gsu_score_backward")
    dense = a["key_time"].dim() == 2
    shape = (*a["query"].shape[:-1], a["key_time"].shape[1]) if dense else (score_count(a),)
    grad = draw.dressed(draw.floats(shape, torch.float32))
    return {"grad": grad} | a | needs(draw, "query", "keys", "mlp"), False


def block_topk(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    lead = tuple(draw.size(5) for _ in range(draw.pick(0, 1, 1, 1, 2, 3)))
    large = draw.chance(0.02) and not draw.tiny and len(lead) < 2
    m = 140_000 if large else draw.size(40 if draw.tiny else 300)
    scores = draw.floats((*lead, m), draw.pick(*FLOATS), draw.chance(0.3))
    lengths = None
    if draw.chance(0.5):
        lengths = draw.ints(lead, 0, m + 1, draw.pick(*INTS))
        dead = torch.arange(m) >= lengths[..., None]
        scores[dead] = draw.pick(torch.nan, torch.inf, 60000.0)
        lengths = draw.dressed(lengths)
    return {"scores": draw.dressed(scores), "k": number_of(draw), "lengths": lengths}, True


def block_topk_backward(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    if way == "gradient":
        a, _ = block_topk(draw, way)
        shape = (*a["scores"].shape[:-1], a["k"])
        return {"grad": draw.dressed(draw.floats(shape, a["scores"].dtype))} | a, True
    lead = tuple(draw.size(4) for _ in range(draw.pick(0, 1, 1, 2)))
    m, k = draw.size(40), draw.size(20)
    rows = [np.concatenate([draw.random.permutation(m)[:k], np.full(max(k - m, 0), -1)])
            for _ in range(int(np.prod(lead)))]  # fmt: skip
    indices = np.array(rows, np.int64).reshape((*lead, k))
    indices[draw.random.random(indices.shape) < 0.1] = -1
    grad = draw.floats(indices.shape, draw.pick(*FLOATS))
    return {
        "grad": draw.dressed(grad),
        "indices": draw.dressed(torch.from_numpy(indices)),
        "m": m,
    }, True


def attention(draw: Draw, way: str) -> dict[str, Any]:
    if draw.chance(0.4):
        return attention_to_found(draw, way)
    queries, n = draw.size(3 if draw.tiny else 5), draw.size(2 if draw.tiny else 5)
    k = 1500 if draw.chance(0.02) and not draw.tiny else draw.size(9 if draw.tiny else 70)
    width = draw.size(9 if draw.tiny else 70)
    dtype, (period, unit), kind = draw.pick(*FLOATS), clock_of(draw, False), draw.below(5)
    table = draw.chance(0.5)
    count = draw.size(30)
    z = draw.floats((count, width) if table else (queries, k, width), dtype)
    valid = draw.bools((queries, k), 0.7) if draw.chance(0.5) else None
    ids = draw.ints((queries, k), 0, max(count, 1), draw.pick(*INTS)) if table else None
    z_time = draw.times((queries, k), draw.pick(*INTS), period, kind)
    if table and count == 0:
        valid = torch.zeros((queries, k), dtype=torch.bool)
    if valid is not None and draw.chance(0.7):
        dead = ~valid
        if ids is not None:
            ids[dead] = draw.pick(-1, torch.iinfo(ids.dtype).max, torch.iinfo(ids.dtype).min)
        else:
            z[dead] = draw.pick(torch.nan, torch.inf, -torch.inf, 60000.0)
        z_time[dead] = draw.pick(torch.iinfo(z_time.dtype).max, torch.iinfo(z_time.dtype).min, 0)
    u = draw.floats((queries, n, width), torch.float32) * draw.pick(
        1.0, 0.1, 1 / max(width, 1) ** 0.5
    )
    u = u.to(dtype) if draw.chance(0.7) else u
    a = {"u": u, "z": z, "ids": ids, "z_time": z_time,
         "query_time": draw.times(queries, draw.pick(*INTS), period, kind), "positions": None}  # fmt: skip
    a = {name: value if value is None else draw.dressed(value) for name, value in a.items()}
    valid = valid if valid is None else draw.dressed(valid)
    return (
        a | make_mlp(draw, period, unit, False) | {"valid": valid, "period": period, "unit": unit}
    )


def attention_to_found(draw: Draw, way: str) -> dict[str, Any]:
    """Rows, times and ids of whole histories, and where in them those of a query lie."""
    queries, n = draw.size(3 if draw.tiny else 5), draw.size(2 if draw.tiny else 5)
    k, width = draw.size(9 if draw.tiny else 70), draw.size(9 if draw.tiny else 70)
    total, count, table = draw.size(9 if draw.tiny else 100), draw.size(30), draw.chance(0.5)
    dtype, (period, unit), kind = draw.pick(*FLOATS), clock_of(draw, False), draw.below(5)
    least = -1 if way != "raw" else draw.pick(-1, -3)
    positions = draw.ints((queries, k), least, max(total, 0), torch.int64) if total else None
    if positions is None or (table and count == 0):
        positions = torch.full((queries, k), -1)
    z = draw.floats((count if table else total, width), dtype)
    ids = draw.ints((total,), 0, max(count, 1), draw.pick(*INTS)) if table else None
    z_time = draw.times((total,), draw.pick(*INTS), period, kind)
    dead = torch.ones(total, dtype=torch.bool)
    dead[positions[positions >= 0]] = False
    if draw.chance(0.7):
        if ids is not None:
            ids[dead] = draw.pick(-1, torch.iinfo(ids.dtype).max, torch.iinfo(ids.dtype).min)
        else:
            z[dead] = draw.pick(torch.nan, torch.inf, -torch.inf, 60000.0)
        z_time[dead] = draw.pick(torch.iinfo(z_time.dtype).max, torch.iinfo(z_time.dtype).min, 0)
    u = draw.floats((queries, n, width), torch.float32) / max(width, 1) ** 0.5
    u = u.to(dtype) if draw.chance(0.7) else u
    a = {"u": u, "z": z, "ids": ids, "z_time": z_time,
         "query_time": draw.times(queries, draw.pick(*INTS), period, kind), "positions": positions}  # fmt: skip
    a = {name: value if value is None else draw.dressed(value) for name, value in a.items()}
    return a | make_mlp(draw, period, unit, False) | {"valid": None, "period": period, "unit": unit}


def esu_attention_positions(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    layout = draw.pick(*LAYOUTS)
    given, shape, queries = place(draw, layout, 9 if draw.tiny else 60)
    period, kind, k = 86400, draw.below(5), draw.size(9 if draw.tiny else 40)
    lead = (queries,) if layout != "candidates" else (queries, draw.size(4))
    a: dict[str, Any] = {
        "key_time": draw.times(shape, draw.pick(*INTS), period, kind),
        "query_time": draw.times(sequences_of(given, queries), draw.pick(*INTS), period, kind),
        **dict.fromkeys(LAYOUT[1:-1]), **given,
        "mask": draw.bools(shape, 0.7) if draw.chance(0.4) else None, "exclude_future": draw.chance(0.4),
    }  # fmt: skip
    found = torch.full((int(np.prod(lead)), k), -1)
    view = {
        name: value.numpy() if isinstance(value, Tensor) else value for name, value in a.items()
    }
    view["query"] = np.zeros((*lead, 0))
    for q, _, _, length in oracle.spans(view):
        found[q] = draw.ints((k,), -1, max(int(length), 0), torch.int64) if length else -1
    a["found"] = found.view(*lead, k)
    for name in ("key_time", "query_time", "mask", "found"):
        if a[name] is not None:
            a[name] = draw.dressed(a[name])
    return a, True


def esu_attention(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    return attention(draw, way) | {"sparse_grad": draw.chance(0.3)}, False


def esu_attention_backward(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    a = attention(draw, way)
    if way == "gradient":
        a |= {"sparse_grad": draw.chance(0.3)}
    queries, n, width = a["u"].shape
    grad = draw.dressed(draw.floats((queries, n, width + 4), torch.float32))
    saved = {} if way == "gradient" else {"context": FORWARD_GIVES, "softmax": FORWARD_GIVES}
    return {"grad": grad} | a | saved | needs(draw, "u", "z", "mlp"), False


FORWARD_GIVES = "what the forward gives"


def esu_attention_table_grad(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    if way == "gradient":
        while True:
            a, _ = esu_attention_backward(draw, way)
            if oracle.gathers(a):
                return a | {"need_z": True}, False
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
        ids[unread] = draw.pick(-1, torch.iinfo(ids.dtype).max, 0)
        z_grad[positions < 0] = 0.0
    if valid is not None:
        if positions is None:
            ids[~valid] = draw.pick(-1, torch.iinfo(ids.dtype).max, 0)
        z_grad[~valid] = 0.0
    a = {"z_grad": z_grad, "ids": ids, "positions": positions, "valid": valid}
    a = {name: value if value is None else draw.dressed(value) for name, value in a.items()}
    return a | {"table_rows": count}, False


def times_op(draw: Draw, first: str, second: str) -> dict[str, Any]:
    shape = tuple(draw.size(6) for _ in range(draw.below(5)))
    period = draw.pick(*PERIODS)
    a = draw.times(shape, draw.pick(*INTS), period, draw.below(5))
    other = shape
    if draw.chance(0.4):
        other = tuple(1 if draw.chance(0.4) else n for n in shape)[draw.below(len(shape) + 1) :]
    b = draw.times(other, draw.pick(*INTS), period, draw.below(5))
    if draw.chance(0.5) and first == "a":
        a, b = b, a
    return {first: draw.dressed(a), second: draw.dressed(b), "period": period}


def circular_delta(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    a = times_op(draw, "a", "b")
    if way == "raw":
        a["a"], a["b"] = torch.broadcast_tensors(a["a"], a["b"])
    return a, True


def clock_time(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    a = times_op(draw, "timestamps", "utc_offset")
    if way == "public" and draw.chance(0.5):
        a["utc_offset"] = int(draw.pick(0, 3600, -19800, 50400, -(10**6)))
    elif way == "raw":
        a["timestamps"], a["utc_offset"] = torch.broadcast_tensors(a["timestamps"], a["utc_offset"])
    return a, True


def deltas(draw: Draw) -> tuple[Tensor, float, int]:
    period, unit = clock_of(draw, False)
    shape = tuple(draw.size(8) for _ in range(draw.below(4)))
    if draw.chance(0.03) and not draw.tiny:
        shape = (40_000,)
    return draw.dressed(draw.ints(shape, 0, period // 2 + 1, draw.pick(*INTS))), unit, period


def time_features(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    delta, unit, _ = deltas(draw)
    return {"delta": delta, "unit": unit}, False


def time_similarity(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    delta, unit, period = deltas(draw)
    return {"delta": delta} | make_mlp(draw, period, unit, False) | {"unit": unit}, False


def time_similarity_backward(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    a, _ = time_similarity(draw, way)
    return {"grad": draw.dressed(draw.floats(a["delta"].shape, torch.float32))} | a, False


def pack_signs(draw: Draw, way: str) -> tuple[dict[str, Any], bool]:
    shape = (*(draw.size(5) for _ in range(draw.below(4))), draw.size(40 if draw.tiny else 200))
    return {"x": draw.dressed(draw.floats(shape, draw.pick(*FLOATS)))}, True


GENERATORS: dict[str, Callable[[Draw, str], tuple[dict[str, Any], bool]]] = {
    made.__name__: made
    for made in (
        block_topk, block_topk_backward, circular_delta, clock_gsu, clock_time, esu_attention,
        esu_attention_backward, esu_attention_positions, esu_attention_table_grad, gsu_score, gsu_score_backward,
        hamming_gsu, pack_signs, time_features, time_similarity, time_similarity_backward,
    )
}  # fmt: skip


def generate(op: str, draw: Draw) -> Call:
    """A valid call."""
    backward = op.endswith(("_backward", "_table_grad"))
    way = draw.pick("raw", "gradient" if backward else "public")
    if op == "clock_time" and not hasattr(torch.ops.longclock, "clock_time"):
        way = "public"
    if op == "esu_attention_positions":
        way = "raw"
    arguments, exact = GENERATORS[op](draw, way)
    call = Call(op, way, arguments, exact)
    if way != "raw":
        for name in ("scale", "unit"):  # None is a default of the public functions
            if name in arguments and not exact and draw.chance(0.2):
                arguments[name] = None
        call.module = way == "public" and "period" in arguments and draw.chance(0.2)
    if not draw.tiny and draw.chance(0.4):
        call.level = draw.pick(*_native.simd_levels())
    return call


__all__ = ["GENERATORS", "SEARCHES", "Draw", "generate"]
