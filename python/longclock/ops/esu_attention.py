# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from longclock._library import raw
from longclock._mlp import require_tensor, resolve_mlp, resolve_period
from longclock.ops._call import (
    ByName,
    call,
    differentiable,
    fake,
    forbid_double_backward,
    gradients_of,
    mlp_gradients,
    reads_values,
)
from longclock.ops._errors import named_errors
from longclock.ops._shapes import check_attention
from longclock.types import Lookup, Mlp


@named_errors
def esu_attention(
    u: Tensor,
    z: Tensor | Lookup,
    z_time: Tensor,
    query_time: Tensor,
    mlp: Mlp,
    valid: Tensor | None = None,
    period: int = 86400,
    unit: float | None = None,
) -> Tensor:
    """Clock-ESU: each head's time-aware attention from a candidate to its behaviours.

    ``p_i = softmax_k(u_i . z_k + s(x_k))``, ``c_i = sum_k p_ik [z_k ; phi(x_k)]``,
    ``x_k = delta(t_k, t_now) / unit``. Differentiable in u, z (or the table) and mlp.
    Source: Long-term Interest Clock, arXiv 2501.15817.

    Args:
        u: [Q, n, L], ``W_b^i^T W_q^i q / sqrt(d)`` of each head; z's dtype, or float32.
        z: [Q, K, L], float32, float16 or bfloat16, any K; or Lookup(table [N, L], ids [Q, K]):
            rows are gathered in the kernel, and the table gets its gradient as from
            ``nn.Embedding``, dense or (Lookup.sparse) sparse.
        z_time: int32 or int64 [Q, K], seconds. query_time: [Q].
        mlp: (w1, b1, w2, b2), float32, or a TimeSimilarity.
        valid: bool [Q, K]; where False, z, its time and its id are never read and the gradient is
            exactly 0. None: all count.
        period: seconds of the clock. unit: seconds of one x; None is the module's, else 3,600.
    Returns:
        float32 [Q, n, L + 4]; exactly 0 where nothing is valid.
    Raises:
        ValueError: an argument that does not fit; the message names it and the remedy.

    O(Q n K L) operations. The backward reads z once more; beyond the gradients it needs 8 bytes a
    behaviour. A 16-bit table's repeated rows add up their gradients as in nn.Embedding: in 16 bits
    on the CPU, in fp32 on CUDA.
    """
    weights, unit = resolve_mlp("esu_attention", mlp, unit)
    if isinstance(z, Lookup):
        require_tensor("esu_attention", "z's ids", z.ids)
        if not isinstance(z.sparse, bool):
            raise ValueError(f"esu_attention: z's sparse must be a bool, got {z.sparse!r}")
    rows, ids, sparse = z if isinstance(z, Lookup) else (z, None, False)
    context, _ = call(
        raw.esu_attention.default, u=u, z=rows, ids=ids, z_time=z_time, query_time=query_time, **weights, valid=valid,
        period=resolve_period("esu_attention", period), unit=unit, sparse_grad=sparse,
    )  # fmt: skip
    result: Tensor = context
    return result


@fake("esu_attention")
def _(**given: Any) -> tuple[Tensor, Tensor]:
    check_attention("esu_attention", given)
    u = given["u"]
    queries, heads, width = u.shape
    return (
        u.new_empty((queries, heads, width + 4), dtype=torch.float32),
        u.new_empty((queries, heads, 2), dtype=torch.float32),
    )


@fake("esu_attention_backward")
def _(need_u: bool, need_z: bool, need_mlp: bool, **given: Any) -> tuple[Tensor, ...]:
    check_attention("esu_attention_backward", given)
    u, z, z_time = given["u"], given["z"], given["z_time"]
    return (
        u.new_empty(u.shape if need_u else (0,)),
        z.new_empty((*z_time.shape, z.shape[-1]) if need_z else (0,)),
        *mlp_gradients(given, need_mlp),
    )


@fake("esu_attention_table_grad")
def _(z_grad: Tensor, table_rows: int, **_: Any) -> Tensor:
    return z_grad.new_empty((table_rows, z_grad.shape[-1]))


def _keep(given: ByName, found: ByName) -> ByName:
    return {**given, **found}


def _table_gradient(dz: Tensor, table: Tensor, ids: Tensor, valid: Any, sparse: bool) -> Tensor:
    if not sparse:
        dense: Tensor = call(raw.esu_attention_table_grad.default, z_grad=dz, ids=ids, valid=valid,
                             table_rows=table.shape[0])  # fmt: skip
        return dense
    if table.shape[0] == 0 or ids.numel() == 0:
        return torch.zeros_like(table).to_sparse(1)
    ids = ids.to(torch.int64)
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
        dz.reshape(ids.numel(), table.shape[1]),
        table.shape,
        check_invariants=False,
    )


def _gradients(kept: ByName, grad: Tensor, needs: Mapping[str, bool]) -> ByName:
    found = gradients_of(raw.esu_attention_backward.default, kept, grad, needs)
    z, ids = found["z"], kept["ids"]
    if z is not None and ids is not None:
        found["z"] = _table_gradient(z, kept["z"], ids, kept["valid"], kept["sparse_grad"])
    return found


differentiable("esu_attention", _keep, _gradients)
forbid_double_backward("esu_attention", "esu_attention_backward")
forbid_double_backward("esu_attention", "esu_attention_table_grad")
