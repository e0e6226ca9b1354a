# SPDX-License-Identifier: Apache-2.0
"""Registration, modules as mlp, and the errors of gsu_score."""

from __future__ import annotations

import pytest
import torch
from cases import make_case
from raw_error import RAW_ERROR

import longclock as lc

OP = torch.ops.longclock.gsu_score


def test_meta() -> None:
    case = make_case("candidates").to("meta")
    assert case.run(lc.gsu_score).shape == (4, 3, 64)
    case = make_case("windows").to("meta")
    assert case.run(lc.gsu_score, 17).shape == (17,)


def test_only_what_is_asked_for_gets_a_gradient(device: str) -> None:
    case = make_case("dense").to(device)
    case.query.requires_grad_()
    case.score(lc.gsu_score).masked_fill(torch.tensor(False, device=device), 0).backward(
        torch.ones(4, 64, device=device)
    )
    assert case.query.grad is not None
    assert case.keys.grad is None
    case.query.requires_grad_(False)
    assert not case.score(lc.gsu_score).requires_grad


def test_a_module_is_an_mlp(device: str) -> None:
    time = lc.TimeSimilarity(8, unit=60.0).to(device)
    case = make_case("dense").to(device)
    weights = tuple(weight.detach() for weight in time.mlp())
    case.mlp = weights
    by_tuple = case.score(lc.gsu_score, unit=60.0)
    case.mlp = time  # type: ignore[assignment]
    assert torch.equal(case_scores(case), by_tuple)
    with pytest.raises(ValueError, match="unit must equal the unit of the TimeSimilarity module"):
        lc.gsu_score(case.query, case.keys, case.key_time, case.query_time, time, unit=3600)


def case_scores(case) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return lc.gsu_score(
        case.query, case.keys, case.key_time, case.query_time, case.mlp, **case.layout
    )


def test_double_backward_explains_itself(device: str) -> None:
    case = make_case("dense", counts=(5, 5)).to(device).trained()
    (first,) = torch.autograd.grad(
        case.score(lc.gsu_score).square().sum(), case.query, create_graph=True
    )
    with pytest.raises(RuntimeError, match=r"gsu_score_backward: a double backward.*reference.gsu"):
        first.sum().backward()


def test_errors_of_shapes(device: str) -> None:
    case = make_case("dense", counts=(32, 32)).to(device)
    late = case.key_time[:, :31]
    message = (
        r"gsu_score: key_time must have shape \[S, M\] = \[2, 32\] to match keys, got \[2, 31\]"
    )
    with pytest.raises(ValueError, match="^" + message):
        lc.gsu_score(case.query, case.keys, late, case.query_time, case.mlp)
    with pytest.raises(RAW_ERROR, match=message):
        OP(case.query, case.keys, late, *case.raw(None)[3:])
    wrong = {
        "query": {"query": case.query[:, :3]},
        "query_time": {"query_time": case.query_time[:1]},
        "keys": {"keys": case.keys[0, 0]},
    }
    for name, change in wrong.items():
        args = {"query": case.query, "keys": case.keys, "query_time": case.query_time} | change
        with pytest.raises(ValueError, match=f"^gsu_score: {name} must "):
            lc.gsu_score(key_time=case.key_time, mlp=case.mlp, **args)
    for name, value in (("lengths", torch.zeros(3, dtype=torch.int64, device=device)),
                        ("mask", torch.ones(2, 31, dtype=torch.bool, device=device)),
                        ("mask", torch.ones(2, 32, device=device)),
                        ("ids", torch.zeros(2, 31, dtype=torch.int64, device=device))):  # fmt: skip
        with pytest.raises(ValueError, match=f"^gsu_score: {name} must |^gsu_score: keys must "):
            case.score(lc.gsu_score, **{name: value})


