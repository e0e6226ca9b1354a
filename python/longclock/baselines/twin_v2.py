# SPDX-License-Identifier: Apache-2.0
"""TWIN V2: TWIN over clusters of behaviours, whose sizes count."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from longclock.baselines._checks import check_model_call, check_sizes
from longclock.baselines.twin import TWIN
from longclock.history import History
from longclock.history.windows import edges_of, everything, windows_of
from longclock.nn.pooling import bags_of, last_of, table_of
from longclock.ops._errors import named_method

ROUNDS = 3  # of 2-means
LEAST = 8  # the smaller half of a cluster has at least one in so many of its behaviours
TOGETHER = 16_384  # rows that are clustered at a time, or those of one window: what is made of them stays in the cache


class TWINV2(TWIN):
    """Search and attention by content over clusters of similar behaviours: a cluster is its mean, and its size counts.

    Every window is cut into clusters of at most ``cluster_size`` behaviours. Cluster j, with mean ``z_j`` and ``n_j`` behaviours, has the
    score ``a_ij = W_q^i q . W_b^i z_j / sqrt(d) + ln n_j`` with head i; the ``k`` clusters with the largest mean over heads are
    kept, and ``c_i = sum_j softmax_j(a_ij) z_j`` over these. So n equal behaviours weigh what they weigh one by one.

    The clusters are those of recursive 2-means without gradient: what is larger than ``cluster_size`` is halved, first at the mean of
    the column with the largest variance, then by three rounds of 2-means; where a half would have less than an eighth, the eighth
    nearest to the cut goes to it. No step draws anything, so a window always has the same clusters; equal behaviours are cut in
    order, the latest first.

    Source: TWIN V2, arXiv 2407.16357: clusters of bounded size by recursive k-means, means in place of behaviours, attention
    with the size. It clusters ahead of time, first by how much of a video was watched, and with more than two clusters a
    step, and takes categorical features from the behaviour nearest to the mean; here a window is clustered anew in each call,
    by its rows alone, in which an outcome is a part, and a row has no categories but their vectors.

    Args:
        cluster_size: most behaviours of a cluster. k: clusters that are kept; None attends to all.
        The others: as of :class:`TWIN`, without ``scoring``.

    Call: as of :class:`longclock.LongTermInterestClock`, without keys, found and longest. O(M L log M) operations for each
    different window of M behaviours, about 0.1 s for 10,000 on one core; candidates of one history that follow each other share
    its clusters. Bounds of windows and ids that are read are checked on every device, which on a GPU waits for them.

    Raises:
        ValueError: an argument that does not fit; the message names it and the remedy.

    Example::

        >>> import torch, longclock as lc
        >>> from longclock.baselines import TWINV2
        >>> coffee, wine = torch.eye(2)
        >>> rows = torch.stack([coffee, wine, coffee, wine, coffee, coffee])
        >>> history = lc.History.dense(rows[None], torch.zeros(1, 6, dtype=torch.int64))
        >>> clusters, _ = TWINV2(2, 2, cluster_size=4).clusters(history, queries=(1,))
        >>> clusters.table[:, :2].tolist(), clusters.table[:, 2].exp().tolist()  # means and sizes
        ([[0.0, 1.0], [1.0, 0.0]], [2.0, 4.0])
    """

    takes_quantized_keys = False

    def __init__(self, *args: Any, cluster_size: int = 20, **kwargs: Any) -> None:
        op = type(self).__name__
        if "scoring" in kwargs:
            raise ValueError(f"{op}: scoring must be left out: clusters have no stored keys")
        check_sizes(op, cluster_size=cluster_size)
        super().__init__(*args, **kwargs)
        self.cluster_size = cluster_size

    def project(self, rows: Tensor) -> Tensor:
        raise NotImplementedError("TWINV2: it searches by clusters, which have no stored keys")

    @named_method(
        {
            "query": "candidate",
            "keys": "history.rows",
            "z_time": "history.time",
            "z": "history.rows",
        }
    )
    def forward(  # type: ignore[override]  # clusters have no keys, and are not found elsewhere
        self,
        candidate: Tensor,
        history: History,
        query_time: Tensor,
        *,
        return_context: bool = False,
    ) -> Any:
        op = type(self).__name__
        self._check(candidate, history, None, None)
        check_model_call(op, candidate, self.candidate_dim, self.behaviour_dim, history, query_time)
        queries = candidate.shape[:-1]
        clusters, most = self.clusters(history, queries)
        projected = F.linear(candidate, self.w_q.flatten(0, 1))
        heads = projected.view(-1, self.heads, self.head_dim)
        u = torch.einsum("qnd,ndl->qnl", heads, self.w_b) / self.head_dim**0.5
        # The last column of a cluster is ln of its size: it is added as it is.
        u = F.pad(u.to(clusters.table.dtype), (0, 1), value=1.0)
        now, mlp = query_time.new_zeros(len(u)), self.time.mlp()
        with torch.no_grad():
            if self.k is None:
                found = everything(op, clusters, u[:, 0], now, most)
            else:
                found = self.ops.clock_gsu(
                    u.mean(1), query_time=now, mlp=mlp, k=self.k, clocks=self._clocks_of(False), **clusters.arguments()
                ).indices  # fmt: skip
        context = self.ops.esu_attention(
            u, clusters.rows, clusters.time, now, mlp, clocks=self._clocks_of(False), found=found, **clusters.layout()
        )  # fmt: skip
        context = F.pad(context[..., : self.behaviour_dim], (0, 4)).to(self.w_v.dtype)
        v = torch.einsum("qnl,nld->qnd", context, self.w_v)
        v = self.head(v.flatten(1)).unflatten(0, queries)
        return (v, context.unflatten(0, queries)) if return_context else v

    def clusters(self, history: History, queries: tuple[int, ...]) -> tuple[History, int]:
        """The clusters of every query's window, as windows of one list, a row ``[mean ; ln size]`` each; and the most of a window.

        Args:
            history: as of a call, whose checks it has passed. queries: the shape of the candidates without the last place.
        """
        op = type(self).__name__
        windows = windows_of(op, history, queries)
        bounds, window = torch.unique_consecutive(
            torch.stack(edges_of(windows)), dim=1, return_inverse=True
        )
        index, counts = last_of(None, windows._replace(starts=bounds[0], ends=bounds[1]))
        table, ids, _ = table_of(op, windows, index)
        wide = torch.promote_types(table.dtype, torch.float32)
        order, sizes = clustered(table.detach()[ids].to(wide), counts, self.cluster_size)
        means = bags_of(op, windows, index[order], sizes, "mean").to(wide)
        rows = torch.cat([means, sizes.to(wide).log()[:, None]], 1)
        # How many clusters there are before the first behaviour of a window, and behind its last.
        ends = counts.cumsum(0)
        behind = F.pad(sizes.cumsum(0), (1, 0))
        starts, ends = (torch.searchsorted(behind, edge) for edge in (ends - counts, ends))
        most = int((ends - starts).max()) if len(starts) else 0
        time = index.new_zeros(len(sizes))
        return History.windows(rows, time, starts[window], ends[window]), most


@torch.no_grad()
def clustered(rows: Tensor, counts: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Clusters of at most ``most`` rows of every group: which row comes where, [P], and the clusters' sizes, in that order.

    Args:
        rows: [P, L], one group after another, of ``counts`` rows each.
    """
    first = counts.cumsum(0) - counts
    _, groups = (first // TOGETHER).unique_consecutive(return_counts=True)
    orders, sizes, begin = [first[:0]], [first[:0]], 0
    for part in counts.split(groups.tolist()):
        end = begin + int(part.sum())
        order, of_part = _clustered(rows[begin:end], part, most)
        orders.append(begin + order)
        sizes.append(of_part)
        begin = end
    return torch.cat(orders), torch.cat(sizes)


def _clustered(rows: Tensor, counts: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The same of all groups at once."""
    order = torch.arange(len(rows), device=rows.device)
    sizes = counts[counts > 0]
    while len(sizes) and int(sizes.max()) > most:
        large = sizes > most
        place = torch.repeat_interleave(large, sizes).nonzero().flatten()
        along, lower = _halves(rows[order[place]], sizes[large])
        order[place] = order[place][along]
        parts = torch.stack([sizes, sizes.new_zeros(len(sizes))], 1)
        parts[large] = torch.stack([lower, sizes[large] - lower], 1)
        sizes = parts[parts > 0]
    return order, sizes


def _halves(rows: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Every cluster's rows from one end of the line between its two means to the other, and how many belong to the first."""
    cluster = torch.repeat_interleave(torch.arange(len(sizes), device=rows.device), sizes)
    place, first = torch.arange(len(rows), device=rows.device), sizes.cumsum(0) - sizes

    def sums(values: Tensor, weight: Tensor | None = None) -> Tensor:
        return F.embedding_bag(place, values, first, mode="sum", per_sample_weights=weight)

    count = sizes.to(rows.dtype)[:, None]
    total = sums(rows)
    middle = total / count
    variance = sums((rows - middle[cluster]).square())
    direction = F.one_hot(variance.argmax(1), rows.shape[1]).to(rows.dtype)

    def along() -> Tensor:
        """Where every row lies on its cluster's line, from the middle on."""
        products = torch.einsum("pl,pl->p", rows, direction[cluster])
        return products - (middle * direction).sum(1)[cluster]

    for _ in range(ROUNDS):
        upper = (along() > 0).to(rows.dtype)
        above = sums(upper[:, None])
        both = (above > 0) & (above < count)
        high = sums(rows, upper)
        low = (total - high) / (count - above).clamp(min=1)
        high = high / above.clamp(min=1)
        middle = torch.where(both, (high + low) / 2, middle)
        direction = torch.where(both, high - low, direction)
    at = along()
    below = sizes - sums((at > 0).to(rows.dtype)[:, None]).long().flatten()
    least = (sizes + LEAST - 1) // LEAST
    order = at.argsort(stable=True)
    return order[cluster[order].argsort(stable=True)], below.clamp(least, sizes - least)
