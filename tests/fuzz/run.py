# SPDX-License-Identifier: Apache-2.0
"""Makes a call, and says what came of it."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import longclock as lc
from longclock import _native

from . import oracle
from .call import FORWARD, LAYOUT, MLP, PARTS, SEARCHES, Call, op_names
from .contract import INT_SCALARS, Verdict, judge, of_kind
from .generate import FORWARD_GIVES, Draw, generate
from .mutate import all_meta, mutate

ULP = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
LARGEST = {torch.float16: 65504.0, torch.bfloat16: 3.38e38, torch.float32: 3.4e38}
LEAST = {torch.float16: 2.0**-24, torch.bfloat16: 2.0**-133, torch.float32: 2.0**-149}
BAD = ("wrong", "unnamed", "accepted")


def make(seed: int, index: int, emulated: bool, op: str | None = None) -> Call:
    draw = Draw(seed, index, tiny=emulated)
    call = generate(op or draw.pick(*op_names()), draw)
    saved = any(value is FORWARD_GIVES for value in call.arguments.values())
    if saved:
        save(call)
    if draw.chance(0.03):
        all_meta(call)
        return call
    for _ in range(draw.pick(0, 0, 1, 1, 2, 3)):
        mutate(draw, call)
    if saved and not any("saved" in text for text in call.mutations):
        kinds = ("tensor", "zero", "subclass")
        plain = all(of_kind(value) in kinds for value in call.tensors().values())
        # A call that the forward refuses keeps what it saved before: the backward refuses it too.
        with contextlib.suppress(RuntimeError, ValueError):
            if plain:
                save(call)
    return call


def save(call: Call) -> None:
    """Gives esu_attention_backward what the forward of its arguments keeps for it."""
    forward = {name: value for name, value in call.arguments.items()
               if name not in ("grad", "context", "softmax") and "need_" not in name}  # fmt: skip
    with torch.no_grad():
        context, softmax = torch.ops.longclock.esu_attention(*forward.values(), False)
    call.arguments |= {"context": context, "softmax": softmax}


# The arguments as the oracle reads them.


def array(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value._is_zerotensor():
        value = torch.zeros(value.shape, dtype=value.dtype)
    value = value.detach().as_subclass(Tensor).resolve_neg()
    return value.double().numpy() if value.is_floating_point() else value.numpy()


def read(a: dict[str, Any]) -> dict[str, Any]:
    """As arrays; the query and u rounded to the keys' dtype, defaults filled in."""
    view = {name: int(value) if name in INT_SCALARS and isinstance(value, bool) else array(value)
            for name, value in a.items()}  # fmt: skip
    for name, rows in (("query", "keys"), ("u", "z")):
        if name in a and a[name].is_floating_point():
            rounded = torch.from_numpy(view[name]).to(a[name].dtype).to(a[rows].dtype)
            view[name] = array(rounded)
            view["lossy"] = a[rows].dtype == torch.bfloat16
    for name in ("offsets", "query_offsets", "starts", "ends", "lengths", "ids", "query_time"):
        if view.get(name) is not None and isinstance(view[name], np.ndarray):
            view[name] = view[name].astype(np.int64)
    if "scale" in view:
        width = view["query"].shape[-1]
        scale = max(width, 1) ** -0.5 if view["scale"] is None else float(view["scale"])
        view["scale"] = float(np.float32(scale)) if abs(scale) < 3e38 else scale
    if "unit" in view:
        view["unit"] = 3600.0 if view["unit"] is None else float(view["unit"])
    return view


# The call.


