# SPDX-License-Identifier: Apache-2.0
"""``python -m longclock.info``: what was built, what runs, what is missing, and how to get it."""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from longclock._extras import EXTRAS, modules_of

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
    """Everything worth quoting in a bug report, as text by name.

    Raises:
        ImportError: the compiled library is missing, or does not load; the message has the remedy.
    """
    import torch

    from longclock import _native
    from longclock._library import library_path

    build = _native.build_info()
    cuda = f"{build['cuda']} for {', '.join(build['cuda_archs'])}" if build["cuda"] else "not built"
    if not build["cuda"] and torch.cuda.is_available():
        cuda += (
            "; build them with LONGCLOCK_CUDA=1 where nvcc is: pip install --no-build-isolation ."
        )
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
        **{f"extra {extra}": _extra(command) for extra, command in EXTRAS.items()},
    }


def _extra(command: str) -> str:
    """Whether everything that an extra installs is there; nothing is imported."""
    missing = [package for package, module in modules_of(command).items() if not _is_there(module)]
    return f"missing: pip install {' '.join(missing)}" if missing else "complete"


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of what looks for it
        return False


def main(argv: Sequence[str] | None = None) -> None:
    """Prints :func:`describe`, one line an entry; exit status 1 where the library does not load."""
    argparse.ArgumentParser(
        prog="python -m longclock.info",
        description="Prints what was built, what runs, which PyTorch was found, and what is missing.",
    ).parse_args(argv)
    try:
        found = describe()
    except ImportError as error:
        sys.exit(f"longclock.info: {error}")
    for name, text in found.items():
        print(f"{name:<13} {text}")


if __name__ == "__main__":
    main()
