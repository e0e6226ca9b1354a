# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from functools import partial

import pytest
import torch
from bench import peers

from longclock import LongTermInterestClock, Lookup, ops, reference
from longclock.baselines import (
    DIN,
    ETA,
    SDIM,
    TWIN,
    ClockAttention,
    ClockSearch,
    DayAndWeek,
    FullClock,
    HourEmbedding,
    HourlyInterests,
    InterestClock,
    NoTime,
    PeriodGraph,
    ReferenceETA,
    ReferenceFullClock,
    ReferenceTWIN,
    SIMHard,
    SIMSoft,
    WithHour,
)
from longclock.baselines.interest_clock import hourly_interests

S, M, L, H, C, K, N = 3, 9, 6, 5, 2, 4, 11
LENGTHS = torch.tensor([9, 2, 0])


class Categorised(torch.nn.Module):
    """A model that reads categories, here made of what every layout hands over anyway."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.tables = torch.nn.ParameterList([torch.randn(3, 2), torch.randn(5, 2)])

    def forward(self, candidate, behaviours, time, now, lengths=None, **layout):
        if isinstance(self.model, SIMHard):
            categories = {"candidate_category": (candidate[..., 0] > 0).long(),
                          "behaviour_category": time % 2}  # fmt: skip
        else:
            categories = {"behaviour_categories": torch.stack([time % 3, time % 5]),
                          "category_tables": tuple(self.tables)}  # fmt: skip
        return self.model(candidate, behaviours, time, now, lengths, **categories, **layout)


def interest_clock(*sizes, **options):
    return Categorised(InterestClock(*sizes, **options, category_dim=2, fields=2))


MODELS = {
    "no-time": NoTime,
    "hour": HourEmbedding,
    "twin": ReferenceTWIN,
    "eta": ReferenceETA,
    "full-clock": ReferenceFullClock,
    "din": DIN,
    "sdim": partial(SDIM, hashes=3, hash_bits=1),
    "sim-hard": lambda *sizes, **options: Categorised(SIMHard(*sizes, **options)),
    "sim-soft": SIMSoft,
    "interest-clock": interest_clock,
    "interest-clock-naive": partial(interest_clock, mode="naive"),
    "interest-clock-adaptive": partial(interest_clock, mode="adaptive"),
    "twin-hour": partial(WithHour, TWIN),
    "lic-hour": partial(WithHour, LongTermInterestClock),
    "lic-search": ClockSearch,
    "lic-attention": ClockAttention,
    "lic-day-week": DayAndWeek,
}
WITHOUT_TIME = ("no-time", "twin", "eta", "din", "sdim", "sim-soft")
# Weights without a gradient from a call: of a search, which passes none on, or of its own loss.
UNTRAINED = {
    "sim-hard": ("tables.",),
    "sim-soft": ("search_", "auxiliary"),
    "lic-search": ("time.",),
}
SEARCHES = {"twin": (TWIN, ReferenceTWIN), "eta": (ETA, ReferenceETA),
            "full-clock": (FullClock, ReferenceFullClock)}  # fmt: skip
every_model = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)


def inputs():
    """A table of rows, ids, times, query times and candidates, dense."""
    generator = torch.Generator().manual_seed(3)
    table = torch.randn(N, L, generator=generator)
    ids = torch.randint(0, N, (S, M), generator=generator)
    time = torch.randint(0, 86400, (S, M), generator=generator)
    now = torch.randint(0, 86400, (S,), generator=generator)
    return table, ids, time, now, torch.randn(S, H, generator=generator)


def flat(values):
    """The dense rows that count, one sequence after another."""
    return torch.cat([values[s, :length] for s, length in enumerate(LENGTHS.tolist())])


@every_model
def test_every_layout_gives_the_same(build):
    table, ids, time, now, candidate = inputs()
    model = build(L, H, k=K, out_dim=7)
    expected, context = model(candidate, table[ids], time, now, LENGTHS, return_context=True)
    assert expected.shape == (S, 7)
    assert context.shape[:1] == (S,)

    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), LENGTHS.cumsum(0)])
    starts, ends = offsets[:-1], offsets[1:]
    same = [
        model(candidate, Lookup(table, ids), time, now, LENGTHS),
        model(candidate, table[ids], time, now, mask=torch.arange(M) < LENGTHS[:, None]),
        model(candidate, flat(table[ids]), flat(time), now, offsets=offsets),
        model(candidate, Lookup(table, flat(ids)), flat(time), now, starts=starts, ends=ends),
        model(candidate[:, None], table[ids], time, now, LENGTHS)[:, 0],
    ]
    for v in same:
        torch.testing.assert_close(v, expected)


@every_model
def test_many_candidates_of_one_request(build):
    table, ids, time, now, _ = inputs()
    model = build(L, H, k=K, out_dim=7)
    candidates = torch.randn(S, C, H)
    v, context = model(candidates, table[ids], time, now, LENGTHS, return_context=True)
    assert v.shape == (S, C, 7)
    for c in range(C):
        alone = model(candidates[:, c], table[ids], time, now, LENGTHS, return_context=True)
        torch.testing.assert_close((v[:, c], context[:, c]), alone)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), LENGTHS.cumsum(0)])
    ragged = model(
        candidates.flatten(0, 1), flat(table[ids]), flat(time), now,
        offsets=offsets, query_offsets=torch.arange(S + 1) * C,
    )  # fmt: skip
    torch.testing.assert_close(ragged, v.flatten(0, 1))


@every_model
def test_what_does_not_count_is_never_read(build):
    table, ids, time, now, candidate = inputs()
    model = build(L, H, k=K)
    behaviours = table[ids]
    expected = model(candidate, behaviours, time, now, LENGTHS)
    for s, length in enumerate(LENGTHS.tolist()):
        behaviours[s, length:] = torch.nan
    torch.testing.assert_close(model(candidate, behaviours, time, now, LENGTHS), expected)
    assert not expected.isnan().any()


@every_model
def test_no_behaviours_at_all(build):
    _, _, _, now, candidate = inputs()
    model = build(L, H, k=K, out_dim=7)
    none = torch.zeros(S, dtype=torch.int64)
    time = torch.zeros(0, dtype=torch.int64)
    v = model(candidate, torch.zeros(0, L), time, now, starts=none, ends=none)
    assert v.shape == (S, 7)
    assert v.isfinite().all()


def test_no_time_is_the_mean_of_the_last_k():
    table, ids, time, now, candidate = inputs()
    model = NoTime(L, H, k=K)
    _, context = model(candidate, Lookup(table, ids), time, now, LENGTHS, return_context=True)
    expected = torch.stack([table[ids[0, 5:9]].mean(0), table[ids[1, :2]].mean(0), torch.zeros(L)])
    torch.testing.assert_close(context[:, 0], expected)


@pytest.mark.parametrize("name", [*WITHOUT_TIME, "hour", "twin-hour"])
def test_models_without_time_read_none(name):
    """And those with an hour no behaviour's."""
    table, ids, time, now, candidate = inputs()
    model = MODELS[name](L, H, k=K)
    before = model(candidate, table[ids], time, now, LENGTHS)
    moved = model(candidate, table[ids], time.flip(1), now, LENGTHS)
    later = model(candidate, table[ids], time, now + 6 * 3600, LENGTHS)
    assert torch.equal(before, moved)
    assert torch.equal(before, later) == (name in WITHOUT_TIME)


