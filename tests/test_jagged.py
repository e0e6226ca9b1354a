# SPDX-License-Identifier: Apache-2.0
"""Jagged tensors, lengths and parts of longer offsets as histories, and what a search found out of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tolerance import assert_bitwise
from torch import Tensor

import longclock as lc

LENGTHS = torch.tensor([2, 0, 4])
OFFSETS = torch.tensor([0, 2, 2, 6])


class Jagged:
    """What longclock knows of TorchRec's JaggedTensor."""

    def __init__(self, values: Tensor, offsets: Tensor = OFFSETS) -> None:
        self.of, self.at = values, offsets

    def values(self) -> Tensor:
        return self.of

    def offsets(self) -> Tensor:
        return self.at

    def lengths(self) -> Tensor:
        return self.at.diff()


class Keyed(Jagged):
    """And of its KeyedJaggedTensor: candidates, one each, then the histories."""

    def __init__(self, values: Tensor, weights: Tensor | None = None) -> None:
        super().__init__(values, torch.cat([torch.arange(3), 3 + OFFSETS]))
        self.weighted = weights

    def keys(self) -> list[str]:
        return ["candidate", "history"]

    def stride(self) -> int:
        return 3

    def weights(self) -> Any:
        return self.weighted


def searched(history: lc.History) -> lc.TopK:
    torch.manual_seed(1)
    query, now = torch.randn(3, 8), torch.full((3,), 10**6)
    return lc.clock_gsu(query, query_time=now, mlp=lc.TimeSimilarity(), k=3, **history.arguments())


@pytest.fixture
def flat() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 8), torch.randint(0, 10**6, (6,))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_every_form_of_the_same_sequences(flat: tuple[Tensor, Tensor], dtype: torch.dtype) -> None:
    rows, time = flat
    expected = lc.History.ragged(rows, time, OFFSETS)
    offsets = OFFSETS.to(dtype)
    nested = torch.nested.nested_tensor_from_jagged(rows, offsets=OFFSETS)
    times = torch.nested.nested_tensor_from_jagged(time, offsets=nested.offsets())
    forms = {
        "lengths": lc.History.ragged(rows, time, lengths=LENGTHS.to(dtype)),
        "jagged rows": lc.History.ragged(Jagged(rows, offsets), time),
        "jagged times": lc.History.ragged(rows, Jagged(time, offsets)),
        "both": lc.History.ragged(Jagged(rows, offsets), Jagged(time, offsets.clone())),
        "nested": lc.History.ragged(nested, time),
        "both nested": lc.History.ragged(nested, times),
    }
    for name, history in forms.items():
        assert torch.equal(history.offsets.long(), OFFSETS), name  # type: ignore[union-attr]
        assert_bitwise(searched(history), searched(expected))


def test_ids_that_are_jagged(flat: tuple[Tensor, Tensor]) -> None:
    table, (_, time), ids = torch.randn(9, 8), flat, torch.randint(0, 9, (6,))
    expected = searched(lc.History.ragged(lc.Lookup(table, ids), time, OFFSETS))
    assert_bitwise(searched(lc.History.ragged(lc.Lookup(table, Jagged(ids)), time)), expected)  # type: ignore[arg-type]
    sides = (table[:, :5].contiguous(), table[:, 5:].contiguous())
    several = lc.History.ragged(lc.Lookup(sides, (Jagged(ids), Jagged(ids))), time)  # type: ignore[arg-type]
    plain = lc.History.ragged(lc.Lookup(sides, (ids, ids)), time, OFFSETS)
    assert_bitwise(searched(several), searched(plain))


def test_offsets_of_some_of_more_sequences(flat: tuple[Tensor, Tensor]) -> None:
    """Those of a feature in the middle, the first and the last of a longer list: behaviours of others are not seen."""
    rows, time = flat
    expected = searched(lc.History.ragged(rows, time, OFFSETS))
    for before, behind in ((2, 3), (0, 3), (2, 0)):
        poison = torch.full((before + 6 + behind, 8), torch.nan)
        poison[before : before + 6] = rows
        times = torch.nn.functional.pad(time, (before, behind))
        history = lc.History.ragged(poison, times, OFFSETS + before)
        assert history.offsets is None
        assert_bitwise(searched(history), expected)
        assert_bitwise(
            searched(lc.History.ragged(Jagged(poison, OFFSETS + before), times)), expected
        )
    many = lc.History.ragged(poison, times, OFFSETS + 2, query_offsets=torch.tensor([0, 2, 2, 3]))
    windows = lc.History.windows(
        poison, times, OFFSETS[:-1] + 2, OFFSETS[1:] + 2, torch.tensor([0, 2, 2, 3])
    )
    assert_bitwise(searched(many), searched(windows))


