# SPDX-License-Identifier: Apache-2.0
"""Baselines that search or hash, against brute-force definitions and FuxiCTR."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from bench import peers
from rivals import LENGTHS, C, H, K, L, M, N, S, inputs

from longclock import History, Lookup, ops
from longclock.baselines import (
    DIN,
    ETA,
    SDIM,
    TWIN,
    ClockAttention,
    ClockSearch,
    DayAndWeek,
    FullClock,
    SIMHard,
    SIMSoft,
    WithHour,
)
from longclock.nn import TimeSimilarity


def test_twin_learns_no_time():
    table, ids, time, now, candidate = inputs()
    model = TWIN(L, H, k=K, backend="reference")
    model.reset_parameters()
    assert not model.time.w2.any()
    assert not model.time.b2.any()
    _, context = model(
        candidate, History.dense(table[ids], time, LENGTHS), now, return_context=True
    )
    assert torch.equal(context[..., L:], torch.zeros_like(context[..., L:]))
    assert not any(weight.requires_grad for weight in model.time.parameters())


SEARCHES = [TWIN, ETA, SIMSoft, FullClock, ClockSearch, ClockAttention, DayAndWeek, partial(WithHour, TWIN)]  # fmt: skip


@pytest.mark.parametrize("build", SEARCHES)
def test_searches_in_plain_pytorch_are_the_same(build):
    table, ids, time, now, candidate = inputs()
    fused, plain = build(L, H, k=K), build(L, H, k=K, backend="reference")
    clocks = [part for part in plain.modules() if isinstance(part, TimeSimilarity)]
    assert {clock.backend for clock in clocks} == {"reference"}
    plain.load_state_dict(fused.state_dict())
    results = []
    for model in (fused, plain):
        v = model(candidate, History.dense(Lookup(table, ids), time, LENGTHS), now)
        v.square().sum().backward()
        grads = [weight.grad for weight in model.parameters()]
        results.append([v, *(grad for grad in grads if grad is not None)])
    torch.testing.assert_close(*results)


def attended(u, rows):
    """Attention by content alone of one query's heads u, [n, L]."""
    return (u @ rows.T).softmax(-1) @ rows


def folded(model, candidate):
    """u_i = W_b^i^T W_q^i q / sqrt(d), [S, n, L]."""
    u = torch.einsum("ndl,ndh,sh->snl", model.w_b, model.w_q, candidate)
    return u / model.head_dim**0.5


