# SPDX-License-Identifier: Apache-2.0
"""The fuzz itself: its oracle, its generators, and that it finds what is planted."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ops import OPS
from torch import Tensor
from torch.utils._pytree import tree_map

import longclock as lc
from fuzz import layouts, oracle, pool
from fuzz.call import Call
from fuzz.draw import Draw
from fuzz.mutate import mutate
from fuzz.run import generate, invoke, make, outcome, public, read
from fuzz.selections import ranked

HOUR = 3600


def test_a_call_is_a_function_of_seed_and_index() -> None:
    for index in range(40):
        assert str(make(7, index, False)) == str(make(7, index, False))
    assert len({str(make(7, index, False)) for index in range(40)}) == 40


def test_what_is_no_list_of_clocks_is_left() -> None:
    """A number made of it would be a clock that public functions take, and its length an error of the fuzz's own."""
    call = generate("esu_attention", Draw(0, 0, False))
    for index in range(300):
        call.way, call.arguments["periods"], call.arguments["units"] = "public", "3", {3: 4}
        mutate(Draw(1, index, False), call)
        assert (call.arguments["periods"], call.arguments["units"]) == ("3", {3: 4})
    with pytest.raises(ValueError, match="esu_attention: "):
        public(call, call.arguments)


@pytest.mark.parametrize(
    ("a", "b", "period", "expected"),
    [
        (23 * HOUR, HOUR, 86400, 7200), (11 * HOUR, 17 * HOUR, 86400, 21600), (86399, 0, 86400, 1),
        (-1, 10 * 86400, 86400, 1), (0, 3, 7, 3), (0, 4, 7, 3), (5, -5, 1, 0),
    ],
)  # fmt: skip
def test_distance_by_hand(a: int, b: int, period: int, expected: int) -> None:
    assert oracle.delta(a, b, period) == expected


def test_time_term_by_hand() -> None:
    a = {"w1": np.array([[1.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]]),
         "b1": np.array([0.5, -1, 0, 0]), "w2": np.array([1.0, 10, 100, 1000]),
         "b2": np.array(0.25), "unit": 3600.0, "elapsed": False}  # fmt: skip
    s, off = oracle.similarity(np.array([4 * HOUR]), a)
    assert s[0] == pytest.approx(0.25 + 4.5 + 10 * 3 + 0 + 1000 * np.log(5))
    assert 0 < off[0] < 1e-2


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (5, 5, 0), (127, 0, 127), (0, 129, 128), (-1000, 1, 1000), (86400, 0, 86016),
        (2**31 - 1, 0, 127 * 2**24), (-(10**11), 10**11, 127 * 2**24),
    ],
)  # fmt: skip
def test_time_elapsed_by_hand(a: int, b: int, expected: int) -> None:
    assert oracle.elapsed(a, b) == expected


def test_terms_of_two_clocks_by_hand() -> None:
    """A day, of which s is 2 x, and the time elapsed, of which it is 3 x + 1."""
    a = {"w1": np.array([[[1.0, 0, 0, 0]], [[1.0, 0, 0, 0]]]), "b1": np.zeros((2, 1)),
         "w2": np.array([[2.0], [3.0]]), "b2": np.array([0.0, 1.0]),
         "periods": [86400, 0], "units": [HOUR, 64.0]}  # fmt: skip
    each = oracle.distances(np.array([0, 86400]), 86400 + 2 * HOUR, a)
    assert each.tolist() == [[2 * HOUR, 2 * HOUR], [93184, 7168]]
    s, off = oracle.term(each, a)
    np.testing.assert_allclose(s, 2 * 2 + 3 * np.log2([1457.0, 113.0]) + 1)
    assert ((off > 0) & (off < 1e-4)).all()
    grads, _ = oracle.term_gradient(each, np.array([1.0, 10.0]), np.zeros(2), a)
    np.testing.assert_allclose(grads["w2"][:, 0], [22.0, np.log2(1457.0) + 10 * np.log2(113.0)])
    np.testing.assert_allclose(grads["b2"], [11.0, 11.0])


def test_order_by_hand() -> None:
    scores = np.array([1.0, np.nan, 3.0, -np.inf, 3.0, np.inf, np.nan, -0.0, 0.0])
    counts = np.array([True] * 8 + [False])
    values, indices = ranked(scores, counts, 9)
    assert indices.tolist() == [1, 6, 5, 2, 4, 0, 7, 3, -1]
    assert np.array_equal(values[2:], [np.inf, 3, 3, 1, 0, -np.inf, -np.inf])


