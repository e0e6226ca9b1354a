# SPDX-License-Identifier: Apache-2.0
"""Pages of docs/ as tests run them: their blocks of Python in one namespace, their commands in one shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# They are installed where tests run.
INSTALL = re.compile(r"^pip install --no-build-isolation '\.\[train,serve\]'.*\n", re.MULTILINE)


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page: str, kinds: str) -> list[tuple[str, str]]:
    """The kind and the text of each block of these kinds, an expression such as ``sh|python``."""
    return re.findall(rf"^```({kinds})\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)


def names_of(page: str, holds: str = "") -> dict[str, Any]:
    """What the page's blocks of Python define, one after the other; of those alone that hold a text."""
    torch.manual_seed(0)
    found: dict[str, Any] = {"__name__": "page"}
    for _, text in blocks(page, "python"):
        if holds in text:
            exec(compile(text, f"docs/{page}", "exec"), found)
    return found


def walk(commands: str, folder: Path, timeout: int) -> subprocess.CompletedProcess[str]:
    """Runs a page's commands, of which one installs the package, in a folder that has the clone's examples."""
    (folder / "examples").symlink_to(ROOT / "examples")
    whole, installs = INSTALL.subn("", commands)
    assert installs == 1
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", f"trap 'kill $(jobs -p); wait' EXIT\n{whole}"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done