@pytest.mark.parametrize("name", ["hour", "twin-hour"])
def test_hours_change_at_their_edge_only(name):
    table, ids, time, _, candidate = inputs()
    model = MODELS[name](L, H, k=K)

    def at(second):
        return model(candidate, table[ids], time, torch.full((S,), second), LENGTHS)

    assert torch.equal(at(3600), at(7199))
    assert torch.equal(at(3600), at(3600 - 86400))
    assert not torch.equal(at(7199), at(7200))


def test_twin_learns_no_time():
    table, ids, time, now, candidate = inputs()
    model = ReferenceTWIN(L, H, k=K)
    model.reset_parameters()
    assert not model.time.w2.any()
    assert not model.time.b2.any()
    _, context = model(candidate, table[ids], time, now, LENGTHS, return_context=True)
    assert torch.equal(context[..., L:], torch.zeros_like(context[..., L:]))
    assert not any(weight.requires_grad for weight in model.time.parameters())
    with pytest.raises(ValueError, match="exclude_future needs times"):
        TWIN(L, H, exclude_future=True)


@pytest.mark.parametrize(("fused", "plain"), SEARCHES.values(), ids=SEARCHES)
def test_searches_in_plain_pytorch_are_the_same(fused, plain):
    table, ids, time, now, candidate = inputs()
    fused, plain = fused(L, H, k=K), plain(L, H, k=K)
    assert isinstance(plain.time, reference.TimeSimilarity)
    plain.load_state_dict(fused.state_dict())
    results = []
    for model in (fused, plain):
        v = model(candidate, Lookup(table, ids), time, now, LENGTHS)
        v.square().sum().backward()
        results.append([v, *(weight.grad for weight in model.parameters())])
    torch.testing.assert_close(*results)


