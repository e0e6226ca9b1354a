# SPDX-License-Identifier: Apache-2.0
"""The binary: what it links to and exports, what its objects share, and who can use it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import longclock
from longclock import _native, info
from longclock._library import PACKAGED, library_path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "cmake"

# What any Linux with a PyTorch has. libtorch_cpu alone of PyTorch: no libc10, libtorch, libtorch_python
# or CUDA, whose C++ symbols differ from one release to the next.
ALLOWED = re.compile(
    r"libtorch_cpu\.so|lib(stdc\+\+|m|gcc_s|c|dl|rt|pthread)\.so\.\d+|ld-linux[\w.-]*\.so\.\d+"
)


def run(*command: str | Path, **options) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def needed(library: Path) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", library))


def test_library_links_to_torch_cpu_alone():
    libraries = needed(PACKAGED)
    assert "libtorch_cpu.so" in libraries
    assert [name for name in libraries if not ALLOWED.fullmatch(name)] == []


def test_library_exports_only_its_c_functions():
    symbols = [
        line.split()[-1] for line in run("nm", "-D", "--defined-only", PACKAGED).splitlines()
    ]
    assert symbols
    assert [name for name in symbols if not name.startswith("longclock_")] == []


def test_the_named_library_takes_the_place_of_the_packaged_one(tmp_path):
    """Both for the ops and for what is asked of it beside them: a process has one of them."""
    other = tmp_path / "other.so"
    shutil.copy(library_path(), other)
    script = """
from longclock import _native
import longclock
_native.set_simd_level("scalar")
print(longclock.__version__, _native.simd_level())
print(*{line.split()[-1] for line in open("/proc/self/maps") if line.rstrip().endswith(".so") and "/torch/" not in line})
"""
    said = run(sys.executable, "-c", script, env=os.environ | {"LONGCLOCK_LIBRARY": str(other)})
    first, loaded = said.splitlines()
    assert first == f"{longclock.__version__} scalar"
    assert str(other) in loaded.split()
    assert "liblongclock" not in loaded


def test_the_library_knows_nothing_of_python():
    """What lets one wheel serve every version."""
    undefined = run("nm", "-D", "--undefined-only", PACKAGED)
    assert "aoti_torch_" in undefined
    assert not re.search(r"\b_?Py[A-Z_]", undefined)


@pytest.mark.parametrize("isa", ["avx2", "avx512", "avx512_bf16"])
def test_objects_of_a_simd_level_share_no_function(isa):
    """The linker keeps one copy of a weak function: were it this level's, others would crash. And what chooses
    the level, or is in no level's namespace, must run on any machine."""
    if isa not in _native.build_info()["simd_levels"]:
        assert not list(BUILD.rglob(f"*_{isa}.cpp.o"))
        return
    objects = sorted(BUILD.rglob(f"*_{isa}.cpp.o"))
    assert objects, f"there are no {isa} objects in {BUILD}: run `make build`"
    shared = []
    for path in objects:
        for line in run("nm", "-C", "--defined-only", path).splitlines():
            _, kind, symbol = line.split(" ", 2)
            # The personality's reference is data, the same at every level.
            if kind not in "TWVuwv" or symbol.startswith("DW.ref."):
                continue
            if f"longclock::{isa}::" not in symbol:
                shared.append(f"{path.name}: {kind} {symbol}")
    assert shared == []


def test_every_op_has_its_cuda_kernels_where_they_are_built():
    built = _native.build_info()["cuda"] is not None
    names = {schema.name for schema in torch._C._jit_get_all_schemas()}
    ops = sorted(name for name in names if name.startswith("longclock::"))
    assert len(ops) >= 11
    for op in ops:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(op, "CPU"), op
        assert torch._C._dispatch_has_kernel_for_dispatch_key(op, "CUDA") == built, op


def test_launchers_allocate_nothing_and_wait_for_nothing():
    """Which makes them fit for a CUDA graph."""
    archive = BUILD / "liblongclock_cuda.a"
    if not archive.exists():
        assert _native.build_info()["cuda"] is None
        return
    called = set(re.findall(r"\bU _*(cuda\w+)", run("nm", "-u", archive)))
    assert "cudaLaunchKernel" in called
    forbidden = re.compile(
        r"cuda(Malloc|Free|Host|Memcpy$|Memset$|\w*Synchronize|EventQuery|StreamQuery)"
    )
    assert [name for name in called if forbidden.match(name)] == []


def test_build_info_and_simd_levels():
    build = _native.build_info()
    stated = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert stated is not None
    assert build["version"] == longclock.__version__ == stated[1]  # there alone
    assert build["torch_target"] == "2.10"
    assert (build["cuda"] is None) == (build["cuda_archs"] == [])
    assert _native.simd_level() in _native.simd_levels()
    assert _native.simd_levels()[0] == "scalar"
    before = _native.simd_level()
    try:
        for level in _native.simd_levels():
            _native.set_simd_level(level)
            assert _native.simd_level() == level
    finally:
        _native.set_simd_level(before)
    with pytest.raises(ValueError, match=r"set_simd_level: level must be .*got 'sse'"):
        _native.set_simd_level("sse")


def test_info_command():
    text = run(sys.executable, "-m", "longclock.info")
    for name, value in info.describe().items():
        assert re.search(rf"^{re.escape(name)} +\S", text, re.MULTILINE), name
        assert value


@pytest.mark.parametrize(
    ("version", "stated", "expected"),
    [
        (13000, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Mon", "580.159.04, CUDA 13.0"),
        (12080, "NVRM version: Open Kernel Module for x86_64  570.86", "570.86, CUDA 12.8"),
        (13000, None, "CUDA 13.0"),
        (0, None, "an NVIDIA driver that does not say its version"),
    ],
)  # fmt: skip
def test_info_says_what_the_driver_takes(version, stated, expected, monkeypatch, tmp_path):
    class Driver:
        def cuDriverGetVersion(self, into):
            into._obj.value = version
            return 0

    monkeypatch.setattr(info.ctypes, "CDLL", lambda name: Driver())
    monkeypatch.setattr(info, "DRIVER", tmp_path / "version")
    if stated:
        info.DRIVER.write_text(f"{stated}\nGCC version: 12.2.0\n")
    assert info.describe()["driver"] == expected


def test_environment_chooses_the_simd_level():
    script = "import longclock; from longclock import _native; print(_native.simd_level())"
    env = {**os.environ, "LONGCLOCK_SIMD": "scalar"}
    assert run(sys.executable, "-c", script, env=env).strip() == "scalar"
