# SPDX-License-Identifier: Apache-2.0
"""The modules' parameters: their shapes and dtypes, and what shards and loads them."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from test_long_term_interest_clock import build, make_batch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import longclock as lc

BACKENDS = ["compiled", "reference"]


def test_no_parameter_is_without_dimensions() -> None:
    for name, parameter in build("cpu").named_parameters():
        assert parameter.dim() > 0, name


@pytest.mark.parametrize("backend", BACKENDS)
def test_states_of_either_shape_load(backend: Any) -> None:
    saved = lc.TimeSimilarity()
    torch.nn.init.constant_(saved.b2, 7.0)
    for shape in ((), (1,)):
        state = {name: weight.clone() for name, weight in saved.state_dict().items()}
        state["b2"] = state["b2"].view(shape)
        for assign in (False, True):
            module = lc.TimeSimilarity(backend=backend)
            module.load_state_dict(state, assign=assign)
            assert module.b2.shape == (1,)
            assert module.b2.item() == 7.0
        assert state["b2"].shape == shape
        whole = lc.LongTermInterestClock(4, 3, backend=backend)
        whole.load_state_dict(
            whole.state_dict() | {f"time.{name}": weight for name, weight in state.items()}
        )
        assert whole.time.b2.item() == 7.0


def test_fsdp_shards_it(device: str, tmp_path: Path) -> None:
    batch, module = make_batch(device), build(device)
    expected = batch.run(module)
    expected.sum().backward()
    grads = {name: weight.grad for name, weight in module.named_parameters()}
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=f"file://{tmp_path}/store", rank=0, world_size=1,
    )  # fmt: skip
    try:
        sharded = copy.deepcopy(module)
        fully_shard(sharded, mesh=init_device_mesh(device, (1,)))
        sharded.zero_grad()
        v = batch.run(sharded)
        torch.testing.assert_close(v, expected)
        v.sum().backward()
        for name, weight in sharded.named_parameters():
            assert weight.grad is not None, name
            torch.testing.assert_close(weight.grad.to_local(), grads[name])  # type: ignore[attr-defined]
    finally:
        torch.distributed.destroy_process_group()


def test_the_reference_computes_in_float64(device: str) -> None:
    batch = make_batch(device)
    module = build(device, backend="reference")
    expected = batch.run(module)
    batch.candidate, batch.behaviours = batch.candidate.double(), batch.behaviours.double()
    v = batch.run(module.double())
    assert v.dtype == torch.float64
    torch.testing.assert_close(v.float(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["dense", "candidates"])
def test_no_width_in_the_reference(layout: str) -> None:
    """D = 0 and no scale: the time term alone."""
    s = lc.TimeSimilarity()
    key_time, now = torch.randint(0, 10**6, (2, 5)), torch.randint(0, 10**6, (2,))
    query = torch.randn(2, 0) if layout == "dense" else torch.randn(2, 3, 0)
    scores = lc.reference.gsu_score(query, torch.randn(2, 5, 0), key_time, now, s)
    expected = s(lc.circular_delta(key_time, now[:, None]))
    torch.testing.assert_close(
        scores, expected if layout == "dense" else expected[:, None].expand(2, 3, 5)
    )


def test_devices_that_do_not_meet() -> None:
    """PyTorch's own product of a tensor on meta and weights on the CPU is memory that nobody wrote."""
    batch, module = make_batch("cpu"), build("cpu")
    with pytest.raises(
        ValueError, match="candidate must be on the device of the weights, cpu, got"
    ):
        module(batch.candidate.to("meta"), *batch.arguments()[1:])
    with pytest.raises(ValueError, match="candidate must be on the device of the weights, meta, g"):
        batch.run(module.to("meta"))


def test_float64_behaviours_are_named() -> None:
    batch = make_batch("cpu")
    batch.behaviours = batch.behaviours.double()
    with pytest.raises(
        ValueError,
        match=r"^LongTermInterestClock: history.rows must be .* got float64; backend='reference' takes float64$",
    ):
        batch.run(build("cpu"))


def test_keys_are_behaviours_unless_they_were_given() -> None:
    batch = make_batch("cpu")
    rows = batch.behaviours
    batch.behaviours = rows.nan_to_num().long()
    with pytest.raises(
        ValueError, match=r"LongTermInterestClock: history.rows must be .* got int64"
    ):
        batch.run(build("cpu"))
    batch.behaviours = rows
    with pytest.raises(ValueError, match=r"LongTermInterestClock: keys must be .* got int64"):
        batch.run(build("cpu", scoring="precomputed"), keys=torch.zeros(4, 50, 32).long())


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_exclude_future_is_a_bool(value: object) -> None:
    with pytest.raises(ValueError, match="LongTermInterestClock: exclude_future must be a bool"):
        lc.LongTermInterestClock(4, 3, exclude_future=value)  # type: ignore[arg-type]


def test_time_similarity_names_itself() -> None:
    delta = torch.zeros(3, dtype=torch.int64)
    for module, argument, message in (
        (lc.TimeSimilarity(), delta.float(), "delta must be int32 or int64, got float32"),
        (lc.TimeSimilarity(), None, "delta must be a tensor, got NoneType"),
        (lc.TimeSimilarity().double(), delta, "the weights must be .* got float64"),
    ):
        with pytest.raises(ValueError, match=f"^TimeSimilarity: {message}"):
            module(argument)