def test_a_nested_tensor_with_holes(flat: tuple[Tensor, Tensor]) -> None:
    """As narrowing makes one: sequences end before the next begins."""
    rows, time = flat
    lengths = torch.tensor([1, 0, 3])
    nested = torch.nested.nested_tensor_from_jagged(rows, offsets=OFFSETS, lengths=lengths)
    history = lc.History.ragged(nested, time)
    windows = lc.History.windows(rows, time, OFFSETS[:-1], OFFSETS[:-1] + lengths)
    assert_bitwise(searched(history), searched(windows))


def test_a_feature_of_a_keyed_jagged_tensor(flat: tuple[Tensor, Tensor]) -> None:
    time, table = flat[1], torch.randn(9, 8)
    ids = torch.randint(0, 9, (9,))
    times = torch.nn.functional.pad(time, (3, 0))
    expected = searched(lc.History.ragged(lc.Lookup(table, ids[3:]), time, OFFSETS))
    history = lc.interop.torchrec.history(Keyed(ids), "history", times, table=table)
    assert_bitwise(searched(history), expected)
    weighted = lc.interop.torchrec.history(Keyed(ids, times.int()), "history", table=table)
    assert_bitwise(searched(weighted), expected)
    packed = lc.interop.torchrec.history(Keyed(table[ids]), "history", times)
    assert_bitwise(searched(packed), expected)
    first = lc.interop.torchrec.history(Keyed(ids), "candidate", times, table=table)
    assert (first.starts.tolist(), first.ends.tolist()) == ([0, 1, 2], [1, 2, 3])  # type: ignore[union-attr]


def test_the_gradient_goes_through(flat: tuple[Tensor, Tensor]) -> None:
    rows, time = flat
    lic, candidate, now = (
        lc.LongTermInterestClock(8, 8, k=2),
        torch.randn(3, 8),
        torch.full((3,), 10**6),
    )
    grads = []
    for wrap in (lambda x: (Jagged(x), None), lambda x: (x, OFFSETS)):
        leaf = rows.clone().requires_grad_()
        given, offsets = wrap(leaf)
        lic(candidate, lc.History.ragged(given, time, offsets), now).sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)  # type: ignore[arg-type]
    assert grads[0].any()  # type: ignore[union-attr]


def test_histories_that_do_not_fit(flat: tuple[Tensor, Tensor]) -> None:
    rows, time = flat
    ragged = lc.History.ragged
    wrong = {
        r"offsets must be None where rows brings its own, got both": lambda: ragged(Jagged(rows), time, OFFSETS),
        r"lengths must be None where rows brings its own, got both": lambda: ragged(Jagged(rows), time, lengths=LENGTHS),
        r"offsets must be None where lengths are given, got both": lambda: ragged(rows, time, OFFSETS, lengths=LENGTHS),
        r"time must have the offsets of rows, got others": lambda: ragged(Jagged(rows), Jagged(time, OFFSETS + 1)),
        r"lengths must be a tensor, got list": lambda: ragged(rows, time, lengths=[2, 4]),
        r"lengths must be int32 or int64, got float32": lambda: ragged(rows, time, lengths=torch.ones(3)),
        r"lengths must have shape \[S\], got \[1, 3\]": lambda: ragged(rows, time, lengths=LENGTHS[None]),
        r"lengths must be at least 0, got -1": lambda: ragged(rows, time, lengths=torch.tensor([7, -1])),
        r"lengths must add up to T = 6, got 7": lambda: ragged(rows, time, lengths=torch.tensor([7])),
        r"time must be int32 or int64, got float32": lambda: ragged(rows, Jagged(time.float())),
    }  # fmt: skip
    for text, call in wrong.items():
        with pytest.raises(ValueError, match=f"^History.ragged: {text}"):
            call()
    keyed = Keyed(torch.arange(9), torch.rand(9))
    name = "interop.torchrec.history"
    for text, call in {
        r"features must be a KeyedJaggedTensor, got Jagged, which has no keys\(\)": lambda: lc.interop.torchrec.history(Jagged(time), "history"),
        r"key must be one of 'candidate', 'history', got 'x'": lambda: lc.interop.torchrec.history(keyed, "x"),
        r"time must be given where weights are float32, which loses seconds, got None": lambda: lc.interop.torchrec.history(keyed, "history"),
        r"time must be given where there are no weights, got None": lambda: lc.interop.torchrec.history(Keyed(time), "history"),
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=f"^{name}: {text}"):
            call()


def test_select(device: str) -> None:
    ids, time = torch.arange(70, 76, device=device), torch.arange(6, device=device) * 60
    found = torch.tensor([[1, 0, -1], [-1, -1, -1], [3, 0, 2]], device=device)
    chosen, when, lengths = lc.jagged.select(found, OFFSETS.to(device), ids, time)
    assert chosen.tolist() == [71, 70, 75, 72, 74]
    assert when.tolist() == [60, 0, 300, 120, 240]
    assert lengths.tolist() == [2, 0, 3]
    requests = torch.tensor([0, 0, 0, 3], device=device)
    of_request = torch.tensor([[3], [0], [-1]], device=device)
    chosen, lengths = lc.jagged.select(of_request, OFFSETS.to(device), ids, query_offsets=requests)
    assert (chosen.tolist(), lengths.tolist()) == ([75, 72], [1, 1, 0])
    chosen, _ = lc.jagged.select(found[2:], torch.tensor([2, 6], device=device), ids)
    assert chosen.tolist() == [75, 72, 74]


