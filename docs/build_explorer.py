# SPDX-License-Identifier: Apache-2.0
"""Takes the screenshots of docs/explorer.md of a page of longclock.explore, there of ``--data nyc --days 60``: ``python docs/build_explorer.py day.html``;
needs playwright and chromium."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parent
COLOURS = 256  # of a picture, to keep it small
# Name, width, height, colours, hour.
SHOTS = (("explorer", 1040, 950, "light", 8), ("explorer_phone", 390, 1060, "dark", 22))


def main(page: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, width, height, scheme, hour in SHOTS:
            shot = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce")  # fmt: skip
            shot.goto(page.resolve().as_uri())
            shot.locator("#hour").fill(str(60 * hour))
            shot.locator("#hour").blur()
            picture = Image.open(io.BytesIO(shot.screenshot()))
            # Colours that few pixels have are of groups, and must stay apart.
            small = picture.convert("RGB").quantize(
                COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE
            )
            small.save(DOCS / f"{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