def public(call: Call, a: dict[str, Any], package: Any = lc) -> Any:
    """The function of ``longclock``, as it is written by hand."""
    form, extra = call.form, call.extra
    function = getattr(package, form)
    mlp: Any = tuple(a[name] for name in MLP if name in a)
    if call.module and mlp and all(of_kind(weight) == "tensor" for weight in mlp):
        mlp = module(mlp, a["unit"])
    if call.mlp != "the weights":
        mlp = call.mlp
    if form in SEARCHES:
        options = {name: a[name] for name in LAYOUT if a[name] is not None}
        options |= {
            name: a[name] for name in ("k", "scale", "period", "unit", "total") if name in a
        }
        lead = [
            a["query"],
            a["keys"],
            a["key_time"],
            a["query_time"],
            *([mlp] if "w1" in a else []),
        ]
        return function(*lead, **options, **extra)
    if form == "esu_attention":
        z = a["z"] if a["ids"] is None else lc.Lookup(a["z"], a["ids"], a["sparse_grad"])
        options = {name: a[name] for name in ("valid", "period", "unit")}
        if a["positions"] is not None:
            options |= everywhere(a)
        return function(a["u"], z, a["z_time"], a["query_time"], mlp, **options, **extra)
    return function(
        **{name: value for name, value in a.items() if name != "grad" and "need_" not in name},
        **extra,
    )


def everywhere(a: dict[str, Any]) -> dict[str, Any]:
    """What the public function takes for positions: what was found in windows, each of which is all that there is."""
    now, total = (
        a["query_time"],
        len(a["z_time"]) if of_kind(a["z_time"]) == "tensor" and a["z_time"].dim() else 0,
    )
    queries = (
        len(now)
        if isinstance(now, Tensor) and of_kind(now) in ("tensor", "meta") and now.dim()
        else 0
    )
    starts = torch.zeros(queries, dtype=torch.int64, device=now.device if queries else None)
    if queries and now.is_meta and isinstance(a["z_time"], Tensor) and a["z_time"].is_meta:
        total = 0
    return {"found": a["positions"], "starts": starts, "ends": starts + total}


def module(mlp: tuple[Tensor, ...], unit: Any) -> Any:
    """The weights in a TimeSimilarity, or as they are where it has no such weights."""
    w1, b1, w2, b2 = mlp
    fits = (
        w1.dim() == 2 and 1 <= len(w1) <= 64 and b2.numel() == 1 and isinstance(unit, float | None)
    )
    if not fits or (unit is not None and not 0 < unit < torch.inf):
        return mlp
    made = lc.TimeSimilarity(len(w1), unit=3600.0 if unit is None else unit, falls=False)
    for name, weight in zip(MLP, (w1, b1, w2, b2), strict=True):
        if weight.dtype != torch.float32:  # which a module would convert
            return mlp
        setattr(made, name, torch.nn.Parameter(weight, requires_grad=False))
    return made


LEAVES = ("scores", "query", "keys", "u", "z", *MLP)


def gradient(call: Call, a: dict[str, Any]) -> dict[str, Tensor]:
    """Of the public forward's result by its inputs that may have one."""
    a = dict(a)
    wanted = [name for name in LEAVES if of_kind(a.get(name)) == "tensor"
              and a[name].is_floating_point() and needed(call, name)]  # fmt: skip
    for name in wanted:
        a[name] = a[name].detach().requires_grad_()
    result = public(call, a)
    result = result.scores if isinstance(result, tuple) else result
    if not wanted:
        return {}
    grad = a["grad"]
    if (result.shape, result.device) != (grad.shape, grad.device):  # a mutation changed it
        a["grad"] = call.arguments["grad"] = torch.ones_like(result)
    grads = torch.autograd.grad(result, [a[name] for name in wanted], a["grad"], allow_unused=True)
    return {name: grad for name, grad in zip(wanted, grads, strict=True) if grad is not None}


def needed(call: Call, name: str) -> bool:
    what = "mlp" if name in MLP else name
    return bool(call.arguments.get(f"need_{what}", True))


def invoke(call: Call) -> Any:
    if call.way == "gradient":
        return gradient(call, call.arguments)
    if call.way == "public":
        return public(call, call.arguments)
    return getattr(torch.ops.longclock, call.op)(*call.arguments.values())