def attended(u, rows):
    """Attention by content alone of one query's heads u, [n, L]."""
    return (u @ rows.T).softmax(-1) @ rows


def folded(model, candidate):
    """u_i = W_b^i^T W_q^i q / sqrt(d), [S, n, L]."""
    u = torch.einsum("ndl,ndh,sh->snl", model.w_b, model.w_q, candidate)
    return u / model.head_dim**0.5


def test_eta_attends_to_the_smallest_hamming_distances():
    table, ids, time, now, candidate = inputs()
    model = ETA(L, H, k=K, hash_bits=6)  # few bits, many equal distances
    _, context = model(candidate, Lookup(table, ids), time, now, LENGTHS, return_context=True)
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
    with pytest.raises(ValueError, match="ETA: exclude_future needs times"):
        ETA(L, H, exclude_future=True)


def test_full_clock_is_the_clock_that_keeps_every_behaviour():
    table, ids, time, now, candidate = inputs()
    full, clock = FullClock(L, H, k=2), LongTermInterestClock(L, H, k=M)
    clock.load_state_dict(full.state_dict())
    found = [m(candidate, table[ids], time, now, LENGTHS) for m in (full, clock)]
    torch.testing.assert_close(*found)


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
    _, context = model(candidate, table[ids], time, now, mask=mask, return_context=True)
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
    expected = (model.hashes(kept) != hashes[:, None]).sum(-1)
    distance = (model.hashes(rows) != hashes[:, None]).sum(-1).masked_fill(~mask, bits + 1)
    assert torch.equal(expected, distance.sort(1).values[:, :K])
    _, context = model(candidate, rows, time, now, mask=mask, return_context=True)
    u = folded(model, candidate)
    for s in range(S):
        nearest = distance[s].argsort(stable=True)[:K]
        torch.testing.assert_close(context[s, :, :L], attended(u[s], rows[s, nearest]))


def test_din_weighs_the_last_k_by_its_network():
    table, ids, time, now, candidate = inputs()
    model = DIN(L, H, k=K)
    _, context = model(candidate, Lookup(table, ids), time, now, LENGTHS, return_context=True)
    for s, length in enumerate(LENGTHS.tolist()):
        expected = torch.zeros(L)
        for row in table[ids[s, max(0, length - K) : length]]:
            q, item = candidate[s], row[:H]
            expected = expected + model.attention(torch.cat([q, row, q - item, q * item])) * row
        torch.testing.assert_close(context[s, 0], expected)


def test_sdim_averages_the_normalised_sums_of_shared_buckets():
    table, ids, time, now, candidate = inputs()
    model = SDIM(L, H, hashes=5, hash_bits=2)
    _, context = model(candidate, Lookup(table, ids), time, now, LENGTHS, return_context=True)
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
    _, context = model(candidate, table[ids], time, now, mask=mask, return_context=True)
    torch.testing.assert_close(context[:, 0], expected)


@pytest.mark.parametrize("model", [DIN, SDIM])
def test_candidates_may_not_be_wider_than_behaviours(model):
    with pytest.raises(ValueError, match=rf"{model.__name__}: behaviour_dim must be at least"):
        model(3, 4)
    model(3, 3)
    for sizes, text in (({"hashes": 0}, "hashes"), ({"hash_bits": 9}, "hash_bits")):
        with pytest.raises(ValueError, match=f"SDIM: {text} must be"):
            SDIM(3, 3, **sizes)


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_and_the_table_are_trained(name):
    table, ids, time, now, candidate = inputs()
    model = MODELS[name](L, H, k=K)
    table.requires_grad_()
    model(candidate, Lookup(table, ids), time, now, LENGTHS).square().sum().backward()
    assert table.grad is not None
    assert table.grad.any()
    assert table.grad.isfinite().all()
    for weight_name, weight in model.named_parameters():
        if weight.requires_grad and not weight_name.startswith(UNTRAINED.get(name, "-")):
            assert weight.grad is not None, weight_name
            assert weight.grad.isfinite().all(), weight_name


@pytest.mark.parametrize("mode", ["gaussian", "naive", "adaptive"])
def test_interest_clock_trains_its_weights_and_the_categories(mode):
    table, ids, time, now, candidate = inputs()
    model = interest_clock(L, H, mode=mode)
    ten = 10 * 3600
    call = (candidate, table[ids], time % 3600 + ten, now * 0 + ten + 86400, LENGTHS)
    model(*call).square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
    assert all(weight.grad.any() for weight in model.tables)


