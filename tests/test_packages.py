# SPDX-License-Identifier: Apache-2.0
"""The source distribution holds what git tracks; the wheel is one for every Python, and has what the demo needs."""

from __future__ import annotations

import datetime
import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from longclock._library import PACKAGED

ROOT = Path(__file__).parents[1]
PACKAGE = "python/longclock/"
# What setuptools writes into every source distribution.
WRITTEN = {"PKG-INFO", "setup.cfg"}
EGG_INFO = "python/longclock.egg-info/"
LEFT_BY_A_BUILD = [
    ".venv/bin/python", "build/log", "dist/longclock-9.9.whl", f"{PACKAGE}liblongclock.so",
    f"{PACKAGE}__pycache__/info.cpython-311.pyc", "tests/__pycache__/cases.cpython-311.pyc",
    "bench/results/__pycache__/x.cpython-311.pyc", ".pytest_cache/README.md", "longclock-out/report.html",
]  # fmt: skip
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")
VERSION = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]


def test_the_changelog_is_ready_for_the_tag():
    """The version of pyproject.toml is the newest that is released, with its day."""
    sections = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == "[Unreleased]"
    named = re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})", sections[1])
    assert named is not None, sections[1]
    assert named[1] == VERSION
    assert datetime.date.fromisoformat(named[2])


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("this tree is no clone: git cannot say what it tracks")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)  # fmt: skip
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


def copied(names: set[str], tree: Path) -> Path:
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    return tree


def setup(tree: Path, *arguments: str) -> str:
    command = [sys.executable, "setup.py", "-q", *arguments]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def sdist(tracked, tmp_path_factory) -> set[str]:
    """Names in the archive that a copy of the tree makes, in which a build and a run left their files."""
    tree = copied(tracked, tmp_path_factory.mktemp("sdist") / "longclock")
    for name in LEFT_BY_A_BUILD:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("left")
    said = setup(tree, "sdist", "--formats=tar", "--dist-dir", "made")
    assert "warning" not in said.lower(), said
    (made,) = (tree / "made").iterdir()
    with tarfile.open(made) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def test_the_sources_are_what_git_tracks(tracked, sdist):
    assert tracked - sdist == set()
    rest = {name for name in sdist - tracked - WRITTEN if not name.startswith(EGG_INFO)}
    assert rest == set()


@pytest.fixture(scope="module")
def wheel(tracked, tmp_path_factory) -> Path:
    """As ``pip wheel`` makes it, of the library that is built already."""
    outside = {name for name in tracked if "/" not in name}
    inside = {name for name in tracked if name.startswith(PACKAGE)}
    tree = copied(outside | inside, tmp_path_factory.mktemp("wheel") / "longclock")
    (tree / "setup.cfg").write_text("[build]\nbuild_lib = made/lib\n")
    setup(tree, "build_py")
    shutil.copy(PACKAGED, tree / "made" / "lib" / "longclock")
    setup(tree, "bdist_wheel", "--skip-build", "--dist-dir", "dist")
    (made,) = (tree / "dist").iterdir()
    return made


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_one_wheel_serves_every_python(wheel):
    platform = sysconfig.get_platform().replace("-", "_")
    assert wheel.name == f"longclock-{VERSION}-py3-none-{platform}.whl"
    with zipfile.ZipFile(wheel) as archive:
        said = archive.read(f"longclock-{VERSION}.dist-info/WHEEL").decode()
    assert "Root-Is-Purelib: false" in said
    assert f"Tag: py3-none-{platform}" in said


def test_the_wheel_is_the_package(wheel, tracked):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    own = {name for name in names if not name.startswith(f"longclock-{VERSION}.dist-info/")}
    inside = {name.removeprefix("python/") for name in tracked if name.startswith(PACKAGE)}
    assert own == inside | {"longclock/liblongclock.so"}
    assert {"longclock/data/nyc_checkins.npz", "longclock/data/nyc_checkins.md"} <= own
    assert f"longclock-{VERSION}.dist-info/licenses/LICENSE" in names


def test_without_an_address_the_description_links_to_no_file(wheel):
    metadata = metadata_of(wheel)
    text = metadata.get_payload()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata.get_all("Project-URL") is None
    links = LINK.findall(text)
    assert ("", "https://arxiv.org/abs/2501.15817") in links
    assert [to for picture, to in links if picture or not to.startswith("https://")] == []
    assert "make docs" in text
    assert "docs/install.md" in text  # as text


def test_with_an_address_links_and_pictures_lead_there(tracked, tmp_path):
    tree = copied({"pyproject.toml", "setup.py", "README.md", "LICENSE"}, tmp_path)
    project = (tree / "pyproject.toml").read_text()
    assert project.count('\nrepository = "') == 1
    host = "https://example.org/clocks/longclock"
    project = re.sub(r'^repository = ".*?"', f'repository = "{host}"', project, flags=re.MULTILINE)
    (tree / "pyproject.toml").write_text(project)
    (tree / "python" / "longclock").mkdir(parents=True)
    setup(tree, "egg_info", "--egg-base", ".")
    metadata = email.message_from_string((tree / "longclock.egg-info" / "PKG-INFO").read_text())
    for picture, to in LINK.findall(metadata.get_payload()):
        kind = "raw" if picture else "blob"
        if not to.startswith("https://arxiv.org/"):
            path = to.removeprefix(f"{host}/{kind}/v{VERSION}/").partition("#")[0]
            assert path in tracked, to
    assert "![Three clock faces" in metadata.get_payload()
    assert f"Repository, {host}" in metadata.get_all("Project-URL")
    assert f"Changelog, {host}/blob/v{VERSION}/CHANGELOG.md" in metadata.get_all("Project-URL")


def test_the_demo_runs_from_the_wheel(wheel, tmp_path):
    """Away from the repository, on the check-ins that the package carries."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "home").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "LONGCLOCK_LIBRARY"}
    command = ["-m", "longclock.train", "--days", "2", "--models", "lic", "--out", "out", "--quiet"]
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path / "home", capture_output=True, text=True, check=False,
        env=environment | {"PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home" / "out" / "report.html").exists()
