# SPDX-License-Identifier: Apache-2.0
"""A log on a full disk, or a pipe that was closed: the run ends, its report is written, and the status says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torture.kill_rounds import write_events

FULL = Path("/dev/full")
PROGRAMS = {
    "longclock.train": ["--events", "plays.csv", "--models", "no-time", "--out", "out"],
    "longclock.study": ["--data", "plays.csv", "--models", "no-time", "--protocol", "daily", "--seeds", "1",
                        "--learning-rates", "0.01", "--jobs", "1", "--out", "out"],
}  # fmt: skip
REPORT = Path("out") / "report.html"

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="the kernel has no /dev/full")


@pytest.fixture(params=PROGRAMS)
def program(request) -> str:
    return str(request.param)


def run(program: str, folder: Path, **streams: object) -> subprocess.CompletedProcess[str]:
    write_events(folder / "plays.csv")
    command = [sys.executable, "-m", program, *PROGRAMS[program]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, cwd=folder, env=environment, text=True, **streams)  # type: ignore[call-overload,no-any-return]


def test_figures_that_cannot_be_printed_are_in_the_report(tmp_path: Path, program: str) -> None:
    with FULL.open("w") as full:
        ended = run(program, tmp_path, stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode == 1
    assert ended.stderr.endswith(
        f"{program}: the figures could not be printed: No space left on device\n{program}: report: {REPORT}\n"
    )
    assert "no time" in (tmp_path / REPORT).read_text()


def test_progress_that_cannot_be_shown_ends_no_run(tmp_path: Path, program: str) -> None:
    with FULL.open("w") as full:
        ended = run(program, tmp_path, stdout=subprocess.PIPE, stderr=full)
    assert ended.returncode == 0
    assert "no time" in ended.stdout
    assert ended.stdout.endswith(f"report: {REPORT}\n")


def test_a_reader_that_has_gone_is_no_mistake_of_the_arguments(
    tmp_path: Path, program: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        ended = run(program, tmp_path, stdout=closed, stderr=subprocess.PIPE)
    assert ended.returncode == 1
    assert "the figures could not be printed: Broken pipe\n" in ended.stderr
