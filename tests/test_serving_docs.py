# SPDX-License-Identifier: Apache-2.0
"""Every command and every block of Python of docs/serving.md, as written and in its order."""

from __future__ import annotations

import re

from pages import ROOT, blocks, walk


def test_the_page(tmp_path):
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "cmake").symlink_to(ROOT / "build" / "cmake")
    found, script = blocks("serving.md", "sh|python"), []
    for number, (kind, text) in enumerate(found):
        if kind == "python":
            (tmp_path / f"block{number}.py").write_text(text, encoding="utf-8")
            text = f"python block{number}.py\n"
        script.append(text)
    assert len(found) >= 4
    done = walk("".join(script), tmp_path, timeout=600)
    assert '{"ready":true}' in done.stdout
    assert '"model_name":"longclock"' in done.stdout
    assert '{"new":1}' in done.stdout
    assert re.search(
        r"^\d:-?\d\S* \d:-?\d\S* \d:-?\d\S*$", done.stdout, re.MULTILINE
    )  # the program's ranking
    assert re.search(r"^(\d+:-?\d\S* ?){5}$", done.stdout, re.MULTILINE)  # and what the other finds
    assert "Traceback" not in done.stderr
