# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import Unpack

from longclock._checks import check, check_int, shape_of
from longclock._clocks import resolve_time
from longclock._library import raw
from longclock._mlp import require_tensor
from longclock._torch_state import in_graph, reads_values
from longclock.history.checks import (
    check_combination,
    check_places,
    check_queries,
    check_rows,
)
from longclock.history.history import LAYOUT, History
from longclock.history.rows import floating_rows
from longclock.history.windows import flattened
from longclock.ops._call import (
    ByName,
    call,
    differentiable,
    fake,
    forbid_double_backward,
    gradients_of,
    mlp_gradients,
    not_differentiable,
)
from longclock.ops._errors import named_errors
from longclock.ops._layout import Sequences, flat_of_nested, tables_apart
from longclock.ops._shapes import (
    OF_ATTENTION,
    check_attention,
    check_indices,
    check_positions,
    check_table_grad,
)
from longclock.types import Clocks, Lookup, Mlp


@named_errors
def esu_attention(
    u: Tensor,
    z: Tensor | Lookup,
    z_time: Tensor,
    query_time: Tensor,
    mlp: Mlp,
    valid: Tensor | None = None,
    clocks: Clocks | None = None,
    unit: float | tuple[float, ...] | None = None,
    *,
    found: Tensor | None = None,
    **layout: Unpack[Sequences],
) -> Tensor:
    """Clock-ESU: each head's time-aware attention from a candidate to its behaviours.

    ``p_i = softmax_k(u_i . z_k + s(x_k))``, ``c_i = sum_k p_ik [z_k ; phi(x_k)]``,
    ``x_k = delta(t_k, t_now) / unit``; of several clocks, ``s`` is the sum and ``phi`` has 4 features each. Differentiable in u, z (or the table) and mlp.
    Source: Long-term Interest Clock, arXiv 2501.15817.

    Args:
        u: [Q, n, L], ``W_b^i^T W_q^i q / sqrt(d)`` of each head; z's dtype, or float32.
        z: [Q, K, L], float32, float16 or bfloat16, any K; or Lookup(table [N, L], ids [Q, K]):
            rows are gathered in the kernel, and the table gets its gradient as from
            ``nn.Embedding``, dense or (Lookup.sparse) sparse. A Lookup of up to eight tables is their rows side by side,
            which are never made, see :class:`longclock.Lookup`; L is the sum of their widths.
        z_time: int32 or int64 [Q, K], seconds. query_time: [Q].
        mlp: (w1, b1, w2, b2), float32, or a TimeSimilarity; of C > 1 clocks [C, h, 4], [C, h], [C, h] and [C].
        valid: bool [Q, K]; where False, z, its time and its id are never read and the gradient is
            exactly 0. None: all count.
        clocks: a period in seconds, ``ELAPSED``, or a tuple of up to 4 of them, whose s add up; None: the module's, else a day.
        unit: seconds of one x, one number or one a clock; None: the module's, else 3,600, of ``ELAPSED`` 60.
        found: int64 [S, K], [S, C, K] or [Q, K], the indices of a search. z, z_time, query_time and the layout
            (``lengths`` .. ``exclude_future``) are then those of the search, and what it found is gathered
            in the kernel. An index outside its query's history is an error on the CPU, and nothing on CUDA, as is
            -1; what the mask or ``exclude_future`` rules out does not count. As there, z and z_time may be nested tensors.
    Returns:
        float32 [Q, n, L + 4 C]; exactly 0 where nothing is valid.
    Raises:
        ValueError: an argument that does not fit; the message names it and the remedy.

    O(Q n K L) operations. The backward reads z once more; beyond the gradients, of which that of rows is [Q, K, L] before it is
    added up where they were looked up or found, it needs 8 bytes a behaviour. Dense rows that are not contiguous are
    gathered before the kernel. A 16-bit table's repeated rows add up their gradients as in nn.Embedding: in 16 bits
    on the CPU, in fp32 on CUDA.

    Example::

        >>> import torch, longclock as lc
        >>> coffee, wine = torch.eye(2)
        >>> rows, when = torch.stack([coffee, wine, coffee])[None], 3600 * torch.tensor([[8, 20, 9]])
        >>> now, found = torch.tensor([32 * 3600]), torch.tensor([[0, 2]])  # the indices of a search
        >>> c = lc.esu_attention(coffee[None, None], rows, when, now, lc.TimeSimilarity(), found=found)
        >>> c[0, 0, :2].detach().round(decimals=3)  # of what was found, which is coffee
        tensor([1., 0.])
    """
    time = resolve_time("esu_attention", mlp, clocks, unit)
    if isinstance(z, Lookup):
        if not z.has_several:
            require_tensor("esu_attention", "z's ids", z.ids)
        if not isinstance(z.sparse, bool):
            raise ValueError(f"esu_attention: z's sparse must be a bool, got {z.sparse!r}")
    check_keywords(found, valid, layout)
    s = time.arguments()
    if found is not None:
        if isinstance(z_time, Tensor) and z_time.is_nested:
            z, z_time, _, places = flat_of_nested("esu_attention", z, z_time, None, layout, ("z", "z_time"))  # fmt: skip
            layout = cast(Sequences, places)
        return _attend_to_found(u, z, z_time, query_time, found, layout, s)
    return _attend(u, z, z_time, query_time, valid, s)


