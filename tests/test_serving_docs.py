# SPDX-License-Identifier: Apache-2.0
"""Every command and every block of Python of docs/serving.md, as written and in its order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
INSTALL = re.compile(r"^pip install '\.\[train,serve\]'.*\n", re.MULTILINE)


def test_the_page(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")  # of the clone
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "cmake").symlink_to(ROOT / "build" / "cmake")
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    script = []
    for number, (kind, text) in enumerate(blocks):
        if kind == "python":
            (tmp_path / f"block{number}.py").write_text(text, encoding="utf-8")
            text = f"python block{number}.py\n"
        script.append(text)
    whole, installs = INSTALL.subn("", "".join(script))
    assert installs == 1  # it is installed where tests run
    assert len(blocks) >= 4
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", f"trap 'kill $(jobs -p); wait' EXIT\n{whole}"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '{"ready":true}' in done.stdout
    assert '"model_name":"longclock"' in done.stdout
    assert '{"new":1}' in done.stdout
    assert re.search(
        r"^\d:-?\d\S* \d:-?\d\S* \d:-?\d\S*$", done.stdout, re.MULTILINE
    )  # the program's ranking
    assert re.search(r"^(\d+:-?\d\S* ?){5}$", done.stdout, re.MULTILINE)  # and what the other finds
    assert "Traceback" not in done.stderr
