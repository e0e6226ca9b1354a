# SPDX-License-Identifier: Apache-2.0
"""Every command of docs/explorer.md, as written and in its order."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "explorer.md").read_text(encoding="utf-8")
INSTALL = re.compile(r"^pip install '\.\[train,serve\]'.*\n", re.MULTILINE)
LARGEST = 150_000  # bytes of a picture


def test_the_page(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")  # of the clone
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    whole, installs = INSTALL.subn("", "".join(blocks))
    assert installs == 1  # it is installed where tests run
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", f"trap 'kill $(jobs -p); wait' EXIT\n{whole}"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    size = (tmp_path / "day.html").stat().st_size
    assert 100_000 < size < 1_000_000  # "some hundred kilobytes"
    assert f"day.html: 8 users, {size / 1e6:.1f} MB, needs no server" in done.stdout
    answer = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert (answer["user"], [each["item"] for each in answer["candidates"]]) == (7, [0, 1, 2])


def test_the_pictures_are_small():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", PAGE)
    assert len(pictures) == 2
    for picture in pictures:
        assert 10_000 < (ROOT / "docs" / picture).stat().st_size < LARGEST
