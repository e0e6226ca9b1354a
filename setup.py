# SPDX-License-Identifier: Apache-2.0
"""Calls CMake, which owns every compile flag; all metadata is in pyproject.toml.

Environment: LONGCLOCK_CUDA=auto|0|1, LONGCLOCK_CUDA_ARCHS, CMAKE_ARGS, CMAKE_BUILD_PARALLEL_LEVEL.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Configures, builds, and installs the libraries into the package: the source tree's when editable."""

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
        package = Path(self.get_ext_fullpath("longclock._native")).resolve().parent
        self._cmake(
            ["--install", str(build_dir), "--component", "python", "--prefix", str(package)], env
        )

    def _cmake(self, arguments: list[str], env: dict[str, str]) -> None:
        if subprocess.run(["cmake", *arguments], check=False, env=env).returncode != 0:
            raise SystemExit(f"longclock: cmake {arguments[0]} failed; its output is above")

    def get_outputs(self) -> list[str]:
        package = Path(self.get_ext_fullpath("longclock._native")).parent
        return [self.get_ext_fullpath("longclock._native"), str(package / "liblongclock.so")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


setup(ext_modules=[Extension("longclock._native", sources=[])], cmdclass={"build_ext": CMakeBuild})
