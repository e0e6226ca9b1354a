# SPDX-License-Identifier: Apache-2.0
"""ClockAttentionStack against its definition, one query at a time, and on histories of ten thousand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from rivals import LENGTHS, H, L, called, inputs

from longclock import ClockAttentionStack, History, reference


def clock_attention(layer, query, rows, time, now, clock):
    """One layer's contexts of one query, [n, L + 4]: softmax(u . b + s) over all behaviours, and the time features."""
    delta = reference.circular_delta(time, now, 86400 if clock else 1)
    s = reference.time_similarity(delta, *layer.time.mlp())
    phi = reference.time_features(delta)
    contexts = []
    for w_q, w_b in zip(layer.w_q, layer.w_b, strict=True):
        scores = rows @ (w_b.T @ (w_q @ query)) / math.sqrt(layer.head_dim) + s
        contexts.append(scores.softmax(0) @ torch.cat([rows, phi], 1))
    return torch.stack(contexts)


@pytest.mark.parametrize("clock", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_stack_asks_by_all_outputs_before(layers, clock):
    model = ClockAttentionStack(L, H, layers=layers, out_dim=7, clock=clock)
    for q, rows, time, now, found in called(model):
        gate, value = model.first[0].gated(q).chunk(2)
        query = F.layer_norm(model.first[0].out(gate * gate.sigmoid() * value), (H,),
                             model.first[1].weight, model.first[1].bias)  # fmt: skip
        outputs, contexts = [], []
        for depth, layer in enumerate(model.layers):
            context = torch.zeros(4, L + 4)
            if len(rows):
                context = clock_attention(layer, query, rows, time, now, clock)
            contexts.append(context)
            heads = [c @ w for c, w in zip(context, layer.w_v, strict=True)]
            outputs.append(layer.head(torch.cat(heads)))
            if depth < layers - 1:
                query = model.mix[depth](torch.cat([*outputs, q]))
        expected = model.mix[-1](torch.cat(outputs)), torch.cat(contexts)
        torch.testing.assert_close(found, expected)


def test_a_stack_reads_histories_of_ten_thousand():
    model, plain = (ClockAttentionStack(8, 8, 4, 2, backend=b) for b in ("compiled", "reference"))
    plain.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 10_000, 8, generator=generator)
    time = torch.randint(0, 86400, (2, 10_000), generator=generator)
    history = History.dense(rows, time, torch.tensor([10_000, 9_999]))
    call = torch.randn(2, 3, 8, generator=generator), history, torch.tensor([0, 3600])
    expected = plain(*call)
    torch.testing.assert_close(model(*call), expected, rtol=1e-4, atol=1e-5)
    rows[1, 0] += 1  # the first of ten thousand is read
    assert not torch.equal(model(*call)[1], expected[1])
    rows[1, 9_999] = torch.nan  # and what does not count is not
    assert model(*call).isfinite().all()


def test_a_stack_without_the_clock_knows_no_time():
    table, ids, time, now, candidate = inputs()
    model = ClockAttentionStack(L, H, clock=False)
    history = History.dense(table[ids], time, LENGTHS)
    moved = history._replace(time=time.flip(1))
    assert torch.equal(model(candidate, history, now), model(candidate, moved, now + 21600))
    assert not any(weight.requires_grad for layer in model.layers for weight in layer.time.parameters())  # fmt: skip
    with_clock = ClockAttentionStack(L, H)
    assert not torch.equal(with_clock(candidate, history, now), with_clock(candidate, moved, now))


@pytest.mark.parametrize(
    ("options", "text"),
    [({"layers": 0}, "layers must be at least 1"), ({"layers": 2.0}, "layers must be an int"),
     ({"out_dim": 0}, "out_dim must be"), ({"hidden_dim": -1}, "hidden_dim must be"),
     ({"clock": 1}, "clock must be a bool, got 1"), ({"k": 3}, "k must be left out"),
     ({"scoring": "folded"}, "scoring must be left out")],
)  # fmt: skip
def test_stacks_name_what_does_not_fit(options, text):
    with pytest.raises(ValueError, match=f"^ClockAttentionStack: {text}"):
        ClockAttentionStack(L, H, **options)


def test_stacks_have_groups_of_their_weights():
    model = ClockAttentionStack(L, H)
    (group,) = model.parameter_groups(lr=0.1, dense_share=0.5)
    assert group["lr"] == 0.05
    assert len(group["params"]) == len([w for w in model.parameters() if w.requires_grad])
