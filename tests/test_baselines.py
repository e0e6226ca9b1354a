# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from longclock import Lookup, reference
from longclock.baselines import ContentSearch, HourEmbedding, NoTime, ReferenceContentSearch

S, M, L, H, C, K, N = 3, 9, 5, 6, 2, 4, 11
LENGTHS = torch.tensor([9, 2, 0])


MODELS = {"no-time": NoTime, "hour": HourEmbedding, "twin": ReferenceContentSearch}
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


@pytest.mark.parametrize(
    ("name", "reads_time"), [("no-time", False), ("hour", True), ("twin", False)]
)
def test_only_the_hour_embedding_reads_time(name, reads_time):
    table, ids, time, now, candidate = inputs()
    model = MODELS[name](L, H, k=K)
    before = model(candidate, table[ids], time, now, LENGTHS)
    moved = model(candidate, table[ids], time.flip(1), now, LENGTHS)
    later = model(candidate, table[ids], time, now + 6 * 3600, LENGTHS)
    assert torch.equal(before, moved)
    assert torch.equal(before, later) != reads_time


def test_hour_embedding_changes_at_the_hours_edge_only():
    table, ids, time, _, candidate = inputs()
    model = HourEmbedding(L, H, k=K)

    def at(second):
        return model(candidate, table[ids], time, torch.full((S,), second), LENGTHS)

    assert torch.equal(at(3600), at(7199))
    assert torch.equal(at(3600), at(3600 - 86400))
    assert not torch.equal(at(7199), at(7200))


def test_content_search_learns_no_time():
    table, ids, time, now, candidate = inputs()
    model = ReferenceContentSearch(L, H, k=K)
    model.reset_parameters()
    assert not model.time.w2.any()
    assert not model.time.b2.any()
    _, context = model(candidate, table[ids], time, now, LENGTHS, return_context=True)
    assert torch.equal(context[..., L:], torch.zeros_like(context[..., L:]))
    assert not any(weight.requires_grad for weight in model.time.parameters())
    with pytest.raises(ValueError, match="exclude_future needs times"):
        ContentSearch(L, H, exclude_future=True)


def test_content_search_in_plain_pytorch_is_the_same():
    table, ids, time, now, candidate = inputs()
    compiled, plain = ContentSearch(L, H, k=K), ReferenceContentSearch(L, H, k=K)
    assert isinstance(plain.time, reference.TimeSimilarity)
    plain.load_state_dict(compiled.state_dict())
    torch.testing.assert_close(
        compiled(candidate, table[ids], time, now, LENGTHS),
        plain(candidate, table[ids], time, now, LENGTHS),
    )
