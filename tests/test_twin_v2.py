# SPDX-License-Identifier: Apache-2.0
"""TWINV2 and its clusters against their definitions, one window at a time."""

from __future__ import annotations

import math

import pytest
import torch
from rivals import LENGTHS, C, H, L, M, S, called, inputs

from longclock import History, Lookup
from longclock.baselines import TWIN, TWINV2
from longclock.baselines.twin_v2 import clustered

I64 = torch.int64


def split(rows, most):
    """Recursive 2-means of one group by the definition: lists of indices, one end of each line before the other."""
    index = list(range(len(rows)))
    if len(index) <= most:
        return [index] if index else []
    middle = rows.mean(0)
    direction = torch.zeros(rows.shape[1])
    direction[(rows - middle).square().sum(0).argmax()] = 1
    for _ in range(3):
        upper = ((rows - middle) * direction).sum(1) > 0
        if upper.any() and not upper.all():
            high, low = rows[upper].mean(0), rows[~upper].mean(0)
            middle, direction = (high + low) / 2, high - low
    along = ((rows - middle) * direction).sum(1)
    order = along.argsort(stable=True)
    least = -(-len(rows) // 8)
    cut = min(max(int((along <= 0).sum()), least), len(rows) - least)
    parts = []
    for half in (order[:cut], order[cut:]):
        parts += [half[part].tolist() for part in split(rows[half], most)]
    return parts


@pytest.mark.parametrize("most", [1, 2, 5, 40])
def test_clusters_are_of_recursive_2_means(most):
    generator = torch.Generator().manual_seed(1)
    counts = torch.tensor([0, 40, 1, 0, 17, 3])
    rows = torch.randn(61, 5, dtype=torch.float64, generator=generator)
    order, sizes = clustered(rows, counts, most)
    expected, first = [], 0
    for count in counts.tolist():
        part = split(rows[first : first + count].clone(), most)
        expected += [[first + i for i in cluster] for cluster in part]
        first += count
    assert sizes.tolist() == [len(cluster) for cluster in expected]
    assert order.tolist() == [i for cluster in expected for i in cluster]
    assert int(sizes.max()) <= most


@pytest.mark.parametrize("outlier", [0.0, 1e6])
def test_equal_behaviours_and_one_outlier_are_cut_all_the_same(outlier):
    rows = torch.zeros(5_000, 2)
    rows[7] = outlier
    order, sizes = clustered(rows, torch.tensor([5_000]), 20)
    assert order.sort().values.equal(torch.arange(5_000))
    assert int(sizes.max()) <= 20
    assert int(sizes.min()) >= 1
    assert len(sizes) < 5_000 / 20 * 8


@pytest.mark.parametrize("backend", ["compiled", "reference"])
@pytest.mark.parametrize(("k", "most"), [(2, 2), (None, 3), (2, 1), (100, 20)])
def test_twin_v2_attends_to_clusters_by_their_size(k, most, backend):
    model = TWINV2(L, H, k=k, cluster_size=most, out_dim=7, backend=backend)
    for q, rows, _, _, found in called(model):
        latest = rows.flip(0)
        clusters = split(latest, most)
        context = torch.zeros(4, L + 4)
        if clusters:
            means = torch.stack([latest[cluster].mean(0) for cluster in clusters])
            size = torch.tensor([len(cluster) for cluster in clusters]).float()
            u = torch.einsum("ndl,ndh,h->nl", model.w_b, model.w_q, q) / math.sqrt(model.head_dim)
            score = u @ means.T + size.log()
            keep = score.mean(0).argsort(descending=True, stable=True)[:k]
            context[:, :L] = score[:, keep].softmax(1) @ means[keep]
        heads = [c @ w for c, w in zip(context, model.w_v, strict=True)]
        torch.testing.assert_close(found, (model.head(torch.cat(heads)), context))


def test_clusters_of_equal_behaviours_weigh_what_they_weigh_one_by_one():
    table, _, _, now, candidate = inputs()
    ids = torch.tensor([0, 1, 0, 0, 2, 0, 1, 0, 0]).expand(S, M)
    model, whole = TWINV2(L, H, k=None, cluster_size=2), TWIN(L, H, k=None)
    whole.load_state_dict(model.state_dict())
    lengths = torch.tensor([9, 1, 0])
    history = History.dense(Lookup(table, ids), torch.zeros(S, M, dtype=I64), lengths)
    clusters, most = model.clusters(history, (S,))
    means = clusters.table[:most, :L]
    assert all(torch.isclose(table, mean).all(1).any() for mean in means)  # none of two items
    assert clusters.table[:most, L].exp().sum().round() == 9
    assert most < 9
    torch.testing.assert_close(model(candidate, history, now), whole(candidate, history, now))


def test_the_gradient_of_a_mean_reaches_every_behaviour_of_its_cluster():
    table, ids, time, now, candidate = inputs()
    rows = table[ids].requires_grad_()
    history = History.dense(rows, time, LENGTHS)
    TWINV2(L, H, k=None, cluster_size=3)(candidate, history, now).sum().backward()
    counts = torch.arange(M) < LENGTHS[:, None]
    assert rows.grad[counts].any(1).all()
    assert not rows.grad[~counts].any()


def test_candidates_that_share_a_history_share_its_clusters():
    table, ids, time, _, _ = inputs()
    model = TWINV2(L, H, cluster_size=2)
    clusters, _ = model.clusters(History.dense(table[ids], time, LENGTHS), (S, C))
    starts, ends = clusters.starts.view(S, C), clusters.ends.view(S, C)
    assert torch.equal(starts[:, 0], starts[:, 1])
    assert torch.equal(ends[:, 0], ends[:, 1])
    assert int(ends.max()) == len(clusters.table)


def test_clusters_have_no_stored_keys():
    model = TWINV2(L, H)
    with pytest.raises(NotImplementedError, match="TWINV2: it searches by clusters"):
        model.project(torch.zeros(1, L))
    with pytest.raises(ValueError, match="TWINV2: scoring must be left out"):
        TWINV2(L, H, scoring="precomputed")
