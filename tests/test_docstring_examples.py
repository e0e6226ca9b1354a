# SPDX-License-Identifier: Apache-2.0
"""Every public name shows how it is used, and what it shows is what comes out."""

from __future__ import annotations

import doctest
import runpy
from pathlib import Path

import pytest

BUILD_API = Path(__file__).parents[1] / "docs" / "build_api.py"
PUBLIC = runpy.run_path(str(BUILD_API))["public"]()


@pytest.mark.parametrize("name", PUBLIC)
def test_example(name, tmp_path, monkeypatch):
    """In an empty folder, where it may write files; a class's methods may have examples as well."""
    monkeypatch.chdir(tmp_path)
    own = doctest.DocTestParser().get_examples(PUBLIC[name].__doc__ or "")
    assert own, "its docstring has no Example"
    said: list[str] = []
    for test in doctest.DocTestFinder().find(PUBLIC[name], name, module=False, globs={}):
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert not said, "".join(said)
