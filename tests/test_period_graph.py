# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from rivals import C, H, L, S

from longclock import History
from longclock.baselines import PeriodGraph

USER, ITEM, PART = torch.randint(0, 5, (3, 40), generator=torch.Generator().manual_seed(1))


def period_graph(**options):
    """5 users and 7 items, every part of the day with some edges, some of them twice."""
    model = PeriodGraph(L, H, out_dim=7, users=5, **options)
    model.observe(USER, ITEM + 1, PART % 4 * 21600)
    return model


def propagated(model, part, vectors, layers=2):
    """The definition with dense matrices."""
    edges = torch.zeros(5, 7)
    for user, item, where in zip(USER, ITEM + 1, PART % 4, strict=True):
        if where == part:
            edges[user, item] = 1
    adjacency = torch.cat(
        [torch.cat([torch.zeros(5, 5), edges], 1), torch.cat([edges.T, torch.zeros(7, 7)], 1)]
    )
    root = adjacency.sum(1).clamp(min=1e-30).rsqrt() * (adjacency.sum(1) > 0)
    walk = root[:, None] * adjacency * root
    steps = [torch.cat([model.user.weight, vectors])]
    for _ in range(layers):
        steps.append(walk @ steps[-1])
    return torch.stack(steps).mean(0).split([5, 7])


@pytest.mark.parametrize("layers", [0, 2, 3])
def test_period_graph_is_light_gcn_of_the_part_of_the_day(layers):
    model, vectors = period_graph(layers=layers), torch.randn(7, H, requires_grad=True)
    user, item = torch.randint(0, 5, (S, C)), torch.randint(0, 7, (S, C))
    now = torch.tensor([3600, 3 * 21600 + 5, 86400 + 21600])  # night, evening, morning
    none, time = torch.zeros(S, 0, L), torch.zeros(S, 0, dtype=torch.int64)
    v, context = model(
        torch.zeros(S, C, H), History.dense(none, time), now, user=user[:, 0], item=item,
        item_vectors=vectors, return_context=True,
    )  # fmt: skip
    for s, part in enumerate((0, 3, 1)):
        users, items = propagated(model, part, vectors, layers)
        for c in range(C):
            expected = model.head(torch.cat([users[user[s, 0]], items[item[s, c]]]))
            torch.testing.assert_close(v[s, c], expected)
            torch.testing.assert_close(context[s, c, 0], users[user[s, 0]])
    flat, zeros = (none.flatten(0, 1), time.flatten()), torch.zeros(S + 1, dtype=torch.int64)
    query_offsets = torch.arange(S + 1) * C
    for history in (
        History.ragged(*flat, zeros, query_offsets),
        History.windows(*flat, zeros[1:], zeros[1:], query_offsets),
    ):
        found = model(
            torch.zeros(S * C, H), history, now, user=user[:, 0], item=item.flatten(), item_vectors=vectors
        )  # fmt: skip
        torch.testing.assert_close(found, v.flatten(0, 1))
    leaves = (model.user.weight, vectors)
    found = torch.autograd.grad(v.square().sum(), leaves)
    total = torch.zeros(())
    for s, part in enumerate((0, 3, 1)):
        users, items = propagated(model, part, vectors, layers)
        for c in range(C):
            pair = torch.cat([users[user[s, 0]], items[item[s, c]]])
            total = total + model.head(pair).square().sum()
    torch.testing.assert_close(found, torch.autograd.grad(total, leaves))


def test_period_graph_agrees_with_torch_geometrics_light_gcn():
    models = pytest.importorskip("torch_geometric.nn.models", reason="pip install torch-geometric")
    model, vectors = period_graph(layers=3), torch.randn(7, H)
    theirs = models.LightGCN(12, H, num_layers=3)
    with torch.no_grad():
        theirs.embedding.weight.copy_(torch.cat([model.user.weight, vectors]))
    edges = torch.stack([USER, ITEM + 6])[:, PART % 4 == 2].unique(dim=1)
    expected = theirs.get_embedding(torch.cat([edges, edges.flip(0)], 1))
    found = torch.cat(model._propagate(2, vectors))
    torch.testing.assert_close(found, expected)


def test_period_graph_grows():
    whole, parts, vectors = period_graph(), PeriodGraph(L, H, users=5, out_dim=7), torch.randn(7, H)
    parts.load_state_dict(whole.state_dict())
    alone = parts._propagate(1, vectors)
    torch.testing.assert_close(alone, (whole.user.weight / 3, vectors / 3))
    for half in (slice(0, 20), slice(20, 40)):
        parts.observe(USER[half], ITEM[half] + 1, PART[half] % 4 * 21600)
        parts._propagate(1, vectors)
    for part in range(4):
        grown, expected = (model._propagate(part, vectors) for model in (parts, whole))
        assert all(torch.equal(one, other) for one, other in zip(grown, expected, strict=True))
    for user, item, text in ((5, 0, "user must be from 0 to 4, got 5"), (0, -1, "item must be")):
        with pytest.raises(ValueError, match=f"PeriodGraph: {text}"):
            parts.observe(torch.tensor([user]), torch.tensor([item]), torch.tensor([0]))
    with pytest.raises(
        ValueError, match="period must be whole days, a multiple of 86400, got 43200"
    ):
        PeriodGraph(L, H, users=5, period=43200)
    one = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(
        ValueError, match=r"item must have shape \[1\], one a candidate, got \[1, 2\]"
    ):
        parts(
            torch.zeros(1, H), History.windows(torch.zeros(1, L), one, one, one), one, user=one,
            item=torch.zeros(1, 2, dtype=torch.int64), item_vectors=vectors,
        )  # fmt: skip
    for wrong in ({"users": 0}, {"users": 1, "periods": 0}, {"users": 1, "layers": -1}):
        with pytest.raises(ValueError, match=f"PeriodGraph: {list(wrong)[-1]} must be at least"):
            PeriodGraph(L, H, **wrong)
