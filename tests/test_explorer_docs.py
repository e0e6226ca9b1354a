# SPDX-License-Identifier: Apache-2.0
"""Every command of docs/explorer.md, as written and in its order."""

from __future__ import annotations

import json
import re

from pages import DOCS, blocks, text_of, walk

LARGEST = 150_000  # bytes of a picture


def test_the_page(tmp_path):
    done = walk("".join(text for _, text in blocks("explorer.md", "sh")), tmp_path, timeout=300)
    size = (tmp_path / "day.html").stat().st_size
    assert 100_000 < size < 1_000_000  # "some hundred kilobytes"
    assert f"day.html: 8 users, {size / 1e6:.1f} MB, needs no server" in done.stdout
    answer = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert (answer["user"], [each["item"] for each in answer["candidates"]]) == (7, [0, 1, 2])


def test_the_pictures_are_small():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text_of("explorer.md"))
    assert len(pictures) == 2
    for picture in pictures:
        assert 10_000 < (DOCS / picture).stat().st_size < LARGEST