def _attend(
    u: Tensor,
    z: Tensor | Lookup,
    z_time: Tensor,
    query_time: Tensor,
    valid: Tensor | None,
    s: Mapping[str, Any],
    positions: Tensor | None = None,
) -> Tensor:
    if isinstance(z, Lookup):
        name = "z" if z.has_several else "z's table"
        rows, sparse = tables_apart("esu_attention", z.table, z_time, z.ids, name), z.sparse
    else:
        rows, sparse = {"keys": z, "ids": None, "features": None, "feature_ids": None}, False
    context: Tensor = call(
        raw.esu_attention.default, u=u, z=rows.pop("keys"), **rows, z_time=z_time, query_time=query_time,
        positions=positions, **s, valid=valid, sparse_grad=sparse,
    )[0]  # fmt: skip
    return context


def check_keywords(found: Tensor | None, valid: Tensor | None, layout: Mapping[str, Any]) -> None:
    """Which of them go together."""
    if layout.keys() - Sequences.__annotations__.keys():
        raise TypeError("unexpected keyword argument")  # named_errors says which
    if found is None and layout:
        raise ValueError(
            f"esu_attention: {next(iter(layout))} must come with found, the indices of a search, got found=None"
        )
    if found is not None and valid is not None:
        raise ValueError(
            "esu_attention: valid must be None with found; a mask says which behaviours of a history may count"
        )


def _attend_to_found(
    u: Tensor,
    z: Tensor | Lookup,
    z_time: Tensor,
    query_time: Tensor,
    found: Tensor,
    layout: Sequences,
    s: Mapping[str, Any],
) -> Tensor:
    """To what a search found in a history. Graphs check their arguments before, eager calls after a failure: it costs time."""
    history = History(z, z_time, **{name: layout.get(name) for name in LAYOUT})  # type: ignore[arg-type]
    if in_graph():
        check_found(u, history, query_time, found)
    try:
        positions, each_time = call(
            raw.esu_attention_positions.default, key_time=z_time, query_time=query_time, **history.layout(),
            exclude_future=layout.get("exclude_future", False), found=found,
        )  # fmt: skip
        if isinstance(z, Lookup):  # ids of another shape may be as many
            check_places("esu_attention", history, OF_ATTENTION)
        return _attend_to_positions(u, history, each_time, positions, s)
    except ValueError as error:
        check_found(u, history, query_time, found)
        text = str(error).replace("esu_attention_positions: ", "esu_attention: ")
        raise ValueError(text.replace("key_time", "z_time")) from None


