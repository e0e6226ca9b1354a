# SPDX-License-Identifier: Apache-2.0
"""SIMHard finds the last of a category, whatever its number, and sees what was written into the categories."""

from __future__ import annotations

import pytest
import torch
from rivals import H, L

from longclock import History
from longclock.baselines import SIMHard

T, Q, K = 2_000, 40, 3
I64 = torch.iinfo(torch.int64)
GENERATOR = torch.Generator().manual_seed(4)
IDS = {
    "small": torch.arange(30),
    "millions": torch.randint(1, 5_000_000, (30,), generator=GENERATOR),
    "millions, 32 bits": torch.randint(1, 5_000_000, (30,), generator=GENERATOR).int(),
    "the ends of 32 bits": torch.tensor([-(2**31), 2**31 - 1, 0, -1]).int(),
    "63 bits": torch.randint(0, I64.max, (30,), generator=GENERATOR),
    "64 bits": torch.randint(I64.min, I64.max, (30,), generator=GENERATOR),
    "the ends of 64 bits": torch.tensor([I64.min, I64.min + 1, -1, 0, I64.max - 1, I64.max]),
    "multiples of a power of 2": torch.arange(-8, 8) << 60,
    "one": torch.tensor([5]),
}


def last(wanted, category, starts, ends, mask):
    """The same by a loop."""
    found = torch.full((Q, K), -1)
    for q, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        same = (category[start:end] == wanted[q]) & mask[start:end]
        places = same.nonzero().flatten().flip(0)[:K]
        found[q, : len(places)] = places
    return found


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_categories_of_any_number(ids, masked):
    model = SIMHard(L, H, k=K)
    starts = torch.randint(0, T, (Q,))
    ends = starts + (torch.rand(Q) * (T - starts)).long()
    category, wanted = (
        ids[torch.randint(0, len(ids), (T,))],
        ids[torch.randint(0, len(ids), (Q,))].long(),
    )
    wanted[0] = 12345  # of none
    mask = torch.rand(T) < 0.5 if masked else None
    everything = torch.ones(T, dtype=torch.bool) if mask is None else mask
    windows = History(torch.zeros(T, L), category, starts=starts, ends=ends, mask=mask)
    found = model._last_of_category(wanted, category, windows)
    assert torch.equal(found, last(wanted, category, starts, ends, everything))


def call(category, wanted):
    none = torch.zeros(1, dtype=torch.int64)
    return {
        "candidate": torch.ones(1, H), "history": History.dense(torch.eye(4, L)[None], none.expand(1, 4)),
        "query_time": none, "behaviour_category": category, "candidate_category": wanted,
    }  # fmt: skip


def attended(model, category):
    """Which of the four behaviours are attended to."""
    _, context = model(**call(category, torch.tensor([1])), return_context=True)
    return context[0, 0, :4].nonzero().flatten().tolist()


def test_what_is_written_into_the_categories_is_seen():
    model = SIMHard(L, H, k=2)
    category = torch.tensor([[1, 0, 0, 0]])
    assert attended(model, category) == [0]
    category[0, 1] = 1
    assert attended(model, category) == [0, 1]
    category.numpy()[0, 0] = 3  # a version does not count this
    assert attended(model, category) == [1]
    category.data[0, 3] = 1
    assert attended(model, category) == [1, 3]
    with torch.inference_mode():  # where tensors have no version
        other = torch.tensor([[0, 0, 1, 0]])
        assert attended(model, other) == [2]
        other[0, 3] = 1
        assert attended(model, other) == [2, 3]
    assert attended(model, category.int()) == [1, 3]
    assert attended(model, category[:, [3, 2, 1, 0]]) == [0, 2]


def test_the_same_categories_are_sorted_once(monkeypatch):
    model, category, sorts = SIMHard(L, H, k=2), torch.tensor([[1, 0, 1, 0]]), []
    sort = torch.Tensor.sort
    monkeypatch.setattr(
        torch.Tensor, "sort", lambda *args, **options: sorts.append(1) or sort(*args, **options)
    )
    for same in (category, category, category.clone()):
        assert attended(model, same) == [0, 2]
    assert len(sorts) == 1


def test_categories_that_do_not_fit():
    model, category = SIMHard(L, H, k=2), torch.tensor([[1, 0, 1, 0]])
    given = call(category, torch.tensor([1]))
    for name, wrong, text in (
        ("behaviour_category", category.float(), "must be int32 or int64, got float32"),
        ("behaviour_category", None, "must be a tensor, got NoneType"),
        ("behaviour_category", category[0], r"must have the shape of history.time = \[1, 4\], got \[4\]"),
        ("candidate_category", torch.tensor([True]), "must be int32 or int64, got bool"),
        ("candidate_category", [1], "must be a tensor, got list"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"SIMHard: {name} {text}"):
            model(**(given | {name: wrong}))
