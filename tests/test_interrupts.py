# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C before what a command needs has even been imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("command", ["longclock.train", "longclock.study"])
def test_ctrl_c_while_modules_are_imported_is_one_line(tmp_path: Path, command: str) -> None:
    """It arrives in the middle of SciPy, which both import, and torch does not."""
    (tmp_path / "scipy.py").write_text("raise KeyboardInterrupt\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    run = subprocess.run(
        [sys.executable, "-m", command, "--max-events", "30"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout) == (130, "")
    assert run.stderr.endswith(f"\n\n{command}: interrupted\n")
    assert run.stderr.startswith(f"{command}: reading nyc ...\n")
