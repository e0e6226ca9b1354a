# SPDX-License-Identifier: Apache-2.0
"""Arguments on several devices: each is compared with the call's, and refused by its name."""

from __future__ import annotations

import re
from typing import Any

import emulator
import pytest
import torch
from cuda_calls import CALLS
from ops import OPS, raw_calls, run_raw
from raw_error import RAW_ERROR
from tolerance import assert_bitwise
from torch import Tensor
from torch.utils._pytree import tree_map_only

RAW = raw_calls()
NAMES = {"mlp w1": "w1", "mlp b1": "b1", "mlp w2": "w2", "mlp b2": "b2"}


IN_LISTS = {"features": "keys", "feature_ids": "ids"}


def tensors_of(given: dict[str, Any]) -> dict[str, list[str]]:
    """Arguments that hold tensors, and what errors call these: a list's first is the second of its tables."""
    found = {}
    for name, value in given.items():
        if isinstance(value, Tensor):
            found[name] = [name]
        elif name in IN_LISTS and value:
            of = "z" if name == "features" and "z" in given else IN_LISTS[name]
            found[name] = [f"{of}[{i}]" for i in range(1, len(value) + 1)]
    return found


def moved(given: dict[str, Any], device: str) -> dict[str, Any]:
    return tree_map_only(Tensor, lambda x: x.to(device), given)


@pytest.mark.parametrize("call", RAW)
def test_the_device_of_every_tensor_is_compared(
    emulator_only: None, device: str, call: str
) -> None:
    op, given = RAW[call]
    emulator.take_checked()
    run_raw(op, given)
    (checked,) = (each for each in emulator.take_checked() if each[0] == OPS[op].called)
    called = {each for names in tensors_of(given).values() for each in names}
    assert called <= {NAMES.get(name, name) for name in checked[1:]}


@pytest.mark.parametrize("call", RAW)
def test_one_argument_on_the_cpu(emulated: bool, device: str, call: str) -> None:
    if emulated:
        pytest.skip("all tensors of the emulator are on the CPU")
    op, given = RAW[call]
    names = tensors_of(given)
    for name, called in names.items() if len(names) > 1 else ():
        mixed = moved(given, device) | {name: given[name]}
        with pytest.raises(RAW_ERROR, match=rf"{re.escape(called[0])} must be on the device"):
            run_raw(op, mixed)


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


@pytest.mark.parametrize("call", RAW)
def test_one_argument_on_another_gpu(second: str, call: str) -> None:
    op, given = RAW[call]
    names = tensors_of(given)
    for name in names if len(names) > 1 else []:
        mixed = moved(given, "cuda:0") | moved({name: given[name]}, second)
        with pytest.raises(RAW_ERROR, match=r"must be on the device of .* got cuda:[01]"):
            run_raw(op, mixed)
