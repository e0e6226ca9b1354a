# SPDX-License-Identifier: Apache-2.0
"""The recipe of docs/gpu.md: on a GPU as it is written; elsewhere what it replays is run again in place of a graph."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).resolve().parents[1] / "docs" / "gpu.md"


def recipe() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)


def test_the_recipe_of_a_graph(device: str, emulated: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    if emulated:
        pytest.skip(
            "its sizes are a GPU's: minutes of the emulator, which runs its ops in other tests"
        )
    on_cuda = device == "cuda"
    if not on_cuda:
        monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda module, sample: module)
    names: dict[str, Any] = {}
    exec(recipe().replace('device = "cuda"', f'device = "{device}"'), names)
    assert names["scores"].shape == (64, 100)
    assert names["loss"].isfinite()
    for given in (names["batch"](), names["batch"](100)):
        with torch.no_grad():
            expected = names["served"](*given)
        if given[0].dim() == 2:
            torch.testing.assert_close(names["rank"](*given), expected, rtol=0, atol=0)
        else:
            torch.testing.assert_close(names["step"](*given), expected, rtol=0, atol=0)
