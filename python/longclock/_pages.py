# SPDX-License-Identifier: Apache-2.0
"""HTML pages that are one file each, readable on a phone and in the dark: of a training run, of a study, of the explorer."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

STYLE = """
:root { color-scheme: light dark; --text: #222; --page: #fff; --faint: #555; --line: #ddd; --code: #f3f3f3 }
@media (prefers-color-scheme: dark) {
  :root { --text: #ddd; --page: #161618; --faint: #a2a2a6; --line: #3a3a3e; --code: #26262a } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: var(--text); background: var(--page); overflow-wrap: anywhere }
.wide { overflow-x: auto } table { border-collapse: collapse; overflow-wrap: normal }
td, th { padding: .25rem .8rem; text-align: right }
td:first-child, th:first-child { text-align: left } tr { border-bottom: 1px solid var(--line) }
figure { margin: 1.5rem 0 } figcaption, .note { color: var(--faint) }
img { max-width: 100%; background: #fff; border-radius: 4px }
code { background: var(--code); padding: .1rem .3rem; overflow-wrap: anywhere }
"""


def page(title: str, body: str, style: str = "", head: str = "") -> str:
    """A whole page.

    Args:
        title: a text, which is escaped; it is not shown.
        body, style, head: as they are; the style comes behind :data:`STYLE`.
    """
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{head}'
        f"<style>{STYLE}{style}</style></head><body>\n{body}\n</body></html>\n"
    )


def table(rows: Sequence[Sequence[str]], header: bool = True) -> str:
    """Rows of text, the first of them the header; one that is too wide scrolls by itself."""
    tags = ["th" if header and not number else "td" for number in range(len(rows))]
    lines = "".join(_row(tag, row) for tag, row in zip(tags, rows, strict=True))
    return f'<div class="wide"><table>{lines}</table></div>'


def paragraphs(sentences: Sequence[str]) -> str:
    return "".join(f"<p>{html.escape(sentence)}</p>\n" for sentence in sentences)


def figure(name: str, png: bytes, caption: str) -> str:
    """A picture, whose file is in the page."""
    return (
        f'<figure><img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>\n"
