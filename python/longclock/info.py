# SPDX-License-Identifier: Apache-2.0
"""``python -m longclock.info``: what was built, what runs, and which PyTorch was found."""

from __future__ import annotations

import argparse
import ctypes
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from longclock import _native
from longclock._library import library_path

DRIVER = Path("/proc/driver/nvidia/version")


def _driver() -> str:
    """The NVIDIA driver and the newest CUDA whose PTX it takes."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver"
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) or not version.value:
        return "an NVIDIA driver that does not say its version"
    takes = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    try:
        first_line = DRIVER.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return takes
    number = re.search(r"\d+\.\d+(\.\d+)?", first_line)
    return f"{number.group()}, {takes}" if number else takes


def describe() -> dict[str, str]:
    """Everything worth quoting in a bug report, as text by name."""
    build = _native.build_info()
    cuda = f"{build['cuda']} for {', '.join(build['cuda_archs'])}" if build["cuda"] else "not built"
    if torch.cuda.is_available():
        torch_cuda = f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}"
    else:
        torch_cuda = f"CUDA {torch.version.cuda}, no GPU" if torch.version.cuda else "CPU only"
    return {
        "longclock": build["version"],
        "library": str(library_path()),
        "compiler": build["compiler"],
        "CUDA kernels": cuda,
        "driver": _driver(),
        "SIMD level": f"{_native.simd_level()} (this machine: {', '.join(_native.simd_levels())})",
        "PyTorch": f"{torch.__version__} ({torch_cuda})",
        "built for": f"PyTorch {build['torch_target']} or newer, with {build['torch_built_with']}",
        "threads": str(torch.get_num_threads()),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Prints :func:`describe`, one line an entry."""
    argparse.ArgumentParser(
        prog="python -m longclock.info",
        description="Prints what was built, what runs, and which PyTorch was found.",
    ).parse_args(argv)
    for name, text in describe().items():
        print(f"{name:<13} {text}")


if __name__ == "__main__":
    main()
