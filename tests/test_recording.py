# SPDX-License-Identifier: Apache-2.0
"""The ranker of docs/own-script.md in 16 bits, and as torch.fx and TorchScript see it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pages import names_of

import longclock as lc
from longclock import baselines, data, metrics, optim, plot, serve, store
from longclock.data import sources


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the example of a ranker defines."""
    return names_of("own-script.md", holds="(nn.Module)")


def batch(names: dict[str, Any]) -> list[Any]:
    return [names[name] for name in ("item", "played", "when", "now", "lengths")]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_ranker_in_16_bits(names: dict[str, Any], dtype: torch.dtype) -> None:
    ranker = names["Ranker"](items=5_000)
    exact = ranker(*batch(names))
    narrow = ranker.to(dtype)
    logits = narrow(*batch(names))
    assert logits.dtype == dtype
    assert (logits.float() - exact).abs().max() < 0.05 * exact.abs().max()
    logits.sum().backward()
    assert {p.grad.dtype for p in narrow.parameters() if p.grad is not None} == {dtype}
    assert narrow.lic.w_b.grad.any()


def test_fx_sees_a_leaf(names: dict[str, Any]) -> None:
    ranker = names["Ranker"](items=5_000)
    graph = torch.fx.symbolic_trace(ranker)
    assert [str(node.target) for node in graph.graph.nodes if node.op == "call_module"] == [
        "item", "lic", "tower.0", "tower.1", "tower.2",
    ]  # fmt: skip
    assert torch.equal(graph(*batch(names)), ranker(*batch(names)))
    graph(*batch(names)).sum().backward()
    assert ranker.lic.w_b.grad.any()  # the graph has the module itself


class Model(torch.nn.Module):
    """Of a ragged history by its lengths."""

    def __init__(self, interest: torch.nn.Module) -> None:
        super().__init__()
        self.interest, self.time = interest, lc.TimeSimilarity()

    def forward(self, candidate, rows, when, now, lengths):
        history = lc.History.ragged(rows, when, lengths=lengths)
        v = self.interest(candidate=candidate, history=history, query_time=now)
        return v + self.time(now % 3600)[:, None]


@pytest.mark.parametrize("kind", [lc.LongTermInterestClock, lc.ClockAttentionStack, baselines.DIN, baselines.TWIN, baselines.TWINV2])  # fmt: skip
def test_fx_of_other_modules_and_layouts(kind: Any) -> None:
    model = Model(kind(8, 8))
    given = torch.randn(2, 8), torch.randn(7, 8), torch.arange(7), torch.tensor([90, 80]), torch.tensor([3, 4])  # fmt: skip
    graph = torch.fx.symbolic_trace(model)
    leaves = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    assert leaves == ["interest", "time"]
    assert torch.equal(graph(*given), model(*given))


@pytest.mark.parametrize("make", [lambda: lc.LongTermInterestClock(8, 8), lc.TimeSimilarity, lambda: lc.ClockAttentionStack(8, 8), lambda: baselines.TWIN(8, 8)])  # fmt: skip
def test_fx_of_a_leaf_alone_says_what_to_do(make: Any) -> None:
    module = make()
    with pytest.raises(NotImplementedError, match=f"^{type(module).__name__}: .*trace a module that holds it"):  # fmt: skip
        torch.fx.symbolic_trace(module)


def best(scores: torch.Tensor) -> torch.Tensor:
    return lc.block_topk(scores, k=2).indices


def wrapped(scores: torch.Tensor) -> torch.Tensor:
    return best(scores)


torch.fx.wrap("best")


def test_fx_of_an_op_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"^block_topk: scores must be a tensor, got Proxy: .*torch\.fx\.wrap"):  # fmt: skip
        torch.fx.symbolic_trace(lambda scores: lc.block_topk(scores, k=2))
    scores = torch.randn(5)
    assert torch.equal(torch.fx.symbolic_trace(wrapped)(scores), best(scores))


@pytest.mark.parametrize("make", [lambda: lc.LongTermInterestClock(8, 8), lc.TimeSimilarity, lambda: Model(baselines.DIN(8, 8))])  # fmt: skip
def test_torchscript_says_what_to_do(make: Any) -> None:
    module = make()
    name = "DIN" if isinstance(module, Model) else type(module).__name__
    with pytest.raises(NotImplementedError, match=f"^{name}: torch.jit.script cannot compile it.*torch.export.export"):  # fmt: skip
        torch.jit.script(module)


