# SPDX-License-Identifier: Apache-2.0
"""A page as a notebook: its blocks of Python run in their order, and what they print and draw stands below each."""

from __future__ import annotations

import ast
import base64
import contextlib
import dataclasses
import io
import json
import re
import sys
from types import ModuleType
from typing import Any

from matplotlib.figure import Figure

from longclock.train.report import png

BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Cell:
    """A text, or code with what it printed and, where its last line is a figure, the picture."""

    text: str
    is_code: bool = False
    printed: str = ""
    picture: str = ""  # PNG in base64


def run(markdown: str, name: str) -> list[Cell]:
    """All cells of a page, whose code shares its names."""
    module = ModuleType("notebook")
    sys.modules[module.__name__] = module  # where torch.compile looks up what a function names
    names = vars(module)
    cells = []
    for place, text in enumerate(BLOCK.split(markdown)):
        cells.append(run_code(text, names, name) if place % 2 else Cell(text))
    return cells


def run_code(text: str, names: dict[str, Any], name: str) -> Cell:
    lines = ast.parse(text).body
    last = lines.pop() if lines and isinstance(lines[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(lines, []), name, "exec"), names)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), names)
        if value is not None and not isinstance(value, Figure):
            print(value)
    picture = base64.b64encode(png(value)).decode() if isinstance(value, Figure) else ""
    return Cell(text, True, printed.getvalue(), picture)


def page(cells: list[Cell]) -> str:
    """Markdown with the outputs below the blocks."""
    out = ""
    for cell in cells:
        out += f"```python\n{cell.text}```\n" if cell.is_code else cell.text
        if cell.printed:
            out += f"\n```text\n{cell.printed}```\n"
        if cell.picture:
            out += (
                f'\n<img alt="What the block draws" src="data:image/png;base64,{cell.picture}">\n'
            )
    return out


def notebook(cells: list[Cell]) -> str:
    """The same for Jupyter: nbformat 4.5."""
    found: list[dict[str, Any]] = []
    for number, cell in enumerate(cells):
        common: dict[str, Any] = {
            "id": f"cell-{number}",
            "metadata": {},
            "source": cell.text.strip("\n"),
        }
        if not cell.is_code:
            found.append({"cell_type": "markdown", **common})
            continue
        outputs: list[dict[str, Any]] = []
        if cell.printed:
            outputs.append({"output_type": "stream", "name": "stdout", "text": cell.printed})
        if cell.picture:
            shown = {"data": {"image/png": cell.picture}, "metadata": {}}
            outputs.append({"output_type": "display_data", **shown})
        found.append({"cell_type": "code", "execution_count": None, "outputs": outputs, **common})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    whole = {"cells": found, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1)