def test_bits_by_hand() -> None:
    x = np.zeros((1, 66))
    x[0, [0, 3, 63, 65]] = 1.0, 2.0, np.inf, 1e-40
    x[0, [1, 2, 4]] = np.nan, -1.0, -0.0
    assert OPS["pack_signs"].answer(x).tolist() == [[9 - 2**63, 2]]
    a = {"query": np.array([[5, 0]]), "keys": np.array([[[4, 0], [2, -1]]]),
         "key_time": np.zeros((1, 2), int), "query_time": np.zeros(1, int)}  # fmt: skip
    scores, _ = OPS["hamming_gsu"].scores_of_query(a, *next(layouts.spans(a)))
    assert scores.tolist() == [-1.0, -67.0]


def reference(call: Call) -> tuple[dict[str, Tensor], Any]:
    """The public call of ``lc.reference`` in float64, and its leaves."""
    a = {name: value.detach().contiguous() if isinstance(value, Tensor) else value
         for name, value in call.arguments.items()}  # fmt: skip
    for name, rows in (("query", "keys"), ("u", "z")):
        if name in a:
            a[name] = a[name].to(a[rows].dtype)
    if "scale" in a:
        a["scale"] = read(call.arguments)["scale"]  # as fp32
    leaves = {name: a[name].double().requires_grad_() for name in call.spec.leaves}
    if a.get("features"):
        a["features"] = [rows.double() for rows in a["features"]]
    return leaves, public(call, a | leaves, lc.reference)


@pytest.mark.parametrize("op", ["gsu_score_backward", "esu_attention_backward"])
def test_oracle_agrees_with_the_reference(op: str) -> None:
    """Values and gradients, which the oracle has by formula and PyTorch by autograd."""
    seen = 0
    for index in range(100):
        call = generate(op, Draw(11, index, tiny=True))
        a = call.arguments
        if call.way != "gradient" or a.get("sparse_grad"):
            continue
        leaves, result = reference(call)
        view = read(a)
        right, _ = call.form.answer(view)
        np.testing.assert_allclose(result.detach().numpy(), right, rtol=1e-9, atol=1e-9)
        grad = a["grad"].double()
        grads = torch.autograd.grad(result, list(leaves.values()), grad, allow_unused=True)
        answer = call.spec.answer(call, view)
        for name, grad in zip(leaves, grads, strict=True):
            if grad is None:
                continue
            allowed = 1e-7 + 1e-7 * np.abs(answer.values[name]) + 1e-6 * answer.off[name]
            far = np.abs(grad.numpy() - answer.values[name]) > allowed
            assert not far.any(), name
        seen += result.numel() > 0
    assert seen > 10


@pytest.mark.parametrize("op", sorted(OPS))
def test_valid_calls_are_right(op: str) -> None:
    for index in range(12):
        call = generate(op, Draw(17, index, tiny=False))
        call.spec.complete(call)
        assert outcome(call, False) == ("right", ""), call


def bent(value: Any) -> Any:
    """A result that is a little off."""
    if not isinstance(value, Tensor) or not value.numel():
        return value
    if value.is_sparse:
        return value * 1.02
    if not value.is_floating_point():
        return value + 1
    return torch.where(value.isfinite(), value * 1.02 + 0.02, value)


def wrong_numbers(call: Call) -> Any:
    return tree_map(bent, invoke(call))


def shrug(call: Call) -> Any:
    raise RuntimeError("something went wrong")


def careless(call: Call) -> Any:
    """Takes whatever it gets."""
    return torch.zeros(())


def scribbles(call: Call) -> Any:
    for value in call.tensors().values():
        if value.numel() and value.is_contiguous():
            value.view(-1)[0] = 0 if value.view(-1)[0] else 1
            break
    return invoke(call)


def moody(call: Call) -> Any:
    return wrong_numbers(call) if torch.get_num_threads() > 1 else invoke(call)