def test_sim_hard_attends_to_the_last_of_the_category():
    table, ids, time, now, candidate = inputs()
    model = SIMHard(L, H, k=2)
    category, wanted = ids % 3, torch.tensor([0, 1, 2])
    mask = torch.rand(S, M) < 0.7
    for keep in (None, mask, None):
        _, context = model(
            candidate, Lookup(table, ids), time, now, LENGTHS, candidate_category=wanted,
            behaviour_category=category, mask=keep, return_context=True,
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
        candidate, Lookup(table, ids), time, now, LENGTHS, candidate_category=wanted,
        behaviour_category=category, return_context=True,
    )  # fmt: skip
    torch.testing.assert_close(context[0, :, :L], attended(u[0], table[ids[0, -2:]]))


def test_sim_hard_names_what_does_not_fit():
    table, ids, time, now, candidate = inputs()
    model = SIMHard(L, H, k=2)
    call = (candidate, table[ids], time, now)
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
    call = (candidate, Lookup(table, ids), time, now, LENGTHS)
    _, context = model(*call, return_context=True)
    u = folded(model, candidate)
    logits = model.auxiliary_logits(*call)
    many = model.auxiliary_logits(candidate[:, None].expand(-1, C, -1), *call[1:])
    torch.testing.assert_close(many, logits[:, None].expand(-1, C))
    masked = torch.arange(M) < LENGTHS[:, None]
    torch.testing.assert_close(model.auxiliary_logits(*call[:4], mask=masked), logits)
    torch.testing.assert_close(
        model.auxiliary_logits(candidate, table[ids], *call[2:4], mask=masked), logits
    )
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


def test_interest_clock_keeps_up_what_counting_anew_finds():
    generator = torch.Generator().manual_seed(0)
    events, day = 400, 86400
    time = torch.randint(0, 70 * day, (events,), generator=generator) // 7200 * 7200  # many at once
    time = time.sort().values
    categories = torch.randint(0, 6, (2, events), generator=generator)
    kept = HourlyInterests(fields=2)
    starts, ends = torch.zeros(1, dtype=torch.int64), torch.tensor([events])
    for event in range(events):
        now = int(time[event])
        anew = hourly_interests(categories, time, time[event : event + 1], starts, ends)
        assert torch.equal(torch.from_numpy(kept.clock(7, now)), anew[0])
        kept.add(7, now, now, categories[:, event].tolist())
    assert anew.any()
    assert not kept.clock(8, now).any()
    assert not kept.clock(7, now + 31 * day).any()
    with pytest.raises(ValueError, match="time must not be before the user's last one"):
        kept.add(7, 0, 0, [1, 1])


def test_interest_clock_prefers_the_frequent_then_the_smaller_and_skips_the_unknown():
    kept = HourlyInterests(fields=1, top=2)
    for category in (5, 4, 3, 3, 0, 0, 0):
        kept.add(0, 100, 7205, [category])
    clock = kept.clock(0, 101)
    assert clock[2, 0].tolist() == [3, 4]
    assert clock.sum() == 7


def test_interest_clock_weighs_hours_around_now():
    tables = [torch.eye(4)[:, :2] * 3, torch.randn(3, 2)]
    interests = torch.zeros(1, 24, 2, 3, dtype=torch.int32)
    interests[0, 23, 0] = torch.tensor([1, 2, 0])
    interests[0, 1, 1] = torch.tensor([2, 0, 0])
    interests[0, 8, 1] = torch.tensor([1, 0, 0])
    near = {0: 0.398942, 1: 0.241971, 2: 0.053991, 3: 0.004432}
    for mode in ("gaussian", "naive"):
        model = InterestClock(L, H, category_dim=2, fields=2, mode=mode)
        for hour in range(24):
            now = torch.tensor([hour * 3600 + 1800])
            (found,) = model.beside(now, interests, tables)
            expected = torch.zeros(4)
            vectors = (
                (23, 0, tables[0][1] + tables[0][2]), (1, 2, tables[1][2]), (8, 2, tables[1][1])
            )  # fmt: skip
            for at, column, vector in vectors:
                apart = min((hour - at) % 24, (at - hour) % 24)
                weight = near.get(apart, 0.0) if mode == "gaussian" else float(apart == 0)
                expected[column : column + 2] += weight * vector
            torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-6)


