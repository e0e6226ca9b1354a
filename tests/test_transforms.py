# SPDX-License-Identifier: Apache-2.0
"""Derivatives by torch.func and in forward mode: right, or refused by name; never zero without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import make_case, make_mlp
from esu_cases import FoundCase, make_esu, make_found
from tolerance import assert_close
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

import longclock as lc

EVERY = ["gsu_score", "esu_attention", "time_similarity", "block_topk"]


def of_one_tensor(op: str, ops: Any) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The op as a function of its first differentiable argument."""
    case, esu = make_case("dense", poison=False), make_esu()
    delta, mlp = torch.randint(0, 43201, (7,)), make_mlp()
    rest = (case.keys, case.key_time, case.query_time, case.mlp)
    functions: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
        "gsu_score": (lambda x: ops.gsu_score(x, *rest, scale=0.5), case.query),
        "esu_attention": (
            lambda x: ops.esu_attention(x, esu.z, esu.z_time, esu.query_time, esu.mlp, esu.valid),
            esu.u,
        ),
        "time_similarity": (lambda x: ops.time_similarity(delta, x, *mlp[1:]), mlp[0]),
        "block_topk": (lambda x: ops.block_topk(x, 3).scores, torch.randn(2, 7)),
    }
    return functions[op]


def both(op: str) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Tensor]:
    state = torch.get_rng_state()
    ours, x = of_one_tensor(op, lc)
    torch.set_rng_state(state)
    reference, _ = of_one_tensor(op, lc.reference)
    return ours, reference, x


