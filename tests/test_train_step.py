# SPDX-License-Identifier: Apache-2.0
"""What makes a step of the trainer short changes nothing of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bench import training_step
from streams import stream
from tolerance import assert_bitwise

import longclock as lc
from longclock import _torch_state
from longclock.data import Histories
from longclock.nn.pooling import last_of
from longclock.train import adam
from longclock.train.touched import MOST_PLACES, Places, touched

ROOT = Path(__file__).resolve().parent.parent


def stepped(optimizer_class, steps: int, resumed: bool = False) -> tuple[list, dict]:
    """Weights and state of an optimizer after some steps, of which some leave a weight without a gradient."""
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(size)) for size in ((7, 3), (130,), ())]
    groups = [{"params": weights[:1], "lr": 0.02}, {"params": weights[1:], "lr": 0.002}]
    options = {} if optimizer_class is adam.Adam else {"fused": True}
    optimizer = optimizer_class(groups, **options)
    for step in range(steps):
        for number, weight in enumerate(weights):
            gone = number == 1 and step in (0, 3)
            weight.grad = None if gone else torch.randn(weight.shape) * 10.0 ** (step - 3)
        optimizer.step()
        if resumed and step == 2:
            again = optimizer_class(groups, **options)
            again.load_state_dict(optimizer.state_dict())
            optimizer = again
    return [weight.detach() for weight in weights], optimizer.state_dict()


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("kernel", ["PyTorch's", "gone"])
def test_adam_is_that_of_torch(monkeypatch, kernel, resumed):
    assert _torch_state.fused_adam is not None
    if kernel == "gone":
        monkeypatch.setattr(adam, "fused_adam", None)
    found, state = stepped(adam.Adam, 6, resumed)
    wanted, torch_state = stepped(torch.optim.Adam, 6)
    for own, theirs in zip(found, wanted, strict=True):
        assert_bitwise(own, theirs)
    assert state["state"].keys() == torch_state["state"].keys()
    for number, of_weight in torch_state["state"].items():
        for name, value in of_weight.items():
            assert_bitwise(state["state"][number][name], value)


def test_adam_calls_the_kernel_at_once(monkeypatch):
    calls = []
    kernel = _torch_state.fused_adam
    monkeypatch.setattr(adam, "fused_adam", lambda *a, **k: (calls.append(len(a[0])), kernel(*a, **k)))  # fmt: skip
    stepped(adam.Adam, 6)
    # Steps 0 and 1 make the state of a weight, step 3 leaves one out.
    assert calls == [1, 2] * 3


@pytest.mark.parametrize("change", ["exp_avg", "exp_avg_sq", "step", "group"])
def test_adam_takes_what_the_state_holds_by_now(change):
    """As where tables grow: tensors of the state are others, or there are more weights."""
    found = []
    for kind in (adam.Adam, torch.optim.Adam):
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(5)) for _ in range(3)]
        optimizer = kind(weights[:2], lr=0.1) if kind is adam.Adam else kind(weights[:2], lr=0.1, fused=True)  # fmt: skip
        for step in range(8):
            if step == 4 and change == "group":
                optimizer.add_param_group({"params": weights[2:], "lr": 0.3})
            elif step == 4:
                for state in optimizer.state.values():
                    state[change] = state[change] * 2
            for weight in weights:
                weight.grad = torch.randn(5)
            optimizer.step()
        found.append([*weights, *(x for state in optimizer.state.values() for x in state.values())])
    for own, theirs in zip(*found, strict=True):
        assert_bitwise(own.detach(), theirs.detach())


def test_a_step_of_adam_is_hooked_once():
    """Also where PyTorch takes it, whose own step is hooked too once somebody has made an optimizer of it."""
    weight = torch.nn.Parameter(torch.ones(3))
    torch.optim.Adam([weight])
    optimizer = adam.Adam([weight])
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    for _ in range(3):  # the first makes the state
        weight.grad = torch.ones(3)
        optimizer.step()
    assert seen == ["before", "after"] * 3


@pytest.mark.parametrize("items", [300, MOST_PLACES, MOST_PLACES + 1])
@pytest.mark.parametrize("count", [0, 1, 50, 4000])
def test_different_items_are_found_as_by_sorting(count, items):
    rng, places = np.random.default_rng(count), Places(items)
    for _ in range(3):  # what an earlier call left behind does not matter
        ids = rng.integers(items - 300, items, count)
        different, place = places.distinct(ids)
        wanted, inverse = np.unique(ids, return_inverse=True)
        np.testing.assert_array_equal(different, wanted)
        np.testing.assert_array_equal(place, inverse)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("longest", [None, 4, 0])
def test_windows_are_each_behaviour_once(labels, longest):
    events = stream(labels=labels)
    past = Histories.of(events, longest)
    rng = np.random.default_rng(1)
    for size in (0, 1, 30):
        chosen = rng.permutation(len(events))[:size]
        starts, ends = past.starts[chosen], past.ends[chosen]
        kinds = Places(2 * events.items) if labels else None
        found = touched(past, Places(events.items), kinds, starts, ends, events.item[chosen], always=True)  # fmt: skip
        assert found is not None
        seen = sorted({row for s, e in zip(starts, ends, strict=True) for row in range(s, e)})
        assert found.position.tolist() == seen
        assert_bitwise(found.items[found.candidate], torch.from_numpy(events.item[chosen]))
        place = found.behaviour if found.kind_item is None else found.kind_item[found.behaviour]
        assert_bitwise(found.items[place], torch.from_numpy(past.item[seen]))
        if labels:
            label = torch.from_numpy(past.label[seen])
            assert_bitwise(found.kind_label[found.behaviour], label)
        for s, e, own_s, own_e in zip(starts, ends, found.starts, found.ends, strict=True):
            assert found.position[own_s:own_e].tolist() == list(range(s, e))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("k", [None, 0, 1, 3, 99])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_the_last_of_windows(k, masked, dtype):
    starts, ends = torch.tensor([[0, 2, 2, 5, 0], [4, 2, 9, 6, 10]], dtype=dtype)
    mask = torch.arange(10) % 3 != 1 if masked else None
    windows = lc.History.windows(torch.zeros(10, 2), torch.arange(10), starts, ends, mask=mask)
    index, counts = last_of(k, windows)
    rows = [[r for r in range(s, e) if mask is None or mask[r]][::-1][:k] for s, e in zip(starts, ends, strict=True)]  # fmt: skip
    assert counts.tolist() == [len(each) for each in rows]
    assert index.tolist() == [row for each in rows for row in each]
    none = lc.History.windows(torch.zeros(10, 2), torch.arange(10), starts[:0], ends[:0])
    assert [len(each) for each in last_of(k, none)] == [0, 0]


def test_the_bench_runs(tmp_path, capsys):
    path = tmp_path / "steps.json"
    words = ["--against", str(ROOT), "--quick", "--data", "nyc", "--json", str(path)]
    assert training_step.main(words) == 0
    found = json.loads(path.read_text(encoding="utf-8"))["results"]["nyc"]
    assert found["same_bits"] is True
    assert found["ratio"] > 0
    assert "nyc, other:" in capsys.readouterr().out
