# SPDX-License-Identifier: Apache-2.0
"""However a study ends, its workers end with it, and what was measured is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from streams import stream

from longclock.study import workers
from longclock.study.plan import read_lines

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def children(of):
    """Numbers of the processes that descend from ``of``."""
    found = []
    for task in Path(f"/proc/{of}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


def wait_for(condition, seconds=120.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def heed_signals() -> None:
    """What started these tests may ignore them (``nohup``, a shell's background), and a study would inherit that."""
    for signum in workers.ENDING:
        signal.signal(signum, signal.SIG_DFL)


@pytest.fixture
def heeded():
    """This process heeds them while a test runs."""
    before = {signum: signal.getsignal(signum) for signum in workers.ENDING}
    heed_signals()
    yield
    for signum, action in before.items():
        signal.signal(signum, action)


@pytest.mark.parametrize("signum", ["SIGTERM", "SIGKILL", "SIGHUP", "SIGINT"])
def test_no_worker_outlives_the_study(tmp_path, signum):
    events = stream(events=400)
    file, out = tmp_path / "plays.csv", tmp_path / "out"
    pd.DataFrame({"user": events.user, "item": events.item, "time": events.time}).to_csv(file)
    study = subprocess.Popen(
        [sys.executable, "-m", "longclock.study", "--data", file, "--models", "no-time", "--seeds", "500",
         "--learning-rates", "0.01", "--protocol", "daily", "--jobs", "2", "--quiet", "--out", out],
        env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals,
    )  # fmt: skip
    runs = out / "runs.jsonl"
    wait_for(lambda: runs.exists() and runs.stat().st_size)
    left = children(study.pid)
    assert len(left) >= 2
    study.send_signal(getattr(signal, signum))
    _, said = study.communicate(timeout=60)
    number = int(getattr(signal, signum))
    assert study.returncode == (-number if signum == "SIGKILL" else 128 + number)
    assert "Traceback" not in said
    if signum != "SIGKILL":
        assert said.strip() == "longclock.study: interrupted; the same command goes on"
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), 30.0)
    seeds = [line["seed"] for line in read_lines(runs)]
    assert len(set(seeds)) == len(seeds) > 0


def test_a_worker_whose_parent_is_gone_ends_at_once():
    child = os.fork()
    if child == 0:
        workers.die_with(os.getppid() + 1)  # another process
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


@pytest.mark.usefixtures("heeded")
def test_a_signal_waits_until_a_line_is_written():
    written = []
    before = signal.getsignal(signal.SIGTERM)

    def write():
        with workers.stoppable():
            with workers.undisturbed():
                signal.raise_signal(signal.SIGTERM)
                written.append("whole")
            written.append("not reached")

    with pytest.raises(workers.Stopped) as stop:
        write()
    assert written == ["whole"]
    assert stop.value.status == 143
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.usefixtures("heeded")
def test_a_signal_is_told_when_it_is_asked_for():
    """And not raised before, where Python would lose it."""

    def loop():
        with workers.stoppable(), workers.undisturbed() as raise_if_stopped:
            raise_if_stopped()
            signal.raise_signal(signal.SIGHUP)
            reached.append("after the signal")
            raise_if_stopped()
            reached.append("after being asked")

    reached = []
    with pytest.raises(workers.Stopped, match="SIGHUP"):
        loop()
    assert reached == ["after the signal"]
    with workers.undisturbed():  # nothing is left of it
        pass


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with workers.stoppable():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