def _attend_to_positions(
    u: Tensor, history: History, query_time: Tensor, positions: Tensor, s: Mapping[str, Any]
) -> Tensor:
    """To behaviours by where they lie, [Q, K]; below 0: none."""
    rows = history.rows
    if isinstance(rows, Tensor) and rows.dim() == 3 and not rows.is_contiguous():
        at, columns = positions.clamp(min=0), history.time.shape[1]
        z = rows[at // columns, at % columns]  # to flatten the rows would copy all of them
        return _attend(u, z, history.time.flatten()[at], query_time, positions >= 0, s)
    flat = flattened(history)
    rows = floating_rows("esu_attention", flat, "z")
    return _attend(u, rows, flat.time, query_time, None, s, positions)


def check_found(u: Tensor, history: History, query_time: Tensor, found: Tensor) -> None:
    """What a search found, against its history and u, in the words of esu_attention; no value is read."""
    op = "esu_attention"
    check_combination(op, history, OF_ATTENTION)
    check_indices(op, history, found)
    check_int(op, "z_time", history.time)
    check_rows(op, history, OF_ATTENTION)
    check_queries(op, history, found.shape[:-1], query_time, "found", OF_ATTENTION, found.shape)
    check_places(op, history, OF_ATTENTION)
    fits = u.dim() != 3 or math.prod(found.shape[:-1]) == u.shape[0]
    check(op, fits, lambda: f"found must have a row of K for each of Q = {u.shape[0]} queries, got "
          f"{shape_of(found)}")  # fmt: skip


@fake("esu_attention")
def _(**given: Any) -> tuple[Tensor, Tensor]:
    check_attention("esu_attention", given)
    u = given["u"]
    queries, heads, width = u.shape
    return (
        u.new_empty((queries, heads, width + 4 * len(given["periods"])), dtype=torch.float32),
        u.new_empty((queries, heads, 2), dtype=torch.float32),
    )


@fake("esu_attention_positions")
def _(**given: Any) -> tuple[Tensor, Tensor]:
    check_positions("esu_attention", given)
    found = given["found"].flatten(0, -2)
    return torch.empty_like(found), found.new_empty(found.shape[:1])


@fake("esu_attention_backward")
def _(need_u: bool, need_z: bool, need_mlp: bool, **given: Any) -> tuple[Tensor, ...]:
    check_attention("esu_attention_backward", given)
    u, z, z_time = given["u"], given["z"], given["z_time"]
    entries = z_time if given["positions"] is None else given["positions"]
    return (
        u.new_empty(u.shape if need_u else (0,)),
        z.new_empty((*entries.shape, u.shape[-1]) if need_z else (0,)),
        *mlp_gradients(given, need_mlp),
    )


@fake("esu_attention_table_grad")
def _(z_grad: Tensor, table_rows: int, **given: Any) -> Tensor:
    check_table_grad(
        "esu_attention_table_grad", {"z_grad": z_grad, "table_rows": table_rows, **given}
    )
    return z_grad.new_empty((table_rows, z_grad.shape[-1]))


def _keep(given: ByName, found: ByName) -> ByName:
    return {**given, **found}


def _table_gradient(dz: Tensor, table: Tensor, ids: Tensor | None, kept: ByName) -> Tensor:
    """The gradient of a table from that of its columns of the rows, [Q, K, L_i], which were gathered from it by ids, by
    positions, by both, or by neither."""
    positions, valid = kept["positions"], kept["valid"]
    if ids is None and positions is None:
        return dz.reshape(table.shape)
    sparse = kept["sparse_grad"] and ids is not None
    if ids is None:
        ids, positions = positions, None  # one below 0 adds to no row
    if not sparse:
        dense: Tensor = call(raw.esu_attention_table_grad.default, z_grad=dz, ids=ids, positions=positions, valid=valid,
                             table_rows=table.shape[0])  # fmt: skip
        return dense
    if 0 in (table.shape[0], ids.numel(), dz.numel()):  # nothing was looked up
        return torch.zeros_like(table).to_sparse(1)
    ids = ids.to(torch.int64)
    if positions is not None:
        ids, valid = ids[positions.clamp(min=0)], positions >= 0
    if valid is not None and reads_values(ids):
        ids, dz = ids[valid], dz[valid]
    elif valid is not None:
        # How many are valid is not read on the host: the others add 0 to a row that was looked up, or, where none was, to
        # the first.
        ids = torch.where(valid, ids, torch.where(valid, ids, 0).amax())
    # On CUDA an id may be in no table: its NaN gradient then goes to a row that exists.
    ids = ids.clamp(0, table.shape[0] - 1)
    return torch.sparse_coo_tensor(
        ids.reshape(1, -1),
        dz.reshape(ids.numel(), table.shape[1]).contiguous(),
        table.shape,
        check_invariants=False,
    )


def _gradients(kept: ByName, grad: Tensor, needs: Mapping[str, Any]) -> ByName:
    if kept["features"]:
        return _gradients_of_tables(kept, grad, needs)
    found = gradients_of(raw.esu_attention_backward.default, kept, grad, needs)
    gathered = kept["ids"] is not None or kept["positions"] is not None
    if found["z"] is not None and gathered:
        found["z"] = _table_gradient(found["z"], kept["z"], kept["ids"], kept)
    return found


def _gradients_of_tables(kept: ByName, grad: Tensor, needs: Mapping[str, Any]) -> ByName:
    """Of rows side by side: each table's from its own columns of theirs."""
    rows_need = [needs["z"], *needs["features"]]
    flags = {**needs, "z": any(rows_need)}
    found = gradients_of(raw.esu_attention_backward.default, kept, grad, flags)
    if found["z"] is None:
        return found
    tables, times = [(kept["z"], kept["ids"])], kept["z_time"]
    for table, ids in zip(kept["features"], kept["feature_ids"], strict=True):
        none = ids.numel() == 0 and table.shape[0] == times.numel()  # each behaviour has a row
        tables.append((table, None if none else ids.view(times.shape)))
    columns = found["z"].split([table.shape[-1] for table, _ in tables], -1)
    gradients = [
        _table_gradient(dz, *table, kept) if need else None
        for dz, table, need in zip(columns, tables, rows_need, strict=True)
    ]
    return {**found, "z": gradients[0], "features": gradients[1:]}


not_differentiable("esu_attention_positions")
differentiable("esu_attention", _keep, _gradients)
forbid_double_backward("esu_attention", "esu_attention_backward")
forbid_double_backward("esu_attention", "esu_attention_table_grad")