# Whether the result is right.


class Wrong(Exception):
    """A result that is not what the oracle gives."""


def check(holds: bool, text: str) -> None:
    if not holds:
        raise Wrong(text)


def compare(what: str, got: Tensor, exact: Any, off: Any, dtype: torch.dtype) -> None:
    check(got.dtype == dtype, f"{what} is {got.dtype}, expected {dtype}")
    check(
        tuple(got.shape) == exact.shape,
        f"{what} has shape {list(got.shape)}, expected {exact.shape}",
    )
    value, exact, off = got.detach().double().numpy(), np.asarray(exact), np.asarray(off)
    with np.errstate(all="ignore"):
        size = np.abs(np.where(np.isfinite(exact), exact, 0.0))
        limit = off + np.where(off > 0, LEAST[dtype], 0.0)
        if dtype in ULP:
            limit = limit + ULP[dtype] * size + LEAST[dtype]
        limit = np.where(size + limit >= LARGEST[dtype], np.inf, limit)
        same = (value == exact) | (np.isnan(value) & np.isnan(exact))
        right = same | (np.abs(value - exact) <= limit) | np.isinf(limit)
    if not right.all():
        at = np.unravel_index(int(np.argmin(right)), right.shape)
        raise Wrong(
            f"{what}{[int(i) for i in at]} is {float(value[at])}, expected {float(exact[at])} "
            f"+- {float(limit[at]):.3g}, {int((~right).sum())} of {right.size} are off"
        )


def check_selection(scores: Tensor, indices: Tensor, view: dict[str, Any], exact: bool) -> None:
    k = view["k"]
    shape = (*view["query"].shape[:-1], k)
    check(scores.dtype == torch.float32 and indices.dtype == torch.int64, "dtypes of a selection")
    check(
        tuple(scores.shape) == shape == tuple(indices.shape),
        f"shapes {scores.shape}, {indices.shape}",
    )
    if not np.prod(shape):
        return
    values, chosen = scores.double().numpy().reshape(-1, k), indices.numpy().reshape(-1, k)
    queries = 0
    for span in oracle.spans(view):
        queries += 1
        right, off = oracle.scores_of_query(view, *span)
        counts = oracle.counting(view, *span[1:])
        off = off * 0 if exact else np.where(np.isnan(right), 0, off)
        check_row(values[span[0]], chosen[span[0]], right, off, counts, exact, f"query {span[0]}: ")
    check(queries == len(values), "a query that no sequence has")


def check_row(
    values: Any, chosen: Any, right: Any, off: Any, counts: Any, exact: bool, where: str
) -> None:
    k = len(values)
    n = min(k, int(counts.sum()))
    check((chosen[n:] == -1).all() and np.isneginf(values[n:]).all(), f"{where}padding of {n}")
    if n == 0:
        return
    if exact:
        expected = oracle.ranked(right, counts, k)
        check(
            np.array_equal(values, expected[0], equal_nan=True),
            f"{where}scores {values[:9]}, expected {expected[0][:9]}",
        )
        check(
            np.array_equal(chosen, expected[1]),
            f"{where}indices {chosen[:9]}, expected {expected[1][:9]}",
        )
        return
    values, chosen = values[:n], chosen[:n]
    check(bool(((chosen >= 0) & (chosen < len(right))).all()), f"{where}indices {chosen[:9]}")
    check(
        bool(counts[chosen].all()),
        f"{where}chose what does not count: {chosen[~counts[chosen]][:9]}",
    )
    check(len(np.unique(chosen)) == n, f"{where}an index comes twice")
    with np.errstate(all="ignore"):
        expected, limit = right[chosen], off[chosen]
        same = (values == expected) | (np.isnan(values) & np.isnan(expected))
        close = same | (np.abs(values - expected) <= limit) | np.isinf(limit)
    if not close.all():
        at = int(np.flatnonzero(~close)[0])
        raise Wrong(
            f"{where}score {at} is {values[at]}, that of {chosen[at]} is {expected[at]} +- {limit[at]:.3g}"
        )
    nans = np.isnan(values)
    check(bool((nans[:-1] >= nans[1:]).all()), f"{where}NaN after a number")
    real = values[~nans]
    check(bool((real[:-1] >= real[1:]).all()), f"{where}not sorted: {values[:9]}")
    equal = (values[:-1] == values[1:]) | (nans[:-1] & nans[1:])
    check(bool((chosen[:-1] < chosen[1:])[equal].all()), f"{where}equals are not in order of index")
    passed = counts.copy()
    passed[chosen] = False
    passed &= np.isfinite(off)
    if not passed.any() or not np.isfinite(limit).all():
        return
    if np.isnan(right[passed]).any():
        check(bool(nans.all()), f"{where}passed over a NaN")
    left = np.where(np.isnan(right[passed]), -np.inf, right[passed] - off[passed])
    if not nans[-1] and not np.isnan(expected[-1]):
        worst = np.nanmin(expected + limit)
        check(bool(left.max() <= worst), f"{where}passed over {left.max()}, chose {worst}")


