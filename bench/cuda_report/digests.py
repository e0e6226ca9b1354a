# SPDX-License-Identifier: Apache-2.0
"""Whether a report is of the files as they are: what its machine code is compiled from, and what its counts come from."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from bench.cuda_report import cubins
from bench.cuda_report.cubins import ROOT

# What runs between a workload's call and its counters: Python, launches, kernels, the emulator; and what calls and counts.
COUNTED = (
    "python/longclock/*.py", "python/longclock/history/*.py", "python/longclock/ops/*.py", "csrc/**/*", "kernels/**/*",
    "tests/cuda_emulator/*.h", "tests/cuda_emulator/*/*.h", "tests/cuda_emulator/*/*.cpp", "tests/emulator.py",
    "bench/*.py", "bench/cuda_report/*.py",
)  # fmt: skip
# Bodies of CPU kernels, tests, and benches without a workload.
NOT_COUNTED = re.compile(r"-inl\.h$|_test\.(cpp|h)$|/(tests|bench)/.*\.(cpp|h)$")
WORKLOADS = re.compile(r"^CUDA_\w+(:| =)", re.MULTILINE)


def of_counts() -> str:
    """Of all that the emulator's counts come from."""
    found = hashlib.sha256()
    for path in sorted({path for pattern in COUNTED for path in ROOT.glob(pattern)}):
        name = path.relative_to(ROOT).as_posix()
        if not path.is_file() or path.suffix == ".pyc" or NOT_COUNTED.search(name):
            continue
        text = path.read_text(encoding="utf-8")
        alone = path.parent.name == "bench" and path.stem not in ("inputs", "__main__")
        if not (alone and not WORKLOADS.search(text)):
            found.update(f"{name}\0{text}\0".encode())
    return found.hexdigest()[:16]


def current(report: dict[str, Any]) -> bool:
    """Whether measuring anew would give this report."""
    of_sources = {source.stem: cubins.digest(source) for source in cubins.sources()}
    return (
        report["nvcc"] == cubins.release()
        and report.get("counted") == of_counts()
        and {stem: each["digest"] for stem, each in report["sources"].items()} == of_sources
    )
