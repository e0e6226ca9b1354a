# SPDX-License-Identifier: Apache-2.0
"""The source distribution holds what git tracks, and nothing that a build leaves."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What setuptools writes into every one.
WRITTEN = {"PKG-INFO", "setup.cfg"}
EGG_INFO = "python/longclock.egg-info/"
LEFT_BY_A_BUILD = [
    ".venv/bin/python", "build/log", "dist/longclock-9.9.whl", "python/longclock/liblongclock.so",
    "python/longclock/__pycache__/info.cpython-311.pyc", "tests/__pycache__/cases.cpython-311.pyc",
    "bench/results/__pycache__/x.cpython-311.pyc", ".pytest_cache/README.md", "longclock-out/report.html",
]  # fmt: skip


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("this tree is no clone: git cannot say what it tracks")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)  # fmt: skip
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def sdist(tracked, tmp_path_factory) -> set[str]:
    """Names in the archive that a copy of the tree makes, in which a build and a run left their files."""
    tree = tmp_path_factory.mktemp("sdist") / "longclock"
    for name in tracked:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    for name in LEFT_BY_A_BUILD:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("left")
    command = [sys.executable, "setup.py", "-q", "sdist", "--formats=tar", "--dist-dir", "made"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()
    (made,) = (tree / "made").iterdir()
    with tarfile.open(made) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def test_it_holds_what_git_tracks(tracked, sdist):
    assert tracked - sdist == set()


def test_it_holds_nothing_else(tracked, sdist):
    rest = {name for name in sdist - tracked - WRITTEN if not name.startswith(EGG_INFO)}
    assert rest == set()
