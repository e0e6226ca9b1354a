# SPDX-License-Identifier: Apache-2.0
"""One op, one folder, one stem; what ops share has a room, and rooms build on each other in one direction."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KERNELS, CSRC = ROOT / "kernels", ROOT / "csrc"
ROOMS = ["common", "time", "selection", "search"]  # each may include those before it
CALLS = "calls"  # may include all; no op may include it
FOLDERS = sorted(path.name for path in KERNELS.iterdir() if path.is_dir())
OPS = [name for name in FOLDERS if name not in [*ROOMS, CALLS]]
SOURCES = (".h", ".cpp", ".cu", ".cuh")


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in SOURCES)


def included(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include "(.+)"', path.read_text(encoding="utf-8"), re.MULTILINE)


def is_test(path: Path) -> bool:
    return path.stem.endswith("_test")


@pytest.mark.parametrize("op", OPS)
def test_all_of_an_op_bears_its_name(op):
    assert [path.name for path in sources(KERNELS / op) if not path.name.startswith(op)] == []
    assert list(CSRC.glob(f"{op}.cpp"))
    for folder in ("python/longclock/ops", "python/longclock/reference", "tests/ops"):
        assert (ROOT / folder / f"{op}.py").exists(), f"{folder} has no {op}.py"


def test_every_file_of_csrc_is_an_op_s_or_has_a_room():
    stems = [*OPS, "library_info", "module"]
    lost = [path.name for path in sources(CSRC) if not path.name.startswith(tuple(stems))]
    assert lost == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_ops_are_siblings_and_rooms_build_on_those_before(folder):
    before = FOLDERS if folder == CALLS else ROOMS
    allowed = {folder, *(ROOMS[: ROOMS.index(folder)] if folder in ROOMS else before)}
    for path in sources(KERNELS / folder):
        for name in included(path):
            assert name.startswith("longclock/"), f"{path.name}: {name}: all start at one root"
            assert is_test(path) or name.split("/")[1] in allowed, f"{path.name} includes {name}"


def test_no_two_headers_bear_one_name():
    names = Counter(
        path.name for top in (KERNELS, CSRC) for path in top.rglob("*.*h") if path.is_file()
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_file_is_longer_than_400_lines():
    """But the emulator's tables, and what is data."""
    folders = ("kernels", "csrc", "python", "tests", "bench", "examples", "docs")
    kinds = {".h", ".cuh", ".cu", ".cpp", ".py", ".lua"}
    files = [
        path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in kinds
    ]
    assert len(files) > 300
    long = {
        str(path.relative_to(ROOT)): count
        for path in files
        if "cuda_emulator" not in path.parts
        and (count := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert long == {}