@pytest.mark.parametrize("op", EVERY)
def test_reverse_mode(op: str) -> None:
    ours, reference, x = both(op)
    torch.testing.assert_close(jacrev(ours)(x), jacrev(reference)(x), rtol=1e-3, atol=1e-4)
    value, pull = vjp(ours, x)
    expected, pull_expected = vjp(reference, x)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    cotangent = torch.randn_like(value)
    torch.testing.assert_close(pull(cotangent), pull_expected(cotangent), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("op", EVERY)
def test_batches(op: str) -> None:
    ours, reference, x = both(op)
    batch = torch.stack([x, 2 * x, x + 1])
    expected = torch.stack([ours(row) for row in batch])
    torch.testing.assert_close(vmap(ours)(batch), expected, rtol=0, atol=0)
    moved = vmap(ours, in_dims=1, out_dims=-1)(batch.movedim(0, 1))
    torch.testing.assert_close(moved.movedim(-1, 0), expected, rtol=0, atol=0)

    def loss(of: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: of(x).square().sum()

    torch.testing.assert_close(
        vmap(grad(loss(ours)))(batch), vmap(grad(loss(reference)))(batch), rtol=1e-3, atol=1e-3
    )
    with pytest.raises(ValueError, match=f"{op}: vmap must be over at least one element, got 0"):
        vmap(ours)(batch[:0])


@pytest.mark.parametrize("layout", ["dense", "candidates", "ragged_many", "windows_many"])
def test_attention_to_what_was_found(layout: str) -> None:
    case = make_found(layout, counts=(9, 0, 5))

    def attend(u: Tensor, found: Tensor, ops: Any = lc, of: FoundCase = case) -> Tensor:
        return FoundCase(u, of.search, found).run(ops.esu_attention)

    def loss(u: Tensor, found: Tensor, ops: Any = lc, of: FoundCase = case) -> Tensor:
        return attend(u, found, ops, of).square().sum()

    exact, out = case.double(), attend(case.u, case.found)
    # Terms of x^2 cancel: compared with fp64, by the size of what is added up.
    for derivative, cotangent in (
        (grad(loss), 2 * out),
        (jacrev(attend), torch.eye(out.shape[-1])),
    ):
        wanted = derivative(exact.u, case.found, lc.reference, exact)
        rival = derivative(case.u, case.found, lc.reference)
        size = case.gathered().sizes(cotangent)[1]["u"]
        assert_close(derivative(case.u, case.found), wanted, rival, size=size)
    two = torch.stack([case.u, -case.u]), torch.stack([case.found, case.found.flip(-1)])
    together = vmap(attend)(*two)
    for each, u, found in zip(together, *two, strict=True):
        torch.testing.assert_close(each, attend(u, found), rtol=0, atol=0)
    some = case.found.clone()
    some[..., 1:] = -1
    torch.testing.assert_close(
        vmap(attend, in_dims=(None, 0))(case.u, torch.stack([some, case.found]))[1], together[0], rtol=0, atol=0
    )  # fmt: skip
    with pytest.raises(
        NotImplementedError,
        match=r"^esu_attention: forward-mode derivatives are not implemented, got a tangent of u",
    ):
        jvp(lambda u: attend(u, case.found), (case.u,), (torch.ones_like(case.u),))


def test_batches_of_searches() -> None:
    case = make_case("dense", poison=False)
    queries = torch.stack([case.query, -case.query])
    rest = (case.keys, case.key_time, case.query_time, case.mlp, 5)
    found = vmap(lambda query: lc.clock_gsu(query, *rest))(queries)
    for row, query in enumerate(queries):
        expected = lc.clock_gsu(query, *rest)
        assert torch.equal(found.indices[row], expected.indices)
        assert torch.equal(found.scores[row], expected.scores)
    bits = vmap(lc.pack_signs)(queries)
    assert torch.equal(bits, lc.pack_signs(queries))
    times = torch.randint(0, 10**9, (3, 4))
    assert torch.equal(
        vmap(lc.circular_delta)(times, times.flip(0)), lc.circular_delta(times, times.flip(0))
    )
    assert torch.equal(vmap(lc.clock_time)(times), lc.clock_time(times))
    assert torch.equal(vmap(lc.time_features)(times % 999), lc.time_features(times % 999))
    words = torch.randint(-9, 9, (2, 3, 5, 1))
    zeros = torch.zeros(3, 5, dtype=torch.int64)
    nearest = vmap(lambda w: lc.hamming_gsu(w[:, 0], w, zeros, zeros[:, 0], 2).indices)(words)
    assert torch.equal(
        nearest[1], lc.hamming_gsu(words[1][:, 0], words[1], zeros, zeros[:, 0], 2).indices
    )


def test_gradients_of_each_sample_of_the_module() -> None:
    lic = lc.LongTermInterestClock(4, 3, head_dim=4, heads=2, k=3, out_dim=2, hidden_dim=5)
    rows = (
        torch.randn(5, 3),
        torch.randn(5, 8, 4),
        torch.randint(0, 10**9, (5, 8)),
        torch.randint(0, 10**9, (5,)),
    )

    def arguments(candidate: Tensor, seen: Tensor, when: Tensor, now: Tensor) -> Any:
        return candidate, lc.History.dense(seen, when), now

    def loss(weights: dict[str, Tensor], *row: Tensor) -> Tensor:
        given = arguments(*(part[None] for part in row))
        return functional_call(lic, weights, given).square().sum()

    weights = {name: p.detach() for name, p in lic.named_parameters()}
    found = vmap(grad(loss), in_dims=(None, 0, 0, 0, 0))(weights, *rows)
    for sample in range(5):
        lic.zero_grad()
        lic(*arguments(*(part[sample : sample + 1] for part in rows))).square().sum().backward()
        for name, p in lic.named_parameters():
            torch.testing.assert_close(found[name][sample], p.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("op", EVERY)
def test_forward_mode_is_refused(op: str) -> None:
    ours, _, x = both(op)
    refusal = rf"^{op}(_backward)?: forward-mode derivatives are not implemented, got a tangent of \w+; .*longclock.reference.{op}"
    tangent = torch.ones_like(x)
    for way in (
        lambda: jvp(ours, (x,), (tangent,)), lambda: jacfwd(ours)(x), lambda: linearize(ours, x),
        lambda: hessian(lambda x: ours(x).square().sum())(x),
    ):  # fmt: skip
        with pytest.raises(NotImplementedError, match=refusal):
            way()
    with forward_ad.dual_level():
        with pytest.raises(NotImplementedError, match=refusal):
            ours(forward_ad.make_dual(x, tangent))
        ours(x)  # without a tangent there is nothing to lose


def test_forward_mode_of_what_has_no_derivative() -> None:
    case = make_case("dense", poison=False)
    rest = (case.keys, case.key_time, case.query_time, case.mlp, 5)
    with forward_ad.dual_level():
        query = forward_ad.make_dual(case.query, torch.ones_like(case.query))
        with pytest.raises(NotImplementedError, match="clock_gsu: forward-mode derivatives"):
            lc.clock_gsu(query, *rest)
        assert torch.equal(lc.pack_signs(query), lc.pack_signs(case.query))  # integers have none


@pytest.mark.parametrize("op", EVERY)
def test_a_second_derivative_is_refused(op: str) -> None:
    ours, _, x = both(op)
    with pytest.raises(RuntimeError, match=rf"{op}_backward: a double backward is not implemented"):
        jacrev(jacrev(lambda x: ours(x).square()))(x)


def test_scores_of_a_search_have_no_derivative() -> None:
    case = make_case("dense", poison=False)
    rest = (case.keys, case.key_time, case.query_time, case.mlp, 5)
    for transform in (grad, jacrev):
        with pytest.raises(
            RuntimeError, match=r"^clock_gsu: its result has no derivative, and one was asked for; "
        ):
            transform(lambda x: lc.clock_gsu(x, *rest).scores.sum())(case.query)

    def by_place(x: Tensor) -> Tensor:  # the places alone ask for nothing
        found = lc.clock_gsu(x, *rest).indices.clamp(min=0)
        return x.sum() + found.sum()

    assert torch.equal(grad(by_place)(case.query), torch.ones_like(case.query))
