# SPDX-License-Identifier: Apache-2.0
"""Ops in CUDA graphs and on streams: nothing waits, allocates by itself or leaves its stream."""

from __future__ import annotations

from collections.abc import Iterator

import emulator
import pytest
import torch
from cases import make_case
from cuda_calls import CALLS, Call
from tolerance import assert_bitwise
from torch.utils._python_dispatch import TorchDispatchMode

import longclock as lc

# Operations of PyTorch that wait for the device: their result, or its size, is data on it.
WAITS = (
    "_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "masked_select", "unique",
    "_unique2", "unique_consecutive", "unique_dim", "bincount", "histc", "allclose",
)  # fmt: skip


class NothingWaits(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        sized_by_data = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        assert name not in WAITS, f"{func} waits for the device"
        assert not sized_by_data, f"{func} without output_size waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def gpu_only(emulated: bool) -> None:
    if emulated:
        pytest.skip("the emulator has neither graphs to replay nor streams that run side by side")


@pytest.mark.parametrize("name", list(CALLS))
def test_nothing_happens_that_a_capture_refuses(
    emulator_only: None, device: str, name: str
) -> None:
    """Nor in the first call: a report of the emulator fails this test by the name of the call."""
    call = CALLS[name](device)
    expected = call.run()
    with emulator.options(capturing=1), NothingWaits():
        found = call.run()
    assert_bitwise(found, expected)


def test_a_wait_in_python_is_seen() -> None:
    x = torch.tensor([1, 2])
    with NothingWaits(), pytest.raises(AssertionError, match="waits for the device"):
        int(x.max())
    with NothingWaits(), pytest.raises(AssertionError, match="output_size"):
        torch.arange(2).repeat_interleave(x)


@pytest.fixture
def stream(gpu_only: None) -> Iterator[torch.cuda.Stream]:
    stream = torch.cuda.Stream()
    yield stream
    torch.cuda.synchronize()


def captured(call: Call, stream: torch.cuda.Stream) -> tuple[torch.cuda.CUDAGraph, list]:
    """The graph of a call, which has run before: kernels are then loaded."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call.run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call.run()
    return graph, found


@pytest.mark.parametrize("name", list(CALLS))
def test_a_graph_is_replayed_with_other_inputs(
    stream: torch.cuda.Stream, device: str, name: str
) -> None:
    call = CALLS[name](device)
    graph, found = captured(call, stream)
    for seed in (1, 2):
        torch.manual_seed(seed)
        other = CALLS[name](device)
        call.overwrite(other)
        graph.replay()
        torch.cuda.synchronize()
        assert_bitwise(found, other.run())


@pytest.mark.parametrize("name", list(CALLS))
def test_a_call_follows_its_stream(stream: torch.cuda.Stream, device: str, name: str) -> None:
    """Its inputs are late: work on any other stream would read those before."""
    call, other = CALLS[name](device), CALLS[name](device)
    expected = other.run()
    call.run()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        call.overwrite(other)
        found = call.run()
    stream.synchronize()
    assert_bitwise(found, expected)


def test_a_training_step_is_replayed(stream: torch.cuda.Stream, device: str) -> None:
    """Search, attention and their gradients together, as docs/gpu.md recommends."""
    case = make_case("dense", counts=(300, 70), width=16, poison=False).to(device).trained()
    case.query = torch.randn(2, 16, device=device)
    u = torch.randn(2, 4, 16, device=device, requires_grad=True)

    def run() -> list[torch.Tensor]:
        found = case.run(lc.clock_gsu, 20)
        valid, places = found.indices >= 0, found.indices.clamp(min=0)
        z = case.keys.gather(1, places[..., None].expand(-1, -1, 16))
        times = case.key_time.gather(1, places)
        context = lc.esu_attention(u, z, times, case.query_time, case.mlp, valid)
        return list(torch.autograd.grad(context.square().sum(), [u, case.keys, *case.mlp]))

    call = Call([u, case.keys, case.query], run)
    graph, found = captured(call, stream)
    for leaf in call.inputs:
        with torch.no_grad():
            leaf.copy_(torch.randn_like(leaf))
    graph.replay()
    torch.cuda.synchronize()
    kept = [each.clone() for each in found]
    assert_bitwise(kept, call.run())