def same_bits(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        if a.layout != torch.strided:
            a, b = a.coalesce().values(), b.coalesce().values()
        kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
        same = a.detach().contiguous().view(kind), b.detach().contiguous().view(kind)
        return a.shape == b.shape and torch.equal(*same)
    pairs = (
        zip(a.values(), b.values(), strict=True) if isinstance(a, dict) else zip(a, b, strict=True)
    )
    return all(same_bits(x, y) for x, y in pairs)


def check_result(call: Call, result: Any, emulated: bool) -> None:
    """Raises Wrong."""
    form = call.op if call.way != "public" else call.form
    a = {name: torch.tensor(value) if isinstance(value, (bool, int, float)) and name in TENSORS else value
         for name, value in call.arguments.items()}  # fmt: skip
    view = read(a)
    if form in ("clock_gsu", "hamming_gsu"):
        check_selection(result[0], result[1], view, call.exact)
    elif form == "gsu_score":
        answer = oracle.gsu_score(view)
        off = answer.off["scores"] * (0 if call.exact else 1)
        compare("scores", result, answer.values["scores"], off, torch.float32)
    elif form == "gsu_score_backward":
        gradients(call, a, result, oracle.gsu_score_gradient(view), ("query", "keys", *MLP))
    elif form == "esu_attention":
        answer = oracle.esu_attention(view)
        context = result if isinstance(result, Tensor) else result[0]
        compare("context", context, answer.values["context"], answer.off["context"], torch.float32)
    elif form == "esu_attention_positions":
        for what, got, exact in zip(
            ("positions", "query_time"), result, oracle.positions(view), strict=True
        ):
            check(
                got.dtype == torch.int64 and tuple(got.shape) == exact.shape,
                f"{what}: shape {list(got.shape)}",
            )
            check(np.array_equal(got.numpy(), exact), what)
    elif form in ("esu_attention_backward", "esu_attention_table_grad") and "u" in a:
        attention_gradients(call, a, view, result)
    elif form == "esu_attention_table_grad":
        z_grad = view["z_grad"]
        if view["table_rows"] > 2**30:  # of no width
            check(tuple(result.shape) == (view["table_rows"], z_grad.shape[-1]), "shape")
            return
        rounding = ULP.get(a["z_grad"].dtype, 0.0), LARGEST[a["z_grad"].dtype]
        answer = oracle.table_gradient(z_grad, z_grad * 0, view, view["table_rows"], *rounding)
        compare("table", result, answer.values["table"], answer.off["table"], a["z_grad"].dtype)
    elif form == "block_topk":
        answer = oracle.block_topk(view)
        compare(
            "scores", result[0], answer.values["scores"], answer.off["scores"], a["scores"].dtype
        )
        compare(
            "indices", result[1], answer.values["indices"], 0.0 * answer.off["scores"], torch.int64
        )
    elif form == "block_topk_backward":
        dtype = a["grad"].dtype
        if call.way == "gradient":
            indices, m = oracle.block_topk(view).values["indices"], view["scores"].shape[-1]
            dtype = a["scores"].dtype
            view["grad"] = array(a["grad"].to(dtype))  # as autograd does
            result = result["scores"]
        else:
            indices, m = view["indices"], view["m"]
        answer = oracle.scattered(view["grad"], indices, m)
        compare("grad", result, answer.values["scores"], answer.off["scores"], dtype)
    elif form == "circular_delta":
        x, y = np.broadcast_arrays(view["a"], view["b"])
        dtype = torch.promote_types(a["a"].dtype, a["b"].dtype)
        exact = oracle.delta(x, y, view["period"])
        compare("delta", result, exact, exact * 0.0, dtype)
    elif form == "clock_time":
        t, offset = np.broadcast_arrays(view["timestamps"], view["utc_offset"])
        exact = oracle.clock(t.astype(object) + offset.astype(object), view["period"])
        compare("time", result, exact, exact * 0.0, torch.int32)
    elif form == "time_features":
        exact = oracle.phi(view["delta"], view["unit"])
        off = oracle.units(oracle.phi_sizes(exact), 1)
        off = np.where(exact[..., :1] < oracle.HUGE, off, np.inf)
        compare("phi", result, exact, off, torch.float32)
    elif form == "time_similarity":
        exact, off = oracle.similarity(view["delta"], view)
        compare("s", result, exact, off, torch.float32)
    elif form == "time_similarity_backward":
        g = view["grad"].reshape(-1)
        exact = oracle.similarity_gradient(view["delta"].reshape(-1), g, np.abs(g) * 0, view)
        gradients(call, a, result, oracle.Answer(*exact), MLP)
    elif form == "pack_signs":
        exact = oracle.pack_signs(view["x"])
        check(
            result.dtype == torch.int64 and tuple(result.shape) == exact.shape,
            f"shape {list(result.shape)}",
        )
        check(np.array_equal(result.numpy(), exact), "words")
    else:
        raise Wrong(f"the fuzz has no oracle for {form}")


TENSORS = ("a", "b", "b1", "b2", "delta", "grad", "key_time", "keys", "query", "query_time",
           "scores", "timestamps", "u", "utc_offset", "w1", "w2", "x", "z", "z_time")  # fmt: skip
INT64 = {torch.int64: 0.0, torch.int32: 0.0}
LARGEST |= dict.fromkeys(INT64, np.inf)
LEAST |= INT64


def gradients(
    call: Call, a: dict[str, Any], result: Any, answer: oracle.Answer, names: tuple[str, ...]
) -> None:
    """What is needed; of the rest the raw op gives nothing."""
    got = result if isinstance(result, dict) else dict(zip(names, result, strict=True))
    if call.way == "gradient":
        wanted = [name for name in names if needed(call, name)]
        check(set(wanted) == set(got), f"gradients of {sorted(got)}, expected {wanted}")
    for name, value in got.items():
        if not needed(call, name):
            check(value.numel() == 0, f"a gradient of {name} that was not asked for")
            continue
        exact, off = answer.values[name], answer.off[name]
        off = np.where(np.isfinite(exact) & ~np.isnan(off), off, np.inf)
        compare(f"gradient of {name}", value, exact, off, a[name].dtype)


def attention_gradients(call: Call, a: dict[str, Any], view: dict[str, Any], result: Any) -> None:
    answer = oracle.esu_attention_gradient(view)
    if call.way == "gradient" and oracle.gathers(a):
        dtype = a["z"].dtype
        pair_off = answer.off["z"] + ULP.get(dtype, 0.0) * np.abs(answer.values["z"])
        pair_off = pair_off + (LEAST[dtype] if dtype in ULP else 0.0)
        with np.errstate(all="ignore"):
            pair_off = np.where(
                np.abs(answer.values["z"]) + pair_off < LARGEST[dtype], pair_off, np.inf
            )
        count = len(view["z"])
        table = oracle.table_gradient(
            answer.values["z"], pair_off, view, count, ULP.get(dtype, 0.0), LARGEST[dtype]
        )
        answer.values["z"], answer.off["z"] = table.values["table"], table.off["table"]
        if "z" in result:
            sparse = bool(a["sparse_grad"]) and a["ids"] is not None
            check(result["z"].is_sparse == sparse or count == 0, "sparse or dense")
            result = result | {"z": result["z"].to_dense()}
    gradients(call, a, result, answer, ("u", "z", *MLP))


# What came of it.


def named(call: Call, error: BaseException) -> bool:
    """Whether an error tells whose it is, and of which argument."""
    text = str(error)
    ops = (call.op, FORWARD.get(call.op, call.op), PARTS.get(call.op, call.op))
    if call.way == "raw":
        return isinstance(error, (RuntimeError, ValueError, TypeError)) and any(
            op in text for op in ops
        )
    if not isinstance(error, (ValueError, TypeError)) or not text.startswith(ops):
        return False
    words = set(re.findall(r"\w+", text.split(":", 1)[-1]))
    known = (
        set(call.arguments)
        | set(call.extra)
        | {"mlp", "table", "unit", "starts", "offsets", "found"}
    )
    return bool(words & known)


def emulator() -> Any:
    """tests/emulator.py, whichever folder is the root."""
    return importlib.import_module(f"{__package__.rpartition('.')[0]}.emulator".lstrip("."))


def memory_of(tensors: list[Tensor]) -> list[bytes]:
    """Every byte that they lie in."""
    found = []
    for value in tensors:
        if of_kind(value) == "tensor":
            storage = value.untyped_storage()
            found.append(torch.empty(0, dtype=torch.uint8).set_(storage).numpy().tobytes())
    return found


def outcome(call: Call, emulated: bool, invoke: Callable[[Call], Any] = invoke) -> tuple[str, str]:
    """("right" | "refused" | "open" | "wrong" | "unnamed" | "accepted", what to say about it)."""
    verdict = judge(call, emulated, read)
    tensors = list(call.tensors().values())
    before = memory_of(tensors)
    torch.set_num_threads(1)
    if not emulated:
        _native.set_simd_level(call.level or _native.simd_levels()[-1])
    try:
        result = invoke(call)
    except Exception as error:  # whatever a library may raise
        return refused(call, verdict, error)
    finally:
        reports = emulator().take_reports() if emulated else []
    if reports:
        return "wrong", f"the emulator: {reports[0]['text']}"
    if memory_of(tensors) != before:
        return "wrong", "an argument was written"
    if verdict.kind == "refused":
        return "accepted", "; ".join(verdict.why)
    if verdict.kind == "meta":
        return meta_result(result)
    torch.set_num_threads(2)
    try:
        again = invoke(call)
        if not same_bits(result, again):
            return "wrong", "another result on 2 threads"
        if verdict.kind == "open":
            return "open", ""
        check_result(call, result, emulated)
    except Wrong as error:
        return "wrong", str(error)
    finally:
        torch.set_num_threads(1)
    return "right", ""


def refused(call: Call, verdict: Verdict, error: Exception) -> tuple[str, str]:
    text = f"{type(error).__name__}: {str(error)[:300]}"
    if not named(call, error):
        return "unnamed", text
    if verdict.kind == "right":
        return "wrong", f"refused though it is right: {text}"
    return "refused", text


def meta_result(result: Any) -> tuple[str, str]:
    parts = (
        result.values()
        if isinstance(result, dict)
        else result
        if isinstance(result, tuple)
        else [result]
    )
    if all(part.device.type == "meta" for part in parts):
        return "right", ""
    return "wrong", "a result that is not on meta"