def test_errors_of_combinations(device: str) -> None:
    case = make_case("windows").to(device)
    starts, ends = case.layout["starts"], case.layout["ends"]
    for options, message in (
        ({"starts": None}, r"ends must come with starts \(windows\), got starts=None"),
        ({"offsets": starts}, "starts must not be given with offsets"),
        ({"lengths": starts}, "lengths must be None for ragged and windows"),
        ({"starts": None, "ends": None}, r"key_time must have shape \[S, M\], got \[106\]"),
        (
            {"starts": None, "ends": None, "query_offsets": ends},
            r"query_offsets must come with offsets \(ragged\), or starts and ends \(windows\), got neither$",
        ),
        ({"clocks": 0}, "clocks must be from 1 to 2147483647 seconds, got 0; a day is 86400"),
        (
            {"clocks": 1.5},
            "clocks must be a period in seconds, lc.ELAPSED, or a tuple of them, got 1.5",
        ),
        (
            {"clocks": "day"},
            "clocks must be a period in seconds, lc.ELAPSED, or a tuple of them, got 'day'",
        ),
        ({"clocks": ()}, "clocks must be 1 to 4, got 0"),
        (
            {"unit": (1.0, 2.0)},
            "unit must be a number, or one for each of the clocks, which are 1, got 2",
        ),
    ):
        with pytest.raises(ValueError, match="^gsu_score: " + message):
            case.score(lc.gsu_score, **options)
    with pytest.raises(ValueError, match=r"mlp must be \(w1, b1, w2, b2\) or a TimeSimilarity"):
        lc.gsu_score(case.query, case.keys, case.key_time, case.query_time, case.mlp[:3])


def test_errors_of_dtypes(device: str) -> None:
    case = make_case("dense").to(device)
    with pytest.raises(
        ValueError, match=r"mlp w1 must be float32, got float64; longclock.reference.gsu_sc"
    ):
        case.double().score(lc.gsu_score)
    with pytest.raises(RAW_ERROR, match="gsu_score: "):
        OP(*case.double().raw(None))
    case.key_time = case.key_time.float()  # a floating timestamp loses seconds
    with pytest.raises(ValueError, match="key_time must be int32 or int64, got float32; convert"):
        case.score(lc.gsu_score)
    case = make_case("dense").to(device)
    case.query = case.query.half()
    with pytest.raises(ValueError, match="gsu_score: query must"):
        case.score(lc.gsu_score)


def test_errors_of_data(device: str, checks_data: bool) -> None:
    if not checks_data:
        pytest.skip("what depends on the data is checked on the CPU alone")
    dense, ragged, windows = (make_case(layout) for layout in ("dense", "ragged", "windows"))
    lengths, offsets = dense.layout["lengths"], ragged.layout["offsets"]
    starts, ends = windows.layout["starts"], windows.layout["ends"]
    for case, name, value in (
        (dense, "lengths", lengths + 1), (dense, "lengths", lengths - 1),
        (ragged, "offsets", offsets.flip(0)), (ragged, "offsets", offsets + 1),
        (windows, "ends", ends + 1), (windows, "starts", starts - 1),
    ):  # fmt: skip
        where = "starts and ends" if case is windows else name
        with pytest.raises(ValueError, match=f"^gsu_score: {where} must "):
            case.score(lc.gsu_score, **{name: value})
    with pytest.raises(ValueError, match=r"^gsu_score: starts and ends must "):
        windows.score(lc.gsu_score, starts=ends, ends=starts)
    with pytest.raises(ValueError, match=r"^gsu_score: total must "):
        ragged.run(lc.gsu_score, 3)
    table = make_case("dense", table=True)
    for bad in (-1, 10**9):
        ids = table.layout["ids"].clone()
        ids[0, 0] = bad
        with pytest.raises(ValueError, match=r"^gsu_score: ids must "):
            table.score(lc.gsu_score, ids=ids)


def test_a_total_that_is_too_small_reads_no_gradient_past_its_end(
    device: str, emulated: bool
) -> None:
    """The host does not read the offsets of a GPU: what does not fit the scores has no gradient."""
    if device == "cpu" and not emulated:
        pytest.skip("on the CPU a wrong total is refused")
    mlp = lc.TimeSimilarity().to(device)
    layout = {"offsets": torch.tensor([0, 10, 20]), "query_offsets": torch.tensor([0, 5, 10])}
    layout = {name: value.to(device) for name, value in layout.items()}
    time, now = torch.zeros(20, dtype=torch.int64, device=device), torch.zeros(2, dtype=torch.int64, device=device)  # fmt: skip
    query, keys = torch.randn(10, 8, device=device), torch.randn(20, 8, device=device)
    lc.gsu_score(query, keys, time, now, mlp, total=40, **layout).nan_to_num().sum().backward()
    assert mlp.w1.grad is not None
    assert mlp.w1.grad.isfinite().all()
