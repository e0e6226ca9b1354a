# SPDX-License-Identifier: Apache-2.0
"""The ranker of docs/own-script.md in 16 bits, and as torch.fx and TorchScript see it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pages import names_of

import longclock as lc
from longclock import baselines


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
