# SPDX-License-Identifier: Apache-2.0
"""TransActV2 against its definition, one query at a time."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from rivals import LENGTHS, H, K, L, called, inputs

from longclock import History, Lookup
from longclock.baselines import TransActV2


def encoder_layer(layer, x):
    """A post-norm transformer layer over all tokens of x, [T, D]."""
    attention = layer.self_attn
    q, k, v = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, 1)
    heads, width = attention.num_heads, attention.head_dim
    attended = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        weight = (q[:, part] @ k[:, part].T / math.sqrt(width)).softmax(1)
        attended.append(weight @ v[:, part])
    x = layer.norm1(x + attention.out_proj(torch.cat(attended, 1)))
    return layer.norm2(x + layer.linear2(layer.linear1(x).relu()))


@pytest.mark.parametrize(("k", "recent"), [(3, 2), (20, 20), (0, 2), (3, 0), (0, 0)])
def test_transact_v2_reads_the_latest_and_the_nearest(k, recent):
    model = TransActV2(L, H, k=k, recent=recent, heads=2, out_dim=7)
    with torch.no_grad():
        model.place.mul_(50)
    for q, rows, _, _, found in called(model):
        latest = rows.flip(0)[:recent]
        nearest = rows[(rows[:, :H] @ q).argsort(descending=True, stable=True)[:k]]
        place = torch.cat([model.place[: len(latest)], model.place[recent : recent + len(nearest)]])
        tokens = torch.cat([latest, nearest])
        x = torch.cat([tokens, q.expand(len(tokens), -1), torch.zeros(len(tokens), 1)], 1) + place
        for layer in model.encoder:
            x = encoder_layer(layer, x)
        c = model.out(x.amax(0)) if len(tokens) else torch.zeros(L)
        torch.testing.assert_close(found, (model.head(c), c[None]))


@pytest.mark.parametrize("training", [True, False])
def test_transact_v2_is_the_same_in_plain_pytorch(training):
    table, ids, time, now, candidate = inputs()
    models = [TransActV2(L, H, k=K, recent=2, backend=b) for b in ("compiled", "reference")]
    models[1].load_state_dict(models[0].state_dict())
    history = History.dense(Lookup(table, ids), time, LENGTHS)
    results = []
    for model in models:
        v = model.train(training)(candidate, history, now)
        v.square().sum().backward()
        results.append([v, *(weight.grad for weight in model.parameters())])
    torch.testing.assert_close(*results)
