# SPDX-License-Identifier: Apache-2.0
"""ETA: search by the Hamming distance of hashes, attention by content."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from longclock.baselines._checks import check_no_own_search
from longclock.baselines.twin import TWIN
from longclock.history import History
from longclock.history.rows import rows_at
from longclock.history.windows import flattened, within
from longclock.nn.time_similarity import MlpWeights
from longclock.types import Lookup, TopK

TOGETHER = 65_536  # behaviours of several tables whose products with R are added up at a time


class ETA(TWIN):
    """The ``k`` behaviours whose SimHash is nearest to the candidate's, then :class:`TWIN`'s attention.

    ``h(x) = sign(R x)`` with ``hash_bits`` fixed random directions R, which candidate and behaviours share;
    x are the projections of all heads side by side, ``W_q q`` and ``W_b b``. The search keeps the
    smallest Hamming distances, among equal ones the earliest behaviours: ``hamming_gsu`` over packed signs, 8
    bytes a behaviour for up to 64 bits. ``keys = project(behaviours)`` are these hashes, which a server may
    store ahead of time. Of several tables a behaviour's hash is of the sum of their projections: ``project`` does not
    make it, and ``keys`` are then [..., ceil(hash_bits / 64)] of each behaviour. Source: ETA, arXiv 2108.04468.

    Args:
        hash_bits: signs of a hash (ETA: 64 and fewer). The others: as :class:`longclock.LongTermInterestClock`,
            without ``scoring``: hashes are of projections, and follow them as they are trained.

    Parameters: as TWIN's; the buffer rotations, [n d, hash_bits], is saved with them.

    Raises:
        ValueError: ``hash_bits`` is less than 1.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import ETA
        >>> model, now = ETA(8, 8, k=2), torch.tensor([5 * 3600])
        >>> history = lc.History.dense(torch.randn(1, 5, 8), 3600 * torch.arange(5)[None])
        >>> hashes = model.project(history.rows)  # a server keeps these: 8 bytes a behaviour
        >>> candidate = torch.randn(1, 8)
        >>> torch.equal(model(candidate, history, now, keys=hashes), model(candidate, history, now))
        True
    """

    takes_quantized_keys = False
    rotations: Tensor

    def __init__(self, *args: Any, hash_bits: int = 64, **kwargs: Any) -> None:
        if isinstance(hash_bits, bool) or not isinstance(hash_bits, int) or hash_bits < 1:
            raise ValueError(f"ETA: hash_bits must be an int of at least 1, got {hash_bits!r}")
        if "scoring" in kwargs:
            raise ValueError("ETA: scoring must be left out: the search compares hashes")
        check_no_own_search("ETA", kwargs, "hashes are not taught")
        super().__init__(*args, scoring="precomputed", **kwargs)
        width = self.heads * self.head_dim
        self.register_buffer("rotations", torch.randn(width, hash_bits))

    def hashes(self, projections: Tensor) -> Tensor:
        """SimHashes, int64: [..., n d] -> [..., ceil(hash_bits / 64)]."""
        words: Tensor = self.ops.pack_signs(projections @ self.rotations.to(projections.dtype))
        return words

    def project(self, rows: Any) -> Any:
        """Keys of the search: the hashes of the projections, [..., L] -> [..., ceil(hash_bits / 64)].

        Raises:
            ValueError: ``rows`` are of several tables.
        """
        if isinstance(rows, tuple):
            raise ValueError(
                f"ETA: rows must be of one table, whose rows are hashed, got {len(rows)} tables; a call hashes their behaviours"
            )
        return self.hashes(super().project(rows))

    def _search(
        self,
        candidate: Tensor,
        projected: Tensor,
        u: Tensor,
        history: History,
        query_time: Tensor,
        keys: Tensor | None,
        mlp: MlpWeights,
        query_dtype: str | None = None,
    ) -> TopK:
        if query_dtype is not None:
            raise ValueError(
                f"ETA: query_dtype must be None, for hashes are compared, got {query_dtype!r}"
            )
        given = history.arguments()
        if len(history.tables) > 1:
            given["ids"] = None
            keys = self._of_behaviours(history) if keys is None else keys
        given["keys"] = self.project(history.table) if keys is None else keys
        found: TopK = self.ops.hamming_gsu(
            self.hashes(projected), query_time=query_time, k=self.k, exclude_future=self.exclude_future, **given
        )  # fmt: skip
        return found

    def search_arguments(self, *call: Any, **keys: Any) -> NoReturn:
        """Not of clock_gsu."""
        raise NotImplementedError(
            "ETA: it searches by hashes, with hamming_gsu, and not with clock_gsu"
        )

    def _of_behaviours(self, history: History) -> Tensor:
        """The hash of every behaviour, of several tables: the signs of a sum over these, some behaviours at a time."""
        op, flat = type(self).__name__, flattened(history)
        tables = super().project(history.arguments()["keys"])
        parts = zip(tables, flat.rows.parts(), strict=True)  # type: ignore[union-attr]  # a Lookup
        rotated = [
            (table.flatten(0, -2) @ self.rotations.to(table.dtype), ids)
            for table, (_, ids) in parts
        ]
        counts = within(op, history)

        def hashed(at: Tensor) -> Tensor:
            products = [
                rows_at(
                    op,
                    f"history.rows.ids[{i}]",
                    rows if ids is None else Lookup(rows, ids),
                    at,
                    counts[at],
                )
                for i, (rows, ids) in enumerate(rotated)
            ]
            words: Tensor = self.ops.pack_signs(torch.stack(products).sum(0))
            return words

        pieces = [
            hashed(at) for at in torch.arange(len(counts), device=counts.device).split(TOGETHER)
        ]
        return torch.cat(pieces).view(*history.time.shape, -(-self.rotations.shape[1] // 64))

    def search_loss(self, *call: Any, **reads: Any) -> None:
        """None: a hash passes no gradient on."""
