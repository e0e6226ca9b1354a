# SPDX-License-Identifier: Apache-2.0
"""LongTermInterestClock at the edge of what it takes: by its own names, or right."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import longclock as lc

S, M, L, H = 2, 5, 4, 3


def batch() -> tuple[Tensor, lc.History, Tensor]:
    rows, when = torch.randn(S, M, L), torch.randint(0, 10**9, (S, M))
    return torch.randn(S, H), lc.History.dense(rows, when), torch.full((S,), 10**9)


def module(**options: Any) -> lc.LongTermInterestClock:
    return lc.LongTermInterestClock(L, H, **{"k": 2, "out_dim": 2} | options)


def flat(layout: str, history: lc.History, last: int = S * M) -> lc.History:
    """The rows of a dense history one behind the other; the second sequence ends before ``last``."""
    rows, when = history.rows.flatten(0, 1), history.time.flatten()
    if layout == "windows":
        return lc.History.windows(rows, when, torch.tensor([0, M]), torch.tensor([M, last]))
    return lc.History.ragged(rows[:last], when[:last], torch.tensor([0, M, last]))


@pytest.mark.parametrize("place", [-2, 4, 9, 2**62])
@pytest.mark.parametrize("layout", ["dense", "windows", "ragged"])
def test_places_outside_the_history(layout: str, place: int) -> None:
    lic, (candidate, history, now) = module().requires_grad_(False), batch()
    found = torch.tensor([[1, -1], [0, place]])
    if layout == "dense":
        history = history._replace(lengths=torch.tensor([M, 4]))
    else:
        history = flat(layout, history, last=9)
    call = lambda f: lic(candidate, history, now, found=f)  # noqa: E731
    said = (
        "found must hold indices of each query's own history, counted from its start, or -1, "
        f"got {place} at [1, 1]; what other behaviours gave may be stale"
    )
    with pytest.raises(ValueError) as caught:
        call(found)
    assert str(caught.value) == f"LongTermInterestClock: {said}"
    with torch.no_grad():
        inside = torch.tensor([[1, -1], [0, -1]])
        traced = torch.jit.trace(call, (torch.tensor([[0, 1], [1, -1]]),), check_trace=False)
        torch.testing.assert_close(traced(inside), call(inside))
        torch.testing.assert_close(traced(inside.flip(1)), call(inside))
        with pytest.raises(RuntimeError, match=re.escape(f"esu_attention: {said}")):
            traced(found)  # a graph on the CPU looks as well


@pytest.mark.parametrize("layout", ["windows", "ragged"])
def test_the_longest_history_need_not_be_counted(layout: str) -> None:
    lic, (candidate, history, now) = module(k=None), batch()
    history = flat(layout, history)

    def call(**more: int) -> Tensor:
        return lic(candidate, history, now, **more)

    expected = call()
    torch.testing.assert_close(call(longest=7), expected)
    with pytest.raises(
        ValueError, match="longest must be at least the most behaviours of a query = 5, got 4"
    ):
        call(longest=4)
    with torch.device("meta"):
        on_meta = lc.LongTermInterestClock(L, H, k=None, out_dim=2)
    # No value of a tensor without any can be read: that nothing tries is what capturing asks for.
    there = (candidate.to("meta"), history.to("meta"), now.to("meta"))
    assert on_meta(*there, longest=5).shape == (S, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_results_have_the_weights_dtype(dtype: torch.dtype) -> None:
    class Ranker(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.item = nn.Embedding(20, H)
            self.lic = lc.LongTermInterestClock(H, H, k=2, out_dim=H)
            self.tower = nn.Linear(3 * H, 1)

        def forward(self, item: Tensor, seen: Tensor, when: Tensor, now: Tensor) -> Tensor:
            candidate = self.item(item)
            history = lc.History.dense(lc.Lookup(self.item.weight, seen), when)
            interest, context = self.lic(candidate, history, now, return_context=True)
            liked = context[..., :-4].mean(dim=-2)
            return self.tower(
                torch.cat([candidate, candidate * interest, candidate * liked], dim=-1)
            )

    _, history, now = batch()
    given = (torch.randint(0, 20, (S,)), torch.randint(0, 20, (S, M)), history.time, now)
    ranker = Ranker()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ranker(*given)
    assert ranker(*given).dtype == torch.float32
    logits = ranker.to(dtype)(*given)
    assert logits.dtype == dtype
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in ranker.parameters())


def test_dtypes_that_cannot_meet() -> None:
    lic, (candidate, *rest) = module(), batch()
    with pytest.raises(
        ValueError,
        match=r"^LongTermInterestClock: candidate must be torch.float32 to match the weights, got",
    ):
        lic(candidate.bfloat16(), *rest)
    for wrong, what in ((module().double(), "the module"), (lic, "history.rows")):
        own = wrong.w_q.dtype
        with pytest.raises(
            ValueError,
            match=rf"^LongTermInterestClock: {what} must be float32, float16 or bfloat16, got float64; "
            "backend='reference' takes float64$",
        ):
            wrong(candidate.to(own), rest[0].to(dtype=torch.float64), *rest[1:])
    reference = module(backend="reference").double()
    history = rest[0].to(dtype=torch.float64)
    assert reference(candidate.double(), history, *rest[1:]).dtype == torch.float64


@pytest.mark.parametrize("backend", ["Compiled", None, lc.reference])
def test_a_backend_is_one_of_two(backend: Any) -> None:
    for kind, sizes in ((lc.LongTermInterestClock, (L, H)), (lc.TimeSimilarity, ())):
        with pytest.raises(ValueError) as caught:
            kind(*sizes, backend=backend)
        assert str(caught.value) == (
            f"{kind.__name__}: backend must be 'compiled', or 'reference' (plain PyTorch), got {backend!r}"
        )
        made = kind(*sizes, backend="reference")
        assert "backend='reference'" in repr(made)
        assert made.backend == getattr(made, "time", made).backend == "reference"


@pytest.mark.parametrize(
    ("name", "value"),
    [("candidate", np.zeros((S, H), np.float32)), ("candidate", None), ("history.rows", None), ("history.rows", [[1.0]]),
     ("history.time", None), ("history.time", torch.zeros(S, M)), ("query_time", [0, 0]), ("history.lengths", [1, 2]),
     ("history.mask", [True]), ("found", [[0, 1]]), ("keys", 3),
     ("history.rows", lc.Lookup(nn.Embedding(4, L), torch.zeros(S, M).long())),
     ("history.rows", torch.eye(4).to_sparse()), ("candidate", torch.ones(S, H).to_sparse()),
     ("history.time", torch.zeros(S, M + 1).long()), ("query_time", torch.zeros(S + 1).long()),
     ("history", None), ("history", torch.zeros(S, M, L)), ("history", (torch.zeros(S, M, L), torch.zeros(S, M).long()))],
)  # fmt: skip
@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_errors_say_the_modules_words(name: str, value: Any, backend: Any) -> None:
    names = ("candidate", "history", "query_time")
    for lic in (module(backend=backend), module(k=None, backend=backend)):
        given = dict(zip(names, batch(), strict=True))
        argument, _, part = name.partition(".")
        wrong = given["history"]._replace(**{part: value}) if part else value
        with pytest.raises(ValueError, match=rf"^LongTermInterestClock: .*\b{name}\b") as caught:
            lic(**given | {argument: wrong})
        assert "key_time" not in str(caught.value)
        assert "z_time" not in str(caught.value)
    with pytest.raises(
        TypeError,
        match=r"^LongTermInterestClock: unexpected keyword argument 'histroy'; history is near",
    ):
        module()(*batch(), histroy=1)


def test_a_history_that_is_none_says_how_one_is_made() -> None:
    candidate, history, now = batch()
    for wrong in (history.rows, tuple(history), None):
        with pytest.raises(ValueError) as caught:
            module()(candidate, wrong, now)
        assert str(caught.value) == (
            f"LongTermInterestClock: history must be a History, got {type(wrong).__name__}; make one with "
            "History.dense, .ragged or .windows"
        )


def test_sparse_gradients_name_rows_that_were_selected() -> None:
    for lengths, expected in (([2, 1], {5, 6, 8}), ([0, 0], set())):
        item = nn.Embedding(10, L, sparse=True)
        rows = lc.Lookup(item.weight, torch.tensor([[5, 6, 7], [8, 9, 9]]), sparse=True)
        zeros = torch.zeros(S, 3, dtype=torch.int64)
        history = lc.History.dense(rows, zeros, torch.tensor(lengths))
        module(k=3)(torch.randn(S, H), history, zeros[:, 0]).sum().backward()
        grad = item.weight.grad
        assert grad is not None
        assert set(grad.coalesce().indices().flatten().tolist()) == expected
        dense = item.weight.detach().clone().requires_grad_()
        assert dense.shape == grad.shape


def test_a_used_module_can_be_copied_and_stored(tmp_path: Path) -> None:
    lic, (candidate, history, now) = module(), batch()
    given = candidate, history, now
    expected = lic(*given)
    expected.sum().backward()
    torch.save(lic, tmp_path / "lic.pt")
    stored = torch.load(tmp_path / "lic.pt", weights_only=False)
    for other in (copy.deepcopy(lic), pickle.loads(pickle.dumps(lic)), stored):
        assert torch.equal(other(*given), expected)
    lengths = torch.tensor([3, 5])
    narrow = history._replace(time=history.time.int(), lengths=lengths.int())
    torch.testing.assert_close(
        lic(candidate, narrow, now.int()), lic(candidate, history._replace(lengths=lengths), now)
    )


@pytest.mark.parametrize("k", [0, 2, None])
def test_empty_batches(k: int | None) -> None:
    lic = module(k=k)
    for s, c, m in ((0, None, 5), (0, 3, 5), (2, 0, 5), (2, None, 0), (2, 3, 0), (0, 0, 0)):
        candidate = torch.randn(*((s,) if c is None else (s, c)), H, requires_grad=True)
        rows = torch.randn(s, m, L, requires_grad=True)
        times = torch.zeros(s, m, dtype=torch.int64)
        v = lic(candidate, lc.History.dense(rows, times), times.new_zeros(s))
        assert v.shape == (*candidate.shape[:-1], 2)
        v.sum().backward()
        assert rows.grad is None or not rows.grad.isnan().any()
    nothing = torch.zeros(0, dtype=torch.int64)
    rows, edge = torch.randn(0, L), torch.zeros(1, dtype=torch.int64)
    for history in (
        lc.History.windows(rows, nothing, nothing, nothing),
        lc.History.windows(rows, nothing, nothing, nothing, query_offsets=edge),
        lc.History.ragged(rows, nothing, offsets=edge),
        lc.History.ragged(rows, nothing, offsets=edge, query_offsets=edge),
    ):
        assert lic(torch.randn(0, H), history, nothing).shape == (0, 2)


def test_fsdp_shards_the_module(tmp_path: Path) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    lic, given = module(), batch()
    expected = lic(*given).detach()
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        fully_shard(lic, mesh=init_device_mesh("cpu", (1,)))
        found = lic(*given)
        found.sum().backward()
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(found.detach(), expected)


def test_weights_of_time_similarity_may_be_scalars(device: str) -> None:
    delta = torch.randint(0, 43201, (3, 4), device=device)
    w1, b1, w2, b2 = (weight.detach().to(device) for weight in lc.TimeSimilarity().mlp())
    for bias in (b2.view(()), b2.view(1)):
        bias = bias.clone().requires_grad_()
        s = lc.time_similarity(delta, w1, b1, w2, bias)
        torch.testing.assert_close(s, lc.reference.time_similarity(delta, w1, b1, w2, bias))
        s.sum().backward()
        assert bias.grad is not None
        assert bias.grad.shape == bias.shape
    assert lc.reference.time_similarity(delta[0, 0], w1, b1, w2, b2).shape == ()


def test_no_heads_give_no_gradient(device: str) -> None:
    z = torch.randn(2, 5, 7, device=device, requires_grad=True)
    times = torch.zeros(2, 5, dtype=torch.int64, device=device)
    mlp = tuple(weight.detach().to(device).requires_grad_() for weight in lc.TimeSimilarity().mlp())
    for _ in range(3):
        out = lc.esu_attention(torch.zeros(2, 0, 7, device=device), z, times, times[:, 0], mlp)  # type: ignore[arg-type]
        grads = torch.autograd.grad(out.sum(), (z, *mlp))
        assert not any(grad.any() for grad in grads)


@pytest.mark.parametrize("hidden", [8.0, True, "8", None, 0, 65])
def test_hidden_is_a_count(hidden: Any) -> None:
    with pytest.raises(ValueError, match=r"^TimeSimilarity: hidden must be"):
        lc.TimeSimilarity(hidden)


@pytest.mark.parametrize(("rows", "width", "k"), [(7, 0, 3), (0, 4, 0), (7, 4, 0)])
def test_sparse_gradients_of_nothing(device: str, rows: int, width: int, k: int) -> None:
    table = torch.ones(rows, width, device=device, requires_grad=True)
    times = torch.zeros(1, k, dtype=torch.int64, device=device)
    mlp = lc.TimeSimilarity().to(device)
    found = lc.Lookup(table, times.clone(), sparse=True)
    for valid in (None, torch.ones(1, k, dtype=torch.bool, device=device)):
        context = lc.esu_attention(
            torch.ones(1, 2, width, device=device),
            found,
            times,
            torch.zeros_like(times[:, :0].sum(1)),
            mlp,
            valid,
        )
        (grad,) = torch.autograd.grad(context.sum(), table)
        assert grad.is_sparse
        assert grad.shape == table.shape
