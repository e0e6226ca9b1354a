# SPDX-License-Identifier: Apache-2.0
"""The modules in the tools of a training script: dtypes, autocast, compile, export, DDP."""

from __future__ import annotations

import copy
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_long_term_interest_clock import Batch, build, make_batch
from torch.nn.parallel import DistributedDataParallel

import longclock as lc


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_weights(level: str, device: str, dtype: torch.dtype) -> None:
    batch, module = make_batch(device), build(device)
    expected = batch.run(module)
    narrow = copy.deepcopy(module).to(dtype)
    candidate = batch.candidate.to(dtype)
    for behaviours in (batch.behaviours.to(dtype), batch.behaviours):
        v = replace(batch, candidate=candidate, behaviours=behaviours).run(narrow)
        assert v.dtype == dtype
        torch.testing.assert_close(v.float(), expected, rtol=0.1, atol=0.1)
        narrow.zero_grad()
        v.sum().backward()
        assert all(p.grad is not None and p.grad.dtype == dtype for p in narrow.parameters())


@pytest.mark.parametrize("scoring", ["folded", "precomputed"])
def test_autocast(level: str, device: str, scoring: str) -> None:
    batch, module = make_batch(device), build(device, scoring=scoring)
    expected = batch.run(module)
    with torch.autocast(device, torch.bfloat16):
        v = batch.run(module)
    torch.testing.assert_close(v.float(), expected, rtol=0.1, atol=0.1)
    v.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())


def grads_of(module: torch.nn.Module, batch: Batch) -> list[torch.Tensor]:
    module.zero_grad()
    batch.run(module).square().sum().backward()
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


def as_lookup(batch: Batch) -> Batch:
    ids = torch.arange(200, device=batch.behaviours.device).view(4, 50)
    return replace(batch, behaviours=lc.Lookup(batch.behaviours.flatten(0, 1), ids))


