# SPDX-License-Identifier: Apache-2.0
"""Modules after they were used: copied, pickled, in another dtype, saved and loaded."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from rival_calls import BUILD, COMPILED, LAYOUTS
from rivals import H, L

from longclock import History
from longclock.baselines import PeriodGraph
from longclock.data import HourlyInterests


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model)),
          "torch.save": saved}  # fmt: skip


def used(name, layout="dense"):
    model = BUILD[name]()
    call = LAYOUTS[layout](model)
    model(**call).sum().backward()
    return model, call


def floats(call, dtype):
    def change(value):
        if isinstance(value, History):
            return value.to(dtype=dtype)
        if isinstance(value, list):
            return [change(one) for one in value]
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(dtype) if floating else value

    return {name: change(value) for name, value in call.items()}


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_of_used_modules_are_alike_and_apart(name, copied):
    model, call = used(name)
    twin, expected = copied(model), model(**call)
    assert torch.equal(twin(**call), expected)
    assert all(a is not b for a, b in zip(twin.parameters(), model.parameters(), strict=True))
    if "user" in model.reads:  # others have nothing to observe
        one = torch.tensor([1])
        for part in range(4):
            twin.observe(one, one, one * 21600 * part)
        assert not torch.equal(twin(**call), expected)
    assert torch.equal(model(**call), expected)


@pytest.mark.parametrize("name", BUILD)
def test_state_of_a_used_module_is_that_of_any(name):
    model, call = used(name)
    other = BUILD[name]()
    assert other.state_dict().keys() == model.state_dict().keys()
    other(**call)  # used as well: what it keeps is made of other weights
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(**call), model(**call))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", BUILD)
def test_used_modules_in_another_dtype_are_near_or_refuse_by_name(name, dtype, layout):
    model, call = used(name, layout)
    expected = model(**call)
    model, call = model.to(dtype), floats(call, dtype)
    if dtype == torch.float64 and name in COMPILED:
        with pytest.raises(ValueError, match="float64"):
            model(**call)
        return
    v = model(**call)
    assert v.dtype == dtype
    assert v.isfinite().all()
    if not name.startswith(("SDIM", "ETA")):  # hashes of rounded numbers are others
        torch.testing.assert_close(
            v.float(), expected, rtol=0.1, atol=0.1 if dtype.itemsize == 2 else 1e-5
        )
    v.float().sum().backward()


@pytest.mark.parametrize("name", BUILD)
def test_behaviours_in_16_bits_beside_weights_in_32(name):
    model, call = used(name)
    expected = model(**call)
    call["history"] = call["history"].to(dtype=torch.bfloat16)
    v = model(**call)
    assert v.dtype == torch.float32
    if not name.startswith(("SDIM", "ETA")):
        torch.testing.assert_close(v, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", BUILD)
def test_autocast_is_near(name):
    model, call = used(name)
    with torch.autocast("cpu", torch.bfloat16):
        v = model(**call)
    v.float().sum().backward()
    if not name.startswith(("SDIM", "ETA")):
        torch.testing.assert_close(v.float(), model(**call), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", BUILD)
def test_used_modules_go_back_and_forth(name):
    model, call = used(name)
    expected = model(**call)
    assert torch.equal(model.double().float()(**call), expected)
    assert all(weight.is_meta for weight in model.to("meta").parameters())


def test_sim_hard_saves_no_categories():
    model, _ = used("SIMHard")
    assert model._sorted is not None
    assert copy.deepcopy(model)._sorted is None
    assert saved(model)._sorted is None


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_hourly_interests_are_copied_with_what_they_keep(copied):
    kept = HourlyInterests(fields=1)
    for time in (100, 4000, 4000):
        kept.add(3, time, time, [time % 7 + 1])
    kept.clock(3, 200)
    twin = copied(kept)
    twin.add(3, 5000, 5000, [6])
    expected = kept.clock(3, 6000)
    assert expected[1, 0].tolist() == [4, 0, 0]
    assert twin.clock(3, 6000)[1, 0].tolist() == [4, 6, 0]


def test_period_graph_follows_its_dtype_after_use():
    one = torch.zeros(1, dtype=torch.int64)
    model = PeriodGraph(L, H, users=2)
    model.observe(one, one, one)
    history = History.dense(torch.zeros(1, 1, L), one[None])
    call = {"candidate": torch.zeros(1, H), "history": history, "query_time": one,
            "user": one, "item": one, "item_vectors": torch.randn(3, H)}  # fmt: skip
    expected = model(**call, return_context=True)[1]
    double = model.double()(**floats(call, torch.float64), return_context=True)[1]
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), expected)
