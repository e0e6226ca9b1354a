# SPDX-License-Identifier: Apache-2.0
"""Every page's blocks of Python run, in their order; and what the site makes of a page."""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import executed  # noqa: E402

# Blocks of these run elsewhere, or are none that could run alone.
ELSEWHERE = {
    "adding-an-op.md": "test_adding_an_op.py",
    "api.md": "test_docstring_examples.py",
    "events.md": "test_event_sources.py",
    "gpu.md": "test_graph_recipe.py",
    "integrations.md": "test_integrations_docs.py",
    "replacing-twin.md": "test_replacing_docs.py",
    "scaling.md": "test_offline.py",
    "serving.md": "test_serving_docs.py",
}
PAGES = {
    path.name: path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs").glob("*.md"))
    if path.name not in ELSEWHERE
}
TUTORIAL = PAGES.pop("tutorial.md")
RUNNING = [name for name, text in PAGES.items() if executed.BLOCK.search(text)]


@pytest.fixture
def pytorch(monkeypatch):
    """PyTorch and the environment as before; compiled programs are run as they were traced, for C++ takes a minute to compile."""
    count = torch.get_num_threads()
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    yield
    torch.set_num_threads(count)


@pytest.mark.parametrize("name", RUNNING)
def test_blocks_run_as_written(name, tmp_path, monkeypatch, pytorch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")  # of the clone
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    assert any(cell.is_code for cell in executed.run(PAGES[name], name))


def test_what_runs_elsewhere_is_there():
    for page, test in ELSEWHERE.items():
        assert page in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
        assert (ROOT / "tests" / test).exists()


def test_the_tutorial_shows_what_it_says(pytorch):
    cells = executed.run(TUTORIAL, "tutorial.md")
    printed = "".join(cell.printed for cell in cells)
    auc = {words: float(printed.rpartition(words)[2].split()[0]) for words in ("with a clock ", "by content alone", "with shuffled times")}  # fmt: skip
    clock, *others = auc.values()
    assert clock - max(others) > 0.03  # "ahead, and with shuffled times its lead is gone"
    assert sum(bool(cell.picture) for cell in cells) == 2


def test_a_page_is_a_notebook():
    text = "# Title\n\nWords.\n\n```python\nx = 2\nprint('half')\nx / 4\n```\n\nMore.\n"
    cells = executed.run(text, "page.md")
    assert [cell.is_code for cell in cells] == [False, True, False]
    assert executed.page(cells) == text.replace("```\n\nMore", "```\n\n```text\nhalf\n0.5\n```\n\nMore")  # fmt: skip
    found: dict[str, Any] = json.loads(executed.notebook(cells))
    assert [cell["cell_type"] for cell in found["cells"]] == ["markdown", "code", "markdown"]
    assert found["cells"][1]["outputs"] == [
        {"output_type": "stream", "name": "stdout", "text": "half\n0.5\n"}
    ]


def test_a_block_that_fails_stops_the_build():
    with pytest.raises(ZeroDivisionError):
        executed.run("```python\n1 / 0\n```\n", "page.md")