@pytest.mark.parametrize("kind", ["rows", "lookup", "precomputed", "whole"])
def test_compile(device: str, kind: str) -> None:
    torch._dynamo.reset()
    batch = make_batch(device)
    module = build(device, scoring="precomputed" if kind == "precomputed" else "folded")
    if kind == "whole":
        module.k = None
    if kind == "lookup":
        batch = as_lookup(batch)
    # The compiler's own code generation is not what is tested: graphs, fakes and autograd are.
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(batch.run(compiled), batch.run(module))
    expected = grads_of(module, batch)
    for mine, other in zip(grads_of(compiled, batch), expected, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="inductor needs a C++ compiler"
)
def test_compile_with_generated_code(device: str) -> None:
    torch._dynamo.reset()
    batch, module = as_lookup(make_batch(device)), build(device)
    compiled = torch.compile(module, fullgraph=True)
    torch.testing.assert_close(batch.run(compiled), batch.run(module))
    expected = grads_of(module, batch)
    for mine, other in zip(grads_of(compiled, batch), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_compile_of_windows_with_other_sizes(device: str) -> None:
    torch._dynamo.reset()
    module = build(device)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows, queries in ((90, 4), (70, 6)):
        behaviours, times = torch.randn(rows, 16), torch.randint(0, 10**9, (rows,))
        starts = torch.randint(0, 30, (queries,))
        history = lc.History.windows(behaviours, times, starts, starts + 40).to(device)
        candidate, now = torch.randn(queries, 12), torch.randint(0, 10**9, (queries,))
        args = candidate.to(device), history, now.to(device)
        torch.testing.assert_close(compiled(*args), module(*args))


def test_compile_of_scores_and_topk(device: str) -> None:
    torch._dynamo.reset()
    batch, time = make_batch(device), lc.TimeSimilarity().to(device)

    def search(query: torch.Tensor) -> lc.TopK:
        scores = lc.gsu_score(
            query, batch.behaviours, batch.behaviour_time, batch.query_time, time,
            lengths=batch.lengths,
        )  # fmt: skip
        return lc.block_topk(scores, 5, batch.lengths)

    query = torch.randn(4, 16, device=device)
    ours = torch.compile(search, fullgraph=True, backend="aot_eager")(query)
    assert torch.equal(ours.indices, search(query).indices)


def test_export(device: str) -> None:
    batch, module = make_batch(device), build(device)
    args = batch.arguments()
    exported = torch.export.export(module, args)
    torch.testing.assert_close(exported.module()(*args), module(*args))
    auto = torch.export.Dim.AUTO
    rows, times = {0: auto, 1: auto}, {0: auto, 1: auto}
    shapes = ({0: auto}, lc.History(rows, times, {0: auto}), {0: auto})  # type: ignore[arg-type]
    exported = torch.export.export(module, args, dynamic_shapes=shapes)
    few = replace(batch, **{name: x[:3] for name, x in vars(batch).items() if x is not None})
    torch.testing.assert_close(exported.module()(*few.arguments()), batch.run(module)[:3])


class OfTensors(torch.nn.Module):
    """torch.jit takes no NamedTuples of tensors and None."""

    def __init__(self, interest: torch.nn.Module) -> None:
        super().__init__()
        self.interest = interest

    def forward(
        self,
        candidate: torch.Tensor,
        rows: torch.Tensor,
        time: torch.Tensor,
        now: torch.Tensor,
        lengths: torch.Tensor,
    ) -> torch.Tensor:
        history = lc.History.dense(rows, time, lengths)
        result: torch.Tensor = self.interest(candidate, history, now)
        return result


def test_trace_is_saved_and_loaded(device: str, tmp_path: Path) -> None:
    batch, module = make_batch(device), build(device)
    args = tuple(x for x in vars(batch).values() if x is not None)
    torch.jit.save(torch.jit.trace(OfTensors(module), args), tmp_path / "module.pt")
    loaded = torch.jit.load(tmp_path / "module.pt")
    torch.testing.assert_close(loaded(*args), batch.run(module))


def test_export_of_a_lookup_is_saved_and_loaded(device: str, tmp_path: Path) -> None:
    batch, module = make_batch(device), build(device)

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items, self.interest = torch.nn.Embedding(300, 16), module

        def forward(
            self, candidate: torch.Tensor, ids: torch.Tensor, time: torch.Tensor, now: torch.Tensor
        ) -> torch.Tensor:
            history = lc.History.dense(lc.Lookup(self.items.weight, ids), time)
            result: torch.Tensor = self.interest(candidate, history, now)
            return result

    tower, ids = Tower().to(device), torch.randint(0, 300, (4, 50), device=device)
    args = (batch.candidate, ids, batch.behaviour_time, batch.query_time)
    torch.export.save(torch.export.export(tower, args), tmp_path / "tower.pt2")
    loaded = torch.export.load(tmp_path / "tower.pt2").module()
    torch.testing.assert_close(loaded(*args), tower(*args))


def _train_one_step(rank: int, port_file: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{port_file}", rank=rank, world_size=2
    )
    torch.manual_seed(1)
    batch = make_batch("cpu")
    mine = slice(2 * rank, 2 * rank + 2)
    half = Batch(*(x if x is None else x[mine] for x in vars(batch).values()))
    module = DistributedDataParallel(build("cpu"))  # every parameter must take part
    half.run(module).square().mean().backward()
    if rank == 0:
        torch.save([p.grad for p in module.parameters()], out)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads may outlive the interpreter, which then aborts, in one run of ten


def test_two_processes_train_as_one(device: str, tmp_path: Path) -> None:
    if device == "cuda":
        pytest.skip("gloo on the CPU covers it; one GPU has no two ranks")
    paths = str(tmp_path / "store"), str(tmp_path / "grads.pt")
    here = os.path.dirname(__file__)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, before)))
    try:
        torch.multiprocessing.spawn(_train_one_step, args=paths, nprocs=2)
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    torch.manual_seed(1)
    batch, module = make_batch("cpu"), build("cpu")
    batch.run(module).square().mean().backward()
    for mine, other in zip(torch.load(paths[1]), module.parameters(), strict=True):
        torch.testing.assert_close(mine, other.grad)


@pytest.mark.parametrize("hidden", [1, 8, 64])
@pytest.mark.parametrize(("period", "unit"), [(86400, 3600.0), (604800, 3600.0), (86400, 60.0)])
def test_time_similarity_starts_alive_and_falling(
    device: str, hidden: int, period: int, unit: float
) -> None:
    time = lc.TimeSimilarity(hidden, unit, clocks=period).to(device)
    delta = torch.linspace(0, period // 2, 1000, device=device).long()
    s = time(delta)
    torch.testing.assert_close(s[0], torch.full((), 8.0, device=device))
    torch.testing.assert_close(s[-1], torch.zeros((), device=device), atol=1e-4, rtol=0)
    assert (s.diff() < 1e-6).all()
    s[:100].sum().backward()
    assert (time.w2.grad > 0).all()
    assert (time.w1.grad[:, 0] > 0).all()
    with pytest.raises(ValueError, match="TimeSimilarity: hidden must be from 1 to 64, got 65"):
        lc.TimeSimilarity(65)
