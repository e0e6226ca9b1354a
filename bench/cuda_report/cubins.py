# SPDX-License-Identifier: Apache-2.0
"""Machine code of every kernel for every architecture, and what ptxas says of it.

A file is compiled again only where its text, its headers, the flags or nvcc changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "cuda_report"
OURS = "_ZN9longclock"
TOOLS = ROOT / "build" / "cuda_tools"  # wheels, see the Makefile
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
# The emulator's profile for each: those that differ in their PTX or in their shared memory.
PROFILES = {75: 75, 80: 80, 86: 86, 89: 86, 90: 90, 100: 90, 120: 86}
# Code of the one runs on the other, and ptxas makes no other for it: of 272 kernels every figure was the same.
SAME_CODE = {89: 86}
# Architectures by the PTX that their code is made of. From each of these bounds to the next, nvcc's text is one and the same.
FROM_PTX = {75: (75,), 80: (80, 86, 90), 100: (100, 120)}
FLAGS = ("-std=c++20", "-O3", "-DNDEBUG", "-lineinfo")
PTXAS_FLAGS = ("-v", "--warn-on-spills", "--generate-line-info")


class ToolError(RuntimeError):
    """A tool is missing or fails."""


@dataclasses.dataclass
class Resources:
    """Of one kernel, as ptxas gives them. Bytes but for registers."""

    registers: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0
    static_shared: int = 0


@dataclasses.dataclass
class Cubin:
    source: Path
    sm: int
    resources: dict[str, Resources]  # by name as in source, see ``short_name``
    sass: dict[str, str]  # text of nvdisasm


def _first(name: str, places: list[Path]) -> str:
    found = next((str(place) for place in places if os.access(place, os.X_OK)), None)
    found = found or shutil.which(name)
    if found is None:
        raise ToolError(f"{name} is missing: make cuda-report installs it, or set CUDA_HOME")
    return found


@cache
def nvcc() -> str:
    named, home = os.environ.get("CUDACXX"), os.environ.get("CUDA_HOME")
    if named or shutil.which("nvcc"):
        return named or "nvcc"
    places = [Path(home or "/usr/local/cuda") / "bin" / "nvcc"]
    places += Path(sysconfig.get_path("purelib")).glob("nvidia/cu[0-9]*/bin/nvcc")
    return _first("nvcc", places)


@cache
def ptxas() -> str:
    """The one that nvcc runs."""
    return _first("ptxas", [Path(shutil.which(nvcc()) or nvcc()).parent / "ptxas"])


@cache
def nvdisasm() -> str:
    return _first("nvdisasm", sorted(TOOLS.glob("nvidia/cu*/bin/nvdisasm")))


@cache
def release() -> str:
    """Of nvcc, such as 13.0: machine code of different releases differs."""
    text = run([nvcc(), "--version"])
    found = re.search(r"release (\d+\.\d+)", text)
    return found.group(1) if found else "unknown"


def run(command: list[str], text: str | None = None) -> str:
    """Its stdout and stderr; raises ToolError with them."""
    done = subprocess.run(
        command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    if done.returncode:
        raise ToolError(f"{' '.join(command)}\n{done.stdout}")
    return done.stdout


def with_headers(path: Path, seen: dict[Path, bytes]) -> dict[Path, bytes]:
    """The file and all that it includes of the project."""
    path = path.resolve()
    if path in seen or not path.is_file():
        return seen
    seen[path] = path.read_bytes()
    for name in re.findall(rb'^#include "(.+?)"', seen[path], re.MULTILINE):
        with_headers(ROOT / "kernels" / name.decode().removeprefix("longclock/"), seen)
    return seen


@cache
def include_root() -> Path:
    """Where kernels are found as <longclock/...>."""
    link = CACHE / "include" / "longclock"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(ROOT / "kernels")
    return link.parent


def short_name(demangled: str) -> str:
    """`void longclock::(…)::kernel<longclock::Float16, true>(…)` is `kernel<Float16, true>`."""
    text = re.sub(r"\(anonymous namespace\)", "_GLOBAL_", demangled)
    depth, end = 0, len(text)
    for at, letter in enumerate(text):  # up to the arguments
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0 and at > 0:
            end = at
            break
    text = re.sub(r"\b(?:longclock|_GLOBAL_\w*)::", "", text[:end])
    return re.sub(r"\((?:bool|int|unsigned int)\)", "", text.removeprefix("void "))


def demangle(names: list[str]) -> dict[str, str]:
    if not names:
        return {}
    plain = run(["c++filt"], "\n".join(names)).splitlines()
    return dict(zip(names, (short_name(name) for name in plain), strict=True))


def parse_ptxas(log: str) -> dict[str, Resources]:
    """Resources by mangled name, from ``-Xptxas -v``."""
    found: dict[str, Resources] = {}
    for block in re.split(r"Compiling entry function '", log)[1:]:
        name = block.partition("'")[0]

        def number(pattern: str, block: str = block) -> int:
            match = re.search(pattern, block)
            return int(match.group(1)) if match else 0

        found[name] = Resources(
            registers=number(r"Used (\d+) registers"),
            stack=number(r"(\d+) bytes stack frame"),
            spill_stores=number(r"(\d+) bytes spill stores"),
            spill_loads=number(r"(\d+) bytes spill loads"),
            static_shared=number(r"(\d+) bytes smem"),
        )
    return found


def parse_disassembly(text: str) -> dict[str, str]:
    """Text of every function's section, by mangled name."""
    parts = re.split(r"^//-+ \.text\.(\S+) -+\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def check_bounds(source: Path, text: bytes) -> None:
    """Raises ToolError where code asks for an architecture between two of FROM_PTX."""
    asked = {int(number) for number in re.findall(rb"__CUDA_ARCH__ *[<>=]+ *(\d+)", text)}
    if between := sorted(asked - {10 * ptx for ptx in FROM_PTX}):
        raise ToolError(f"{source} tells architectures apart at {between}: FROM_PTX must as well")


def sources() -> list[Path]:
    """Every kernels/*/*.cu, the slowest first."""
    return sorted((ROOT / "kernels").glob("*/*.cu"), key=lambda path: -path.stat().st_size)


def digest(source: Path) -> str:
    """Of all that the machine code of a source is made of."""
    text = b"\0".join(with_headers(source, {}).values())
    check_bounds(source, text)
    return hashlib.sha256(text + f"{FLAGS}{PTXAS_FLAGS}{release()}".encode()).hexdigest()[:16]


def build(source: Path, ptx: int) -> list[Cubin]:
    """For each architecture of this PTX."""
    key = digest(source)
    made = CACHE / f"{source.stem}.compute_{ptx}.{key}.ptx"
    if not made.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for old in CACHE.glob(f"{source.stem}.compute_{ptx}.*"):
            old.unlink()
        command = [nvcc(), *FLAGS, f"-arch=compute_{ptx}", f"-I{include_root()}", "-ptx"]
        run([*command, "-o", str(made.with_suffix(".part")), str(source)])
        made.with_suffix(".part").rename(made)
    return [machine_code(source, sm, made, key) for sm in FROM_PTX[ptx]]


def machine_code(source: Path, sm: int, ptx: Path, key: str) -> Cubin:
    stem = f"{source.stem}.sm_{sm}"
    cubin, log, sass = (CACHE / f"{stem}.{key}.{kind}" for kind in ("cubin", "log", "sass"))
    if not sass.exists():
        for old in CACHE.glob(f"{stem}.*"):
            old.unlink()
        command = [ptxas(), *PTXAS_FLAGS, f"-arch=sm_{sm}", "-o", str(cubin), str(ptx)]
        log.write_text(run(command), encoding="utf-8")
        text = run([nvdisasm(), "-c", "-gi", str(cubin)])
        sass.write_text(text, encoding="utf-8")
    resources = parse_ptxas(log.read_text(encoding="utf-8"))
    texts_of = parse_disassembly(sass.read_text(encoding="utf-8"))
    names = demangle([name for name in resources if name.startswith(OURS)])  # not those of CUB
    return Cubin(
        source,
        sm,
        {names[name]: resources[name] for name in names},
        {names[name]: texts_of[name] for name in names},
    )


def build_all(of: list[Path]) -> list[Cubin]:
    """These sources for every architecture."""
    jobs = [(source, ptx) for source in of for ptx in FROM_PTX]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        built = [cubin for of_ptx in pool.map(lambda job: build(*job), jobs) for cubin in of_ptx]
    return built + [
        dataclasses.replace(cubin, sm=sm)
        for cubin in built
        for sm, same in SAME_CODE.items()
        if same == cubin.sm
    ]
