# SPDX-License-Identifier: Apache-2.0
"""``python -m longclock.info``: what was built, what runs, and which PyTorch was found."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from longclock import _native
from longclock._library import library_path


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
