# SPDX-License-Identifier: Apache-2.0
"""Arguments on several devices: each is compared with the call's, and refused by its name."""

from __future__ import annotations

from typing import Any

import emulator
import pytest
import torch
from cases import make_case
from cuda_calls import CALLS, ops
from esu_cases import make_esu
from raw_error import RAW_ERROR
from test_hamming_gsu import hashed
from tolerance import assert_bitwise
from torch import Tensor


def raw_searches(layout: str) -> dict[str, tuple[Any, ...]]:
    case = make_case(layout, table=True, mask=True, exclude_future=True, poison=False)
    hashes, total = hashed(case, words=1), case.total()
    grad = torch.randn(case.key_time.numel() if total is None else total)
    forward = case.raw(None)[:-1]
    return {
        f"clock_gsu {layout}": case.raw(3),
        f"gsu_score {layout}": case.raw(total),
        f"gsu_score_backward {layout}": (grad, *forward, True, True, True),
        f"hamming_gsu {layout}": (*hashes.raw(None)[:4], *hashes.raw(None)[8:16], 3),
        f"esu_attention_positions {layout}": (
            case.key_time, case.query_time, *case.raw(None)[9:16], torch.full((*case.query.shape[:-1], 2), -1),
        ),
    }  # fmt: skip


def raw_calls() -> dict[str, tuple[Any, ...]]:
    """Arguments of every raw op, with all that are optional and go together."""
    esu = make_esu(table=True, poison=False)
    context, softmax = torch.randn(5, 4, 11), torch.randn(5, 4, 2)
    assert esu.ids is not None
    assert esu.valid is not None
    found = list(esu.raw())  # the same rows, by where in a history they lie
    at = torch.where(esu.valid, torch.arange(185).view(5, 37), -1)
    found[2], found[3], found[5], found[10] = esu.ids.flatten(), esu.z_time.flatten(), at, None
    x, delta = torch.randn(6, 64), torch.randint(0, 43_200, (9,))
    calls: dict[str, tuple[Any, ...]] = {
        "block_topk": (x, 3, torch.randint(0, 64, (6,))),
        "block_topk_backward": (torch.randn(6, 3), torch.rand(6, 64).topk(3).indices, 64),
        "circular_delta": (delta, delta + 1, 86400),
        "time_features": (delta, 3600.0),
        "time_similarity": (delta, *esu.mlp, 3600.0),
        "time_similarity_backward": (torch.randn(9), delta, *esu.mlp, 3600.0),
        "pack_signs": (x,),
        "esu_attention": esu.raw(),
        "esu_attention_backward": (
            torch.randn(5, 4, 11), *esu.raw()[:-1], context, softmax, True, True, True,
        ),
        "esu_attention_table_grad": (torch.randn(5, 37, 7), esu.ids, None, esu.valid, len(esu.z)),
    }  # fmt: skip
    calls |= {
        "esu_attention found": tuple(found),
        "esu_attention_backward found": (
            torch.randn(5, 4, 11), *found[:-1], context, softmax, True, True, True,
        ),
        "esu_attention_table_grad found": (torch.randn(5, 37, 7), found[2], found[5], esu.valid, len(esu.z)),
    }  # fmt: skip
    for layout in ("dense", "ragged_many", "windows", "windows_many"):
        calls |= raw_searches(layout)
    return calls


CALLS_OF = raw_calls()
NAMES = {"mlp w1": "w1", "mlp b1": "b1", "mlp w2": "w2", "mlp b2": "b2"}


def given_tensors(call: str) -> dict[str, int]:
    """The names of the tensors of a call, and where they are."""
    schema = ops()[call.split()[0]]
    return {
        argument.name: at
        for at, (argument, value) in enumerate(zip(schema.arguments, CALLS_OF[call], strict=True))
        if isinstance(value, Tensor)
    }


def invoke(call: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(torch.ops.longclock, call.split()[0])(*arguments)


def test_every_op_is_here() -> None:
    assert {call.split()[0] for call in CALLS_OF} == set(ops())
    optional = {
        argument.name
        for schema in ops().values()
        for argument in schema.arguments
        if "Optional[Tensor]" in str(argument.type)
    }
    assert optional <= {name for call in CALLS_OF for name in given_tensors(call)}


@pytest.mark.parametrize("call", list(CALLS_OF))
def test_the_device_of_every_tensor_is_compared(
    emulator_only: None, device: str, call: str
) -> None:
    emulator.take_checked()
    invoke(call, CALLS_OF[call])
    op = call.split()[0].removesuffix("_positions")  # a part of esu_attention
    (checked,) = (each for each in emulator.take_checked() if each[0] == op)
    compared = {NAMES.get(name, name) for name in checked[1:]}
    assert set(given_tensors(call)) <= compared


@pytest.mark.parametrize("call", list(CALLS_OF))
def test_one_argument_on_the_cpu(emulated: bool, device: str, call: str) -> None:
    if emulated:
        pytest.skip("all tensors of the emulator are on the CPU")
    there = [each.to(device) if isinstance(each, Tensor) else each for each in CALLS_OF[call]]
    for name, at in given_tensors(call).items():
        if sum(isinstance(each, Tensor) for each in there) == 1:
            continue
        mixed = list(there)
        mixed[at] = CALLS_OF[call][at]
        with pytest.raises(RAW_ERROR, match=rf"{name} must be on the device"):
            invoke(call, tuple(mixed))


@pytest.fixture
def second(emulated: bool) -> str:
    if emulated:
        pytest.skip("the emulator has one device")
    if torch.cuda.device_count() < 2:
        pytest.skip("this machine has one GPU: a second one cannot be tried")
    return "cuda:1"


@pytest.mark.parametrize("name", list(CALLS))
def test_a_device_that_is_not_the_current_one(second: str, name: str) -> None:
    torch.manual_seed(1)
    first = CALLS[name]("cuda:0")
    other = CALLS[name](second)
    other.overwrite(first)
    found = other.run()
    assert {each.device for each in found} == {torch.device(second)}
    assert torch.cuda.current_device() == 0
    if torch.cuda.get_device_name(0) == torch.cuda.get_device_name(1):
        assert_bitwise([each.to("cuda:0") for each in found], first.run())


@pytest.mark.parametrize("call", list(CALLS_OF))
def test_one_argument_on_another_gpu(second: str, call: str) -> None:
    there = [each.to("cuda:0") if isinstance(each, Tensor) else each for each in CALLS_OF[call]]
    if len(given_tensors(call)) == 1:
        return
    for at in given_tensors(call).values():
        mixed = list(there)
        mixed[at] = CALLS_OF[call][at].to(second)
        with pytest.raises(RAW_ERROR, match=r"must be on the device of .* got cuda:[01]"):
            invoke(call, tuple(mixed))
