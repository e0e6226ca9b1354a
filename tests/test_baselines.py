# SPDX-License-Identifier: Apache-2.0
"""What holds for every baseline: layouts, masks, what is read, what is trained."""

from __future__ import annotations

import pytest
import torch
from rival_calls import BUILD, windows
from rivals import LENGTHS, MODELS, C, H, K, L, M, S, flat, inputs

from longclock import History, Lookup
from longclock.baselines import DIN, SDIM, NoTime, TransActV2

WITHOUT_TIME = ("no-time", "twin", "eta", "din", "sdim", "sim-soft", "stca", "transact-v2", "twin-v2")  # fmt: skip
# Weights without a gradient from a call: of a search, which passes none on, or of its own loss.
UNTRAINED = {
    "sim-hard": ("tables.",),
    "sim-soft": ("search_", "auxiliary"),
    "lic-search": ("time.",),
}
CALL = ("candidate", "history", "query_time")
every_model = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)


@every_model
def test_every_layout_gives_the_same(build):
    table, ids, time, now, candidate = inputs()
    model = build(L, H, k=K, out_dim=7)
    expected, context = model(
        candidate, History.dense(table[ids], time, LENGTHS), now, return_context=True
    )
    assert expected.shape == (S, 7)
    assert context.shape[:1] == (S,)

    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), LENGTHS.cumsum(0)])
    starts, ends = offsets[:-1], offsets[1:]
    same = [
        model(candidate, History.dense(Lookup(table, ids), time, LENGTHS), now),
        model(
            candidate, History.dense(table[ids], time, mask=torch.arange(M) < LENGTHS[:, None]), now
        ),
        model(candidate, History.ragged(flat(table[ids]), flat(time), offsets), now),
        model(candidate, History.windows(Lookup(table, flat(ids)), flat(time), starts, ends), now),
        model(candidate[:, None], History.dense(table[ids], time, LENGTHS), now)[:, 0],
    ]
    for v in same:
        torch.testing.assert_close(v, expected)


@every_model
def test_many_candidates_of_one_request(build):
    table, ids, time, now, _ = inputs()
    model = build(L, H, k=K, out_dim=7)
    candidates = torch.randn(S, C, H)
    v, context = model(
        candidates, History.dense(table[ids], time, LENGTHS), now, return_context=True
    )
    assert v.shape == (S, C, 7)
    for c in range(C):
        alone = model(
            candidates[:, c], History.dense(table[ids], time, LENGTHS), now, return_context=True
        )
        torch.testing.assert_close((v[:, c], context[:, c]), alone)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), LENGTHS.cumsum(0)])
    rows, when, query_offsets = flat(table[ids]), flat(time), torch.arange(S + 1) * C
    for history in (
        History.ragged(rows, when, offsets, query_offsets),
        History.windows(rows, when, offsets[:-1], offsets[1:], query_offsets),
    ):
        torch.testing.assert_close(model(candidates.flatten(0, 1), history, now), v.flatten(0, 1))


@pytest.mark.parametrize("query_offsets", [[0, 2, 4, 6], [0, 1, 1, 6]], ids=str)
@pytest.mark.parametrize("name", BUILD)
def test_queries_that_share_a_window_find_what_each_finds_alone(name, query_offsets):
    model = BUILD[name]()
    call = windows(model, many=True)
    query_offsets = torch.tensor(query_offsets)
    history = call["history"]._replace(query_offsets=query_offsets)
    counts = query_offsets.diff()
    each = {
        key: call[key].repeat_interleave(counts)
        for key in ("query_time", "query_seconds", "user")
        if key in call
    }
    starts, ends = (bound.repeat_interleave(counts) for bound in (history.starts, history.ends))
    each["history"] = history._replace(query_offsets=None, starts=starts, ends=ends)
    for function in (model, model.auxiliary_logits):
        if function is not model:
            call, each = (
                {key: value for key, value in given.items() if key in CALL}
                for given in (call, each)
            )
        found = function(**(call | {"history": history}))
        expected = function(**(call | each))
        assert (found is None) == (expected is None)
        assert found is None or torch.equal(found, expected)


@every_model
def test_what_does_not_count_is_never_read(build):
    table, ids, time, now, candidate = inputs()
    model = build(L, H, k=K)
    behaviours = table[ids]
    expected = model(candidate, History.dense(behaviours, time, LENGTHS), now)
    for s, length in enumerate(LENGTHS.tolist()):
        behaviours[s, length:] = torch.nan
    torch.testing.assert_close(
        model(candidate, History.dense(behaviours, time, LENGTHS), now), expected
    )
    assert not expected.isnan().any()


@every_model
def test_no_behaviours_at_all(build):
    _, _, _, now, candidate = inputs()
    model = build(L, H, k=K, out_dim=7)
    none = torch.zeros(S, dtype=torch.int64)
    time = torch.zeros(0, dtype=torch.int64)
    v = model(candidate, History.windows(torch.zeros(0, L), time, none, none), now)
    assert v.shape == (S, 7)
    assert v.isfinite().all()


def test_no_time_is_the_mean_of_the_last_k():
    table, ids, time, now, candidate = inputs()
    model = NoTime(L, H, k=K)
    _, context = model(
        candidate, History.dense(Lookup(table, ids), time, LENGTHS), now, return_context=True
    )
    expected = torch.stack([table[ids[0, 5:9]].mean(0), table[ids[1, :2]].mean(0), torch.zeros(L)])
    torch.testing.assert_close(context[:, 0], expected)


@pytest.mark.parametrize("name", [*WITHOUT_TIME, "hour", "twin-hour"])
def test_models_without_time_read_none(name):
    """And those with an hour no behaviour's."""
    table, ids, time, now, candidate = inputs()
    model = MODELS[name](L, H, k=K)
    before = model(candidate, History.dense(table[ids], time, LENGTHS), now)
    moved = model(candidate, History.dense(table[ids], time.flip(1), LENGTHS), now)
    later = model(candidate, History.dense(table[ids], time, LENGTHS), now + 6 * 3600)
    assert torch.equal(before, moved)
    assert torch.equal(before, later) == (name in WITHOUT_TIME)


@pytest.mark.parametrize("name", ["hour", "twin-hour"])
def test_hours_change_at_their_edge_only(name):
    table, ids, time, _, candidate = inputs()
    model = MODELS[name](L, H, k=K)

    def at(second):
        return model(candidate, History.dense(table[ids], time, LENGTHS), torch.full((S,), second))

    assert torch.equal(at(3600), at(7199))
    assert torch.equal(at(3600), at(3600 - 86400))
    assert not torch.equal(at(7199), at(7200))


@pytest.mark.parametrize("model", [DIN, SDIM, TransActV2])
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
    model(
        candidate, History.dense(Lookup(table, ids), time, LENGTHS), now
    ).square().sum().backward()
    assert table.grad is not None
    assert table.grad.any()
    assert table.grad.isfinite().all()
    for weight_name, weight in model.named_parameters():
        if weight.requires_grad and not weight_name.startswith(UNTRAINED.get(name, "-")):
            assert weight.grad is not None, weight_name
            assert weight.grad.isfinite().all(), weight_name