@pytest.mark.parametrize("op", sorted(OPS))
@pytest.mark.parametrize(
    ("fault", "status"),
    [(wrong_numbers, "wrong"), (shrug, "unnamed"), (scribbles, "wrong"), (moody, "wrong")],
)
def test_planted_faults_are_found(op: str, fault: Callable[[Call], Any], status: str) -> None:
    found = 0
    for index in range(40):
        call = generate(op, Draw(3, index, tiny=True))
        call.spec.complete(call)
        found += outcome(call, False, fault)[0] == status
        if found == 2:
            return
    raise AssertionError(f"{fault.__name__} went unseen")


@pytest.mark.parametrize(
    "change",
    [
        {"scores": None}, {"scores": torch.zeros(2, 3, dtype=torch.float64)}, {"k": -1},
        {"k": 2049}, {"k": "2"}, {"lengths": torch.tensor([1.0, 2.0])},
        {"lengths": torch.tensor([1])}, {"lengths": torch.tensor([1, 4])},
        {"scores": torch.zeros(2, 3).to_sparse()}, {"scores": [[1.0]]},
    ],
)  # fmt: skip
def test_what_must_be_refused_is_not_accepted(change: dict[str, Any]) -> None:
    arguments = {"scores": torch.zeros(2, 3), "k": 2, "lengths": None} | change
    call = Call(OPS["block_topk"], "public", arguments)
    assert outcome(call, False, careless)[0] == "accepted"


@pytest.mark.parametrize("way", ["raw", "public"])
@pytest.mark.parametrize(
    "change",
    [
        {"periods": []}, {"periods": [86400]}, {"periods": [86400, 0, 7]}, {"periods": [86400, -1]},
        {"periods": [86400, 2**31]}, {"periods": [86400, 2.0]}, {"periods": [86400, None]},
        {"periods": "3"}, {"units": []}, {"units": [60.0]}, {"units": [60.0, 0.0]},
        {"units": [np.nan, 60.0]}, {"units": [60.0, None]}, {"units": [60.0, "1"]}, {"units": "3"},
        {"w1": torch.ones(8, 4)}, {"b2": torch.zeros(1)},
    ],
)  # fmt: skip
def test_wrong_clocks_are_not_accepted(way: str, change: dict[str, Any]) -> None:
    arguments = OPS["esu_attention"].raw()["two clocks"] | change
    call = Call(OPS["esu_attention"], way, arguments)
    assert outcome(call, False, careless)[0] == "accepted"
    assert outcome(call, False)[0] == "refused"


@pytest.mark.parametrize(
    ("way", "error", "status"),
    [
        ("public", ValueError("block_topk: k must be from 0 to 2048, got -1"), "refused"),
        ("public", TypeError("block_topk() got an unexpected keyword argument 'k'"), "refused"),
        ("public", RuntimeError("block_topk: k must be from 0 to 2048, got -1"), "unnamed"),
        ("public", ValueError("topk: k must be from 0 to 2048, got -1"), "unnamed"),
        ("public", ValueError("block_topk: that does not work"), "unnamed"),
        ("raw", RuntimeError("longclock::block_topk() expected a value of type int"), "refused"),
        ("raw", RuntimeError("Not yet supported ScalarType 46"), "unnamed"),
        ("raw", AssertionError("block_topk: k"), "unnamed"),
    ],
)
def test_errors_name_op_and_argument(way: str, error: Exception, status: str) -> None:
    def refuse(call: Call) -> Any:
        raise error

    arguments = {"scores": torch.zeros(2, 3), "k": -1, "lengths": None}
    call = Call(OPS["block_topk"], way, arguments)
    assert outcome(call, False, refuse)[0] == status


def ends_badly(call: Call) -> Any:
    """The first call aborts its process, the second never returns."""
    if call.arguments["period"] == make(1, 0, False, "circular_delta").arguments["period"]:
        os.abort()
    time.sleep(1000)


def test_a_crash_and_a_hang_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    given = argparse.Namespace(
        calls=2, seconds=None, seed=1, start=0, op="circular_delta", device="cpu", show=5
    )
    counted = pool.run(given, ends_badly, hang=2.0)
    assert counted.by_op == {"circular_delta": {"crashed": 1, "hung": 1}}
    assert counted.faults() == 2
    assert "--seed 1 --only 0 --op circular_delta" in capsys.readouterr().out
    assert "| circular_delta | 2 | 0 | 0 | 0 | 0 | 0 | 0 | 1 | 1 |" in counted.table()
