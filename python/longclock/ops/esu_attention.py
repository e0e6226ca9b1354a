# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longclock._library import raw
from longclock._mlp import require_integers, require_tensor, resolve_mlp, resolve_period
from longclock.ops._call import (
    call,
    differentiable,
    fake,
    forbid_double_backward,
    reads_values,
    refuse_float64,
)
from longclock.ops._errors import named_errors
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
    refuse_float64("esu_attention", u=u, z=rows, w1=weights[0], b1=weights[1], w2=weights[2],
                   b2=weights[3])  # fmt: skip
    require_integers("esu_attention", z_time=z_time, query_time=query_time, ids=ids)
    context, _ = call(
        raw.esu_attention.default, u, rows, ids, z_time, query_time, *weights, valid,
        resolve_period("esu_attention", period), unit, sparse,
    )  # fmt: skip
    result: Tensor = context
    return result


@fake("esu_attention")
def _(u: Tensor, z: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    queries, heads, width = u.shape
    return (
        u.new_empty((queries, heads, width + 4), dtype=torch.float32),
        u.new_empty((queries, heads, 2), dtype=torch.float32),
    )


@fake("esu_attention_backward")
def _(
    grad: Tensor, u: Tensor, z: Tensor, ids: Tensor | None, z_time: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    need_u, need_z, need_mlp = rest[-3:]
    return (
        u.new_empty(u.shape if need_u else (0,)),
        z.new_empty((*z_time.shape, z.shape[-1]) if need_z else (0,)),
        *(weight.new_empty(weight.shape if need_mlp else (0,)) for weight in rest[1:5]),
    )


@fake("esu_attention_table_grad")
def _(z_grad: Tensor, ids: Tensor, valid: Tensor | None, table_rows: int) -> Tensor:
    return z_grad.new_empty((table_rows, z_grad.shape[-1]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    # u .. valid are the 10 tensors; period, unit; sparse_grad
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs[:10], *output)
    ctx.options = inputs[10:12]
    ctx.sparse = inputs[12]


def _table_gradient(dz: Tensor, table: Tensor, ids: Tensor, valid: Any, sparse: bool) -> Tensor:
    if not sparse:
        dense: Tensor = call(raw.esu_attention_table_grad.default, dz, ids, valid, table.shape[0])
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


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, context, softmax = ctx.saved_tensors
    _, table, ids, *_, valid = tensors
    u, z, *mlp = ctx.needs_input_grad[:2] + ctx.needs_input_grad[5:9]
    needs = (u, z, any(mlp))
    found = call(
        raw.esu_attention_backward.default, grad, *tensors, *ctx.options, context, softmax, *needs
    )
    du, dz, *d_mlp = (
        value if need else None for value, need in zip(found, (*needs, *needs[2:] * 3), strict=True)
    )
    if dz is not None and ids is not None:
        dz = _table_gradient(dz, table, ids, valid, ctx.sparse)
    return du, dz, None, None, None, *d_mlp, None, None, None, None


differentiable("esu_attention", _backward, _setup_context)
forbid_double_backward("esu_attention", "esu_attention_backward")
forbid_double_backward("esu_attention", "esu_attention_table_grad")
