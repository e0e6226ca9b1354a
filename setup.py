# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml cannot say: the call of CMake, which owns every compile flag, the wheel's tag, and the README as PyPI shows it.

Environment: LONGCLOCK_CUDA=auto|0|1, LONGCLOCK_CUDA_ARCHS, CMAKE_ARGS, CMAKE_BUILD_PARALLEL_LEVEL.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
LIBRARY = "liblongclock"
RELATIVE_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")


class CMakeBuild(build_ext):
    """Configures, builds, and installs the library into the package: the source tree's when editable."""

    def run(self) -> None:
        build_dir = (
            ROOT / "build" / ("cmake" if self.inplace else f"cmake-{sys.implementation.cache_tag}")
        )
        options = [f"-DPython_EXECUTABLE={sys.executable}"]
        for name in ("LONGCLOCK_CUDA", "LONGCLOCK_CUDA_ARCHS"):
            if os.environ.get(name):
                options.append(f"-D{name}={os.environ[name]}")
        options += shlex.split(os.environ.get("CMAKE_ARGS", ""))

        env = dict(os.environ)
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
        self._cmake(["-S", str(ROOT), "-B", str(build_dir), "-G", "Ninja", *options], env)
        self._cmake(["--build", str(build_dir)], env)
        self._cmake(
            ["--install", str(build_dir), "--component", "python", "--prefix", str(self._package())],
            env,
        )  # fmt: skip

    def _package(self) -> Path:
        return Path(self.get_ext_fullpath(f"longclock.{LIBRARY}")).resolve().parent

    def _cmake(self, arguments: list[str], env: dict[str, str]) -> None:
        if subprocess.run(["cmake", *arguments], check=False, env=env).returncode != 0:
            raise SystemExit(f"longclock: cmake {arguments[0]} failed; its output is above")

    def get_outputs(self) -> list[str]:
        return [str(self._package() / f"{LIBRARY}.so")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class WheelOfAnyPython(bdist_wheel):
    """The library knows nothing of Python: one wheel serves every version."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def stated(name: str) -> str:
    """A text of pyproject.toml, for whose format Python 3.10 has no reader."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf'^{name} = "(.*?)"', text, re.MULTILINE)
    assert found is not None, name
    return found[1]


def address(kind: str, path: str) -> str:
    """Of a file of this version in the repository, where that has an address: kind is blob, or raw for a picture."""
    repository = stated("repository")
    return f"{repository}/{kind}/v{stated('version')}/{path}" if repository else ""


def description() -> str:
    """The README without links between files, which lead nowhere on PyPI: to the repository, or as plain text."""

    def absolute(link: re.Match[str]) -> str:
        picture, text, path = link.groups()
        to = address("raw" if picture else "blob", path)
        if to:
            return f"{picture}[{text}]({to})"
        return f"*({text}.)*" if picture else text

    return RELATIVE_LINK.sub(absolute, (ROOT / "README.md").read_text(encoding="utf-8"))


def urls() -> dict[str, str]:
    if not stated("repository"):
        return {}
    return {
        "Repository": stated("repository"),
        "Documentation": address("blob", "docs/index.md"),
        "Changelog": address("blob", "CHANGELOG.md"),
        "Issues": f"{stated('repository')}/issues",
    }


setup(
    ext_modules=[Extension(f"longclock.{LIBRARY}", sources=[])],  # CMake's, which is no module
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": WheelOfAnyPython},
    long_description=description(),
    long_description_content_type="text/markdown",
    project_urls=urls(),
)