@pytest.mark.parametrize("hash_bits", [6, 100])  # few bits, many equal distances; two words
def test_eta_attends_to_the_smallest_hamming_distances(hash_bits):
    table, ids, time, now, candidate = inputs()
    model = ETA(L, H, k=K, hash_bits=hash_bits)
    call = (candidate, History.dense(Lookup(table, ids), time, LENGTHS), now)
    v, context = model(*call, return_context=True)
    stored = model.project(table)
    assert stored.shape == (N, (hash_bits + 63) // 64)
    assert torch.equal(model(*call, keys=stored), v)
    u = folded(model, candidate)
    for s, length in enumerate(LENGTHS.tolist()):
        rows = table[ids[s, :length]]
        query = torch.cat([w @ candidate[s] for w in model.w_q]) @ model.rotations > 0
        keys = torch.cat([rows @ w.T for w in model.w_b], 1) @ model.rotations > 0
        nearest = (query != keys).sum(1).argsort(stable=True)[:K]
        expected = attended(u[s], rows[nearest]) if length else torch.zeros(4, L)
        torch.testing.assert_close(context[s, :, :L], expected)
        assert not context[s, :, L:].any()


def test_hashes_are_saved_and_follow_the_seed():
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(ETA(L, H, hash_bits=8))
    first, same, other = models
    assert torch.equal(first.rotations, same.rotations)
    assert not torch.equal(first.rotations, other.rotations)
    other.load_state_dict(first.state_dict())
    assert torch.equal(first.rotations, other.rotations)
    for wrong in (0, 2.0, True):
        with pytest.raises(ValueError, match="ETA: hash_bits must be an int of at least 1, got"):
            ETA(L, H, hash_bits=wrong)
    with pytest.raises(ValueError, match="ETA: scoring must be left out"):
        ETA(L, H, scoring="folded")


def fuxictr(model, name):
    found = peers.fuxictr(model, name)
    if found is None:
        pytest.skip("FuxiCTR is not installed: `pip install --no-deps fuxictr`, or make test")
    return found


def fuxictr_model(name, **attributes):
    """A whole model without its constructor, for methods that read these attributes only."""
    cls = fuxictr(name, name)
    model = cls.__new__(cls)
    torch.nn.Module.__init__(model)
    for attribute, value in attributes.items():
        setattr(model, attribute, value)
    return model


def test_twin_with_one_head_is_fuxictrs():
    """Theirs puts the projected context through W_v and W_o, which are linear: the same context.

    Without a behaviour theirs attends to padding (a mask of -1e9 everywhere): not compared.
    """
    table, ids, time, now, _ = inputs()
    candidate = torch.randn(S, L)
    layer = fuxictr("TWIN", "MultiHeadTopKAttention")(input_dim=L, attention_dim=8, topk=K)
    model = TWIN(L, L, head_dim=8, heads=1, k=K)
    with torch.no_grad():
        model.w_q.copy_(layer.W_q.weight[None])
        model.w_b.copy_(layer.W_h.weight[None])
    mask = torch.arange(M) < torch.tensor([9, 5, 4])[:, None]
    _, context = model(
        candidate, History.dense(table[ids], time, mask=mask), now, return_context=True
    )
    expected = layer(candidate, table[ids], mask)
    found = context[:, 0, :L] @ (layer.W_o.weight @ layer.W_v.weight).T
    torch.testing.assert_close(found, expected)


def test_eta_finds_what_fuxictrs_does():
    """The same hashes, so the same distances; among equal ones theirs keeps any."""
    table, ids, time, now, _ = inputs()
    candidate, bits = torch.randn(S, L), 16
    theirs = fuxictr_model("ETA", reuse_hash=True, hash_bits=bits)
    model = ETA(L, L, head_dim=L, heads=1, k=K, hash_bits=bits)
    with torch.no_grad():  # theirs hashes the vectors as they are
        model.w_q.copy_(torch.eye(L)[None])
        model.w_b.copy_(torch.eye(L)[None])
    mask = torch.arange(M) < torch.tensor([9, 5, 4])[:, None]
    rows = table[ids]
    kept, valid = theirs.topk_retrieval(model.rotations[None], candidate, rows, mask, K)
    assert valid.all()
    hashes = model.hashes(candidate)

    def distance_of(rows):
        differ = model.project(rows) ^ hashes[:, None]
        return (differ >> torch.arange(64) & 1).sum(-1)

    expected = distance_of(kept)
    distance = distance_of(rows).masked_fill(~mask, bits + 1)
    assert torch.equal(expected, distance.sort(1).values[:, :K])
    _, context = model(candidate, History.dense(rows, time, mask=mask), now, return_context=True)
    u = folded(model, candidate)
    for s in range(S):
        nearest = distance[s].argsort(stable=True)[:K]
        torch.testing.assert_close(context[s, :, :L], attended(u[s], rows[s, nearest]))


def test_din_weighs_the_last_k_by_its_network():
    table, ids, time, now, candidate = inputs()
    model = DIN(L, H, k=K)
    _, context = model(
        candidate, History.dense(Lookup(table, ids), time, LENGTHS), now, return_context=True
    )
    for s, length in enumerate(LENGTHS.tolist()):
        expected = torch.zeros(L)
        for row in table[ids[s, max(0, length - K) : length]]:
            q, item = candidate[s], row[:H]
            expected = expected + model.attention(torch.cat([q, row, q - item, q * item])) * row
        torch.testing.assert_close(context[s, 0], expected)


def test_sdim_averages_the_normalised_sums_of_shared_buckets():
    table, ids, time, now, candidate = inputs()
    model = SDIM(L, H, hashes=5, hash_bits=2)
    _, context = model(
        candidate, History.dense(Lookup(table, ids), time, LENGTHS), now, return_context=True
    )
    for s, length in enumerate(LENGTHS.tolist()):
        rows, sums = table[ids[s, :length]], torch.zeros(5, L)
        for j in range(5):
            signs = model.rotations[:, j]
            same = ((rows[:, :H] @ signs > 0) == (candidate[s] @ signs > 0)).all(1)
            sums[j] = rows[same].sum(0)
        expected = torch.nn.functional.normalize(sums, dim=-1).mean(0)
        torch.testing.assert_close(context[s, 0], expected)


def test_sdim_finds_what_fuxictrs_does():
    table, ids, time, now, _ = inputs()
    candidate = torch.randn(S, L)
    model = SDIM(L, L, hashes=4, hash_bits=2)
    theirs = fuxictr_model(
        "SDIM", reuse_hash=True, num_hashes=4, hash_bits=2, l2_norm=True,
        powers_of_two=torch.tensor([1.0, 2.0]),
    )  # fmt: skip
    mask = torch.arange(M) < torch.tensor([9, 5, 0])[:, None]
    expected = theirs.lsh_attentioin(model.rotations[None], candidate, table[ids], mask)
    _, context = model(
        candidate, History.dense(table[ids], time, mask=mask), now, return_context=True
    )
    torch.testing.assert_close(context[:, 0], expected)


def test_sim_hard_attends_to_the_last_of_the_category():
    table, ids, time, now, candidate = inputs()
    model = SIMHard(L, H, k=2)
    category, wanted = ids % 3, torch.tensor([0, 1, 2])
    mask = torch.rand(S, M) < 0.7
    for keep in (None, mask, None):
        _, context = model(
            candidate, History.dense(Lookup(table, ids), time, LENGTHS, keep), now,
            candidate_category=wanted, behaviour_category=category, return_context=True,
        )  # fmt: skip
        u = folded(model, candidate)
        for s, length in enumerate(LENGTHS.tolist()):
            same = (category[s, :length] == wanted[s]) & (
                True if keep is None else keep[s, :length]
            )
            rows = table[ids[s, :length][same][-2:]]
            expected = attended(u[s], rows) if len(rows) else torch.zeros(4, L)
            torch.testing.assert_close(context[s, :, :L], expected)
    category[0] = 0  # in place: sorted anew
    _, context = model(
        candidate, History.dense(Lookup(table, ids), time, LENGTHS), now, candidate_category=wanted,
        behaviour_category=category, return_context=True,
    )  # fmt: skip
    torch.testing.assert_close(context[0, :, :L], attended(u[0], table[ids[0, -2:]]))


def test_sim_hard_names_what_does_not_fit():
    table, ids, time, now, candidate = inputs()
    model = SIMHard(L, H, k=2)
    call = (candidate, History.dense(table[ids], time), now)
    wanted = torch.zeros(S, dtype=torch.int64)
    with pytest.raises(
        ValueError, match=r"behaviour_category must have the shape .* = \[3, 9\], got"
    ):
        model(*call, candidate_category=wanted, behaviour_category=ids[:, 1:])
    with pytest.raises(ValueError, match=r"candidate_category must have shape \[3\]"):
        model(*call, candidate_category=wanted[1:], behaviour_category=ids)
    with pytest.raises(ValueError, match="SIMHard: k must be an int, got None"):
        SIMHard(L, H, k=None)


def moments(table, ids, model):
    """Mean of b (W_b b)^T of each history, and the product with W_q q, brute force."""
    for s, length in enumerate(LENGTHS.tolist()):
        rows = table[ids[s, :length]]
        scores = rows @ model.search_b.T
        yield rows.T @ scores / max(length, 1)


def test_sim_soft_searches_and_guesses_by_its_own_projections():
    table, ids, time, now, candidate = inputs()
    model = SIMSoft(L, H, k=K, search_dim=3)
    call = (candidate, History.dense(Lookup(table, ids), time, LENGTHS), now)
    _, context = model(*call, return_context=True)
    u = folded(model, candidate)
    logits = model.auxiliary_logits(*call)
    many = model.auxiliary_logits(candidate[:, None].expand(-1, C, -1), *call[1:])
    torch.testing.assert_close(many, logits[:, None].expand(-1, C))
    masked = torch.arange(M) < LENGTHS[:, None]
    for behaviours in (Lookup(table, ids), table[ids]):
        history = History.dense(behaviours, time, mask=masked)
        torch.testing.assert_close(model.auxiliary_logits(candidate, history, now), logits)
    for s, moment in enumerate(moments(table, ids, model)):
        query = model.search_q @ candidate[s]
        pooled = moment @ query / 3**0.5
        expected = model.auxiliary(torch.cat([candidate[s], pooled]))[0]
        torch.testing.assert_close(logits[s], expected)
        rows = table[ids[s, : LENGTHS[s]]]
        best = (rows @ model.search_b.T @ query).argsort(descending=True, stable=True)[:K]
        expected = attended(u[s], rows[best]) if len(rows) else torch.zeros(4, L)
        torch.testing.assert_close(context[s, :, :L], expected)
    logits.sum().backward()
    assert model.search_b.grad.any()
    assert model.search_q.grad.any()
    with pytest.raises(ValueError, match="SIMSoft: scoring must be left out"):
        SIMSoft(L, H, scoring="folded")


def test_sim_soft_finds_what_fuxictrs_does_where_nothing_is_masked():
    """Theirs sums where ours means, and scores what is masked with 0: that is then found before negative scores."""
    table, ids, time, now, _ = inputs()
    candidate = torch.randn(S, L)
    model = SIMSoft(L, L, k=K, search_dim=3)
    seen = {}

    def record(name):
        return lambda *inputs: seen.setdefault(name, inputs)[0]

    theirs = fuxictr_model(
        "SIM", item_info_dim=L, topk=K, short_seq_len=2, embedding_layer=lambda x, **_: x,
        W_a=lambda x: x @ model.search_q.T, W_b=lambda x: x @ model.search_b.T,
        short_attention=record("short"), long_attention=record("long"), dnn_aux=record("auxiliary"),
        dnn=record("dnn"),
    )  # fmt: skip
    rows = torch.cat([table[ids], candidate[:, None]], 1)  # the candidate is the last row
    theirs.get_inputs = lambda mask: ({}, rows, mask)
    theirs.forward(torch.ones(S, M))
    _, kept, _ = seen["long"]
    found = ops.clock_gsu(
        candidate @ model.search_q.T, model.project(table[ids]), time * 0, now * 0, model.time, K
    ).indices
    torch.testing.assert_close(kept, table[ids].gather(1, found[..., None].expand(-1, -1, L)))
    sums = seen["auxiliary"][0][:, L:]
    for s in range(S):
        moment = table[ids[s]].T @ model.project(table[ids[s]])
        torch.testing.assert_close(sums[s], moment @ (model.search_q @ candidate[s]))

    seen.clear()
    masked = torch.ones(S, M)
    scores = torch.einsum("smd,sd->sm", model.project(table[ids]), candidate @ model.search_q.T)
    masked[scores > 0] = 0  # what is left has negative scores
    theirs.forward(masked)
    assert (seen["long"][2] == 0).any(), "theirs attends to what is masked"