def test_what_to_do_works(names: dict[str, Any]) -> None:
    ranker = names["Ranker"](items=5_000).eval()
    expected = ranker(*batch(names))
    assert torch.equal(torch.export.export(ranker, tuple(batch(names))).module()(*batch(names)), expected)  # fmt: skip
    traced = torch.jit.trace(ranker, tuple(batch(names)), check_trace=False)
    torch.testing.assert_close(traced(*batch(names)), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: lc.History.dense(t, t, length=t), "History.dense: unexpected keyword argument 'length'; lengths is near it, and it takes rows, time, lengths, mask"),
        (lambda t: lc.History.ragged(t, t, offset=t), "History.ragged: unexpected keyword argument 'offset'; offsets is near it"),
        (lambda t: lc.History.windows(t, t, start=t, ends=t), "History.windows: unexpected keyword argument 'start'; starts is near it"),
        (lambda t: lc.quantize_rows(row=t), "quantize_rows: unexpected keyword argument 'row'; rows is near it"),
        (lambda t: lc.parameter_groups(lc.TimeSimilarity(), learning_rate=1), "parameter_groups: unexpected keyword argument 'learning_rate'; it takes model, lr"),
        (lambda t: lc.LongTermInterestClock(8, 8, head=2), "LongTermInterestClock: unexpected keyword argument 'head'; heads is near it"),
        (lambda t: lc.ClockAttentionStack(8, 8, layer=2), "ClockAttentionStack: unexpected keyword argument 'layer'; layers is near it"),
        (lambda t: lc.TimeSimilarity(hiden=2), "TimeSimilarity: unexpected keyword argument 'hiden'; hidden is near it"),
        (lambda t: lc.TimeSimilarity()(t, units=2), "TimeSimilarity: unexpected keyword argument 'units'; it takes delta"),
        (lambda t: lc.Lookup(t, idx=t), "Lookup: unexpected keyword argument 'idx'; ids is near it, and it takes table, ids, sparse"),
        (lambda t: lc.Lookup(table=t, ids=t, spars=True), "Lookup: unexpected keyword argument 'spars'; sparse is near it"),
        (lambda t: lc.QuantizedRows(value=t, scale=t), "QuantizedRows: unexpected keyword argument 'value'; values is near it"),
        (lambda t: lc.History(t, t, offset=t), "History: unexpected keyword argument 'offset'; offsets is near it"),
        (lambda t: optim.LazyAdam([t], learning_rate=1), "LazyAdam: unexpected keyword argument 'learning_rate'; it takes params, lr, betas"),
        (lambda t: optim.LazyAdam([t], beta=(0, 0)), "LazyAdam: unexpected keyword argument 'beta'; betas is near it"),
        (lambda t: optim.RowWiseAdagrad([t], epsilon=1), "RowWiseAdagrad: unexpected keyword argument 'epsilon'"),
        (lambda t: data.read_events("a.csv", column={}), "read_events: unexpected keyword argument 'column'; columns is near it"),
        (lambda t: data.sampled_candidates(None, negative=4), "sampled_candidates: unexpected keyword argument 'negative'; negatives is near it"),
        (lambda t: data.EventStream("a", t, t, t, ordertime=t), "EventStream: unexpected keyword argument 'ordertime'; order_time is near it"),
        (lambda t: sources.FolderSource("a", category=()), "FolderSource: unexpected keyword argument 'category'; categories is near it"),
        (lambda t: sources.open_source("a", column=()), "open_source: unexpected keyword argument 'column'; columns is near it"),
        (lambda t: store.open_store("a.db", capcity=5), "SQLiteStore: unexpected keyword argument 'capcity'; capacity is near it"),
        (lambda t: serve.Recommender("a", None, dtyp="fp32"), "Recommender: unexpected keyword argument 'dtyp'; dtype is near it"),
        (lambda t: serve.Request("ada", candidate=t, now=5), "Request: unexpected keyword argument 'candidate'; candidates is near it"),
        (lambda t: metrics.auc(labels=t, score=t), "auc: unexpected keyword argument 'labels'; label is near it"),
        (lambda t: plot.hands(None, hour=(8,)), "hands: unexpected keyword argument 'hour'; hours is near it"),
        (lambda t: plot.kept(t, {}, group=t), "kept: unexpected keyword argument 'group'; groups is near it"),
        (lambda t: plot.clock_face(None, t, {}, name=()), "clock_face: unexpected keyword argument 'name'; names is near it"),
        (lambda t: plot.points({}, {}, "", "", color={}), "points: unexpected keyword argument 'color'; colours is near it"),
        (lambda t: plot.over_hours({}, {}, "", "", color={}), "over_hours: unexpected keyword argument 'color'; colours is near it"),
        (lambda t: plot.quality_and_cost({}, {}, {}, "", "", color={}), "quality_and_cost: unexpected keyword argument 'color'"),
        (lambda t: plot.interest_over_day(t, t, (), group=t), "interest_over_day: unexpected keyword argument 'group'; groups is near it"),
        (lambda t: plot.shares_found({}, {}, title={}), "shares_found: unexpected keyword argument 'title'; titles is near it"),
        (lambda t: baselines.TWIN(8, 8, outdim=2), "TWIN: unexpected keyword argument 'outdim'; out_dim is near it"),
        (lambda t: baselines.DIN(8, 8, outdim=2), "DIN: unexpected keyword argument 'outdim'; out_dim is near it"),
        (lambda t: baselines.DIN(8, 8)(t, t, t, return_contxt=True), "DIN: unexpected keyword argument 'return_contxt'; return_context is near it"),
        (lambda t: lc.LongTermInterestClock(8, 8)(t, t, t, longst=3), "LongTermInterestClock: unexpected keyword argument 'longst'; longest is near it"),
    ],
)  # fmt: skip
def test_a_keyword_is_named_with_what_was_meant(call: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        call(torch.zeros(2, 3))


def test_other_type_errors_stay_what_they_are() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'time'"):
        lc.History.dense(torch.zeros(2, 3, 4))  # type: ignore[call-arg]
