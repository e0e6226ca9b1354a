# SPDX-License-Identifier: Apache-2.0
"""What the site needs besides mkdocs.yml: notebooks are run, and files of the repository that pages link to become part of it, under repository/."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import executed  # beside this file, where mkdocs looks while it loads it
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)\s#]+)")  # the file that a link or a picture names
FENCE = re.compile(r"(^```.*?^```\s*?$)", re.MULTILINE | re.DOTALL)
OUTSIDE = "repository"
CODE = {".py": "python", ".cpp": "cpp", ".json": "json"}
NOTEBOOKS = ("tutorial.md",)
RUN: dict[str, str] = {}  # notebooks with their outputs


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for uri in NOTEBOOKS:
        page = files.get_file_from_path(uri)
        assert page is not None, uri
        cells = executed.run(page.content_string, f"docs/{uri}")
        name = str(PurePosixPath(uri).with_suffix(".ipynb"))
        RUN[uri] = f"{executed.page(cells)}\n[This page as a notebook]({name}).\n"
        files.append(File.generated(config, name, content=executed.notebook(cells)))
    root = Path(config.docs_dir).parent
    waiting = list(files.documentation_pages())
    while waiting:
        page = waiting.pop()
        for uri in sorted(outside(page)):
            path = root / path_of(uri)
            if (
                path.is_file() and files.get_file_from_path(uri) is None
            ):  # mkdocs names the page of one that is not there
                found = brought_in(path, uri, config)
                files.append(found)
                if found.src_uri.endswith(".md"):
                    waiting.append(found)
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Links as they are between the files of the repository become those between the files of the site."""
    here = PurePosixPath(page.file.src_uri).parent

    def within(path: str) -> str:
        return os.path.relpath(uri_of(linked(page.file, path)), here)

    return in_links(RUN.get(page.file.src_uri, markdown), within)


def outside(page: File) -> set[str]:
    """What a page links to that is not in docs, by its place in the site."""
    found: set[str] = set()

    def note(path: str) -> str:
        if not linked(page, path).startswith("docs/"):
            found.add(uri_of(linked(page, path)))
        return path

    in_links(page.content_string, note)
    return found


def in_links(markdown: str, change: Callable[[str], str]) -> str:
    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(lambda found: change(found[1]), part) for part in parts[::2]]
    return "".join(parts)


def linked(page: File, path: str) -> str:
    """A file of the repository, by what a page calls it."""
    return os.path.normpath(PurePosixPath(path_of(page.src_uri)).parent / path)


def path_of(uri: str) -> str:
    """Where a file of the site lies in the repository."""
    folder, _, name = uri.partition("/")
    if folder != OUTSIDE:
        return f"docs/{uri}"
    return name.removesuffix(".md") if PurePosixPath(name[:-3]).suffix in CODE else name


def uri_of(path: str) -> str:
    """And where a file of the repository lies in the site: code as a page that shows it."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{OUTSIDE}/{path}{'.md' if PurePosixPath(path).suffix in CODE else ''}"


def brought_in(path: Path, uri: str, config: MkDocsConfig) -> File:
    language = CODE.get(path.suffix)
    if language is None:
        return File.generated(config, uri, abs_src_path=str(path))
    text = f"# {path.name}\n\n```{language}\n{path.read_text(encoding='utf-8')}```\n"
    return File.generated(config, uri, content=text)
