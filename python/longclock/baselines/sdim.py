# SPDX-License-Identifier: Apache-2.0
"""SDIM: the attention of hash buckets, without scores and without a search."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from longclock._sizes import check_size
from longclock.baselines.pooled import Pooled, check_item_columns, different_windows, rows_of
from longclock.history import History
from longclock.history.rows import floating_rows, rows_at
from longclock.history.windows import edges_of
from longclock.types import Lookup

SUMMED = 32  # windows at a time, which bounds the memory


class SDIM(Pooled):
    """Mean over ``hashes`` of the normalised sum of the behaviours that share the candidate's hash bucket.

    ``c = 1 / hashes * sum_j normalize(sum_m [h_j(b_m) = h_j(q)] b_m)``, ``h_j(x)`` = the signs of ``hash_bits``
    fixed random directions R_j: an attention whose expected weight falls with the angle, ``(1 - angle /
    pi) ^ hash_bits``. Hashed are the candidate, and of a behaviour its first H columns: a behaviour begins with its
    item's vector. Arguments and call: as :class:`longclock.baselines.Pooled`; ``k`` is ignored, so that it can take the
    place of a model that searches.
    Source: SDIM, arXiv 2205.10249.

    Buffer: rotations, [H, hashes, hash_bits], saved with the parameters.

    Raises:
        ValueError: candidate_dim is larger than behaviour_dim, or a hash has no bits or more than 8: each bucket's
            sum is kept.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import SDIM
        >>> model = SDIM(8, 8, hashes=4, hash_bits=2)
        >>> history = lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None])
        >>> model.buckets(history.rows[0]).shape  # four hashes of two bits for each of five behaviours
        torch.Size([5, 4])
        >>> model(torch.randn(1, 8), history, torch.tensor([5 * 3600])).shape
        torch.Size([1, 64])
    """

    rotations: Tensor

    def __init__(self, *args: Any, hashes: int = 12, hash_bits: int = 3, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_item_columns(self)
        check_size("SDIM", "hashes", hashes, 1)
        check_size("SDIM", "hash_bits", hash_bits, 1, 8)
        self.register_buffer("rotations", torch.randn(self.candidate_dim, hashes, hash_bits))

    @torch.no_grad()
    def buckets(self, items: Tensor) -> Tensor:
        """The bucket of every hash, int64: [N, H] -> [N, hashes]."""
        bits = torch.einsum("nh,hjb->njb", items, self.rotations.to(items.dtype)) > 0
        places = 2 ** torch.arange(bits.shape[-1], device=bits.device)
        return (bits.to(items.dtype) @ places.to(items.dtype)).long()  # up to 255: exact in 16 bits

    def pool(self, candidate: Tensor, windows: History, query_time: Tensor) -> Tensor:
        op = type(self).__name__
        behaviours = floating_rows(op, windows)
        bounds, window = different_windows(windows)
        if not bounds:
            return rows_at(op, "history.rows.ids", behaviours, edges_of(windows)[0][:0])
        rows = rows_of(op, windows, bounds)
        table = windows.table
        one = isinstance(behaviours, Lookup) and isinstance(behaviours.table, Tensor)
        if one and len(table) < sum(map(len, rows)):
            # Rows of the table that are looked up again are hashed once.
            hashed = self.buckets(table[:, : self.candidate_dim])
            by_id = windows._replace(rows=Lookup(hashed, behaviours.ids))  # type: ignore[union-attr]
            buckets = rows_of(op, by_id, bounds)
        else:
            hashed = self.buckets(torch.cat(rows)[:, : self.candidate_dim])
            buckets = hashed.split([len(part) for part in rows])
        parts = [slice(i, i + SUMMED) for i in range(0, len(rows), SUMMED)]
        sums = torch.cat([self._sums(rows[part], buckets[part]) for part in parts])
        met = sums[
            window[:, None],
            torch.arange(sums.shape[1], device=sums.device),
            self.buckets(candidate),
        ]
        return F.normalize(met, dim=-1).mean(1)

    def _sums(self, windows: tuple[Tensor, ...], buckets: tuple[Tensor, ...]) -> Tensor:
        """Sums of each window's rows in every bucket of every hash: W of [P, L] -> [W, hashes, buckets, L].

        A sum is a product with the rows' membership of buckets, which is made for all windows at once. In at least fp32:
        16 bits hold neither long sums nor what keeps a norm of 0 from dividing.
        """
        wide = torch.promote_types(windows[0].dtype, torch.float32)
        _, hashes, bits = self.rotations.shape
        first = torch.arange(hashes, device=buckets[0].device) << bits  # of each hash
        places = torch.cat(buckets) + first
        member = (
            windows[0].new_zeros(len(places), hashes << bits, dtype=wide).scatter_(1, places, 1)
        )
        members = member.split([len(rows) for rows in windows])
        sums = [of_rows.T @ rows.to(wide) for of_rows, rows in zip(members, windows, strict=True)]
        return torch.stack(sums).unflatten(1, (hashes, 1 << bits))