def test_select_gives_a_gradient_and_nothing_of_nothing(device: str) -> None:
    rows = torch.randn(6, 4, device=device, requires_grad=True)
    found = torch.tensor([[1], [-1], [0]], device=device)
    chosen, _ = lc.jagged.select(found, OFFSETS.to(device), rows)
    chosen.sum().backward()
    assert rows.grad.any(1).tolist() == [False, True, True, False, False, False]  # type: ignore[union-attr]
    none = torch.zeros(0, 5, dtype=torch.int64, device=device)
    chosen, lengths = lc.jagged.select(
        none, torch.zeros(1, dtype=torch.int64, device=device), rows[:0]
    )
    assert (chosen.shape, lengths.shape) == ((0, 4), (0,))


def test_select_refuses() -> None:
    ids, found = torch.arange(6), torch.tensor([[1], [-1], [0]])
    wrong = {
        r"found must be int64, got float32; pass the indices of a search": (found.float(), OFFSETS, ids),
        r"found must have shape \[Q, K\], got \[3\]": (found[:, 0], OFFSETS, ids),
        r"found must have a row for each of S = 2 sequences, got \[3, 1\]; pass query_offsets": (found, OFFSETS[:-1], ids),
        r"found must be indices of their query's sequence, from 0 to 1, got 2 at 0": (found + 1, OFFSETS, ids),
        r"offsets must be int32 or int64, got float32": (found, OFFSETS.float(), ids),
        r"offsets must have shape \[S \+ 1\], got \[1, 4\]": (found, OFFSETS[None], ids),
        r"values\[1\] must have the length of values\[0\], got \[5\]": (found, OFFSETS, ids, ids[1:]),
        r"values\[0\] must be a tensor, got list": (found, OFFSETS, [1, 2]),
        r"found must be a tensor, got list": ([[1]], OFFSETS, ids),
    }  # fmt: skip
    for text, given in wrong.items():
        with pytest.raises(ValueError, match=f"^jagged.select: {text}"):
            lc.jagged.select(*given)
    with pytest.raises(
        ValueError, match=r"^jagged.select: query_offsets must have offsets' shape \[4\], got \[2\]"
    ):
        lc.jagged.select(found, OFFSETS, ids, query_offsets=torch.tensor([0, 3]))


def test_torchrec_itself(flat: tuple[Tensor, Tensor]) -> None:
    """Of its tensors and its EmbeddingCollection, and with the winners looked up a second time."""
    torchrec = pytest.importorskip("torchrec", reason="TorchRec is not installed")
    time, ids = flat[1], torch.randint(0, 9, (9,))
    features = torchrec.KeyedJaggedTensor(["candidate", "history"], ids, lengths=torch.cat([torch.ones(3), LENGTHS]).int())  # fmt: skip
    config = torchrec.EmbeddingConfig(name="item", embedding_dim=8, num_embeddings=9, feature_names=["candidate", "history"])  # fmt: skip
    items = torchrec.EmbeddingCollection(tables=[config])
    table = items.embeddings["item"].weight
    expected = searched(lc.History.ragged(lc.Lookup(table, ids[3:]), time, OFFSETS))
    times = torch.nn.functional.pad(time, (3, 0))
    for history in (
        lc.History.ragged(items(features)["history"], time),
        lc.History.ragged(lc.Lookup(table, features["history"]), time),
        lc.History.ragged(lc.Lookup(table, ids), times, features.offsets()[3:]),
        lc.interop.torchrec.history(features, "history", times, table=table),
    ):
        assert_bitwise(searched(history), expected)
    lic, candidate, now = (
        lc.LongTermInterestClock(8, 8, k=2),
        torch.randn(3, 8),
        torch.full((3,), 10**6),
    )
    whole = lc.History.ragged(items(features)["history"], time)
    found = lic.search(candidate, whole, now)
    chosen, when, lengths = lc.jagged.select(found, OFFSETS, ids[3:], time)
    bags = torch.cat([lengths, torch.zeros(3, dtype=torch.int64)])
    winners = torchrec.KeyedJaggedTensor(["history", "candidate"], chosen, lengths=bags)
    v_cur = lic.attend(candidate, lc.History.ragged(items(winners)["history"], when), now)
    torch.testing.assert_close(v_cur, lic(candidate, whole, now), rtol=1e-5, atol=1e-6)
    v_cur.sum().backward()
    assert set(table.grad.any(1).nonzero().flatten().tolist()) <= set(chosen.tolist())
