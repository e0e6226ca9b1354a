# SPDX-License-Identifier: Apache-2.0
"""The blocks of docs/integrations.md run in their order, and do what the page says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pages import names_of, text_of


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    return names_of("integrations.md")


def test_events_of_another_library(names: dict[str, Any]) -> None:
    assert names["stream"].user.tolist() == [0, 1, 0]
    assert names["reads"] == [[7, 3], [9]]


def test_nested_tensors(names: dict[str, Any]) -> None:
    assert (names["found"].indices >= 0).sum(1).tolist() == [3, 4]


def test_a_graph_and_an_exported_program(names: dict[str, Any]) -> None:
    given = [names[x] for x in ("item", "played", "when", "now", "lengths")]
    assert [n.target for n in names["graph"].graph.nodes if n.op == "call_module"] == ["item", "interest"]  # fmt: skip
    torch.testing.assert_close(names["exported"].module()(*given), names["logits"])


def test_forward_mode_is_refused_by_name(names: dict[str, Any]) -> None:
    lc, now = names["lc"], names["now"]
    history = lc.History.dense(torch.randn(8, 20, 16), names["when"][:, :20])
    clock = lc.LongTermInterestClock(16, 16)
    call = lambda x: clock(x, history, now)  # noqa: E731
    candidate = torch.randn(8, 16)
    assert torch.func.grad(lambda x: call(x).sum())(candidate).shape == (8, 16)
    with pytest.raises(NotImplementedError, match="forward-mode derivatives are not implemented"):
        torch.func.jvp(call, (candidate,), (candidate,))


def test_the_16_bit_module_keeps_its_times(names: dict[str, Any]) -> None:
    given = [names[x] for x in ("item", "played", "when", "now", "lengths")]
    narrow = names["Ranker"]().to(torch.bfloat16)
    assert narrow(*given).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="int32 or int64, got bfloat16"):
        narrow(*given[:2], given[2].to(torch.bfloat16), *given[3:])


@pytest.mark.parametrize(
    ("backend", "missing"), [("compiled", "longclock.clock_gsu"), ("reference", "aten.view")]
)
def test_onnx_is_refused_as_the_page_says(backend: Any, missing: str) -> None:
    pytest.importorskip("onnxscript", reason="the extra bench has onnxscript")
    import longclock as lc

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.interest = lc.LongTermInterestClock(8, 8, k=4, backend=backend)

        def forward(self, candidate, rows, when, now):
            return self.interest(candidate, lc.History.dense(rows, when), now)

    given = torch.randn(2, 8), torch.randn(2, 20, 8), torch.arange(40).view(2, 20), torch.tensor([90, 91])  # fmt: skip
    with pytest.raises(Exception, match=rf"No ONNX function found for .*{missing}"):
        torch.onnx.export(Model().eval(), given, dynamo=True)
    assert missing in text_of("integrations.md")