def test_interest_clock_names_what_does_not_fit():
    with pytest.raises(ValueError, match="mode must be 'gaussian', 'naive' or 'adaptive', got 'x'"):
        InterestClock(L, H, mode="x", category_dim=2)
    table, ids, time, now, candidate = inputs()
    with pytest.raises(ValueError, match="interests must be given"):
        InterestClock(L, H, category_dim=2)(candidate, table[ids], time, now, category_tables=[])


@pytest.mark.parametrize("model", [ClockSearch, ClockAttention])
def test_clocks_with_half_the_time(model):
    """Search and attention of one see the time, of the other none."""
    table, ids, time, now, candidate = inputs()
    half, whole, none = model(L, H, k=K), LongTermInterestClock(L, H, k=K), TWIN(L, H, k=K)
    for other in (whole, none):
        other.load_state_dict(half.state_dict())
    searched, attended = (whole, none) if model is ClockSearch else (none, whole)
    seen = []
    for module in (half, searched):
        module.ops = Recorder(seen)
    call = (candidate, Lookup(table, ids), time, now, LENGTHS)
    v = half(*call)
    searched(*call)
    assert torch.equal(*seen)
    torch.testing.assert_close(v, attended(*call, found=seen[0]))
    with pytest.raises(ValueError, match="exclude_future needs times"):
        ClockAttention(L, H, exclude_future=True)


class Recorder:
    """The ops, and what every search found."""

    def __init__(self, seen):
        self.seen = seen

    def clock_gsu(self, *args, **options):
        found = ops.clock_gsu(*args, **options)
        self.seen.append(found.indices)
        return found

    def __getattr__(self, name):
        return getattr(ops, name)


def test_day_and_week_are_two_clocks():
    table, ids, time, now, candidate = inputs()
    both = DayAndWeek(L, H, k=K, out_dim=7, unit=1800.0)
    assert (both.day.period, both.day.time.unit) == (86400, 1800)
    assert (both.week.period, both.week.time.unit) == (604800, 12600)
    call = (candidate, Lookup(table, ids), time, now)
    v, context = both(*call, return_context=True)
    assert context.shape == (S, 8, L + 4)
    torch.testing.assert_close(v, both.day(*call) + both.week(*call))
    a_day_later = both(*call[:3], now + 86400)
    torch.testing.assert_close(a_day_later - both.week(*call[:3], now + 86400), both.day(*call))
    assert not torch.allclose(a_day_later, v)


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
    steps = [torch.cat([model.user, vectors])]
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
        torch.zeros(S, C, H), none, time, now, user=user[:, 0], item=item, item_vectors=vectors,
        return_context=True,
    )  # fmt: skip
    for s, part in enumerate((0, 3, 1)):
        users, items = propagated(model, part, vectors, layers)
        for c in range(C):
            expected = model.head(torch.cat([users[user[s, 0]], items[item[s, c]]]))
            torch.testing.assert_close(v[s, c], expected)
            torch.testing.assert_close(context[s, c, 0], users[user[s, 0]])
    flat = model(
        torch.zeros(S * C, H), none.flatten(0, 1), time.flatten(), now, user=user[:, 0],
        item=item.flatten(), item_vectors=vectors, offsets=torch.zeros(S + 1, dtype=torch.int64),
        query_offsets=torch.arange(S + 1) * C,
    )  # fmt: skip
    torch.testing.assert_close(flat, v.flatten(0, 1))
    leaves = (model.user, vectors)
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
        theirs.embedding.weight.copy_(torch.cat([model.user, vectors]))
    edges = torch.stack([USER, ITEM + 6])[:, PART % 4 == 2].unique(dim=1)
    expected = theirs.get_embedding(torch.cat([edges, edges.flip(0)], 1))
    found = torch.cat(model._propagate(2, vectors))
    torch.testing.assert_close(found, expected)


def test_period_graph_grows():
    whole, parts, vectors = period_graph(), PeriodGraph(L, H, users=5, out_dim=7), torch.randn(7, H)
    parts.load_state_dict(whole.state_dict())
    alone = parts._propagate(1, vectors)
    torch.testing.assert_close(alone, (whole.user / 3, vectors / 3))
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
            torch.zeros(1, H), None, one, one, starts=one, ends=one, user=one,
            item=torch.zeros(1, 2, dtype=torch.int64), item_vectors=vectors,
        )  # fmt: skip
    for wrong in ({"users": 0}, {"users": 1, "periods": 0}, {"users": 1, "layers": -1}):
        with pytest.raises(ValueError, match=f"PeriodGraph: {list(wrong)[-1]} must be at least"):
            PeriodGraph(L, H, **wrong)
